"""Random events, datasets that `prepare` makes, and comparisons of datasets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from cllm4rec import prepare
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.description import DatasetDescription


def event_frame(rows: Sequence[tuple[object, ...]], *columns: str) -> pl.DataFrame:
    """Rows of (user id, item id, *columns) as a table of events."""
    return pl.DataFrame(rows, schema=["user_id", "item_id", *columns], orient="row")


def random_events(seed: int = 0, n_users: int = 30, n_items: int = 25, reviews: bool = True) -> pl.DataFrame:
    """Events with ids as text, many equal timestamps, and a review that names its user and item."""
    generator = np.random.default_rng(seed)
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": int(generator.integers(1000, 1040))}
        for user in range(n_users)
        for item in generator.choice(n_items, int(generator.integers(1, n_items)), replace=False)
    ]
    frame = pl.DataFrame(rows)
    return frame.with_columns(review_text=pl.format("{} on {}", "user_id", "item_id")) if reviews else frame


def prepared(events: Path, output: Path, *flags: object) -> Dataset:
    """The dataset that `prepare` makes of a file of events."""
    prepare.main(["--interactions", str(events), "--output", str(output), *map(str, flags)])
    return Dataset.load(output)


def parts_by_ids(dataset: Dataset) -> dict[tuple[object, object], int]:
    """(user id, item id) -> part."""
    users = dataset.user_ids.names(dataset.interactions.users).to_list()
    items = dataset.item_ids.names(dataset.interactions.items).to_list()
    return dict(zip(zip(users, items, strict=True), dataset.part.tolist(), strict=True))


def description_of(dataset: Dataset) -> DatasetDescription:
    """The description of a dataset that was made with a split."""
    assert dataset.description is not None
    return dataset.description


def size(dataset: Dataset) -> tuple[int, int, int]:
    """Numbers of users, items and events."""
    return dataset.n_users, dataset.n_items, len(dataset.interactions)


def same_dataset(first: Dataset, second: Dataset) -> bool:
    """Whether two datasets are equal in all but their description, types included."""
    a, b = first.interactions, second.interactions
    return (
        first.users.equals(second.users)
        and first.items.equals(second.items)
        and first.users.schema == second.users.schema
        and first.items.schema == second.items.schema
        and np.array_equal(a.users, b.users)
        and np.array_equal(a.items, b.items)
        and (a.times is None) == (b.times is None)
        and (a.times is None or np.array_equal(a.times, b.times))
        and (a.reviews is None) == (b.reviews is None)
        and (a.reviews is None or a.reviews.to_list() == b.reviews.to_list())
        and np.array_equal(first.part, second.part)
        and (first.n_users, first.n_items) == (second.n_users, second.n_items)
    )


def numbered_dataset(titled: bool = False) -> Dataset:
    """Users 0 .. 5 and items 0 .. 9, whose ids are whole numbers."""
    pairs = [(user, (user * 3 + step) % 10) for user in range(6) for step in range(4)]
    events = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    items = pl.DataFrame({"item_id": range(10), "title": [f"Title {item}" for item in range(10)]})
    return Dataset.from_frame(events, items if titled else None)
