"""Damage and hostile folders: every file of a dataset and a run is checked, and what does not fit is refused in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from cllm4rec import evaluate, finetune, prepare, pretrain, recommend
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.locks import locked
from cllm4rec.data.manifest import MANIFEST, check_manifest, write_manifest
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models import load, system_class
from cllm4rec.models.base import Recommender
from cllm4rec.training.checkpoint import RunFolder
from cllm4rec.training.loop import Course
from cllm4rec.training.state import StateFile, Stopped

COMMANDS = {"prepare": prepare, "pretrain": pretrain, "finetune": finetune, "evaluate": evaluate, "recommend": recommend}
SYSTEMS = ("ease", "itemknn", "popularity", "sasrec", "cllm4rec", "rsllm")


def call(command: str, *arguments: object) -> None:
    COMMANDS[command].main([str(one) for one in arguments])


def load_folder(stage: Path) -> Recommender:
    """The model of a stage's folder, whose manifest the run does not know: a hostile author would sign the run too."""
    return system_class(RunFolder(stage.parent).about["system"]).load(stage)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = taste_world(0, n_users=12, n_items=30, n_events=8)
    items = pl.DataFrame({"item_id": world.events["item_id"].unique(maintain_order=True)})
    items = items.with_columns(title="Title " + pl.col("item_id").cast(pl.String))
    users = pl.DataFrame({"user_id": world.events["user_id"].unique(maintain_order=True)})
    folder = tmp_path_factory.mktemp("verification") / "data"
    build_dataset(world.events, items, users).save(folder)
    return folder


@pytest.fixture(scope="module")
def runs(data: Path) -> Path:
    """A folder of runs, one for each system."""
    for name in SYSTEMS:
        quick = {"ease": ["--regularization", 10], "itemknn": ["--neighbours", 5, "--shrinkage", 1]}.get(name, [])
        quick = quick if name in ("ease", "itemknn", "popularity") else ["--epochs", 1]
        call("pretrain", "--system", name, "--dataset", data, "--output", data.parent / name, *quick)
    return data.parent


