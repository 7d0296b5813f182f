"""The texts of items, and their vectors by an encoder of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import polars as pl
import scipy.sparse as sp

from cllm4rec.data.audit import learns_from
from cllm4rec.data.column_names import ITEM_TEXTS
from cllm4rec.data.dataset import Dataset
from cllm4rec.messages import counted, join_names, shorten
from cllm4rec.models.readings.cache import cached_reading

CONSTANT = 1e-6  # a deviation below this share of the numbers is rounding
NO_TEXT = (
    "no item has a text: prepare the dataset with a table of items that has titles, or give vectors of your "
    "own"
)
FIRST_FIELDS = ("title", "year", "brand", "categories")  # the order in an item's text; then the others


class TextEncoder(Protocol):
    """What gives texts their vectors: a language model, a sentence encoder, or an object of the caller."""

    @property
    def fingerprint(self) -> str:
        """Differs between encoders that give a text different vectors."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 (n, d). A text without words has zeros."""
        ...


@dataclass(frozen=True)
class ItemVectors:
    """A vector for each item.

    Attributes:
        item_ids: external ids (n_items,), in the order of item numbers.
        values: float32 (n_items, d); zeros for an item without a vector.
        present: bool (n_items,), True for items that have a vector.
    """

    item_ids: pl.Series
    values: np.ndarray
    present: np.ndarray

    def standardised(self, rows: np.ndarray) -> "ItemVectors":
        """The vectors with mean 0 and variance 1 in each dimension over some items.

        A dimension that is constant over these items becomes zero. So does an item without a vector.

        Args:
            rows: bool (n_items,), the items that learning may see. Those without a vector are left out.

        Raises:
            ValueError: none of these items has a vector.
        """
        chosen = self.values[rows & self.present].astype(np.float64)
        if not len(chosen):
            raise ValueError("no item with a training event has a vector, so that none can be standardised")
        mean, deviation = chosen.mean(0), chosen.std(0)  # (d,)
        varies = deviation > CONSTANT * np.abs(mean)
        scale = np.where(varies, 1 / np.where(varies, deviation, 1.0), 0.0)
        values = ((self.values - mean) * scale * self.present[:, None]).astype(np.float32)
        return ItemVectors(self.item_ids, values, self.present)


@dataclass(frozen=True)
class ItemTexts:
    """Texts of items: `Alien (1979). Fox. Horror, Science Fiction. A crew meets ...`, or reviews.

    Attributes:
        item_ids: external ids (n_items,), in the order of item numbers.
        texts: not empty, (n,).
        items: int64 (n,), number of the item of each.
    """

    item_ids: pl.Series
    texts: list[str]
    items: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, fields: Sequence[str] | None = None) -> "ItemTexts":
        """The texts of a dataset's items: title, year in brackets, brand, categories, description.

        Fields are separated by a full stop and a space. A year that is in the title is not repeated. Where no
        item has a text, the reviews of training events are read.

        Args:
            dataset: whose items have text columns, or whose events have reviews.
            fields: the text columns to read, in any order; by default all, or else reviews.

        Raises:
            ValueError: a field is none of the dataset's, or there is no text.
        """
        texts = item_texts(dataset, fields)
        if fields is None and not any(texts):
            return cls._of_reviews(dataset.train)
        items = np.flatnonzero([bool(text) for text in texts])
        if not len(items):
            raise ValueError(NO_TEXT)
        return cls(dataset.item_ids.ids, [texts[item] for item in items], items)

    @classmethod
    def _of_reviews(cls, train: Dataset) -> "ItemTexts":
        learns_from("reviews and texts", train.interactions)
        reviews = train.interactions.reviews
        texts = [] if reviews is None else [review.strip() for review in reviews.to_list()]
        events = np.flatnonzero([bool(text) for text in texts])
        if not len(events):
            raise ValueError(NO_TEXT)
        return cls(train.item_ids.ids, [texts[event] for event in events], train.interactions.items[events])

    def vectors(self, encoder: TextEncoder) -> ItemVectors:
        """The encoder's vector of each item's text, not standardised; the mean of those of its reviews.

        Each distinct text is read once. The vectors are kept in the cache of readings (`cache`).

        Raises:
            ValueError: the encoder gives something else than finite numbers (n, d).
        """
        distinct = sorted({*self.texts})
        read = cached_reading(encoder.fingerprint, distinct, partial(_encoded, encoder))
        rows = {text: row for row, text in enumerate(distinct)}
        numbers = np.array([rows[text] for text in self.texts])
        said = np.any(read[numbers], axis=1)  # (n,), whether a text has words for the encoder
        n_items = len(self.item_ids)
        counts = np.bincount(self.items[said], minlength=n_items)
        entries = np.ones(int(said.sum())), (self.items[said], numbers[said])
        sums = sp.csr_matrix(entries, (n_items, len(distinct))) @ read.astype(np.float64)
        values = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        return ItemVectors(self.item_ids, values, counts > 0)


def item_texts(dataset: Dataset, fields: Sequence[str] | None = None) -> list[str]:
    """The text of each item from its columns, as in `ItemTexts.of`, "" where it has none.

    Raises:
        ValueError: a field is none of the dataset's.
    """
    columns = [name for name in ITEM_TEXTS if name in dataset.items.columns]
    for name in [] if fields is None else fields:
        if name not in columns:
            has = f"the dataset has {join_names(columns)}" if columns else "the dataset has no texts"
            raise ValueError(f"`fields`: items have no {shorten(repr(name))}: {has}")
    wanted = [name for name in columns if fields is None or name in fields]
    ordered = [name for name in FIRST_FIELDS if name in wanted]
    ordered += [name for name in wanted if name not in FIRST_FIELDS]
    rows = dataset.items.select(ordered).iter_rows(named=True) if ordered else [{}] * dataset.n_items
    return [_worded(row) for row in rows]


def _encoded(encoder: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """The encoder's vectors of texts, float32 (n, d).

    Raises:
        ValueError: it gives something else.
    """
    vectors = np.asarray(encoder.encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ValueError(
            f"the encoder gave an array of shape {list(vectors.shape)} for {counted(len(texts), 'text')}: "
            "expected a row of finite numbers for each"
        )
    return vectors


def _worded(row: dict[str, str]) -> str:
    """The text of an item.

    Args:
        row: field -> text, in the order in which they are read.
    """
    texts = {name: text.strip() for name, text in row.items() if text.strip()}
    year, title = texts.pop("year", ""), texts.get("title")
    if year and title is None:
        texts = {"year": year, **texts}
    elif title is not None and year not in title:
        texts["title"] = f"{title} ({year})"
    *first, last = texts.values() or [""]
    return "".join(f"{text.rstrip('.')}. " for text in first) + last
