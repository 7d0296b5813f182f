"""Two processes train as one process does, compared in double precision: weights, records, metrics and lists.

A batch divided over processes is summed in another order and differs by rounding. Training amplifies it:
a ReLU whose input is zero up to rounding is on in one run and off in the other. Adam divides by gradients
that are pure rounding, such as those of the keys' bias, which cancels in the softmax. In single precision,
two correct runs differ by a few per cent after 200 steps. In double precision they agree to eleven digits.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from cllm4rec.data.dataset import Dataset
from tests.support.commands import run_launched

pytestmark = pytest.mark.slow

STAGES = ("pretrain", "finetune")
SHARED_RUNS = ("two", "two with micro-batches")
BATCH = 8


# Commands, one after the other, in double precision. Each rank writes the weights after every 50th step, and
# after the last, into the folder RUN.steps. The last weights are kept, not those of the best epoch.
IN_DOUBLE = """
import json, os, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from cllm4rec import evaluate, finetune, pretrain, recommend
from cllm4rec.training import loop
from cllm4rec.training.optimizer import Optimizer

torch.set_num_threads(1)
torch.Tensor.float = torch.Tensor.double
train, step, state = loop.train, Optimizer.step, {}

def note():
    folder = Path(state["run"] + ".steps")
    folder.mkdir(exist_ok=True)
    weights = {name: p.detach().clone() for name, p in state["net"].named_parameters()}
    name = f"{state['stage']}-{state['step']:04d}-{os.environ.get('RANK', '0')}.safetensors"
    save_file(weights, folder / name)

def counted(optimizer, rate):
    step(optimizer, rate)
    state["step"] += 1
    if state["step"] % 50 == 0:
        optimizer.apply_missed_steps()  # which rows are behind depends on who reads what
        note()

def noted(net, *arguments):
    state["net"] = net.double()
    loop.TrainingRun.restore_best_weights = lambda run: None
    train(net, *arguments)
    note()
    hooks = arguments[3]
    hooks.on_best()

loop.train, Optimizer.step = noted, counted
commands = {"pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "recommend": recommend}
for stage, *line in json.loads(sys.argv[1]):
    state |= {"stage": stage, "step": 0, "run": line[1]}
    commands[stage].main(line)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, uneven_dataset: Dataset) -> Path:
    """Folder of runs `PROCESSES STAGE` in double precision. All finetune the run that one process pretrained.

    Next to each run are its weights by step, its metrics and its lists.
    """
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "in_double.py"
    script.write_text(IN_DOUBLE)
    uneven_dataset.save(folder / "data")
    flags = [f"--batch-size={BATCH}", "--patience=1000", "--warmup-steps=20"]
    # Buffers in double precision would be no part of such a model.
    single = ["--item-text=none", "--linear=none", "--content-passes=both"]
    accumulation = {"one": [], "two": [], "two with micro-batches": ["--accumulation=2"]}

    def pretrain(name: str) -> list[str]:
        output = ["--output", f"{folder}/{name} pretrain", "--dataset", f"{folder}/data"]
        return ["pretrain", *output, *flags, *accumulation[name], "--epochs=25", *single]

    def finetune(name: str) -> list[str]:
        return ["finetune", "--run", f"{folder}/{name} finetune", *flags, *accumulation[name], "--epochs=25"]

    def served(name: str, stage: str) -> list[list[str]]:
        path = f"{folder}/{name} {stage}"
        files = ["--json", f"{path}.json", "--per-user", f"{path}.users.parquet"]
        lists = ["--all", "--k=20", "--output", f"{path}.lists.parquet"]
        return [["evaluate", "--run", path, *files], ["recommend", "--run", path, *lists]]

    run_launched(1, script, json.dumps([pretrain("one")]))
    for name in accumulation:
        shutil.copytree(folder / "one pretrain", folder / f"{name} finetune")
    run_launched(2, script, json.dumps([line(name) for name in SHARED_RUNS for line in (pretrain, finetune)]))
    measurements = [line for name in accumulation for stage in STAGES for line in served(name, stage)]
    run_launched(1, script, json.dumps([finetune("one"), *measurements]))
    return folder


def weights_by_step(runs: Path, name: str, stage: str, rank: int = 0) -> dict[int, dict[str, np.ndarray]]:
    """Step of a stage -> weights after it."""
    files = sorted((runs / f"{name} {stage}.steps").glob(f"{stage}-*-{rank}.safetensors"))
    return {int(file.name.split("-")[1]): load_file(file) for file in files}


def metrics(runs: Path, name: str, stage: str) -> list[dict[str, Any]]:
    lines = [
        json.loads(line) for line in (runs / f"{name} {stage}" / "metrics.jsonl").read_text().splitlines()
    ]
    return [line for line in lines if line["stage"] == stage]


def distance(expected: np.ndarray, array: np.ndarray) -> float:
    return float(np.linalg.norm(expected - array) / np.linalg.norm(expected))


