"""The columns of the package's tables. A new text column of items or users is one line of `COLUMNS`."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from keyword import iskeyword

EVENTS, ITEMS, USERS = "events", "items", "users"


@dataclass(frozen=True)
class Column:
    """A column of one or more tables.

    Attributes:
        name: the name in this package.
        tables: the tables that may have it.
        source_names: further names that input tables may give it. The first name present is read.
        joiner: separates the texts of a list in one cell; None if the column holds no text.
        replacement: a regular expression and what replaces its matches in each text.
    """

    name: str
    tables: tuple[str, ...]
    source_names: tuple[str, ...] = ()
    joiner: str | None = None
    replacement: tuple[str, str] | None = None


# In each table the id is first; the order of the others is the order in datasets and documents.
COLUMNS = (
    Column("user_id", (EVENTS, USERS), ("user", "userId", "userid", "customer_id", "reviewerID")),
    Column(
        "item_id",
        (EVENTS, ITEMS),
        (
            *("item", "itemId", "itemid", "movieId", "movie_id"),
            *("product_id", "business_id", "parent_asin", "asin"),
        ),
    ),
    Column("item_ids", (EVENTS,), ("item_id_list", "history")),
    Column("rating", (EVENTS,), ("overall", "stars", "score")),
    Column("timestamp", (EVENTS,), ("time", "unixReviewTime", "date")),
    Column("position", (EVENTS,)),
    Column("review_text", (EVENTS,), ("review", "reviewText", "text"), joiner=" "),
    Column("title", (ITEMS,), ("name", "item_name", "movie_title"), joiner=" "),
    Column("description", (ITEMS,), joiner=" "),
    Column(
        "categories",
        (ITEMS,),
        ("category", "genres", "genre", "class"),
        joiner=", ",
        replacement=(r"\|", ", "),  # MovieLens writes Comedy|Drama
    ),
    Column("brand", (ITEMS,), ("store",), joiner=" "),
    Column(
        "year",
        (ITEMS,),
        ("release_year",),
        joiner=" ",
        replacement=(r"^(\d+)\.0+$", "${1}"),  # pandas writes 1999.0 if a year is missing
    ),
    Column("biography", (USERS,), ("bio",), joiner=" "),
)

ALIASES = {column.name: (column.name, *column.source_names) for column in COLUMNS}
JOINERS = {column.name: column.joiner for column in COLUMNS}
REPLACEMENTS = {column.name: column.replacement for column in COLUMNS if column.replacement is not None}

EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS = (
    tuple(column.name for column in COLUMNS if table in column.tables) for table in (EVENTS, ITEMS, USERS)
)
ITEM_TEXTS, USER_TEXTS = ITEM_COLUMNS[1:], USER_COLUMNS[1:]


def check_attributes(names: Collection[str]) -> None:
    """Raise ValueError unless conditions on items can use these names of further columns."""
    if isinstance(names, str):
        raise ValueError(f"`item_attributes` is one text, {names!r}: give a list of names")
    for name in names:
        if not name.isidentifier() or iskeyword(name):
            raise ValueError(
                f"`item_attributes` {name!r} is no name that a condition can hold: take letters, digits and _"
            )
        if name in ITEM_COLUMNS:
            raise ValueError(f"`item_attributes` {name!r} is a column that is read anyway: leave it out")


def attributes_of(columns: Iterable[str]) -> list[str]:
    """The columns of a table of items that are neither its id nor a text."""
    return [name for name in columns if name not in ITEM_COLUMNS]
