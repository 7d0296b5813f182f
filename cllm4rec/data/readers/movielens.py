"""The files of MovieLens 1M, 10M and 100K, which have no header; recognised by their whole names."""

import re

import polars as pl

from cllm4rec.data.readers.raw import RawTable
from cllm4rec.data.readers.source import SourceFile
from cllm4rec.data.readers.text import TextTable

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
_RATINGS = ("user_id", "item_id", "rating", "timestamp")
# Pattern of the whole name -> separator, columns.
LAYOUTS = {
    r"ratings\.dat": ("::", _RATINGS),
    r"movies\.dat": ("::", ("item_id", "title", "categories")),
    r"users\.dat": ("::", ("user_id", "gender", "age", "occupation", "zip_code")),
    r"u\.data|u[1-5ab]\.(base|test)": ("\t", _RATINGS),
    r"u\.item": ("|", ("item_id", "title", "release_date", "video_release_date", "url", *GENRES)),
    r"u\.user": ("|", ("user_id", "age", "gender", "occupation", "zip_code")),
}


def is_movielens(file: SourceFile) -> bool:
    """Whether a file has a name of MovieLens."""
    return any(re.fullmatch(pattern, file.base_name) for pattern in LAYOUTS)


def read_movielens(file: SourceFile) -> RawTable:
    """Read a file of MovieLens; its genre flags become the column `categories`.

    Raises:
        ValueError: a line has another number of cells.
    """
    separator, columns = next(
        layout for pattern, layout in LAYOUTS.items() if re.fullmatch(pattern, file.base_name)
    )
    text = file.text_in("latin-1")
    if len(separator) > 1:
        text, separator = text.replace(separator.encode(), b"\x1f"), "\x1f"
    raw = TextTable(text, file.name, separator, quoted=False, columns=list(columns)).raw()
    if not set(GENRES) <= set(columns):
        return raw
    genres = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
    categories = raw.frame.select(
        pl.concat_list(genres).list.drop_nulls().list.join(", ").alias("categories")
    )
    others = [column for column in columns if column not in GENRES]
    return RawTable(
        raw.frame.select(others).hstack(categories), file.name, [*others, "categories"], raw.locate
    )
