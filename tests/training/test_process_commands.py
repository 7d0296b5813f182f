"""Commands in two processes equal commands in one process with two micro-batches, to the bit.

Both form the same sums, in single precision too: a share of a batch is so small that it is one pass.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from cllm4rec.data.dataset import Dataset
from tests.support.commands import run_launched

pytestmark = pytest.mark.slow

STAGES = ("pretrain", "finetune")
BATCH = 4  # a share of two examples is one pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, uneven_dataset: Dataset) -> Path:
    """Runs `two`, of two processes, and `one`, of one process with two micro-batches, with their lists."""
    folder = tmp_path_factory.mktemp("process commands")
    uneven_dataset.save(folder / "data")
    flags = ["--batch-size", BATCH, "--patience", 1000, "--warmup-steps", 20, "--epochs", 13]
    for name, n_processes, accumulation in (("one", 1, 2), ("two", 2, 1)):
        training = [*flags, "--accumulation", accumulation]
        folders = ["--dataset", folder / "data", "--output", folder / name]
        run_launched(n_processes, "-m", "cllm4rec.pretrain", *folders, *training)
        run_launched(n_processes, "-m", "cllm4rec.finetune", "--run", folder / name, *training)
        lists = ["--all", "--output", folder / f"{name}.parquet"]
        run_launched(1, "-m", "cllm4rec.recommend", "--run", folder / name, *lists)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_two_micro_batches_to_the_bit(stage: str, runs: Path) -> None:
    """After more than 200 steps."""
    about = [json.loads((runs / name / "run.json").read_text())["stages"][stage] for name in ("one", "two")]
    assert [settings["n_processes"] for settings in about] == [1, 2]
    expected, got = (load_file(runs / name / stage / "model.safetensors") for name in ("one", "two"))
    assert expected.keys() == got.keys()
    for weight, array in expected.items():
        np.testing.assert_array_equal(got[weight], array, err_msg=weight)
    lines = [
        [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for expected_line, line in zip(*lines, strict=True):
        for name in ("stage", "validation", "gradient_norms"):
            assert line[name] == expected_line[name], name
        assert line["losses"] == pytest.approx(expected_line["losses"], rel=1e-12)


def test_two_processes_and_two_micro_batches_give_the_same_lists(runs: Path, uneven_dataset: Dataset) -> None:
    expected, got = (pl.read_parquet(runs / f"{name}.parquet") for name in ("one", "two"))
    assert len(expected) == 10 * uneven_dataset.n_users
    assert got.equals(expected)


@pytest.mark.parametrize("batch_size", [16, 512])
def test_the_tables_of_two_processes_together_are_that_of_one(
    batch_size: int, runs: Path, uneven_dataset: Dataset
) -> None:
    """With one batch for all users, a process writes an empty table."""
    program = runs / f"recommend{batch_size}.py"
    imports = "from cllm4rec import recommend\nfrom cllm4rec.commands.entry import run\n"
    imports += "from cllm4rec.models import base\n"
    batches = f"base.USERS_AT_ONCE = recommend.USERS_AT_ONCE = {batch_size}\n"
    program.write_text(f"{imports}{batches}run(recommend.main)\n")
    denied = uneven_dataset.item_ids.names(np.arange(5)).to_list()
    (runs / "denied.txt").write_text("\n".join(map(str, denied)), encoding="utf-8")
    inputs = ["--run", runs / "one", "--all", "--deny", runs / "denied.txt", "--output"]
    run_launched(1, program, *inputs, runs / f"one{batch_size}.parquet")
    run_launched(2, program, *inputs, runs / f"parts{batch_size}.parquet")
    tables = [
        pl.read_parquet(runs / f"parts{batch_size}.parquet" / f"part-0000{rank}.parquet") for rank in (0, 1)
    ]
    assert pl.concat(tables).equals(pl.read_parquet(runs / f"one{batch_size}.parquet"))
    assert not set(pl.concat(tables)["item_id"]) & set(denied)
    assert min(map(len, tables)) > 0 or batch_size == 512


def test_a_launcher_may_start_one_process(runs: Path) -> None:
    """Its group of one has DDP around the network, which refuses sparse gradients."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 1]
    folders = ["--dataset", runs / "data", "--output", runs / "launched"]
    run_launched(1, *torchrun, "-m", "cllm4rec.pretrain", *folders, "--epochs", 1)
    assert (runs / "launched" / "pretrain" / "model.safetensors").is_file()


MEASURE = """
import os
import sys
from pathlib import Path

from cllm4rec import evaluate
from cllm4rec.commands.entry import run
from cllm4rec.evaluation import candidates, full_ranking

full_ranking.USERS_AT_ONCE = candidates.EVENTS_AT_ONCE = 16
run(evaluate.main)
threads = os.listdir("/proc/self/task")
left = [Path(f"/proc/self/task/{thread}/comm").read_text().strip() for thread in threads]
sys.exit([name for name in left if "gloo" in name] or 0)  # they may abort a process that ends
"""


@pytest.mark.parametrize("flags", [["--slices"], ["--candidates", "6", "--draws", "2"]], ids=str)
def test_processes_together_measure_what_one_measures(flags: list[str], runs: Path) -> None:
    """41 users are three batches, one of them not full. Of two processes one has two batches."""
    (runs / "measure.py").write_text(MEASURE)
    inputs = [runs / "measure.py", "--run", runs / "one", "--against", runs / "two", *flags]
    printed, results, tables = [], [], []
    for n in (1, 2, 3):
        files = ["--json", runs / f"{n}.json", "--per-user", runs / f"{n}-users.parquet"]
        lines = run_launched(n, *inputs, *files).splitlines()
        printed.append([line for line in lines if "s/s, " not in line])
        result = json.loads((runs / f"{n}.json").read_text())
        results.append({name: value for name, value in result.items() if "second" not in name})
        tables.append(pl.read_parquet(runs / f"{n}-users.parquet"))
    assert len(printed[0]) > 5
    for n in (1, 2):
        assert printed[n] == printed[0], "the main process prints"
        assert results[n] == results[0]
        assert tables[n].equals(tables[0])
