"""How a dataset was prepared: what each filter dropped, how tables met the events, how events were split."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from cllm4rec.files.schema import STRICT
from cllm4rec.messages import counted

IN_TIME = ("leave-last-out", "time")  # split rules under which validation events precede test events


@dataclass(frozen=True)
class FilterReport:
    """Numbers of users, items and events that a filter dropped.

    Attributes:
        rule: the filter in words, such as "5-core".
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    rule: str
    users: int
    items: int
    events: int

    def __str__(self) -> str:
        numbers = (counted(self.events, "event"), counted(self.users, "user"), counted(self.items, "item"))
        return f"{self.rule}: dropped {', '.join(numbers)}"


@dataclass(frozen=True)
class TableReport:
    """How the ids of an items or users table match the ids of the events.

    Attributes:
        repeated_rows: rows after the first of an id.
        rows_without_events: distinct ids of the table without an event.
        without_a_row: ids with events that the table lacks.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    repeated_rows: int
    rows_without_events: int
    without_a_row: int


@dataclass(frozen=True)
class SplitDescription:
    """How the events were split.

    Attributes:
        method: a key of `splits.RULES`, or the name of the split table.
        rule: the method in words.
        seed: of the random split.
        column: of the split file; None without one.
        shuffle_ties: seed of the order of simultaneous events; None for the order of a hash of the ids.
        rows_without_events: rows of the split file whose user and item have no event; None without a column.
        n_validation_rows, n_test_rows: held-out rows; None where the file has none.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    method: str
    rule: str
    seed: int
    column: str | None = None
    shuffle_ties: int | None = None
    rows_without_events: int | None = None
    n_validation_rows: int | None = None
    n_test_rows: int | None = None

    @property
    def in_time(self) -> bool:
        """Whether validation events precede test events. Parts that a file gives count as not in time."""
        return self.method in IN_TIME


@dataclass(frozen=True)
class DatasetDescription:
    """What was read, dropped and split when a dataset was made.

    Attributes:
        columns: table -> column of this package -> column of the file.
        columns_not_read: table -> names of the columns that were not read.
        rules: what each filter dropped, in the order of application.
        tables: "items" and "users", where given.
        texts: text column of the items -> number of items with such a text.
        n_items_without_text: items without any text; 0 if there is no text column.
        n_users_below_3_events: users too short to split.
        split: how the events were split.
        warnings: ids of two tables that do not match.
        n_added_events: training events that `extend` added after the split.
        min_rating: lowest rating of an event; None where ratings were not asked for.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    columns: dict[str, dict[str, str]]
    columns_not_read: dict[str, str]
    rules: tuple[FilterReport, ...]
    tables: dict[str, TableReport]
    texts: dict[str, int]
    n_items_without_text: int
    n_users_below_3_events: int
    split: SplitDescription
    warnings: tuple[str, ...]
    n_added_events: int = 0
    min_rating: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys of dataset.json; optional keys of the split only where they have a value."""
        split = {name: value for name, value in asdict(self.split).items() if value is not None}
        return asdict(self) | {"split": split}


DESCRIPTION_KEYS = tuple(field.name for field in fields(DatasetDescription))


@dataclass(frozen=True)
class DatasetHashes:
    """SHA-256 of a dataset's content (ids, events, texts) and of its split.

    Attributes:
        data_sha256: `Dataset.fingerprint`.
        split_sha256: `Dataset.split_fingerprint`.
    """

    data_sha256: str
    split_sha256: str
