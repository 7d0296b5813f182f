"""The time of each event, in seconds since the epoch: one column, or a date joined with a time of day."""

from collections.abc import Sequence

import polars as pl

from cllm4rec.data.readers.columns import number_cells
from cllm4rec.data.readers.dates import clock_seconds, date_seconds
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.messages import printable

DAY = 86_400
LATEST = 10**11  # seconds, in the year 5138; what is above it is milliseconds, and so on
UNITS = (1, 10**3, 10**6, 10**9)  # in a second: seconds, milliseconds, microseconds, nanoseconds
COMPACT = (  # whole numbers that write a date: the least, the greatest, the form
    (1900_01_01, 2100_12_31, "%Y%m%d"),
    (1900_01_01_00_00_00, 2100_12_31_23_59_59, "%Y%m%d%H%M%S"),
)
WIDEST_ZONE = 14 * 3600
NEED = "seconds, milliseconds or a date as 2024-01-31 10:00:00 are needed"
NO_DATE = "a time of day needs a column of dates (date) beside it"
AMBIGUOUS = "day and month cannot be told apart in this column: write dates as 2024-01-31"
Columns = tuple[str, ...]


def event_times(raw: RawTable, columns: Sequence[str]) -> tuple[pl.Series, Columns]:
    """Seconds of each event from the columns that may hold its time, and the columns that were read.

    A column of dates and a column of times of day are joined. Further columns have to say the same, maybe less exactly
    (the day, the minute) or in another time zone. Empty columns, and further ones that hold no times, are passed over.

    Raises:
        ValueError: two columns differ, or the first cannot be read; the message names columns, row and value.
    """
    filled = [
        name for name in columns if len(columns) > 1 and number_cells(raw, name).null_count() < len(raw.frame)
    ]
    if len(filled) < 2:
        name = filled[0] if filled else columns[0]
        return seconds(raw, name), (name,)
    times, clocks = _readings(raw, filled)
    unread = [name for name in filled if name not in clocks and not any(name in names for names in times)]
    if not times or filled[0] in unread:
        name = (unread or filled)[0]
        return seconds(raw, name), (name,)  # raises
    best = min(times, key=lambda names: _granularity(times[names]) == DAY)
    time = times[best]
    for names, other in times.items():
        _compare(raw, best, names, time.is_not_null() & _same(time, other), other, [best, names])
    for name, clock in clocks.items():
        offsets = (time // 60 * 60 - clock // 60 * 60 + DAY // 2) % DAY - DAY // 2
        _compare(raw, best, (name,), _in_one_zone(offsets), clock, [best])
    return time, best


def seconds(raw: RawTable, column: str) -> pl.Series:
    """Timestamps as int64 seconds, null where the cell is empty.

    Numbers are seconds, milliseconds, microseconds or nanoseconds, value by value; dates without a zone are UTC.
    """
    cells = number_cells(raw, column)
    values, ambiguous = _seconds(cells)
    raw.refuse(column, ambiguous, AMBIGUOUS)
    if _clock(cells) is not None or _written_clock(cells):
        raw.refuse(column, cells.is_not_null(), NO_DATE)
    raw.refuse(column, cells.is_not_null() & values.is_null(), NEED)
    return values


def joined_times(raw: RawTable, date: str, clock: str) -> pl.Series:
    """Seconds of a column of dates and a column of times of day; the start of the day where the latter is empty.

    Raises:
        ValueError: a cell is no date or no time of day; the message names it.
    """
    cells = number_cells(raw, clock)
    of_day = _clock(cells)
    if of_day is None:
        of_day = _numeric_clock(cells)
    if of_day is None:
        raw.refuse(clock, cells.is_not_null(), "a column of times of day as 09:00 or 0900 is needed")
        return seconds(raw, date)
    return seconds(raw, date) + of_day.fill_null(0)


def _readings(raw: RawTable, columns: list[str]) -> tuple[dict[Columns, pl.Series], dict[str, pl.Series]]:
    """Seconds of each column that holds times and of a joined pair, and times of day that no date was found for."""
    cells = {name: number_cells(raw, name) for name in columns}
    clocks = {name: clock for name, column in cells.items() if (clock := _clock(column)) is not None}
    times: dict[Columns, pl.Series] = {}
    for name in columns:
        if name not in clocks:
            values, _ = _seconds(cells[name])
            if values.null_count() == cells[name].null_count():
                times[name,] = values
    days = [names for names, values in times.items() if names != ("time",) and _granularity(values) == DAY]
    if days and not clocks and ("time",) in times and (clock := _numeric_clock(cells["time"])) is not None:
        clocks["time"] = clock
        del times["time",]
    if days and clocks:
        name, clock = clocks.popitem()
        times[(*days[0], name)] = times.pop(days[0]) + clock.fill_null(0)
    return times, clocks


def _compare(
    raw: RawTable, names: Columns, others: Columns, same: pl.Series, other: pl.Series, readable: list[Columns]
) -> None:
    """Refuse a second column of times that differs from the first; each of `readable` may be named instead."""
    differ = (other.is_not_null() & ~same.fill_null(False)).arg_true()
    if len(differ):
        both = " and ".join(" + ".join(map(printable, one)) for one in (names, others))
        ways = " or ".join(f"timestamp={'+'.join(map(printable, one))}" for one in readable)
        raise ValueError(
            f"{raw.name}: columns {both} may each be the time of an event, and differ in {raw.where(int(differ[0]))}: "
            f"name the right one (--columns {ways})"
        )


def _granularity(times: pl.Series) -> int:
    """The coarsest of a day, a minute and a second that all times are multiples of."""
    return next((unit for unit in (DAY, 60) if (times % unit == 0).all()), 1)


def _same(times: pl.Series, others: pl.Series) -> pl.Series:
    """Where the others say the same: as exact as they are, in any time zone."""
    unit = _granularity(others)
    if unit == DAY:
        return (times - others).is_between(-WIDEST_ZONE, DAY + WIDEST_ZONE, closed="none")
    return _in_one_zone(times // unit * unit - others)


def _in_one_zone(offsets: pl.Series) -> pl.Series:
    """Where offsets can be those of one time zone: a multiple of a quarter of an hour, or an hour more in summer."""
    change = (
        (offsets - offsets.drop_nulls().head(1)).abs() if offsets.null_count() < len(offsets) else offsets
    )
    return (offsets.abs() <= WIDEST_ZONE) & (offsets % 900 == 0) & change.is_in([0, 3600])


def _seconds(cells: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Int64 seconds, null where a cell is empty or no time; and where day and month cannot be told apart."""
    certain = pl.repeat(False, len(cells), dtype=pl.Boolean, eager=True)
    if cells.dtype in (pl.Date, pl.Datetime):
        return cells.cast(pl.Datetime("us"), strict=False).dt.epoch("s"), certain
    if cells.dtype.is_float():
        exact = ((cells == cells.floor()) & (cells.abs() < 2**63)).all()
        return _since_epoch(cells.cast(pl.Int64) if exact else cells), certain
    if cells.dtype != pl.String:
        return _since_epoch(cells.cast(pl.Int64, strict=False)), certain
    whole = cells.cast(pl.Int64, strict=False)
    values = _since_epoch(whole)
    left = (cells.is_not_null() & whole.is_null()).arg_true()
    if not len(left):
        return values, certain
    texts = cells if len(left) == len(cells) else cells.gather(left)
    numbers = _since_epoch(texts.cast(pl.Float64, strict=False).fill_nan(None))
    found, ambiguous = (
        date_seconds(texts.set(numbers.is_not_null(), None)) if numbers.null_count() else (numbers, None)
    )
    return values.scatter(left, numbers.fill_null(found)), certain if ambiguous is None else certain.scatter(
        left, ambiguous
    )


def _since_epoch(numbers: pl.Series) -> pl.Series:
    """Numbers in any of the `UNITS`, told by their size, or dates written as 20240131, as int64 seconds, rounded down."""
    if numbers.null_count() == len(numbers):
        return numbers.cast(pl.Int64)
    if numbers.dtype == pl.Int64 and (dates := _compact_dates(numbers)) is not None:
        return dates
    if (numbers.abs() > LATEST).any():
        size, value = pl.col("n").abs(), pl.col("n")
        read = pl.coalesce(pl.when(size <= LATEST * unit).then(value // unit) for unit in UNITS)
        numbers = numbers.to_frame("n").select(read)["n"]
    return numbers.floor().cast(pl.Int64)


def _compact_dates(numbers: pl.Series) -> pl.Series | None:
    """Seconds of a column whose numbers all write a date, as 20240131 or 20240131100000; else None."""
    for least, greatest, form in COMPACT:
        if numbers.is_between(least, greatest).all():
            values = numbers.cast(pl.String).str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s")
            if values.null_count() == numbers.null_count():
                return values
    return None


def _clock(cells: pl.Series) -> pl.Series | None:
    """Seconds of the day of a column whose cells are all times of day, else None."""
    if cells.dtype == pl.Time:
        return cells.cast(pl.Int64) // 10**9
    if cells.dtype == pl.Duration:
        values = cells.dt.total_seconds()
        return values if values.is_between(0, DAY, closed="left").all() else None
    if cells.dtype != pl.String or not cells.head(1000).str.contains(r"^\d\d?:\d\d").any():
        return None
    values = clock_seconds(cells)
    return values if values.null_count() == cells.null_count() else None


def _numeric_clock(cells: pl.Series) -> pl.Series | None:
    """Seconds of the day of numbers as 900 or 0900 and 93000 or 093000, where all are such; else None."""
    numbers = cells.cast(pl.Int64, strict=False)
    if numbers.null_count() > cells.null_count() or (numbers < 0).any():
        return None
    long = (numbers > 2359).any() or (cells.dtype == pl.String and (cells.str.len_bytes() > 4).any())
    hours, minutes, rest = numbers // 10_000, numbers // 100 % 100, numbers % 100
    if not long:
        hours, minutes, rest = minutes, rest, rest * 0
    valid = (hours < 24) & (minutes < 60) & (rest < 60)
    return hours * 3600 + minutes * 60 + rest if valid.all() else None


def _written_clock(cells: pl.Series) -> bool:
    """Whether all cells are times of day as 0900 or 093000; the leading zero tells them from seconds."""
    if cells.dtype != pl.String or not (cells.str.starts_with("0") & (cells.str.len_bytes() >= 4)).any():
        return False
    lengths = cells.drop_nulls().str.len_bytes().unique().to_list()
    return lengths in ([4], [6]) and _numeric_clock(cells) is not None