@pytest.fixture
def dataset(data: Path, tmp_path: Path) -> Path:
    """A dataset folder to damage."""
    shutil.copytree(data, tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def stage(request: pytest.FixtureRequest, runs: Path, tmp_path: Path) -> Path:
    """A stage folder to damage, of the run of a system."""
    shutil.copytree(runs / request.param, tmp_path / "run")
    return tmp_path / "run" / "pretrain"


def flips(file: Path, n: int, within: slice = slice(None)) -> Iterator[tuple[int, int]]:
    """Damage a file by one bit, n times; each flip is undone when the next is asked for."""
    content = file.read_bytes()
    draw = np.random.default_rng(len(content))
    for place in draw.choice(range(len(content))[within], size=n):
        bit = int(draw.integers(8))
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        file.write_bytes(damaged)
        yield int(place), bit
    file.write_bytes(content)


def header_length(file: Path) -> int:
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


# ------------------------------------------------------------------------------------------------------------------ flips


@pytest.mark.parametrize("name", ["events.parquet", "users.parquet", "items.parquet", "dataset.json", MANIFEST])
def test_a_flipped_bit_in_a_dataset_is_noticed_when_it_is_loaded(name: str, dataset: Path) -> None:
    for flip in flips(dataset / name, 100):
        assert "prepare the dataset again" in refused(lambda: Dataset.load(dataset)), flip
    Dataset.load(dataset)


@pytest.mark.parametrize("stage", SYSTEMS, indirect=True)
def test_a_flipped_bit_in_a_model_is_noticed(stage: Path) -> None:
    stage_needs_no_numbers = load(stage.parent).name != "itemknn"  # whose indices are checked
    small = [file for file in stage.rglob("*") if file.is_file() and file.suffix != ".safetensors"]
    for file in small:
        for flip in flips(file, 6):
            assert "train this stage again" in refused(lambda: load(stage.parent)), (file, flip)
    weights = stage / "model.safetensors"
    for flip in flips(weights, 10, slice(0, header_length(weights))):
        assert "is damaged (model.safetensors" in refused(lambda: load(stage.parent)), flip
    for flip in flips(weights, 10, slice(header_length(weights), None)):
        if stage_needs_no_numbers:
            load(stage.parent)  # mapped: read only where they are touched
        assert "model.safetensors differs" in refused(lambda: load(stage.parent, verify=True)), flip
    load(stage.parent, verify=True)


@pytest.mark.parametrize("stage", ["ease"], indirect=True)
@pytest.mark.parametrize("command", ["evaluate", "recommend"])
def test_the_commands_verify_weights_when_asked(command: str, stage: Path, data: Path) -> None:
    arguments = ["--run", stage.parent, *([] if command == "evaluate" else ["--all"])]
    call(command, *arguments, "--verify")
    weights = stage / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    call(command, *arguments)
    assert "model.safetensors differs from its SHA-256" in refused(lambda: call(command, *arguments, "--verify"))


@pytest.mark.parametrize("stage", ["ease"], indirect=True)
def test_a_flipped_bit_in_run_json_is_noticed(stage: Path) -> None:
    for flip in flips(stage.parent / "run.json", 100):
        assert "run.json" in refused(lambda: RunFolder.open(stage.parent)), flip


@pytest.mark.parametrize("stage", ["cllm4rec"], indirect=True)
def test_damaged_metrics_are_one_line(stage: Path) -> None:
    metrics = stage.parent / "metrics.jsonl"
    for text in ("{", '{"stage": "pretrain"}\n', "[" * 100_000, '{"stage": 1}\n', "\udcff"):
        metrics.write_text(text, errors="surrogateescape")
        assert "metrics.jsonl is damaged" in refused(lambda: RunFolder.open(stage.parent).metrics())


def test_a_missing_and_an_unknown_file_are_named(dataset: Path) -> None:
    (dataset / "more.parquet").write_bytes(b"")
    assert "it holds more.parquet, which is not listed in manifest.json: move it" in refused(lambda: Dataset.load(dataset))
    (dataset / "more.parquet").unlink()
    (dataset / ".DS_Store").write_bytes(b"")  # hidden files are not looked at
    Dataset.load(dataset)
    (dataset / "users.parquet").unlink()
    assert "users.parquet is missing" in refused(lambda: Dataset.load(dataset))
    (dataset / MANIFEST).unlink()
    assert "no manifest.json: an earlier version wrote the folder" in refused(lambda: Dataset.load(dataset))


# ------------------------------------------------------------------------------------------------------------- state files


@pytest.fixture
def interrupted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of SASRec that was stopped after its second epoch."""
    after = Course.next_epoch

    def stop(course: Course) -> None:
        after(course)
        if course.at.epoch == 2:
            raise Stopped("for this test")

    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(Course, "next_epoch", stop)
        call("pretrain", "--system", "sasrec", "--dataset", data, "--output", tmp_path / "run", "--epochs", 3)
    return tmp_path / "run"


def resume(run: Path) -> None:
    call("pretrain", "--output", run, "--resume")


def test_a_flipped_bit_in_a_state_file_is_noticed_on_resume(interrupted: Path) -> None:
    state = RunFolder(interrupted).state("pretrain").path
    for flip in flips(state, 40):
        assert "pretrain-state.safetensors is damaged" in refused(lambda: resume(interrupted)), flip
    resume(interrupted)
    assert RunFolder(interrupted).ended("pretrain") and not state.exists()


@pytest.mark.parametrize(
    ("change", "need"),
    [
        (lambda tensors, described: tensors.pop("best.items"), "does not fit the network"),
        (
            lambda tensors, described: tensors.update({"best.items": tensors["best.items"][1:].copy()}),
            "does not fit the network",
        ),
        (lambda tensors, described: tensors.update({"odd": np.zeros(3, np.float32)}), "does not fit the network"),
        (lambda tensors, described: tensors.update({"optimizer.x": np.zeros(3, np.float32)}), "belong to no parameter"),
        (lambda tensors, described: tensors.update({"optimizer.0.exp_avg": np.zeros(3, np.float32)}), "do not have its shape"),
        (lambda tensors, described: described["progress"].update(epoch="two"), "key progress.epoch"),
        (lambda tensors, described: described["progress"].update(more=1), "key progress.more"),
        (lambda tensors, described: described.update(about=[]), "key about"),
    ],
)
def test_a_state_that_does_not_fit_is_one_line(
    change: Callable[[dict[str, Any], dict[str, Any]], object], need: str, interrupted: Path
) -> None:
    import torch

    state = RunFolder(interrupted).state("pretrain")
    tensors, described = load_file(state.path), state.described()
    assert described is not None
    change(tensors, described)
    StateFile(state.path).save({name: torch.from_numpy(array) for name, array in tensors.items()}, described)
    assert need in refused(lambda: resume(interrupted))


# -------------------------------------------------------------------------------------------------------------- stage's end


@pytest.mark.parametrize("system", ["sasrec", "ease"])
def test_weights_are_checked_whole_when_a_stage_ends(
    system: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that returns another bit than was written; it is noticed before the stage counts as ended."""
    run, write = tmp_path / "run", Recommender._write

    def damaging(model: Recommender, folder: Path) -> None:
        write(model, folder)
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)

    flags = ["--epochs", 1] if system == "sasrec" else ["--regularization", 10]
    with monkeypatch.context() as context:
        context.setattr(Recommender, "_write", damaging)
        message = refused(lambda: call("pretrain", "--system", system, "--dataset", data, "--output", run, *flags))
    assert "model.safetensors differs" in message
    assert not RunFolder(run).ended("pretrain")
    resume(run)
    assert RunFolder(run).ended("pretrain")
    check_manifest(run / "pretrain", whole=True)


