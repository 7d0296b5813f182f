"""A small dataset with reviews, titles and biographies in all parts."""

from functools import cache

import numpy as np
import polars as pl

from cllm4rec.data.dataset import Dataset


@cache
def reviewed_books() -> Dataset:
    """Nine users with events in all parts and texts of every kind; the tenth has one training event."""
    generator = np.random.default_rng(5)
    events = [{"user_id": "u9", "item_id": "i3", "part": "train", "review_text": "one book is enough"}]
    for user in range(9):
        parts = ["train"] * (4 + user % 4) + ["validation"] * 2 + ["test"] * (2 + user % 2)
        for item, part in zip(generator.choice(16, len(parts), replace=False), parts, strict=True):
            review = f"user {user} thinks book {item} is {'good' if item % 2 else 'rather long'}"
            events.append({"user_id": f"u{user}", "item_id": f"i{item}", "part": part, "review_text": review})
    items = [{"item_id": f"i{item}", "title": f"the {item}th book of sand"} for item in range(16)]
    users = [{"user_id": f"u{user}", "biography": f"reads {user} books a week"} for user in range(10)]
    return Dataset.from_frame(pl.DataFrame(events), pl.DataFrame(items), pl.DataFrame(users))
