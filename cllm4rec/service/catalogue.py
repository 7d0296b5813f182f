"""What can be looked up: items, users, histories and the map."""

from collections.abc import Sequence
from unicodedata import normalize
from weakref import ref

import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Recommender


def found_items(model: Recommender, text: str, k: int) -> pl.DataFrame:
    """The first k items whose id or title has a text, without regard to case."""
    return _found(_titled(model.items), text, k)


def items_of(model: Recommender, ids: Sequence[str]) -> pl.DataFrame:
    """Items by their ids.

    Raises:
        ValueError: an id is unknown.
    """
    return _titled(model.items)[model.item_ids.index(ids, "item").tolist()]


def found_users(model: Recommender, text: str, k: int) -> list[str | int]:
    """The first k ids of users of the dataset that have a text, without regard to case.

    Raises:
        ValueError: the dataset is not known.
    """
    ids = known_dataset(model).user_ids.ids
    return list(_found(pl.DataFrame({"user_id": ids}), text, k)["user_id"])


def history_of(model: Recommender, user: str, k: int) -> pl.DataFrame:
    """The latest k items of a user of the dataset, the oldest first.

    Raises:
        ValueError: the dataset is not known, or has no such user.
    """
    known_dataset(model)
    return model.history(user).tail(k)


def known_dataset(model: Recommender) -> Dataset:
    """The dataset of the run.

    Raises:
        ValueError: it is not known. The path where it was is left to the log.
    """
    try:
        return model._source_dataset()
    except ValueError as error:
        raise ValueError(
            "no users are served, only histories and wishes, as the dataset of the run is not there: give a "
            "history"
        ) from error


class KeptMap:
    """The map of the items of the model that is served, which is computed once."""

    def __init__(self) -> None:
        self._kept: tuple[ref[Recommender], pl.DataFrame, float] | None = None

    def of(self, model: Recommender, k: int, ids: Sequence[str] | None) -> dict[str, object]:
        """The fields of an `ItemMap` with some of the items.

        Args:
            model: the one that is served.
            k: the first k items by a hash of their ids, which are a random sample, if `ids` are not given.
            ids: of the items.

        Raises:
            ValueError: the model has no item vectors, or an id is unknown.
        """
        if self._kept is None or self._kept[0]() is not model:
            self._kept = ref(model), *model.item_map()
        _, table, share = self._kept
        numbers = model.tie_order.argsort()[:k] if ids is None else model.item_ids.index(ids, "item")
        rows = table[numbers.tolist()]
        return {"items": rows.to_dicts(), "n_items": len(table), "variance": share}


def _found(table: pl.DataFrame, text: str, k: int) -> pl.DataFrame:
    """The first k rows with a text in a column: first the text alone, then those that begin with it."""
    lower = [pl.col(name).cast(pl.String).str.normalize("NFC").str.to_lowercase() for name in table.columns]
    sought = normalize("NFC", text).lower()
    tests = (
        pl.any_horizontal(column == sought for column in lower),
        pl.any_horizontal(column.str.starts_with(sought) for column in lower),
    )
    rows = table.lazy().filter(pl.any_horizontal(each.str.contains(sought, literal=True) for each in lower))
    return rows.sort(tests, descending=True, nulls_last=True, maintain_order=True).head(k).collect()


def _titled(items: pl.DataFrame) -> pl.DataFrame:
    return items.select(name for name in ("item_id", "title") if name in items.columns)
