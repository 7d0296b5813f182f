"""Held-out reviews that also stand in texts of training: in other reviews, or in texts of users and items."""

from dataclasses import dataclass

import polars as pl

from cllm4rec.data.column_names import ITEM_TEXTS, USER_TEXTS
from cllm4rec.data.dataset import Dataset

FEWEST_WORDS = 8  # of a review: shorter ones are alike by chance
OPENING = 40  # characters by which reviews are looked for in texts
REVIEWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class ReviewCopy:
    """A held-out review that also stands elsewhere.

    Attributes:
        user, item: external ids of its event.
        place: where it stands, in words.
    """

    user: object
    item: object
    place: str

    def __str__(self) -> str:
        return f"the review of user {self.user!r} and item {self.item!r} is in {self.place}"


def copied_reviews(dataset: Dataset) -> list[ReviewCopy]:
    """The held-out reviews of a dataset that training reads under another name.

    Letter case and white space do not count. A review of fewer than FEWEST_WORDS words is not looked for. In
    training reviews it is found as the whole text, in texts of users and items as a part too.
    """
    held_out = dataset.only("validation", "test").interactions
    if held_out.reviews is None:
        return []
    reviews = (
        pl.DataFrame({"user": held_out.users, "item": held_out.items, "text": _normal(held_out.reviews)})
        .filter(pl.col("text").str.count_matches(" ") >= FEWEST_WORDS - 1)
        .with_row_index("review")
    )
    train = dataset.train.interactions
    assert train.reviews is not None
    training = pl.DataFrame({"text": _normal(train.reviews).unique(), "place": "a training review"})
    found = [reviews.join(training, on="text")]
    for table, names in ((dataset.items, ITEM_TEXTS), (dataset.users, USER_TEXTS)):
        for name in names:
            if name in table.columns:
                found.append(_within(reviews, _normal(table[name]), f"a text of the column {name}"))
    rows = pl.concat([each.select("review", "user", "item", "place") for each in found])
    rows = rows.unique("review", keep="first", maintain_order=True).sort("review")
    users, items = (
        dataset.user_ids.names(rows["user"].to_numpy()),
        dataset.item_ids.names(rows["item"].to_numpy()),
    )
    return [ReviewCopy(*row) for row in zip(users, items, rows["place"], strict=True)]


def _normal(texts: pl.Series) -> pl.Series:
    """Texts in lower case, with single spaces."""
    return texts.str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def _within(reviews: pl.DataFrame, texts: pl.Series, place: str) -> pl.DataFrame:
    """The rows of `reviews` whose text is in one of the texts."""
    openings = reviews.with_columns(opening=pl.col("text").str.slice(0, OPENING))
    distinct, frame = openings["opening"].unique(), pl.DataFrame({"where": texts})
    found = [openings.head(0).with_columns(where=pl.lit(""))]
    for start in range(0, len(distinct), REVIEWS_AT_ONCE):
        patterns = distinct.slice(start, REVIEWS_AT_ONCE)
        hits = frame.with_columns(
            opening=pl.col("where").str.extract_many(patterns.implode(), overlapping=True)
        ).explode("opening")
        found.append(openings.join(hits.drop_nulls("opening"), on="opening"))
    candidates = pl.concat([each.select("review", "user", "item", "text", "where") for each in found])
    return candidates.filter(pl.col("where").str.contains(pl.col("text"), literal=True)).with_columns(
        place=pl.lit(place)
    )
