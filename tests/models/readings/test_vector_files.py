"""Files of vectors: written and read back; each wrong one is refused in one line."""

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.readings.item_texts import ItemVectors
from cllm4rec.models.readings.item_vectors import item_vectors
from cllm4rec.models.readings.vector_files import read_vectors, write_vectors
from tests.support.tables import refused


@pytest.fixture
def world() -> Dataset:
    """Items 10, 20, 30 and 40 with whole numbers as ids; 40 only in the test events."""
    parts = ["train", "train", "train", "test"]
    return Dataset.from_frame(
        pl.DataFrame({"user_id": ["u"] * 4, "item_id": [10, 20, 30, 40], "part": parts})
    )


def table(vectors: object, ids: object = (10, 20, 30, 40)) -> pl.DataFrame:
    """A table of vectors."""
    return pl.DataFrame({"item_id": ids, "vector": vectors}, strict=False)


VECTORS = [[1.0, 2.0], [3.0, 4.0], None, [5.0, 6.0]]


@pytest.mark.parametrize("dtype", [pl.List(pl.Float32), pl.List(pl.Int16), pl.Array(pl.Float64, 2)])
def test_a_table_is_read_by_ids(dtype: pl.DataType, world: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "vectors.parquet"
    more = table([*VECTORS, [7.0, 8.0]], [40, 30, 20, 10, 99]).cast({"vector": dtype})
    more.cast({"item_id": pl.String}).write_parquet(file)
    vectors = item_vectors(world, item_vectors=file, standardise=False)
    expected = {10: [5, 6], 20: [0, 0], 30: [3, 4], 40: [1, 2]}
    ids = world.item_ids.ids.to_list()
    assert vectors.values.tolist() == [expected[item] for item in ids]
    assert vectors.present.tolist() == [item != 20 for item in ids]
    standardised = dict(zip(ids, item_vectors(world, item_vectors=file).values.tolist(), strict=True))
    assert standardised == {10: [1, 1], 20: [0, 0], 30: [-1, -1], 40: [-3, -3]}


def test_rows_of_an_array_are_those_of_the_items(world: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.arange(8).reshape(4, 2))
    vectors = item_vectors(world, item_vectors=tmp_path / "vectors.npy", standardise=False)
    assert vectors.values.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert vectors.values.dtype == np.float32
    assert vectors.present.all()


@pytest.mark.parametrize("name", ["vectors.parquet", "vectors.npy"])
def test_written_vectors_are_read_back(name: str, world: Dataset, tmp_path: Path) -> None:
    values = np.array([[1, 2, 3], [0, 0, 0], [4, 5, 6], [7, 8, 9]], dtype=np.float32) / 7
    present = np.array([True, name.endswith("npy"), True, True])
    file = str(tmp_path / name)
    write_vectors(ItemVectors(world.item_ids.ids, values, present), file)
    vectors = read_vectors(file, world.item_ids)
    np.testing.assert_array_equal(vectors.values, values)
    np.testing.assert_array_equal(vectors.present, present)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_tools_read_the_table(world: Dataset, tmp_path: Path) -> None:
    import pandas

    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    present = np.array([True, True, False, True])
    write_vectors(ItemVectors(world.item_ids.ids, values, present), str(tmp_path / "vectors.parquet"))
    frame = pandas.read_parquet(tmp_path / "vectors.parquet")
    assert frame["item_id"].to_list() == world.item_ids.ids.to_list()
    assert frame["vector"][3].tolist() == [6, 7]
    assert frame["vector"][2] is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (table(VECTORS[:3], [10, 20, 30]), "item 40 has no row (1 of 4 items missing)"),
        (
            table(VECTORS, ["a", "b", "c", "d"]),
            "none of its ids is in the dataset: it has 'a', and the dataset ",
        ),
        (table([*VECTORS, [0.0, 0.0]], [10, 20, 30, 40, 20]), "item '20' has several rows"),
        (table([*VECTORS, [0.0, 0.0]], [10, 20, 30, 40, None]), "a row has no item_id"),
        (table([[1.0, 2.0]] * 3 + [[1.0]]), "the vector of item 40 has 1 number, and that of item "),
        (table([[1.0, 2.0]] * 3 + [[1.0, np.nan]]), "the vector of item 40 is not of finite numbers"),
        (table([[1.0, 2.0]] * 3 + [[1.0, None]]), "the vector of item 40 is not of finite numbers"),
        (table([[1.0, 2.0]] * 3 + [[1e39, 1.0]]), "is not of finite numbers, or too large for float32"),
        (table([["a"]] * 4), "its column vector holds List(String): expected lists of numbers"),
        (table([1.0] * 4), "its column vector holds Float64: expected lists of numbers"),
        (table([[]] * 4).cast({"vector": pl.List(pl.Float32)}), "it holds no numbers"),
        (table([None] * 4).cast({"vector": pl.List(pl.Float32)}), "it holds no numbers"),
        (table(VECTORS).rename({"vector": "embedding"}), "expected the columns item_id and vector, found "),
    ],
)
def test_wrong_tables_are_refused(content: pl.DataFrame, reason: str, world: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "vectors.parquet"
    content.write_parquet(file)
    line = refused(read_vectors, file, world.item_ids)
    assert line.startswith(f"{file}: ")
    assert reason in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.ones((3, 2)), "it has 3 rows, and the dataset has 4 items: give a row for each row of "),
        (np.ones(4), "its shape is [4]: expected a row of numbers for each item"),
        (np.ones((4, 0)), "its shape is [4, 0]: expected a row of numbers for each item"),
        (np.ones((4, 2), dtype=bool), "it holds bool: expected numbers"),
        (np.ones((4, 2), dtype=complex), "it holds complex128: expected numbers"),
        (np.full((4, 2), "1"), "it holds <U1: expected numbers"),
        (np.array([[1.0], [2.0], [np.inf], [3.0]]), "is not of finite numbers"),
    ],
)
def test_wrong_arrays_are_refused(content: np.ndarray, reason: str, world: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    np.save(file, content)
    line = refused(read_vectors, file, world.item_ids)
    assert line.startswith(f"{file}: ")
    assert reason in line


def test_the_item_of_the_first_row_of_an_array_is_named(
    world: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "vectors.npy", np.ones((4, 2)))
    with caplog.at_level("INFO", "cllm4rec"):
        read_vectors(tmp_path / "vectors.npy", world.item_ids)
    assert f"vectors.npy: row 1 is item {world.item_ids.ids[0]}, as in items.parquet of" in caplog.text


@pytest.mark.parametrize("content", [b"", b"abc", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array_is_refused(content: bytes, world: Dataset, tmp_path: Path) -> None:
    (tmp_path / "vectors.npy").write_bytes(content)
    assert "vectors.npy: it is no whole .npy file of numbers (" in refused(
        read_vectors, tmp_path / "vectors.npy", world.item_ids
    )


def test_objects_are_never_unpickled(world: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "vectors.npy", np.array([[1], [2], [3], ["x"]], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps([1.0, 2.0]))

    def unpickled(*_: object, **__: object) -> None:
        raise AssertionError("something is unpickled")

    monkeypatch.setattr(pickle, "load", unpickled)
    for name in ("vectors.npy", "plain.npy"):
        line = refused(read_vectors, tmp_path / name, world.item_ids)
        assert line.startswith(f"{tmp_path / name}: it is no whole .npy file of numbers (")


def test_an_archive_named_npy_is_refused(world: Dataset, tmp_path: Path) -> None:
    with (tmp_path / "vectors.npy").open("wb") as opened:
        np.savez(opened, vectors=np.ones((4, 2)))
    line = refused(read_vectors, tmp_path / "vectors.npy", world.item_ids)
    assert line.startswith(f"{tmp_path / 'vectors.npy'}: it is no whole .npy file of numbers (")


def test_a_false_header_takes_no_memory(world: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.ones((4, 2)))
    content = (tmp_path / "vectors.npy").read_bytes()
    assert b"(4, 2), }     " in content
    (tmp_path / "vectors.npy").write_bytes(content.replace(b"(4, 2), }     ", b"(4, 200000), }"))
    assert "it is no whole .npy file" in refused(read_vectors, tmp_path / "vectors.npy", world.item_ids)


@pytest.mark.parametrize("name", ["vectors.csv", "vectors", "vectors.npz"])
def test_other_kinds_of_files_are_refused(name: str, world: Dataset, tmp_path: Path) -> None:
    line = refused(read_vectors, tmp_path / name, world.item_ids)
    assert "let its name end in .parquet or .npy" in line


def test_absent_and_damaged_files_are_refused(world: Dataset, tmp_path: Path) -> None:
    for name, reason in {"vectors.parquet": "cannot be read: ", "vectors.npy": "no whole .npy file"}.items():
        assert refused(read_vectors, tmp_path / name, world.item_ids).endswith("there is no such file")
        (tmp_path / name).write_bytes(b"PAR1 or not")
        assert reason in refused(read_vectors, tmp_path / name, world.item_ids)