# ------------------------------------------------------------------------------------------------------- signed but hostile

DEEP = "[" * 100_000 + "]" * 100_000


def resigned(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a folder, and sign the folder again."""
    described = json.loads((folder / name).read_text())
    change(described)
    (folder / name).write_text(json.dumps(described))
    write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "need"),
    [
        (lambda about: about.pop("n_users"), "key n_users: Field required"),
        (lambda about: about.update(more=1), "key more: Extra inputs are not permitted"),
        (lambda about: about.update(n_users="12"), "key n_users: Input should be a valid integer, not '12'"),
        (lambda about: about.update(n_items=10**30), "n_items is"),
        (lambda about: about.update(n_events=-1), "n_events is -1"),
        (lambda about: about.update(split=[1]), "key split"),
        (lambda about: about["split"].update(method=None), "key split.method"),
        (lambda about: about.update(rules=[{"rule": "x"}]), "key rules.0.users"),
        (lambda about: about.update(texts={"title": float("nan")}), "key texts.title"),
        (lambda about: about.update(format_version=99), "format_version 99 is unknown"),
        (lambda about: about.update(format_version="2"), "format_version"),
    ],
)
def test_an_account_that_does_not_fit_is_one_line(change: Callable[[dict[str, Any]], object], need: str, dataset: Path) -> None:
    resigned(dataset, "dataset.json", change)
    assert need in refused(lambda: Dataset.load(dataset))


@pytest.mark.parametrize("name", ["dataset.json", MANIFEST])
@pytest.mark.parametrize(
    "text", ["", "{", "null", "7", "[]", DEEP, '{"files": ' + DEEP + "}", '{"a": "\\ud800"}', "\x00", " " * 20_000_000]
)
def test_a_file_that_is_no_account_is_one_line(name: str, text: str, dataset: Path) -> None:
    (dataset / name).write_text(text)
    if name != MANIFEST:
        write_manifest(dataset)
    assert f"{dataset} is damaged ({name}" in refused(lambda: Dataset.load(dataset))


@pytest.mark.parametrize(
    ("name", "change", "need"),
    [
        ("events", lambda table: table.drop("part"), "no column part"),
        ("events", lambda table: table.with_columns(more=1), "an unknown column more"),
        ("events", lambda table: table.with_columns(pl.col("user").cast(pl.Float64)), "column user holds Float64, not Int64"),
        ("events", lambda table: table.with_columns(item=pl.lit(None, dtype=pl.Int64)), "column item has empty cells"),
        (
            "events",
            lambda table: table.with_columns(item=pl.lit(99, dtype=pl.Int64)),
            "item number 99 is out of range",
        ),
        (
            "events",
            lambda table: table.with_columns(user=pl.lit(-1)).cast({"user": pl.Int64}),
            "user number -1 is out of range",
        ),
        ("events", lambda table: table.reverse(), "not sorted by user"),
        ("events", lambda table: table.with_columns(part=pl.lit(9, dtype=pl.UInt8)), "part 9 is unknown"),
        ("events", lambda table: table.head(3), "there are 3 rows"),
        ("users", lambda table: table.head(3), "there are 3 rows"),
        ("users", lambda table: table.with_columns(user_id=pl.lit(1.5)), "column user_id holds Float64, not String or Int64"),
        ("items", lambda table: table.with_columns(pl.lit(0, dtype=pl.Int64).alias(".tie_order")), "not a permutation"),
        ("items", lambda table: table.with_columns(pl.lit(-1, dtype=pl.Int64).alias(".tie_order")), "not a permutation"),
        ("items", lambda table: table.with_columns(title=pl.lit(3)), "column title holds Int32, not String"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(
    name: str, change: Callable[[pl.DataFrame], pl.DataFrame], need: str, dataset: Path
) -> None:
    change(pl.read_parquet(dataset / f"{name}.parquet")).write_parquet(dataset / f"{name}.parquet")
    write_manifest(dataset)
    assert need in refused(lambda: Dataset.load(dataset))


@pytest.mark.parametrize(
    ("stage", "change", "need"),
    [
        ("ease", lambda about: about.update(system="itemknn"), "a model of system 'itemknn', not ease"),
        ("ease", lambda about: about.update(more=1), "key more"),
        ("ease", lambda about: about["config"].update(more=1), "key config: key more"),
        ("ease", lambda about: about["config"].update(regularization="x"), "key config: key regularization"),
        ("ease", lambda about: about["config"].update(regularization=-1.0), "regularization is -1.0"),
        ("ease", lambda about: about["config"].update(decay=[]), "key config.decay"),
        ("sasrec", lambda about: about.update(stage="other"), "stage 'other' is unknown"),
        ("sasrec", lambda about: about["config"].update(layers=1000), "1,000 layers do not fit"),
        ("sasrec", lambda about: about["config"].update(width=60_000), "does not fit this system"),
        ("sasrec", lambda about: about["config"].update(length=10**6), "does not fit this system"),
        ("sasrec", lambda about: about["config"].update(heads=3), "heads is 3"),
        ("sasrec", lambda about: about["config"].update(layers=10**6), "layers is 1000000"),
        ("rsllm", lambda about: about.update(sequential="rsllm"), "sequential is 'rsllm'"),
        ("rsllm", lambda about: about.update(sequential="ease"), "sequential is 'ease'"),
        ("rsllm", lambda about: about.pop("sequential"), "sequential is None"),
        ("cllm4rec", lambda about: about.pop("scales"), "key scales is missing"),
        ("cllm4rec", lambda about: about["config"].update(tune="frozen"), "key backbone_sha256 is missing"),
        ("cllm4rec", lambda about: about.update(scales=[1.0]), "key scales"),
        ("ease", lambda about: about.update(format_version=10**400), "model.json: format_version 1000000"),
    ],
    indirect=["stage"],
)
def test_a_model_that_does_not_fit_is_one_line(stage: Path, change: Callable[[dict[str, Any]], object], need: str) -> None:
    resigned(stage, "model.json", change)
    assert need in refused(lambda: load_folder(stage))
    assert "is not the one that this run trained" in refused(lambda: load(stage.parent))


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("ease", lambda arrays: arrays.clear()),
        ("ease", lambda arrays: arrays.update(weights=arrays["weights"][:3].copy())),
        ("ease", lambda arrays: arrays.update(weights=arrays["weights"].astype(np.float16))),
        ("popularity", lambda arrays: arrays.update(counts=arrays["counts"][:3].copy())),
        ("itemknn", lambda arrays: arrays.update(indices=arrays["indices"] + 100)),
        ("itemknn", lambda arrays: arrays.update(indptr=arrays["indptr"][::-1].copy())),
        ("sasrec", lambda arrays: arrays.update(items=arrays["items"].astype(np.float16))),
        ("sasrec", lambda arrays: arrays.update(items=arrays["items"].astype(np.float64))),
        ("sasrec", lambda arrays: arrays.update(more=np.zeros(3, np.float32))),
        ("cllm4rec", lambda arrays: arrays.pop(sorted(arrays)[0])),
    ],
    indirect=["stage"],
)
def test_weights_that_do_not_fit_are_one_line(stage: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    arrays = load_file(stage / "model.safetensors")
    change(arrays)
    save_file(arrays, stage / "model.safetensors")
    write_manifest(stage)
    assert "is damaged" in refused(lambda: load_folder(stage))


@pytest.mark.parametrize("stage", ["ease"], indirect=True)
def test_a_model_without_users_serves_histories(stage: Path, data: Path) -> None:
    """As a hostile author might sign it: nobody is known, so that everybody is served as a new user."""
    users = np.arange(3)
    expected = load_folder(stage).recommend(users, Dataset.load(data), 3)
    pl.read_parquet(stage / "users.parquet").clear().write_parquet(stage / "users.parquet")
    write_manifest(stage)
    np.testing.assert_array_equal(load_folder(stage).recommend(users, Dataset.load(data), 3).items, expected.items)


@pytest.mark.parametrize("stage", ["sasrec"], indirect=True)
def test_a_stage_that_is_gone_or_of_another_run_is_refused(stage: Path, runs: Path, tmp_path: Path) -> None:
    shutil.rmtree(stage)
    assert f"{stage} is missing or holds no model.json: train this stage again" in refused(lambda: load(stage.parent))
    shutil.copytree(runs / "popularity" / "pretrain", stage)
    assert f"{stage} is not the one that this run trained" in refused(lambda: load(stage.parent))


def test_a_foreign_file_in_a_stage_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    call("pretrain", "--dataset", data, "--output", run, "--epochs", 1)
    call("finetune", "--run", run, "--epochs", 1)
    before = (run / "run.json").read_text(), (run / "metrics.jsonl").read_text()
    (run / "finetune" / "notes.txt").write_text("mine")
    assert "holds notes.txt, which is not a file of this package: move it" in refused(
        lambda: call("finetune", "--run", run, "--epochs", 2)
    )
    assert ((run / "run.json").read_text(), (run / "metrics.jsonl").read_text()) == before


def test_a_run_may_be_written_into_the_current_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("pretrain", "--system", "popularity", "--dataset", data, "--output", ".")
    call("evaluate", "--run", ".", "--json", "test.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "pretrain", "run.json", "test.json"]


# ------------------------------------------------------------------------------------------------------------------- locks


def test_a_second_training_in_one_folder_is_refused_and_told_who_is_there(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = "import sys; from pathlib import Path; from cllm4rec.data.locks import locked\n"
    code += "with locked(Path(sys.argv[1])), locked(Path(sys.argv[2])): print('held', flush=True); sys.stdin.read()"
    line = [sys.executable, "-c", code, str(run / "run.json"), str(tmp_path / "prepared")]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    flags = ["--system", "popularity", "--dataset", data, "--output", run]
    try:
        assert f"run is being written by process {process.pid} on" in refused(lambda: call("pretrain", *flags))
        assert f"by process {process.pid} on" in refused(lambda: call("pretrain", "--output", run, "--resume"))
        assert f"by process {process.pid} on" in refused(lambda: call("finetune", "--run", run))
        events = tmp_path / "events.csv"
        events.write_text("user_id,item_id\nu,a\nu,b\n")
        assert f"by process {process.pid} on" in refused(
            lambda: call("prepare", "--interactions", events, "--output", tmp_path / "prepared")
        )
        call("pretrain", *flags, "--dry-run")  # writes nothing
        assert [path.name for path in run.iterdir()] == [".run.json.cllm4rec.lock"]
    finally:
        process.kill()  # its lock holds nobody up
        process.communicate()
    call("pretrain", *flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".prepared.cllm4rec.lock", "events.csv", "run"]
    with locked(run):
        call("evaluate", "--run", run)  # readers need no lock
