"""Several processes do what one does: the same weights, records, metrics and lists, and each user validated once.

A batch that is cut is summed in another order and differs by rounding. Training makes rounding grow: a unit of the
backbone whose input is zero but for rounding is on in one run and off in the other (ReLU), and Adam divides by
gradients that are nothing but rounding (those of the keys' bias, which cancels in the softmax). In single precision two
right runs are some per cent apart after 200 steps. So two processes are compared in double precision with one that takes
the global batch whole, where they stay together to eleven digits, and in single precision with one that takes it in two
micro-batches, where the sums are the same and so is every bit.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure

pytestmark = pytest.mark.slow

STAGES = ("pretrain", "finetune")
SHARED_RUNS = ("two", "two with micro-batches")
BATCH = 8

# Commands, one after the other, in double precision. Each rank writes the weights after every 50th step, and after the
# last, into the folder RUN.steps. The last weights are kept, whatever validation says: those served have had all steps.
IN_DOUBLE = """
import json, os, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from cllm4rec import evaluate, finetune, pretrain, recommend
from cllm4rec.training import loop
from cllm4rec.training.optimizers import Optimizer

torch.set_num_threads(1)
torch.Tensor.float = torch.Tensor.double
train, step, state = loop.train, Optimizer.step, {}

def note():
    folder = Path(state["run"] + ".steps")
    folder.mkdir(exist_ok=True)
    weights = {name: p.detach().clone() for name, p in state["net"].named_parameters()}
    save_file(weights, folder / f"{state['stage']}-{state['step']:04d}-{os.environ.get('RANK', '0')}.safetensors")

def counted(optimizer, rate):
    step(optimizer, rate)
    state["step"] += 1
    if state["step"] % 50 == 0:
        optimizer.catch_up()  # which rows are behind depends on who reads what
        note()

def noted(net, *arguments):
    state["net"] = net.double()
    loop.Course.take_best = lambda course: None
    train(net, *arguments)
    note()
    on_best = arguments[4]
    on_best()

