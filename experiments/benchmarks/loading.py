"""Loading: a dataset of ten million events with and without the comparison of hashes, and the time from the run folder
of a million users and items to the list of one user, after imports. The files lie in the system's cache."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl

from cllm4rec.data import storage
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.preparation import build_dataset
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.config import TrainConfig
from experiments.benchmarks.common import Row, Settings, report, settings

EVENTS = 4  # of each user
CODE = """
import json, re, sys, time
import numpy as np, polars, torch, transformers, accelerate
from cllm4rec import evaluation, recommend
from cllm4rec.models import load
from cllm4rec.models import cllm4rec
from cllm4rec.training.checkpoint import RunFolder

def private():  # MiB of this process that are no file's pages
    return int(re.search("RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

torch.set_num_threads(int(sys.argv[2]))
marks = [time.perf_counter()]
dataset = RunFolder.open(sys.argv[1]).dataset()
marks.append(time.perf_counter())
before = private()
model = load(sys.argv[1])
marks.append(time.perf_counter())
users = dataset.user_ids.index(["user 7"], "user")
best = model.recommend(users, dataset, 20)
table = recommend.recommendation_table(best, dataset)
marks.append(time.perf_counter())
print(json.dumps([len(table), private() - before, *np.diff(marks).tolist()]))
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
    model.save(run.path / "pretrain")


def verification(folder: Path, n_events: int) -> tuple[float, float]:
    """Median seconds of loading a dataset of so many events, with hashes compared and not, in turn."""
    generator = np.random.default_rng(0)
    n_users, n_items = n_events // 10, n_events // 20
    users = np.sort(generator.integers(0, n_users, n_events))
    times = generator.integers(1_400_000_000, 1_600_000_000, n_events)
    events = Interactions(users, generator.integers(0, n_items, n_events), n_users, n_items, times)
    user_ids = pl.DataFrame({"user_id": [f"user {i}" for i in range(n_users)]})
    item_ids = pl.DataFrame({"item_id": [f"item {i}" for i in range(n_items)]})
    part, ties = generator.integers(0, 3, n_events).astype(np.uint8), generator.permutation(n_items)
    Dataset(events, user_ids, item_ids, part, ties=ties).save(folder)
    seconds: list[tuple[float, float]] = []
    for _ in range(11):
        began = time.perf_counter()
        Dataset.load(folder)
        between = time.perf_counter()
        with mock.patch.object(storage, "check_manifest"):
            Dataset.load(folder)
        seconds.append((between - began, time.perf_counter() - between))
    with_hashes, without = np.median(np.array(seconds[1:]), axis=0)  # the first warms up
    return float(with_hashes), float(without)


def main(given: Settings) -> list[Row]:
    n = 100_000 if given.short else 1_000_000
    n_events = 1_000_000 if given.short else 10_000_000
    with tempfile.TemporaryDirectory() as name:
        with_hashes, without = verification(Path(name) / "events", n_events)
        make_run(Path(name), n)
        weights = (Path(name) / "run" / "pretrain" / "model.safetensors").stat().st_size / 2**20
        line = [sys.executable, "-c", CODE, str(Path(name) / "run"), str(given.threads)]
        found = [
            json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
            for _ in range(1 if given.short else 3)
        ]
    rows, private, dataset, model, scoring = np.median(np.array(found), axis=0)
    assert rows == 20
    total = dataset + model + scoring
    spent = f"dataset {dataset:.2f} s, model {model:.2f} s, list {scoring:.2f} s"
    what = f"a run of {n:,} users and items to one user's list: "
    mapped = f"{what}memory taken by model and list, of the weights' size (mapped, not read)"
    return report(
        "loading",
        [
            Row(
                f"a dataset of {n_events:,} events: loading with hashes compared, against without",
                f"{with_hashes:.3f} s",
                f"{without:.3f} s",
                with_hashes / without,
                1.2,
                True,
            ),
            Row(f"{what}seconds ({spent})", f"{total:.2f} s", "", float(total), 1, True),
            Row(mapped, f"{private:.0f} MiB", f"weights {weights:,.0f} MiB", float(private / weights), 0.1, True),
        ],
        given,
    )


if __name__ == "__main__":
    main(settings(__doc__))
