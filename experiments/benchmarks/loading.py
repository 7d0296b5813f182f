"""From a run folder with a million users and a million items to the list of one user, after imports."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig
from experiments.benchmarks.common import Row, Settings, report, settings

EVENTS = 4  # of each user
CODE = """
import json, sys, time
import numpy as np, polars, torch, transformers, accelerate
from cllm4rec import evaluation, recommend
from cllm4rec.models import load
from cllm4rec.models import cllm4rec
from cllm4rec.training.checkpoint import RunFolder

torch.set_num_threads(int(sys.argv[2]))
marks = [time.perf_counter()]
dataset = RunFolder.open(sys.argv[1]).dataset()
marks.append(time.perf_counter())
model = load(sys.argv[1])
marks.append(time.perf_counter())
users = dataset.user_ids.index(["user 7"], "user")
best = model.recommend(users, dataset, 20)
table = recommend.recommendation_table(best, dataset)
marks.append(time.perf_counter())
print(json.dumps([len(table), *np.diff(marks).tolist()]))
"""


def make_run(folder: Path, n: int) -> None:
    """A run of n users and n items, as CLLM4Rec starts: what was learned makes no difference here."""
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(n), EVENTS)
    items = np.concatenate([np.arange(n), generator.integers(0, n, (EVENTS - 1) * n)])
    events = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(len(users))})
    names = [pl.format("{} {}", pl.lit(kind), pl.col(f"{kind}_id")).alias(f"{kind}_id") for kind in ("user", "item")]
    build_dataset(events.with_columns(names)).save(folder / "data")
    dataset = Dataset.load(folder / "data")
    model = CLLM4Rec(CLLM4RecConfig(start="random", content_ratio=0.0)).fit(dataset.train, None, TrainConfig(epochs=0))
    run = RunFolder.create(folder / "run", "cllm4rec", dataset, folder / "data")
    run.begin_stage("pretrain", system={}, training={})
    run.keep("pretrain", model.save)


def main(given: Settings) -> list[Row]:
    n = 100_000 if given.short else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        make_run(Path(name), n)
        line = [sys.executable, "-c", CODE, str(Path(name) / "run"), str(given.threads)]
        found = [json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout) for _ in range(3)]
    rows, dataset, model, scoring = np.median(np.array(found), axis=0)
    assert rows == 20
    total = dataset + model + scoring
    spent = f"dataset {dataset:.2f} s, model {model:.2f} s, list {scoring:.2f} s"
    what = f"a run of {n:,} users and items to one user's list: seconds ({spent})"
    return report("loading", [Row(what, f"{total:.2f} s", "", float(total), 3, True)], given)


if __name__ == "__main__":
    main(settings(__doc__))
