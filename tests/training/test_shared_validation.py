"""Validation in two processes: each user is scored by one of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure
from tests.support.commands import run_launched
from tests.support.scorers import Scorer

pytestmark = pytest.mark.slow


# shared_validation with a scorer that records its users
VALIDATION = """
import json, sys

import numpy as np
from accelerate import Accelerator

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.baselines.popularity import Popularity
from cllm4rec.models.validation import shared_validation

asked = []

class Recording(Popularity):
    def _score(self, users, trained_users, seen):
        asked.extend(users.tolist())
        return np.sin(np.arange(seen.n_items)[None, :] * (1.0 + users[:, None])).astype(np.float32)

dataset, accelerator = Dataset.load(sys.argv[1]), Accelerator(cpu=True)
value = shared_validation(Recording().fit(dataset), dataset, accelerator)
with open(f"{sys.argv[2]}/{accelerator.process_index}.json", "w") as file:
    json.dump({"asked": asked, "value": value, "n": accelerator.num_processes}, file)
accelerator.state.destroy_process_group()
"""


def scores(users: np.ndarray, seen: Dataset) -> np.ndarray:
    """The scores in VALIDATION."""
    return np.sin(np.arange(seen.n_items)[None, :] * (1.0 + users[:, None]))


@pytest.mark.parametrize("split", ["random", "time"])
def test_each_user_is_validated_by_one_process(split: str, tmp_path: Path) -> None:
    """In a split by time, some users have validation events but no history. They are not scored."""
    world = taste_world(2, n_users=60, n_items=40)
    late = pl.col("user_id").is_in(world.user_ids[:8])
    squeezed = (
        1_643_500_000 + (pl.col("timestamp") - 1_600_000_000) // 8
    )  # into the last fifth of the world's time
    events = world.events.with_columns(timestamp=pl.when(late).then(squeezed).otherwise("timestamp"))
    dataset = Dataset.from_frame(events, world.items, split=split)
    dataset.save(tmp_path / "data")
    (tmp_path / "rank.py").write_text(VALIDATION)
    run_launched(2, tmp_path / "rank.py", tmp_path / "data", tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["n"] for rank in ranks] == [2, 2]
    asked: Sequence[int] = ranks[0]["asked"] + ranks[1]["asked"]
    held_out = np.unique(dataset.validation.interactions.users)
    with_history = np.unique(dataset.train.interactions.users)
    assert sorted(asked) == np.intersect1d(held_out, with_history).tolist(), "each user once"
    assert abs(len(ranks[0]["asked"]) - len(ranks[1]["asked"])) <= 3
    assert (len(np.setdiff1d(held_out, with_history)) > 0) == (split == "time")

    alone = measure(Scorer(dataset, scores), dataset, "validation").metrics["ndcg@100"]
    assert ranks[0]["value"] == ranks[1]["value"]
    assert ranks[0]["value"] == pytest.approx(alone, rel=1e-12)
