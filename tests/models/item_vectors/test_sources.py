"""What is read from texts: words of training items, whitened vectors, and requests that cannot be met."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.item_vectors.config import ItemTextConfig
from cllm4rec.models.item_vectors.sources import check_sources, item_sources, user_sources, whitened
from cllm4rec.models.readings.item_texts import ItemVectors
from tests.support.backbones import save_backbone
from tests.support.commands import call
from tests.support.reviewed_books import reviewed_books
from tests.support.tables import refused


def vectors_of(values: np.ndarray, present: np.ndarray) -> ItemVectors:
    """Vectors of numbered items."""
    return ItemVectors(pl.Series("item_id", range(len(values))), values.astype(np.float32), present)


def test_whitened_vectors_have_no_covariance_over_the_training_items() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(60, 4)) @ generator.normal(size=(4, 4)) + 3
    values[:, 3] = values[:, 2]  # one direction without variance
    rows, present = np.arange(60) < 50, np.arange(60) != 7
    white = whitened(vectors_of(values, present), rows)
    assert white.shape == (60, 3)
    chosen = white[rows & present]
    np.testing.assert_allclose(chosen.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(chosen, rowvar=False, bias=True), np.eye(3), atol=1e-4)
    assert not white[7].any()
    assert white[55].any(), "an item without training events has a vector too"


def test_whitening_does_not_depend_on_items_without_training_events() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    rows, present = np.arange(30) < 20, np.ones(30, dtype=bool)
    before = whitened(vectors_of(values, present), rows)
    values[25] = 100
    np.testing.assert_array_equal(whitened(vectors_of(values, present), rows)[:25], before[:25])
    line = refused(whitened, vectors_of(values, ~present), rows)
    assert "no item with a training event has a vector" in line
    equal = vectors_of(np.ones((30, 3)), present)
    assert "the vectors of all items with training events are equal" in refused(whitened, equal, rows)


def test_parts_are_read_as_asked(tmp_path: Path) -> None:
    train = reviewed_books().train
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(train.n_items, 4)))
    file = str(tmp_path / "vectors.npy")

    def parts(**settings: Any) -> tuple[bool, bool]:
        sources = item_sources(ItemTextConfig(**settings), train)
        return sources.words is not None, sources.vectors is not None

    assert parts(item_text="none") == (False, False)
    assert parts(item_text="words") == (True, False)
    assert parts(item_text="auto") == (True, False)
    assert parts(item_text="auto", item_vectors=file) == (True, True)
    assert parts(item_text="both", item_vectors=file) == (True, True)
    assert parts(item_text="vectors", item_vectors=file) == (False, True)
    assert user_sources(ItemTextConfig(item_text="auto"), train).words is not None
    assert user_sources(ItemTextConfig(item_text="none"), train).words is None


def test_what_is_not_there_is_refused() -> None:
    events = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "part": ["train"] * 3})
    bare = Dataset.from_frame(events).train
    assert item_sources(ItemTextConfig(item_text="auto"), bare).words is None
    line = refused(item_sources, ItemTextConfig(item_text="words"), bare)
    assert line.startswith("`item_text=words`: no word is in the texts of three items")
    line = refused(item_sources, ItemTextConfig(item_text="vectors"), bare)
    assert line.startswith("`item_text=vectors` needs a source of vectors")
    for settings in ({"encoder": "a"}, {"item_vectors": "a.npy"}):
        with pytest.raises(ValueError, match="has no effect with `item_text=none`"):
            ItemTextConfig(**settings)
    with pytest.raises(ValueError, match="`encoder` and `item_vectors` are both given"):
        ItemTextConfig(item_text="auto", encoder="a", item_vectors="b.npy")


def test_a_default_encoder_reads_texts_that_differ_if_none_is_asked_for(tmp_path: Path) -> None:
    """Where `item_text` asks for vectors, they are refused instead."""
    encoder = str(save_backbone(tmp_path))
    events = pl.DataFrame(
        {"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 3], "part": ["train"] * 3 + ["test"]}
    )
    for titles, is_read in (
        (["a sea", "a river", ""], True),
        (["a sea", "a sea", "a wood"], False),
        (None, False),
    ):
        items = None if titles is None else pl.DataFrame({"item_id": [1, 2, 3], "title": titles})
        train = Dataset.from_frame(events, items).train
        check_sources(ItemTextConfig(item_text="auto"), train, encoder)
        sources = item_sources(ItemTextConfig(item_text="auto"), train, encoder)
        assert (sources.vectors is not None) == is_read
    for ask in (check_sources, item_sources):
        assert "no item has a text" in refused(ask, ItemTextConfig(item_text="vectors"), train, encoder)


@pytest.mark.parametrize("system", ["cllm4rec", "bag", "sasrec"])
def test_a_source_that_is_not_there_is_refused_before_a_folder_is_made(system: str, tmp_path: Path) -> None:
    reviewed_books().save(tmp_path / "data")
    run = ["pretrain", "--dataset", tmp_path / "data", "--output", tmp_path / "run", "--system", system]
    for flag, value in (("--encoder", tmp_path / "absent"), ("--item-vectors", tmp_path / "absent.npy")):
        line = refused(lambda flag=flag, value=value: call(*run, "--item-text", "vectors", flag, value))
        assert str(value) in line
        assert not (tmp_path / "run").exists()
    line = refused(lambda: call(*run, "--item-text", "vectors"))
    assert line.startswith("--item-text vectors needs a source of vectors")
    assert not (tmp_path / "run").exists()
