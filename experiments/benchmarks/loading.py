"""Loading of a dataset of ten million events, and of a run with a million users and items.

    python -m experiments.benchmarks.loading --output bench

Data: generated; the files are in the system's cache.

Prints the seconds of loading a dataset with its hashes compared (comparator: without); the seconds from the
run folder to the list of one user, imports not counted; and the memory that model and list take (comparator:
the size of the weights, which are mapped).
"""

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
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.run_description import StageSettings
from cllm4rec.training.run_folder import RunFolder
from experiments.benchmarks.objectives import start_stage
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

HISTORY_LENGTH = 4


def make_dataset(folder: Path, n_events: int) -> None:
    """Save a dataset of generated events, with n / 10 users and n / 20 items."""
    generator = np.random.default_rng(0)
    n_users, n_items = n_events // 10, n_events // 20
    users = np.sort(generator.integers(0, n_users, n_events))
    times = generator.integers(1_400_000_000, 1_600_000_000, n_events)
    events = Interactions(users, generator.integers(0, n_items, n_events), n_users, n_items, times)
    user_ids = pl.DataFrame({"user_id": [f"user {i}" for i in range(n_users)]})
    item_ids = pl.DataFrame({"item_id": [f"item {i}" for i in range(n_items)]})
    part, ties = generator.integers(0, 3, n_events).astype(np.uint8), generator.permutation(n_items)
    Dataset(events, user_ids, item_ids, part, stored_tie_order=ties).save(folder)


def make_run(folder: Path, n: int) -> Path:
    """Save a run of CLLM4Rec with n users and n items and initial weights.

    Returns:
        The run folder.
    """
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(n), HISTORY_LENGTH)
    items = np.concatenate([np.arange(n), generator.integers(0, n, (HISTORY_LENGTH - 1) * n)])
    events = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": np.arange(len(users))})
    ids = [
        pl.format("{} {}", pl.lit(kind), pl.col(f"{kind}_id")).alias(f"{kind}_id")
        for kind in ("user", "item")
    ]
    Dataset.from_frame(events.with_columns(ids), split="random").save(folder / "data")
    dataset = Dataset.load(folder / "data")
    model = CLLM4Rec(CLLM4RecConfig(start="random", content_ratio=0.0))
    start_stage(model, dataset.train, "pretrain")
    run = RunFolder.create(folder / "run", "cllm4rec", dataset, folder / "data")
    run.begin_stage("pretrain", StageSettings({}, {}))
    model.save(run.path / "pretrain")
    return run.path


def dataset_row(folder: Path, n_events: int) -> Row:
    """Loading with hashes compared and without, in turn."""
    make_dataset(folder, n_events)
    seconds: list[tuple[float, float]] = []
    for _ in range(11):
        start = time.perf_counter()
        Dataset.load(folder)
        middle = time.perf_counter()
        with mock.patch.object(storage, "check_manifest"):
            Dataset.load(folder)
        seconds.append((middle - start, time.perf_counter() - middle))
    compared, without = (
        float(median) for median in np.median(np.array(seconds[1:]), axis=0)
    )  # the first warms up
    question = f"a dataset of {n_events:,} events: loading with hashes compared, against without"
    return Row(question, f"{compared:.3f} s", f"{without:.3f} s", compared / without, 1.2, True)


def run_rows(run: Path, n: int, settings: Settings) -> list[Row]:
    """Time and memory from the run folder to a list, medians over processes."""
    weights = (run / "pretrain" / "model.safetensors").stat().st_size / 2**20
    line = [sys.executable, "-m", "experiments.benchmarks.first_list", str(run), str(settings.threads)]
    processes = [
        json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
        for _ in range(1 if settings.short else 3)
    ]
    n_rows, private, dataset, model, scoring = (
        float(median) for median in np.median(np.array(processes), axis=0)
    )
    assert n_rows == 20
    total = dataset + model + scoring
    prefix = f"a run of {n:,} users and items to one user's list"
    shares = f"dataset {dataset:.2f} s, model {model:.2f} s, list {scoring:.2f} s"
    question = f"{prefix}: memory taken by model and list, of the weights' size (mapped, not read)"
    return [
        Row(f"{prefix}: seconds ({shares})", f"{total:.2f} s", "", total, 1, True),
        Row(question, f"{private:.0f} MiB", f"weights {weights:,.0f} MiB", private / weights, 0.1, True),
    ]


def main(settings: Settings) -> list[Row]:
    n = 100_000 if settings.short else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [dataset_row(folder / "events", 10 * n), *run_rows(make_run(folder, n), n, settings)]
    return report("loading", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
