"""Readings are kept, found again, and never believed if they are damaged."""

import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.language.pretrained import Pretrained
from cllm4rec.models.readings.cache import VARIABLE, cache_folder, cached_reading
from cllm4rec.models.readings.item_vectors import item_vectors
from tests.support.encoders import Letters, save_language_model
from tests.support.worlds import taste_dataset

TEXTS = ["an apple", "one", "two"]


def only_file(folder: Path) -> Path:
    """The one reading of a cache."""
    (file,) = folder.glob("*.safetensors")
    return file


def test_a_reading_is_made_once(cache: Path) -> None:
    letters = Letters()
    first = cached_reading("letters", TEXTS, letters.encode)
    np.testing.assert_array_equal(first, [[2, 1, 0], [0, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(cached_reading("letters", TEXTS, letters.encode), first)
    assert letters.read == [TEXTS]
    assert only_file(cache).stat().st_size < 1000


@pytest.mark.parametrize(
    ("fingerprint", "texts"),
    [
        ("other", TEXTS),
        ("letters", TEXTS[:2]),
        ("letters", [*TEXTS[:2], "tw", "o"]),
        ("letters", TEXTS[::-1]),
    ],
)
def test_another_encoder_and_other_texts_are_read(fingerprint: str, texts: list[str]) -> None:
    letters = Letters()
    cached_reading("letters", TEXTS, letters.encode)
    cached_reading(fingerprint, texts, letters.encode)
    assert letters.read == [TEXTS, texts]


def changed_number(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def foreign(file: Path) -> None:
    save_file({"vectors": np.ones((3, 3), dtype=np.float32)}, file)


def another_reading(file: Path) -> None:
    """A whole reading of other texts under this name."""
    letters = Letters()
    cached_reading("letters", ["b", "c", "d"], letters.encode)
    (other,) = set(file.parent.glob("*.safetensors")) - {file}
    file.write_bytes(other.read_bytes())
    other.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [changed_number, cut, foreign, another_reading, empty])
def test_a_damaged_or_foreign_file_is_replaced(
    damage: object, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    letters = Letters()
    first = cached_reading("letters", TEXTS, letters.encode)
    file = only_file(cache)
    damage(file)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(cached_reading("letters", TEXTS, letters.encode), first)
    assert letters.read == [TEXTS, TEXTS]
    assert f"{file} is damaged" in caplog.text
    np.testing.assert_array_equal(cached_reading("letters", TEXTS, letters.encode), first)
    assert letters.read == [TEXTS, TEXTS]


def test_a_cache_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert cached_reading("letters", TEXTS, Letters().encode).shape == (3, 3)
    assert "are not kept for the next time" in caplog.text


def test_the_folder_is_that_of_the_variable_or_of_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "cllm4rec" / "readings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "cllm4rec" / "readings"


@pytest.fixture
def world() -> Dataset:
    return taste_dataset(4, 40, 30, 10)


def test_a_model_is_loaded_for_new_readings_only(
    world: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = Pretrained.load

    def spied(pretrained: Pretrained, *arguments: object) -> object:
        loads.append(pretrained)
        return load(pretrained, *arguments)

    monkeypatch.setattr(Pretrained, "load", spied)
    folder = str(save_language_model(tmp_path / "model"))
    first = item_vectors(world, folder)
    assert len(loads) == 1
    np.testing.assert_array_equal(item_vectors(world, folder).values, first.values)
    item_vectors(world.train, folder, depth=0.6, standardise=False)  # the same layer
    assert len(loads) == 1
    for settings in ({"depth": 1.0}, {"fields": ["title"]}):
        item_vectors(world, folder, **settings)
    other = str(save_language_model(tmp_path / "other", seed=1))
    item_vectors(world, other)
    assert len(loads) == 4
    assert len(list(cache.glob("*.safetensors"))) == 4
