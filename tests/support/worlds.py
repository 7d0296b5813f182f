"""Small datasets with known properties, and changed copies of datasets."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.synthetic import taste_world


@cache
def taste_dataset(
    seed: int = 1, n_users: int = 80, n_items: int = 60, n_events: int = 12, split: str = "random"
) -> Dataset:
    """Readers with tastes, books with titles, texts and reviews; n_events is the mean history length."""
    world = taste_world(seed, n_users, n_items, n_events)
    return Dataset.from_frame(world.events, world.items, split=split)


def cycle_dataset(titled: bool = False, at_random: bool = False) -> Dataset:
    """60 users follow one cycle of 20 items from different starts: the next item is certain.

    At random, each user takes nine of the 20 items at random.
    """
    generator = np.random.default_rng(0)
    events = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{item if at_random else (user + step) % 20}",
            "timestamp": step,
        }
        for user in range(60)
        for step, item in enumerate(generator.permutation(20)[:9].tolist())
    ]
    items = pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(20)], "title": [f"Place {n}" for n in range(20)]}
    )
    return Dataset.from_frame(pl.DataFrame(events), items if titled else None, split="leave-last-out")


def with_user(dataset: Dataset, user_id: str, history: np.ndarray) -> Dataset:
    """The dataset with one more user, who took the items of `history`."""
    events, n = dataset.interactions, len(history)
    interactions = Interactions(
        np.append(events.users, np.full(n, dataset.n_users)),
        np.append(events.items, history),
        dataset.n_users + 1,
        dataset.n_items,
        None if events.times is None else np.append(events.times, np.arange(n) + 2_000_000_000),
        None if events.reviews is None else pl.concat([events.reviews, pl.Series([""] * n, dtype=pl.String)]),
    )
    users = pl.concat([dataset.users, pl.DataFrame({"user_id": [user_id]})], how="diagonal")
    part = np.append(dataset.part, np.zeros(n, np.uint8))
    return replace(dataset, interactions=interactions, users=users, part=part)


def with_other_test_events(dataset: Dataset) -> Dataset:
    """The dataset with other items in its test events; the users' numbers of events stay."""
    events, taken = dataset.interactions, set()
    items = events.items.copy()
    known = {(user, item) for user, item in zip(events.users.tolist(), items.tolist(), strict=True)}
    for number in np.flatnonzero(dataset.part == 2):
        user = int(events.users[number])
        item = next(item for item in range(dataset.n_items) if (user, item) not in known | taken)
        taken.add((user, item))
        items[number] = item
    interactions = Interactions(
        events.users, items, events.n_users, events.n_items, events.times, events.reviews
    )
    return replace(dataset, interactions=interactions, stored_hashes=None)


def renumbered(dataset: Dataset, order: np.ndarray) -> Dataset:
    """The same events; the item that had number order[j] has number j."""
    new_number = np.argsort(order)
    interactions = replace(dataset.interactions, items=new_number[dataset.interactions.items])
    return replace(dataset, interactions=interactions, items=dataset.items[order])
