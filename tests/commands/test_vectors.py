"""The command `vectors`: it writes a vector for each item, or one line that says what is wrong."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.readings.cache import VARIABLE
from cllm4rec.models.readings.item_vectors import item_vectors
from tests.support.commands import assert_refused, call, refusal, run_process
from tests.support.encoders import save_language_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("encoders") / "model")


def test_a_table_of_vectors_is_written_and_taken_back(workspace: Path, model: Path, tmp_path: Path) -> None:
    dataset = Dataset.load(workspace / "data")
    file = tmp_path / "vectors.parquet"
    call("vectors", "--dataset", workspace / "data", "--encoder", model, "--output", file)
    table = pl.read_parquet(file)
    assert table["item_id"].to_list() == dataset.item_ids.ids.to_list()
    expected = item_vectors(dataset, model)
    np.testing.assert_array_equal(np.stack(table["vector"].to_list()), expected.values)
    again = tmp_path / "again.npy"
    flags = ("--dataset", workspace / "data", "--item-vectors", file, "--raw", "--output", again)
    call("vectors", *flags)
    np.testing.assert_array_equal(np.load(again), expected.values)


def test_depth_and_fields_reach_the_encoder(workspace: Path, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    flags = ("--depth", "1", "--fields", "title", "--raw", "--output", file)
    call("vectors", "--dataset", workspace / "data", "--encoder", model, *flags)
    expected = item_vectors(workspace / "data", model, depth=1.0, fields=["title"], standardise=False)
    np.testing.assert_array_equal(np.load(file), expected.values)


def test_mistakes_are_named_by_flags(workspace: Path, model: Path, tmp_path: Path) -> None:
    flags = ["--dataset", workspace / "data", "--output", tmp_path / "vectors.npy"]
    assert refusal("vectors", *flags) == "give one of --encoder and --item-vectors"
    flags += ["--encoder", model]
    assert refusal("vectors", *flags, "--fields", "plot").startswith("--fields: items have no 'plot'")
    assert refusal("vectors", *flags, "--fields", "title, plot").startswith("--fields: items have no 'plot'")
    assert refusal("vectors", *flags, "--depth", 0).startswith("--depth is 0.0: ")
    other = ("--item-vectors", tmp_path / "absent.npy")
    assert refusal("vectors", *flags[:4], *other, "--depth", 0.5).startswith("--depth has no effect")
    assert refusal("vectors", *flags[:4], *other).endswith("absent.npy: there is no such file")
    assert refusal("vectors", *flags[:4], "--encoder", "tiny").startswith("--encoder: tiny is not pretrained")
    line = refusal("vectors", *flags[:4], "--encoder", "./absent")
    assert line.startswith(
        "encoder './absent' cannot be loaded: there is no such folder; --encoder takes the"
    )
    assert not (tmp_path / "vectors.npy").exists()


def test_a_wrong_output_is_refused_before_texts_are_read(
    workspace: Path, model: Path, tmp_path: Path
) -> None:
    flags = ("--dataset", workspace / "data", "--encoder", model, "--output")
    assert "let its name end in .parquet or .npy" in refusal("vectors", *flags, tmp_path / "vectors.csv")
    assert "there is no folder" in refusal("vectors", *flags, tmp_path / "absent" / "vectors.npy")
    assert not (tmp_path / "cache").exists()


def test_a_refusal_is_one_line(workspace: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.ones((1, 2)))
    flags = ("--item-vectors", tmp_path / "mine.npy", "--output", tmp_path / "vectors.npy")
    assert_refused(run_process("vectors", "--dataset", workspace / "data", *flags), "it has 1 row, and")
