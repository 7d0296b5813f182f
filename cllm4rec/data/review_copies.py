"""Held-out reviews that also occur in training texts: in other reviews, or in texts of users and items."""

from dataclasses import dataclass

import polars as pl

from cllm4rec.data.column_names import ITEM_TEXTS, USER_TEXTS
from cllm4rec.data.dataset import Dataset

# A review that reaches neither length is not looked for: it may equal others by chance.
FEWEST_WORDS, FEWEST_CHARACTERS = 8, 40
REVIEWS_AT_ONCE = 5_000
HTML_ENTITY, NO_WORD = r"&#?\w+;", r"[\W_]+"


@dataclass(frozen=True)
class ReviewCopy:
    """A held-out review that also occurs elsewhere.

    Attributes:
        user, item: external ids of its event.
        place: where it occurs, in words.
    """

    user: object
    item: object
    place: str

    def __str__(self) -> str:
        return f"the review of user {self.user!r} and item {self.item!r} is in {self.place}"


@dataclass(frozen=True)
class ReviewCopies:
    """The result of the search.

    Attributes:
        n_looked_for: held-out reviews that are long enough.
        copies: those that also occur elsewhere.
    """

    n_looked_for: int
    copies: list[ReviewCopy]


def copied_reviews(dataset: Dataset) -> ReviewCopies:
    """The held-out reviews of a dataset that training reads under another name.

    Letter case, white space, punctuation and HTML entities do not count. In training reviews a review is
    found as the whole text, in texts of users and items as a part too.
    """
    held_out, train = dataset.only("validation", "test").interactions, dataset.train.interactions
    if held_out.reviews is None or train.reviews is None:
        return ReviewCopies(0, [])
    is_long = (pl.col("text").str.count_matches(" ") >= FEWEST_WORDS - 1) | (
        pl.col("text").str.len_chars() >= FEWEST_CHARACTERS
    )
    reviews = (
        pl.DataFrame({"user": held_out.users, "item": held_out.items, "text": _normal(held_out.reviews)})
        .filter(is_long)
        .with_row_index("review")
    )
    training = pl.DataFrame({"text": _normal(train.reviews).unique(), "place": "a training review"})
    found = [reviews.join(training, on="text")]
    for table, names in ((dataset.items, ITEM_TEXTS), (dataset.users, USER_TEXTS)):
        for name in names:
            if name in table.columns:
                place = pl.lit(f"a text of the column {name}").alias("place")
                found.append(_within(reviews, _normal(table[name])).with_columns(place))
    rows = pl.concat([each.select("review", "user", "item", "place") for each in found])
    rows = rows.unique("review", keep="first", maintain_order=True).sort("review")
    users = dataset.user_ids.names(rows["user"].to_numpy())
    items = dataset.item_ids.names(rows["item"].to_numpy())
    copies = [ReviewCopy(*row) for row in zip(users, items, rows["place"], strict=True)]
    return ReviewCopies(len(reviews), copies)


def _normal(texts: pl.Series) -> pl.Series:
    """The words of texts in lower case, in composed characters, with single spaces."""
    words = texts.str.normalize("NFC").str.to_lowercase().str.replace_all(HTML_ENTITY, " ")
    return words.str.replace_all(NO_WORD, " ").str.strip_chars()


def _within(reviews: pl.DataFrame, texts: pl.Series) -> pl.DataFrame:
    """The rows of `reviews` whose text is in one of the texts."""
    distinct, found = reviews["text"].unique(), []
    for start in range(0, len(distinct), REVIEWS_AT_ONCE):
        patterns = distinct.slice(start, REVIEWS_AT_ONCE)
        hits = texts.str.extract_many(patterns.implode(), overlapping=True)
        found.append(hits.explode().drop_nulls().unique())
    return reviews.filter(pl.col("text").is_in(pl.concat(found).implode())) if found else reviews.head(0)
