"""The demonstration: its quality bar, and the folders that it may write."""

from pathlib import Path

import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from experiments.oracle import Oracle


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_cllm4rec_with_its_defaults_reaches_seven_tenths_of_the_oracle(seed: int) -> None:
    world = taste_world(seed)
    dataset = Dataset.from_frame(world.events, world.items, split="random", seed=seed)
    model = CLLM4Rec().fit(dataset)
    reached, best = (
        measure(scorer, dataset).metrics["ndcg@100"] for scorer in (model, Oracle(world, dataset))
    )
    assert reached >= 0.7 * best


def test_the_demonstration_leaves_the_folders_of_others_alone(tmp_path: Path) -> None:
    from experiments.demo import main

    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(SystemExit, match="did not write"):
        main(0, tmp_path, "tiny")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"