def test_the_dataset_leaves_a_process_without_examples_and_has_short_and_long_histories(
    uneven_dataset: Dataset,
) -> None:
    dataset = uneven_dataset
    n_events = np.diff(dataset.train.interactions.indptr)
    assert dataset.n_users % 2 == 1
    assert (n_events > 0).all()
    assert dataset.n_users % BATCH == 1, (
        "the last batch of a pass over the users has one example for two processes"
    )
    assert n_events.min() == 1
    assert n_events.max() > 20
    validated = np.unique(dataset.validation.interactions.users)
    assert len(validated) % 2 == 1


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["one", *SHARED_RUNS])
def test_a_run_has_two_hundred_steps_over_content_and_histories(name: str, stage: str, runs: Path) -> None:
    assert max(weights_by_step(runs, name, stage)) >= 200
    about = json.loads((runs / f"{name} {stage}" / "run.json").read_text())["stages"][stage]
    assert about["n_processes"] == (1 if name == "one" else 2)
    assert about["training"]["batch_size"] == BATCH
    lines = metrics(runs, name, stage)
    history = "collaborative" if stage == "pretrain" else "recommend"
    assert sum({"content", history} <= set(line["losses"]) for line in lines) == 25
    assert any(line["gradient_norms"]["backbone"] > about["training"]["clip_norm"] for line in lines), (
        "gradients are clipped"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_training_moves_every_weight_far_beyond_the_tolerance(stage: str, runs: Path) -> None:
    steps = weights_by_step(runs, "one", stage)
    first, last = steps[min(steps)], steps[max(steps)]
    assert {
        f"{table}.{side}.weight" for table in ("collaborative", "content") for side in ("users", "items")
    } < set(first)
    for weight, array in last.items():
        assert distance(first[weight], array) > 1e-3, weight


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_two_processes_train_the_weights_that_one_does(name: str, stage: str, runs: Path) -> None:
    single, shared = weights_by_step(runs, "one", stage), weights_by_step(runs, name, stage)
    assert single.keys() == shared.keys()
    for step, expected in single.items():
        assert expected.keys() == shared[step].keys()
        for weight, array in expected.items():
            assert distance(array, shared[step][weight]) <= 1e-9, f"{weight} after step {step}"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_both_processes_have_the_same_weights_to_the_bit(name: str, stage: str, runs: Path) -> None:
    ranks = [weights_by_step(runs, name, stage, rank) for rank in (0, 1)]
    assert ranks[0].keys() == ranks[1].keys()
    for step, expected in ranks[0].items():
        for weight, array in expected.items():
            np.testing.assert_array_equal(
                ranks[1][step][weight], array, err_msg=f"{weight} after step {step}"
            )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_two_processes_keep_the_weights_that_one_does(name: str, stage: str, runs: Path) -> None:
    expected, got = (
        load_file(runs / f"{run} {stage}" / stage / "model.safetensors") for run in ("one", name)
    )
    assert expected.keys() == got.keys()
    for weight, array in expected.items():
        assert distance(array, got[weight]) <= 1e-9, weight


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_two_processes_record_what_one_does(name: str, stage: str, runs: Path) -> None:
    """Losses, norms and the validation metric are those of the run, not of its first process."""
    single, shared = metrics(runs, "one", stage), metrics(runs, name, stage)
    for expected, got in zip(single, shared, strict=True):
        assert got["epoch"] == expected["epoch"]
        assert got["best"] == expected["best"]
        assert (got["validation"] is None) == (expected["validation"] is None)
        assert got["validation"] is None or got["validation"] == pytest.approx(
            expected["validation"], rel=1e-9
        )
        assert got["losses"] == pytest.approx(
            expected["losses"], rel=1e-6
        )  # losses are rounded to single precision
        for values in ("gradient_norms", "diagnostics"):
            assert got[values] == pytest.approx(expected[values], rel=1e-9), values


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_what_two_processes_trained_measures_the_same(name: str, stage: str, runs: Path) -> None:
    expected, got = (json.loads((runs / f"{run} {stage}.json").read_text()) for run in ("one", name))
    assert got["metrics"] == pytest.approx(expected["metrics"], rel=1e-9)
    assert got["metrics"]["ndcg@100"] > 0
    assert got["n_users"] == expected["n_users"]
    tables = [pl.read_parquet(runs / f"{run} {stage}.users.parquet") for run in ("one", name)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_what_two_processes_trained_recommends_the_same(
    name: str, stage: str, runs: Path, uneven_dataset: Dataset
) -> None:
    expected, got = (pl.read_parquet(runs / f"{run} {stage}.lists.parquet") for run in ("one", name))
    assert expected["user_id"].n_unique() == uneven_dataset.n_users
    columns = ["user_id", "item_id", "rank"]
    assert got.select(columns).equals(expected.select(columns))
    assert len(got) == 20 * uneven_dataset.n_users
    np.testing.assert_allclose(got["score"], expected["score"], rtol=1e-6, atol=1e-6)
