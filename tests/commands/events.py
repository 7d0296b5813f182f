"""Events and items with ids that files, shells and terminals may change."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

USERS = [
    "007", "7", "a b", " leading", "trailing ", "🦊", "Zoë", 'q"uote', "comma,id", "-minus", "NULL",
    "user_3", "x", "y",
]  # fmt: skip
ITEMS = [
    "0001", "1", "two words", "🐟", "it,em", "é", "null", "item_7",
    *(f"i{number}" for number in range(16)),
]  # fmt: skip


def title(item_id: str) -> str:
    return f'The "Book", of {item_id}'


def write_events(path: Path, **columns: Callable[[int, int], object]) -> Path:
    """Write events in which each user takes half of the items."""
    rows = []
    for user, user_id in enumerate(USERS):
        for rank in range(12):
            item = (5 * user + 7 * rank) % len(ITEMS)
            row = {"user_id": user_id, "item_id": ITEMS[item]}
            rows.append(row | {name: value(user, item) for name, value in columns.items()})
    write_csv(path, rows)
    return path


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
