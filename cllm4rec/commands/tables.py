"""Flags that say how tables are read, and reading the tables that a command names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cllm4rec.data.column_names import EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS, check_attributes
from cllm4rec.data.readers.source import TableFile
from cllm4rec.data.readers.tables import (
    CheckedTable,
    read_event_table,
    read_item_table,
    read_user_table,
)
from cllm4rec.settings import check_settings, setting


@dataclass
class EventTableOptions:
    """Reading of tables."""

    columns: str | None = setting(
        None,
        metavar="NAMES",
        help="names of the columns of the interactions: user_id=buyer,item_id=sku,timestamp=when",
    )
    separator: str | None = setting(
        None, metavar="CHARACTER", help="separator of text tables; by default a tab in .tsv, a comma in .csv"
    )
    no_header: bool = setting(
        False, help="tables whose columns are given by number (--columns user_id=1,item_id=2) have no header"
    )
    sequences: bool = setting(
        False, help="each line of the interactions is a user followed by the items in order: 1 1 2 3"
    )
    encoding: str | None = setting(
        None,
        metavar="NAME",
        help="encoding of text tables: latin-1, cp1252, shift_jis, ...; by default UTF-8",
    )
    escape: str | None = setting(
        None,
        metavar="CHARACTER",
        advanced=True,
        help=r"escape character of quotes in quoted cells, such as '\'",
    )
    max_unpacked_gib: float | None = setting(
        None,
        metavar="GIB",
        advanced=True,
        help=(
            "size limit of an unpacked table (.gz, Parquet) in GiB; by default 100 times its file size, at "
            "least 1"
        ),
    )
    drop_incomplete: bool = setting(
        False, help="drop and count rows without a user or item id, in any table; by default they are refused"
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass
class TableOptions(EventTableOptions):
    """Reading of tables."""

    item_columns: str | None = setting(
        None, metavar="NAMES", help="names of the columns of the items: item_id=sku,title=label"
    )
    user_columns: str | None = setting(
        None, metavar="NAMES", help="names of the columns of the users: user_id=buyer"
    )
    item_attributes: str | None = setting(
        None,
        metavar="NAMES",
        help="further columns of the items to keep, for conditions on them (--where): price,stock=In stock",
    )


def refuse_without_table(options: EventTableOptions, flag: str) -> None:
    """Raise ValueError if a flag says how a table is read, and there is none.

    Args:
        options: the flags.
        flag: name of the flag that would give the table.
    """
    for field in fields(options):
        if getattr(options, field.name) != field.default:
            raise ValueError(f"`{field.name}` says how a table is read, and there is none: give `{flag}` too")


def read_events(path: str, options: EventTableOptions) -> CheckedTable:
    """A table of events."""
    names = column_names(options.columns, "--columns", EVENT_COLUMNS)
    _check_layout(options, {"--columns": names})
    return _event_table(path, options, names)


def _event_table(path: str, options: EventTableOptions, names: Mapping[str, str]) -> CheckedTable:
    """A table of events with these columns."""
    file = text_file(path, options, names, sequences=options.sequences)
    return read_event_table(file, names, drop_incomplete=options.drop_incomplete)


def read_tables(
    events: str | None,
    items: str | None,
    users: str | None,
    options: TableOptions,
    attributes: Sequence[str] = (),
) -> tuple[CheckedTable | None, CheckedTable | None, CheckedTable | None]:
    """Tables of events, items and users, by the paths of those that are given.

    Args:
        events, items, users: paths.
        options: the flags.
        attributes: further columns of the items to read, besides those that a flag names.

    Raises:
        ValueError: a flag is malformed or names columns of a table that is not given, or a table is refused.
    """
    if options.item_attributes and not items:
        raise ValueError("`item_attributes` names columns of a table that is not given: give `items` too")
    for name, path, given in (("item", items, options.item_columns), ("user", users, options.user_columns)):
        if given and not path:
            raise ValueError(
                f"--{name}-columns names columns of a table that is not given: give --{name}s too"
            )
    if options.columns and not events:
        raise ValueError(
            "`columns` names columns of a table of events that is not given: give `interactions` too"
        )
    named_attributes = attribute_columns(options.item_attributes)
    attributes = list({**dict.fromkeys(attributes), **named_attributes})
    item_names = column_names(options.item_columns, "--item-columns", ITEM_COLUMNS) | named_attributes
    user_names = column_names(options.user_columns, "--user-columns", USER_COLUMNS)
    event_names = column_names(options.columns, "--columns", EVENT_COLUMNS)
    _check_layout(
        options, {"--columns": event_names, "--item-columns": item_names, "--user-columns": user_names}
    )
    drop = options.drop_incomplete
    event_table, item_table, user_table = None, None, None
    if events:
        event_table = _event_table(events, options, event_names)
    if items:
        file = text_file(items, options, item_names)
        item_table = read_item_table(file, item_names, drop_incomplete=drop, attributes=attributes)
    if users:
        user_table = read_user_table(text_file(users, options, user_names), user_names, drop_incomplete=drop)
    return event_table, item_table, user_table


def read_text(path: str) -> str:
    """The text of a file or pipe.

    Raises:
        ValueError: there is no such file, it is a folder, or it is not UTF-8.
    """
    if not Path(path).exists():
        raise ValueError(f"{path}: there is no such file")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error


def read_ids(path: str) -> list[str]:
    """The ids in a text file, one per line; empty lines are skipped.

    Raises:
        ValueError: the file cannot be read, see `read_text`.
    """
    return [line for line in read_text(path).splitlines() if line]


def column_names(text: str | None, flag: str, columns: Sequence[str]) -> dict[str, str]:
    """Parse `user_id=buyer,item_id=sku`: column of this package -> column of the file.

    Raises:
        ValueError: a pair is malformed, or its name is repeated or not one of `columns`.
    """
    names: dict[str, str] = {}
    for pair in (text or "").split(",") if text is not None else ():
        name, _, source_column = pair.strip().partition("=")
        if not source_column or name not in columns or name in names:
            expected = f"expected NAME=COLUMN,...; NAME is one of {', '.join(columns)}, each once"
            raise ValueError(f"{flag} {pair!r}: {expected}")
        names[name] = source_column
    return names


def attribute_columns(text: str | None) -> dict[str, str]:
    """Parse `price,stock=In stock`: name in conditions -> column of the file.

    Raises:
        ValueError: a name is repeated, or cannot be used in conditions.
    """
    names: dict[str, str] = {}
    for pair in () if text is None else text.split(","):
        name, _, source_column = pair.strip().partition("=")
        if name in names:
            raise ValueError(f"`item_attributes` names {name!r} twice: name it once")
        names[name] = source_column or name
    check_attributes(names)
    return names


def text_file(
    path: str, options: EventTableOptions, names: Mapping[str, str], sequences: bool = False
) -> TableFile:
    """A file with the flags for its format. --no-header holds for files whose columns are numbers."""
    return TableFile(
        path,
        separator="\t" if options.separator == "\\t" else options.separator,
        header=not (options.no_header and _numbered(names)),
        sequences=sequences,
        escape=options.escape,
        encoding=options.encoding,
        max_unpacked_gib=options.max_unpacked_gib,
    )


def _numbered(names: Mapping[str, str]) -> bool:
    """Whether any column is given by its number."""
    return any(_is_number(column) for column in names.values())


def _is_number(column: str) -> bool:
    """Whether a column is given by its number, or two columns that are joined (2+3)."""
    return column.replace("+", "").isdecimal()


def _check_layout(options: EventTableOptions, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Raise ValueError if the flags contradict one another on the layout of a file."""
    if options.sequences and (options.no_header or options.columns):
        raise ValueError("--sequences reads lines without columns: leave out --columns and --no-header")
    if not options.no_header:
        return
    if not any(map(_numbered, columns.values())):
        raise ValueError(
            "--no-header needs the columns by number, from 1: --columns user_id=1,item_id=2 "
            "(or --item-columns)"
        )
    for flag, names in columns.items():
        name = next((column for column in names.values() if not _is_number(column)), None)
        if _numbered(names) and name is not None:
            raise ValueError(
                f"{flag} names a column {name!r} among numbers: without a header all columns are numbers"
            )