loop.train, Optimizer.step = noted, counted
for stage, *line in json.loads(sys.argv[1]):
    command = {"pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "recommend": recommend}[stage]
    state |= {"stage": stage, "step": 0, "run": line[1]}
    command.main(line)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""

# shared_validation with a scorer that notes whom it is asked for
VALIDATION = """
import json, sys

import numpy as np
from accelerate import Accelerator

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.neural import shared_validation

class Noting:
    asked = []

    def score(self, users, seen):
        self.asked += users.tolist()
        return np.sin(np.arange(seen.n_items)[None, :] * (1.0 + users[:, None])).astype(np.float32)

dataset, accelerator = Dataset.load(sys.argv[1]), Accelerator(cpu=True)
value = shared_validation(Noting(), dataset.train, dataset.validation, accelerator)
with open(f"{sys.argv[2]}/{accelerator.process_index}.json", "w") as file:
    json.dump({"asked": Noting.asked, "value": value, "n": accelerator.num_processes}, file)
accelerator.state.destroy_process_group()
"""


def run(n_processes: int, *arguments: object) -> None:
    """Python with these arguments, alone or as Accelerate's launcher starts it."""
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(n_processes), "--main_process_port", "0"]
    command = [sys.executable, *(["-m", *launch] if n_processes > 1 else []), *map(str, arguments)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, timeout=600, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def scores(users: np.ndarray, seen: Dataset) -> np.ndarray:
    """Those of the scorer in VALIDATION."""
    return np.sin(np.arange(seen.n_items)[None, :] * (1.0 + users[:, None])).astype(np.float32)


def uneven_world() -> Dataset:
    """41 readers of 1 to 24 training books: one more than five batches, and no multiple of two processes."""
    world = taste_world(0, n_users=41, n_items=90, n_events=15)
    most = {user: number for number, user in enumerate(sorted(world.user_ids)[:6], start=1)}
    place = pl.int_range(pl.len()).over("user_id")
    events = world.events.filter(place < pl.col("user_id").replace_strict(most, default=1000))
    return build_dataset(events, world.items)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs `PROCESSES STAGE` in double precision. All finetune what one process pretrained.

    Beside each lie its weights step by step, its measurement and its lists.
    """
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "in_double.py"
    script.write_text(IN_DOUBLE)
    uneven_world().save(folder / "data")
    flags = [f"--batch-size={BATCH}", "--patience=1000", "--warmup-steps=20"]
    micro = {"one": [], "two": [], "two with micro-batches": ["--accumulation=2"]}

    def pretrain(name: str) -> list[str]:
        output = ["--output", f"{folder}/{name} pretrain", "--dataset", f"{folder}/data"]
        return ["pretrain", *output, *flags, *micro[name], "--epochs=25"]

    def finetune(name: str) -> list[str]:
        return ["finetune", "--run", f"{folder}/{name} finetune", *flags, *micro[name], "--epochs=25"]

    def served(name: str, stage: str) -> list[list[str]]:
        path = f"{folder}/{name} {stage}"
        measured = ["evaluate", "--run", path, "--json", f"{path}.json", "--per-user", f"{path}.users.parquet"]
        return [measured, ["recommend", "--run", path, "--all", "--k=20", "--output", f"{path}.lists.parquet"]]

    run(1, script, json.dumps([pretrain("one")]))
    for name in micro:
        shutil.copytree(folder / "one pretrain", folder / f"{name} finetune")
    run(2, script, json.dumps([line(name) for name in SHARED_RUNS for line in (pretrain, finetune)]))
    run(1, script, json.dumps([finetune("one"), *(line for name in micro for stage in STAGES for line in served(name, stage))]))
    return folder


def weights_by_step(runs: Path, name: str, stage: str, rank: int = 0) -> dict[int, dict[str, np.ndarray]]:
    """Weights after some of the steps of a stage."""
    files = sorted((runs / f"{name} {stage}.steps").glob(f"{stage}-*-{rank}.safetensors"))
    return {int(file.name.split("-")[1]): load_file(file) for file in files}


def metrics(runs: Path, name: str, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (runs / f"{name} {stage}" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


# ------------------------------------------------------------------------------------------------------ what the runs are


def test_the_world_leaves_a_process_without_examples_and_has_short_and_long_histories() -> None:
    dataset = uneven_world()
    n_events = np.diff(dataset.train.interactions.indptr)
    assert dataset.n_users % 2 == 1
    assert (n_events > 0).all()
    assert dataset.n_users % BATCH == 1, "the last batch of a pass over the users has one example for two processes"
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
    assert any(line["gradient_norms"]["backbone"] > about["training"]["clip_norm"] for line in lines), "gradients are clipped"


@pytest.mark.parametrize("stage", STAGES)
def test_training_moves_every_weight_far_beyond_what_is_tolerated(stage: str, runs: Path) -> None:
    steps = weights_by_step(runs, "one", stage)
    first, last = steps[min(steps)], steps[max(steps)]
    assert {f"{table}.{side}.weight" for table in ("collaborative", "content") for side in ("users", "items")} < set(first)
    for weight, array in last.items():
        assert distance(first[weight], array) > 1e-3, weight


# ----------------------------------------------------------------------------------------------------- the same as one process


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_two_processes_train_the_weights_that_one_does(name: str, stage: str, runs: Path) -> None:
    one, two = weights_by_step(runs, "one", stage), weights_by_step(runs, name, stage)
    assert one.keys() == two.keys()
    for step, expected in one.items():
        assert expected.keys() == two[step].keys()
        for weight, array in expected.items():
            assert distance(array, two[step][weight]) <= 1e-9, f"{weight} after step {step}"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_both_processes_have_the_same_weights_to_the_bit(name: str, stage: str, runs: Path) -> None:
    ranks = [weights_by_step(runs, name, stage, rank) for rank in (0, 1)]
    assert ranks[0].keys() == ranks[1].keys()
    for step, expected in ranks[0].items():
        for weight, array in expected.items():
            np.testing.assert_array_equal(ranks[1][step][weight], array, err_msg=f"{weight} after step {step}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_two_processes_keep_the_weights_that_one_does(name: str, stage: str, runs: Path) -> None:
    expected, got = (load_file(runs / f"{one} {stage}" / stage / "model.safetensors") for one in ("one", name))
    assert expected.keys() == got.keys()
    for weight, array in expected.items():
        assert distance(array, got[weight]) <= 1e-9, weight


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_two_processes_record_what_one_does(name: str, stage: str, runs: Path) -> None:
    """Losses, norms and the validation metric are those of the run, not of its first process."""
    one, two = metrics(runs, "one", stage), metrics(runs, name, stage)
    for expected, got in zip(one, two, strict=True):
        assert got["epoch"] == expected["epoch"]
        assert got["best"] == expected["best"]
        assert (got["validation"] is None) == (expected["validation"] is None)
        assert got["validation"] is None or got["validation"] == pytest.approx(expected["validation"], rel=1e-9)
        assert got["losses"] == pytest.approx(expected["losses"], rel=1e-6)  # losses are rounded to single precision
        for values in ("gradient_norms", "diagnostics"):
            assert got[values] == pytest.approx(expected[values], rel=1e-9), values


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_what_two_processes_trained_measures_the_same(name: str, stage: str, runs: Path) -> None:
    expected, got = (json.loads((runs / f"{one} {stage}.json").read_text()) for one in ("one", name))
    assert got["metrics"] == pytest.approx(expected["metrics"], rel=1e-9)
    assert got["metrics"]["ndcg@100"] > 0
    assert got["n_users"] == expected["n_users"]
    tables = [pl.read_parquet(runs / f"{one} {stage}.users.parquet") for one in ("one", name)]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SHARED_RUNS)
def test_what_two_processes_trained_recommends_the_same(name: str, stage: str, runs: Path) -> None:
    expected, got = (pl.read_parquet(runs / f"{one} {stage}.lists.parquet") for one in ("one", name))
    assert expected["user_id"].n_unique() == uneven_world().n_users
    columns = ["user_id", "item_id", "rank"]
    assert got.select(columns).equals(expected.select(columns))
    assert len(got) == 20 * uneven_world().n_users
    np.testing.assert_allclose(got["score"], expected["score"], rtol=1e-6, atol=1e-6)


# --------------------------------------------------------------------------------------------------- the commands as they are


@pytest.fixture(scope="module")
def as_typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands as a person types them, in single precision: in two processes, and in one with two micro-batches."""
    folder = tmp_path_factory.mktemp("as typed")
    uneven_world().save(folder / "data")
    flags = ["--batch-size", BATCH, "--patience", 1000, "--warmup-steps", 20, "--epochs", 25]
    for name, n_processes, micro in (("one", 1, 2), ("two", 2, 1)):
        own = [*flags, "--accumulation", micro]
        run(n_processes, "-m", "cllm4rec.pretrain", "--dataset", folder / "data", "--output", folder / name, *own)
        run(n_processes, "-m", "cllm4rec.finetune", "--run", folder / name, *own)
        run(1, "-m", "cllm4rec.recommend", "--run", folder / name, "--all", "--output", folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_two_micro_batches_to_the_bit(stage: str, as_typed: Path) -> None:
    """The sums are the same then, and so is everything that follows from them, over 200 steps and more."""
    about = [json.loads((as_typed / name / "run.json").read_text())["stages"][stage] for name in ("one", "two")]
    assert [one["n_processes"] for one in about] == [1, 2]
    expected, got = (load_file(as_typed / name / stage / "model.safetensors") for name in ("one", "two"))
    assert expected.keys() == got.keys()
    for weight, array in expected.items():
        np.testing.assert_array_equal(got[weight], array, err_msg=weight)
    lines = [
        [json.loads(line) for line in (as_typed / name / "metrics.jsonl").read_text().splitlines()] for name in ("one", "two")
    ]
    for one, two in zip(*lines, strict=True):
        assert (two["stage"], two["validation"], two["gradient_norms"]) == (
            one["stage"],
            one["validation"],
            one["gradient_norms"],
        )
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-12)


def test_two_processes_and_two_micro_batches_give_the_same_lists(as_typed: Path) -> None:
    expected, got = (pl.read_parquet(as_typed / f"{name}.parquet") for name in ("one", "two"))
    assert len(expected) == 20 * uneven_world().n_users
    assert got.equals(expected)


# -------------------------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize("split", ["random", "time"])
def test_each_user_is_validated_by_one_process(split: str, tmp_path: Path) -> None:
    """Under the split by time some users have validation events but no history: nobody scores them."""
    world = taste_world(2, n_users=60, n_items=40)
    late = pl.col("user_id").is_in(world.user_ids[:8])
    squeezed = 1_643_500_000 + (pl.col("timestamp") - 1_600_000_000) // 8  # into the last fifth of the world's time
    events = world.events.with_columns(timestamp=pl.when(late).then(squeezed).otherwise("timestamp"))
    dataset = build_dataset(events, world.items, split=split)
    dataset.save(tmp_path / "data")
    (tmp_path / "rank.py").write_text(VALIDATION)
    run(2, tmp_path / "rank.py", tmp_path / "data", tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["n"] for rank in ranks] == [2, 2]
    asked: Sequence[int] = ranks[0]["asked"] + ranks[1]["asked"]
    held_out = np.unique(dataset.validation.interactions.users)
    with_history = np.unique(dataset.train.interactions.users)
    assert sorted(asked) == np.intersect1d(held_out, with_history).tolist(), "each user once"
    assert abs(len(ranks[0]["asked"]) - len(ranks[1]["asked"])) <= 3
    assert (len(np.setdiff1d(held_out, with_history)) > 0) == (split == "time")

    alone: Any = SimpleNamespace(score=scores)
    assert ranks[0]["value"] == ranks[1]["value"]
    assert ranks[0]["value"] == pytest.approx(measure(alone, dataset.train, dataset.validation).metrics["ndcg@100"], rel=1e-12)


@pytest.mark.parametrize("batch_size", [16, 512])
def test_the_parts_of_two_processes_are_the_table_of_one(batch_size: int, as_typed: Path) -> None:
    """Of whole batches; with one batch for all users, one of the parts is empty."""
    program = as_typed / f"recommend{batch_size}.py"
    code = "from cllm4rec import recommend; from cllm4rec.cli import run; recommend.BATCH_SIZE = {}; run(recommend.main)"
    program.write_text(code.format(batch_size))
    given = ["--run", as_typed / "one", "--all", "--output"]
    run(1, program, *given, as_typed / f"one{batch_size}.parquet")
    run(2, program, *given, as_typed / f"parts{batch_size}.parquet")
    parts = [pl.read_parquet(as_typed / f"parts{batch_size}.parquet" / f"part-0000{rank}.parquet") for rank in (0, 1)]
    assert pl.concat(parts).equals(pl.read_parquet(as_typed / f"one{batch_size}.parquet"))
    assert min(map(len, parts)) > 0 or batch_size == 512
