"""Synthetic datasets with a known ground truth, for tests and the demonstration."""

from dataclasses import dataclass

import numpy as np
import polars as pl

GENRES = {  # genre -> words of its titles and reviews
    "mystery": "Shadow Detective Clue Harbour Alibi Fog Witness Cellar Lantern Whisper Poison Manor",
    "romance": "Heart Summer Letter Kiss Promise Rose Wedding Dance Moonlight Longing Garden Embrace",
    "space": "Orbit Star Comet Galaxy Rocket Nebula Colony Signal Gravity Eclipse Pilot Horizon",
    "cooking": "Kitchen Spice Bread Harvest Butter Recipe Oven Supper Ginger Pepper Market Feast",
    "history": "Empire Crown Siege Archive Treaty Legion Revolt Palace Dynasty Ruin Frontier Chronicle",
    "nature": "River Forest Owl Meadow Glacier Fern Otter Island Moss Canyon Heron Tide",
    "horror": "Grave Hollow Crypt Scream Raven Haunt Curse Bone Midnight Mirror Phantom Attic",
    "business": "Market Ledger Startup Boardroom Profit Venture Broker Merger Strategy Founder Audit Capital",
}
FILLERS = "Last Silent Little Lost Golden Hidden Broken Distant First Winter Secret Wild".split()
PRAISE = "wonderful gripping delightful brilliant memorable".split()
BLAME = "slow dull confusing thin tedious".split()


@dataclass(frozen=True)
class TasteWorld:
    """Users with tastes, items with titles and descriptions, and reviews that reflect both.

    Attributes:
        events: user_id, item_id, rating, timestamp, review_text.
        items: item_id, title, description, categories.
        preference: float64 (n_users, n_items), log-probability with which a user takes an item.
        user_ids, item_ids: ids of its rows and columns.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    preference: np.ndarray
    user_ids: list[str]
    item_ids: list[str]


def taste_world(
    seed: int = 0, n_users: int = 500, n_items: int = 300, n_events: int = 24, n_rare: int = 0
) -> TasteWorld:
    """A bookshop: every book mixes two genres, every reader likes a few.

    A reader takes books without replacement, in proportion to exp(liking). The liking is
    6 <tastes of the reader, genres of the book> + popularity of the book. Of a rare book it is
    9 <tastes, genres> + popularity - 4: it is for readers of little else than its genres.

    Args:
        seed: determines the world.
        n_users, n_items: numbers of readers and books.
        n_events: mean number of books per reader. The number is 5 plus a geometric variable, at most
            n_items // 3.
        n_rare: number of rare books.
    """
    generator = np.random.default_rng(seed)
    names = list(GENRES)
    tastes = generator.dirichlet(np.full(len(names), 0.25), n_users)  # (n_users, genres)
    main = generator.integers(0, len(names), n_items)
    side = (main + generator.integers(1, len(names), n_items)) % len(names)
    share = generator.uniform(0.6, 0.95, n_items)
    genres = np.zeros((n_items, len(names)))
    genres[np.arange(n_items), main] = share
    genres[np.arange(n_items), side] += 1 - share
    liking = 6.0 * tastes @ genres.T  # (n_users, n_items)
    liking[:, :n_rare] = 1.5 * liking[:, :n_rare] - 4.0
    liking += generator.normal(0.0, 0.9, n_items)
    preference = liking - np.log(np.exp(liking).sum(1, keepdims=True))
    counts = np.clip(5 + generator.geometric(1 / max(1, n_events - 5), n_users), 5, n_items // 3)
    # Gumbel top-k: sorting perturbed log-probabilities samples without replacement.
    drawn = np.argsort(-(preference + generator.gumbel(size=preference.shape)), axis=1)  # (n_users, n_items)
    users = np.repeat(np.arange(n_users), counts)
    items = np.concatenate([drawn[user, :count] for user, count in enumerate(counts)])
    user_ids = [f"reader-{number:04d}" for number in generator.permutation(n_users)]
    item_ids = [f"book-{number:04d}" for number in generator.permutation(n_items)]
    titles, descriptions = _describe(main, side, generator)
    match = (tastes[users] * genres[items]).sum(1)  # (n_events,)
    ratings = np.clip(np.rint(3.0 + 3.0 * match + generator.normal(0, 0.7, len(users))), 1, 5)
    events = pl.DataFrame(
        {
            "user_id": [user_ids[user] for user in users],
            "item_id": [item_ids[item] for item in items],
            "rating": ratings.astype(int),
            "timestamp": 1_600_000_000 + generator.integers(0, 50_000_000, len(users)),
            "review_text": [
                _review(titles[item], names[main[item]], match[event], generator)
                for event, item in enumerate(items)
            ],
        }
    )
    table = {"item_id": item_ids, "title": titles, "description": descriptions}
    table["categories"] = [
        f"{names[main_genre]}, {names[side_genre]}" for main_genre, side_genre in zip(main, side, strict=True)
    ]
    return TasteWorld(events.sort("timestamp"), pl.DataFrame(table), preference, user_ids, item_ids)


def _describe(
    main: np.ndarray, side: np.ndarray, generator: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Titles and descriptions of books by their main and side genres, both (n_items,)."""
    words = [text.split() for text in GENRES.values()]
    names = list(GENRES)
    titles, descriptions = [], []
    for main_genre, side_genre in zip(main, side, strict=True):
        first, second, third = generator.choice(words[main_genre], 3, replace=False)
        other = generator.choice(words[side_genre])
        filler, last = generator.choice(FILLERS), second if generator.random() < 0.6 else other
        titles.append(f"The {filler} {first} and the {last}")
        description = f"A book of {names[main_genre]} with a touch of {names[side_genre]}: "
        descriptions.append((description + f"{first}, {second}, {third} and {other}.").lower())
    return titles, descriptions


def _review(title: str, genre: str, match: float, generator: np.random.Generator) -> str:
    """A review, the likelier to praise the better taste and genres match."""
    word = generator.choice(GENRES[genre].split()).lower()
    if generator.random() < 0.25 + 0.7 * min(1.0, match * 1.5):
        return f"{generator.choice(PRAISE)} {genre}, I loved the {word} in {title}"
    return f"{generator.choice(BLAME)}, too much {genre} and too little {word} for me"


def checkerboard(n_users: int = 60, n_items: int = 40) -> pl.DataFrame:
    """Events in which even users take all even items and odd users all odd items.

    Held-out items are predictable up to their order.
    """
    return pl.DataFrame(
        [
            {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": 1000 * user + item}
            for user in range(n_users)
            for item in range(n_items)
            if user % 2 == item % 2
        ]
    )


def shuffled_items(events: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """The events with every item replaced by a random one, a control on which every system is at chance.

    Items are drawn uniformly, so that popularity cannot be learned either. A user's repeats are dropped.
    """
    generator = np.random.default_rng(seed)
    catalogue = events["item_id"].unique().sort()
    drawn = catalogue.gather(generator.integers(0, len(catalogue), len(events)))
    return events.with_columns(drawn.alias("item_id")).unique(
        ["user_id", "item_id"], keep="first", maintain_order=True
    )
