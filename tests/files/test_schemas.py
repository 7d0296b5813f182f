"""Files with valid hashes and invalid content are refused in one line."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cllm4rec.data.dataset import Dataset
from cllm4rec.files.manifest import MANIFEST, write_manifest
from cllm4rec.models import load
from cllm4rec.training.resume import ResumeFile
from cllm4rec.training.run_folder import RunFolder
from tests.support.damage import load_stage, resume, sign_again
from tests.support.tables import refused

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("change", "need"),
    [
        (lambda about: about.pop("n_users"), "key n_users: Field required"),
        (lambda about: about.update(more=1), "key more: Unexpected keyword argument"),
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
def test_a_dataset_description_that_does_not_fit_is_one_line(
    change: Callable[[dict[str, Any]], object], need: str, dataset: Path
) -> None:
    sign_again(dataset, "dataset.json", change)
    assert need in refused(Dataset.load, dataset)


@pytest.mark.parametrize("name", ["dataset.json", MANIFEST])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "7",
        "[]",
        DEEP,
        '{"files": ' + DEEP + "}",
        '{"a": "\\ud800"}',
        "\x00",
        " " * 20_000_000,
    ],
)
def test_a_file_that_is_no_description_is_one_line(name: str, text: str, dataset: Path) -> None:
    (dataset / name).write_text(text)
    if name != MANIFEST:
        write_manifest(dataset)
    assert f"{dataset} is damaged ({name}" in refused(Dataset.load, dataset)


@pytest.mark.parametrize(
    ("name", "change", "need"),
    [
        ("events", lambda table: table.drop("part"), "no column part"),
        ("events", lambda table: table.with_columns(more=1), "an unknown column more"),
        (
            "events",
            lambda table: table.with_columns(pl.col("user").cast(pl.Float64)),
            "column user holds Float64, not Int64",
        ),
        (
            "events",
            lambda table: table.with_columns(item=pl.lit(None, dtype=pl.Int64)),
            "column item has empty cells",
        ),
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
        (
            "users",
            lambda table: table.with_columns(user_id=pl.lit(1.5)),
            "column user_id holds Float64, not String or Int64",
        ),
        (
            "items",
            lambda table: table.with_columns(pl.lit(0, dtype=pl.Int64).alias(".tie_order")),
            "not a permutation",
        ),
        (
            "items",
            lambda table: table.with_columns(pl.lit(-1, dtype=pl.Int64).alias(".tie_order")),
            "not a permutation",
        ),
        ("items", lambda table: table.with_columns(title=pl.lit(3)), "column title holds Int32, not String"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(
    name: str, change: Callable[[pl.DataFrame], pl.DataFrame], need: str, dataset: Path
) -> None:
    change(pl.read_parquet(dataset / f"{name}.parquet")).write_parquet(dataset / f"{name}.parquet")
    write_manifest(dataset)
    assert need in refused(Dataset.load, dataset)


@pytest.mark.parametrize(
    ("stage", "change", "need"),
    [
        ("ease", lambda about: about.update(system="itemknn"), "a model of system 'itemknn', not ease"),
        ("ease", lambda about: about.update(more=1), "key more"),
        ("ease", lambda about: about["config"].update(more=1), "key config: key more"),
        ("ease", lambda about: about["config"].update(regularization="x"), "key config: key regularization"),
        (
            "ease",
            lambda about: about["config"].update(regularization=-1.0),
            "key regularization: Input should be greater than 0",
        ),
        ("ease", lambda about: about["config"].update(decay=[]), "key config.decay"),
        ("sasrec", lambda about: about.update(stage="other"), "stage 'other' is unknown"),
        ("sasrec", lambda about: about["config"].update(layers=1000), "1,000 layers do not fit"),
        ("sasrec", lambda about: about["config"].update(width=60_000), "does not fit this system"),
        ("sasrec", lambda about: about["config"].update(length=10**6), "does not fit this system"),
        ("sasrec", lambda about: about["config"].update(heads=3), "`heads` is 3"),
        (
            "sasrec",
            lambda about: about["config"].update(layers=10**6),
            "key layers: Input should be less than 1025, not 1000000",
        ),
        ("rsllm", lambda about: about.update(sequential="rsllm"), "sequential is 'rsllm'"),
        ("rsllm", lambda about: about.update(sequential="ease"), "sequential is 'ease'"),
        ("rsllm", lambda about: about.pop("sequential"), "sequential is None"),
        ("rsllm", lambda about: about.update(form="prose"), "form is 'prose'"),
        ("rsllm", lambda about: about.pop("form"), "form is 'auto'"),
        ("cllm4rec", lambda about: about.pop("scales"), "key scales is missing"),
        ("cllm4rec", lambda about: about["config"].update(tune="frozen"), "key backbone_sha256 is missing"),
        ("cllm4rec", lambda about: about.update(scales=[1.0]), "key scales"),
        ("ease", lambda about: about.update(format_version=10**400), "model.json: format_version 1000000"),
    ],
    indirect=["stage"],
)
def test_a_model_that_does_not_fit_is_one_line(
    stage: Path, change: Callable[[dict[str, Any]], object], need: str
) -> None:
    sign_again(stage, "model.json", change)
    assert need in refused(load_stage, stage)
    assert "is not the one that this run trained" in refused(load, stage.parent)


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
def test_weights_that_do_not_fit_are_one_line(
    stage: Path, change: Callable[[dict[str, np.ndarray]], object]
) -> None:
    arrays = load_file(stage / "model.safetensors")
    change(arrays)
    save_file(arrays, stage / "model.safetensors")
    write_manifest(stage)
    assert "is damaged" in refused(load_stage, stage)


@pytest.mark.parametrize("stage", ["ease"], indirect=True)
def test_a_model_without_users_serves_histories(stage: Path, data: Path) -> None:
    """As a hostile author might sign it: nobody is known, so that everybody is served as a new user."""
    users = np.arange(3)
    expected = load_stage(stage).rank(users, Dataset.load(data), 3)
    pl.read_parquet(stage / "users.parquet").clear().write_parquet(stage / "users.parquet")
    write_manifest(stage)
    np.testing.assert_array_equal(load_stage(stage).rank(users, Dataset.load(data), 3).items, expected.items)


@pytest.mark.parametrize(
    ("change", "need"),
    [
        (lambda tensors, description: tensors.pop("best.items"), "does not fit the network"),
        (
            lambda tensors, description: tensors.update({"best.items": tensors["best.items"][1:].copy()}),
            "does not fit the network",
        ),
        (
            lambda tensors, description: tensors.update({"unknown": np.zeros(3, np.float32)}),
            "does not fit the network",
        ),
        (
            lambda tensors, description: tensors.update({"optimizer.x": np.zeros(3, np.float32)}),
            "belong to no parameter",
        ),
        (
            lambda tensors, description: tensors.update({"optimizer.0.exp_avg": np.zeros(3, np.float32)}),
            "do not have its shape",
        ),
        (lambda tensors, description: description["progress"].update(epoch="two"), "key progress.epoch"),
        (lambda tensors, description: description["progress"].update(more=1), "key progress.more"),
        (lambda tensors, description: description.update(conditions=[]), "key conditions"),
        (lambda tensors, description: description["conditions"].update(more=1), "key conditions.more"),
    ],
)
def test_a_state_that_does_not_fit_is_one_line(
    change: Callable[[dict[str, Any], dict[str, Any]], object], need: str, interrupted: Path
) -> None:
    state = RunFolder(interrupted).resume_file("pretrain")
    tensors, description = load_file(state.path), state.describe()
    assert description is not None
    described = asdict(description)
    change(tensors, described)
    ResumeFile(state.path).save({name: torch.from_numpy(array) for name, array in tensors.items()}, described)
    assert need in refused(resume, interrupted)
