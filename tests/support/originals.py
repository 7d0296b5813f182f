"""Small files in the forms that GroupLens and McAuley's group publish, and the split of their events."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Event = tuple[str, str, int, int]  # user, item, rating, time
Rows = dict[tuple[str, str], str]  # user, item -> part


def movielens_events() -> list[Event]:
    """Six users who rate items 1 to 6, in no order; all events of user 10 have one time.

    User 1 rates item 6 again. Item 7 has one rating of 3, user 30 two events.
    """
    users, items = ("10", "2", "9", "100", "1", "21"), ("6", "3", "1", "5", "2", "4")
    events = [
        (
            user,
            item,
            4 + (row + column) % 2,
            880_000_000 + (0 if user == "10" else (7 * row + 5 * column) % 11),
        )
        for column, item in enumerate(items)
        for row, user in enumerate(users)
    ]
    others = [("1", "6", 1, 880_000_099), ("2", "7", 3, 880_000_001), ("30", "1", 5, 880_000_002)]
    return [*events[:20], *others, *events[20:], ("30", "2", 5, 880_000_001)]


def write_movielens_100k(folder: Path) -> list[Event]:
    """u.data and u.item (latin-1). Item 6 has no row, item 9 no event, item 3 no year."""
    events = movielens_events()
    (folder / "u.data").write_text("".join("\t".join(map(str, event)) + "\n" for event in events))
    titles = {"1": "Misérables, Les (1995)", "2": "GoldenEye (1995) ", "3": "unknown", "4": "Heat (1995)"}
    titles |= {"5": "Fargo (1996)", "7": "Big (1988)", "9": "Tron (1982)"}
    flags = "0|0|1|1|1|" + "0|" * 13 + "0"
    lines = [
        f"{item}|{title}|01-Jan-1997||http://us.imdb.com/{item}|{flags}" for item, title in titles.items()
    ]
    (folder / "u.item").write_bytes("".join(line + "\n" for line in lines).encode("latin-1"))
    return events


def write_movielens_1m(folder: Path) -> list[Event]:
    """ratings.dat and movies.dat (latin-1), with `::` between cells."""
    events = movielens_events()
    (folder / "ratings.dat").write_text("".join("::".join(map(str, event)) + "\n" for event in events))
    titles = ("Toy Story (1995)", "Amélie: Le Fabuleux destin (2001)", "Heat (1995)")
    lines = [f"{item}::{title}::Action|Sci-Fi\n" for item, title in enumerate(titles, 1)]
    (folder / "movies.dat").write_bytes("".join(lines).encode("latin-1"))
    return events


def write_amazon(folder: Path, category: str, meta: bool = True) -> list[Event]:
    """Reviews as JSON lines and metadata as lines of Python dicts, both gzip. Days tie.

    Item B3 has no title, B4 no metadata, B9 no reviews.
    """
    events = [
        (f"A{user}", f"B{item}", 1 + (user + item) % 5, 1_300_000_000 + 86_400 * ((user * item) % 3))
        for item in range(1, 6)
        for user in (30, 4, 21, 100)
    ]
    lines = [
        {
            "reviewerID": user,
            "asin": item,
            "reviewerName": 'J. "Joe" Doe',
            "helpful": [0, 1],
            "reviewText": f'{user}\tsays "good":\nof {item}',
            "overall": float(rating),
            "summary": "good",
            "unixReviewTime": time,
            "reviewTime": "03 13, 2011",
        }
        for user, item, rating, time in events
    ]
    write_lines(folder / f"reviews_{category}_5.json.gz", map(json.dumps, lines))
    if meta:
        titles = {"B1": "Kid's brush", "B2": 'Comb, 5"', "B5": "Soap\nfor men", "B9": "Towel"}
        records = [
            {"asin": item, "title": title, "categories": [[category]]} for item, title in titles.items()
        ]
        records.append({"asin": "B3", "price": 3.5, "related": {"also_bought": ["B1"]}})
        write_lines(folder / f"meta_{category}.json.gz", map(repr, records))
    return events


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines to a gzip file."""
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))


def split_by_hand(events: list[Event], seed: int) -> Rows:
    """Parts of the events by protocol A, user by user; whole numbers order users as such."""
    by_user: dict[str, list[tuple[int, str]]] = {}
    for user, item, _, time in events:
        by_user.setdefault(user, []).append((time, item))
    generator, parts = np.random.default_rng(seed), Rows()
    for user in sorted(by_user, key=lambda name: (int(name) if name.isdigit() else 0, name)):
        items = [item for _, item in sorted(by_user[user], key=lambda event: event[0])]
        order, n_held_out = generator.permutation(len(items)), max(1, round(len(items) / 10))
        for rank, index in enumerate(order.tolist()):
            part = "e" if rank < n_held_out else "v" if rank < 2 * n_held_out else "t"
            parts[user, items[index]] = part if len(items) >= 3 else "t"
    return parts
