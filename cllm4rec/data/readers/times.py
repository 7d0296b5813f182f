"""The time of each event in seconds since the epoch: one column, or a date joined with a time of day."""

from collections.abc import Sequence

import polars as pl

from cllm4rec.data.readers.columns import numeric_cells
from cllm4rec.data.readers.dates import date_seconds, time_of_day_seconds
from cllm4rec.data.readers.raw import RawTable
from cllm4rec.messages import printable

SECONDS_PER_DAY = 86_400
MAX_SECONDS = 10**11  # year 5138; larger numbers are milliseconds, microseconds or nanoseconds
UNITS_PER_SECOND = (1, 10**3, 10**6, 10**9)
# Whole numbers that are dates: the smallest, the largest, the format.
COMPACT_DATES = (
    (1900_01_01, 2100_12_31, "%Y%m%d"),
    (1900_01_01_00_00_00, 2100_12_31_23_59_59, "%Y%m%d%H%M%S"),
)
MAX_ZONE_SECONDS = 14 * 3600
SAMPLE_CELLS = 1000
EXPECTED_TIME = "expected seconds, milliseconds or a date as 2024-01-31 10:00:00"
EXPECTED_TIME_OF_DAY = "expected a column of times of day as 09:00 or 0900"
EXPECTED_DATES = "a time of day needs a column of dates (date) in the same table"
AMBIGUOUS_DAY = "day and month cannot be told apart in this column: write dates as 2024-01-31"
Columns = tuple[str, ...]


def event_times(raw: RawTable, columns: Sequence[str]) -> tuple[pl.Series, Columns]:
    """The time of each event, from the columns that may hold it.

    A column of dates and a column of times of day are joined. Further columns of times must agree, but
    may be less exact (the day, the minute) or in another time zone. Empty columns are ignored, and so
    are further columns that hold no times.

    Args:
        raw: the table.
        columns: names of columns; the first one is preferred.

    Returns:
        seconds: int64, null where the cell is empty.
        columns: those that were read.

    Raises:
        ValueError: two columns differ, or the first cannot be read; the message names columns, row and value.
    """
    filled = [
        name
        for name in columns
        if len(columns) > 1 and numeric_cells(raw, name).null_count() < len(raw.frame)
    ]
    if len(filled) < 2:
        name = filled[0] if filled else columns[0]
        return timestamp_column(raw, name), (name,)
    times, clocks = _parse_columns(raw, filled)
    unparsed = [name for name in filled if name not in clocks and not any(name in names for names in times)]
    if not times or filled[0] in unparsed:
        name = (unparsed or filled)[0]
        return timestamp_column(raw, name), (name,)  # raises
    best = min(times, key=lambda names: _granularity(times[names]) == SECONDS_PER_DAY)
    time = times[best]
    for names, other in times.items():
        _check_same(raw, best, names, time.is_not_null() & _agree(time, other), other, [best, names])
    for name, clock in clocks.items():
        half_day = SECONDS_PER_DAY // 2
        offsets = (time // 60 * 60 - clock // 60 * 60 + half_day) % SECONDS_PER_DAY - half_day
        _check_same(raw, best, (name,), _in_one_zone(offsets), clock, [best])
    return time, best


def timestamp_column(raw: RawTable, column: str) -> pl.Series:
    """Timestamps as int64 seconds, null where the cell is empty.

    Each number is in seconds, milliseconds, microseconds or nanoseconds by its size. Dates without a zone
    are UTC.

    Raises:
        ValueError: a cell holds no time, or the column holds times of day.
    """
    cells = numeric_cells(raw, column)
    seconds, is_ambiguous = _parse_times(cells)
    raw.refuse(column, is_ambiguous, AMBIGUOUS_DAY)
    if _time_of_day(cells) is not None or _is_compact_time_of_day(cells):
        raw.refuse(column, cells.is_not_null(), EXPECTED_DATES)
    raw.refuse(column, cells.is_not_null() & seconds.is_null(), EXPECTED_TIME)
    return seconds


def joined_times(raw: RawTable, date_column: str, clock_column: str) -> pl.Series:
    """Seconds from a column of dates and a column of times of day; an empty time of day is 00:00.

    Raises:
        ValueError: a cell is no date or no time of day; the message names it.
    """
    cells = numeric_cells(raw, clock_column)
    clock = _time_of_day(cells)
    if clock is None:
        clock = _compact_time_of_day(cells)
    if clock is None:
        raw.refuse(clock_column, cells.is_not_null(), EXPECTED_TIME_OF_DAY)
        return timestamp_column(raw, date_column)
    return timestamp_column(raw, date_column) + clock.fill_null(0)


def _parse_columns(
    raw: RawTable, columns: list[str]
) -> tuple[dict[Columns, pl.Series], dict[str, pl.Series]]:
    """Parse columns that may hold times.

    Returns:
        times: column, or a date and a time of day that were joined -> seconds since the epoch.
        clocks: column of times of day without a column of dates -> seconds of the day.
    """
    cells = {name: numeric_cells(raw, name) for name in columns}
    clocks = {name: clock for name, column in cells.items() if (clock := _time_of_day(column)) is not None}
    times: dict[Columns, pl.Series] = {}
    for name in columns:
        if name not in clocks:
            seconds, _ = _parse_times(cells[name])
            if seconds.null_count() == cells[name].null_count():
                times[name,] = seconds
    dates = [names for names in times if names != ("time",) and _granularity(times[names]) == SECONDS_PER_DAY]
    # A number such as 900 may be seconds or a time of day. In a column `time` next to dates it is the latter.
    if dates and not clocks and ("time",) in times:
        clock = _compact_time_of_day(cells["time"])
        if clock is not None:
            clocks["time"] = clock
            del times["time",]
    if dates and clocks:
        name, seconds = clocks.popitem()
        times[(*dates[0], name)] = times.pop(dates[0]) + seconds.fill_null(0)
    return times, clocks


def _check_same(
    raw: RawTable,
    names: Columns,
    other_names: Columns,
    is_same: pl.Series,
    other: pl.Series,
    choices: list[Columns],
) -> None:
    """Raise ValueError if a further column of times differs; the message advises to name one of `choices`."""
    differing_rows = (other.is_not_null() & ~is_same.fill_null(False)).arg_true()
    if len(differing_rows):
        both = " and ".join(" + ".join(map(printable, columns)) for columns in (names, other_names))
        ways = " or ".join(f"timestamp={'+'.join(map(printable, columns))}" for columns in choices)
        location = raw.locate(int(differing_rows[0]))
        raise ValueError(
            f"{raw.name}: columns {both} may each be the time of an event, and differ in {location}: "
            f"name the right one (`columns` {ways})"
        )


def _granularity(times: pl.Series) -> int:
    """The coarsest of a day, a minute and a second (in seconds) that divides all times."""
    return next((unit for unit in (SECONDS_PER_DAY, 60) if (times % unit == 0).all()), 1)


def _agree(times: pl.Series, others: pl.Series) -> pl.Series:
    """Where both are the same moment, up to the granularity of `others` and in any time zone."""
    unit = _granularity(others)
    if unit == SECONDS_PER_DAY:
        earliest, latest = -MAX_ZONE_SECONDS, SECONDS_PER_DAY + MAX_ZONE_SECONDS
        return (times - others).is_between(earliest, latest, closed="none")
    return _in_one_zone(times // unit * unit - others)


def _in_one_zone(offsets: pl.Series) -> pl.Series:
    """Where offsets fit one time zone: multiples of 15 minutes, equal or an hour apart (summer time)."""
    change = offsets
    if offsets.null_count() < len(offsets):
        change = (offsets - offsets.drop_nulls().head(1)).abs()
    return (offsets.abs() <= MAX_ZONE_SECONDS) & (offsets % 900 == 0) & change.is_in([0, 3600])


def _parse_times(cells: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Int64 seconds, null where a cell holds no time; and where day and month cannot be told apart."""
    no_row = pl.repeat(False, len(cells), dtype=pl.Boolean, eager=True)
    if cells.dtype in (pl.Date, pl.Datetime):
        return cells.cast(pl.Datetime("us"), strict=False).dt.epoch("s"), no_row
    if cells.dtype.is_float():
        is_exact = ((cells == cells.floor()) & (cells.abs() < 2**63)).all()
        return _numbers_to_seconds(cells.cast(pl.Int64) if is_exact else cells), no_row
    integers = cells.cast(pl.Int64, strict=False)
    seconds = _numbers_to_seconds(integers)
    if cells.dtype != pl.String:
        return seconds, no_row
    rest = (cells.is_not_null() & integers.is_null()).arg_true()
    if not len(rest):
        return seconds, no_row
    texts = cells if len(rest) == len(cells) else cells.gather(rest)
    rest_seconds = _numbers_to_seconds(texts.cast(pl.Float64, strict=False).fill_nan(None))
    is_ambiguous = no_row
    if rest_seconds.null_count():
        dates, dates_are_ambiguous = date_seconds(texts.set(rest_seconds.is_not_null(), None))
        rest_seconds = rest_seconds.fill_null(dates)
        is_ambiguous = no_row.scatter(rest, dates_are_ambiguous)
    return seconds.scatter(rest, rest_seconds), is_ambiguous


def _numbers_to_seconds(numbers: pl.Series) -> pl.Series:
    """Numbers as int64 seconds, rounded down. Each is in one of the units by its size, or all are dates."""
    if numbers.null_count() == len(numbers):
        return numbers.cast(pl.Int64)
    if numbers.dtype == pl.Int64 and (seconds := _compact_dates(numbers)) is not None:
        return seconds
    if (numbers.abs() > MAX_SECONDS).any():
        size, value = pl.col("n").abs(), pl.col("n")
        in_seconds = pl.coalesce(
            pl.when(size <= MAX_SECONDS * unit).then(value // unit) for unit in UNITS_PER_SECOND
        )
        numbers = numbers.to_frame("n").select(in_seconds)["n"]
    return numbers.floor().cast(pl.Int64)


def _compact_dates(numbers: pl.Series) -> pl.Series | None:
    """Seconds of a column whose numbers are all dates, as 20240131 or 20240131100000; else None."""
    for smallest, largest, date_format in COMPACT_DATES:
        if numbers.is_between(smallest, largest).all():
            dates = numbers.cast(pl.String).str.to_datetime(date_format, strict=False, time_unit="us")
            seconds = dates.dt.epoch("s")
            if seconds.null_count() == numbers.null_count():
                return seconds
    return None


def _time_of_day(cells: pl.Series) -> pl.Series | None:
    """Seconds of the day of a column whose cells are all times of day; else None."""
    if cells.dtype == pl.Time:
        return cells.cast(pl.Int64) // 10**9
    if cells.dtype == pl.Duration:
        seconds = cells.dt.total_seconds()
        return seconds if seconds.is_between(0, SECONDS_PER_DAY, closed="left").all() else None
    if cells.dtype != pl.String or not cells.head(SAMPLE_CELLS).str.contains(r"^\d\d?:\d\d").any():
        return None
    seconds = time_of_day_seconds(cells)
    return seconds if seconds.null_count() == cells.null_count() else None


def _compact_time_of_day(cells: pl.Series) -> pl.Series | None:
    """Seconds of the day if all numbers are times as 900 or 0900, or as 93000 or 093000; else None."""
    numbers = cells.cast(pl.Int64, strict=False)
    if numbers.null_count() > cells.null_count() or (numbers < 0).any():
        return None
    has_seconds = (numbers > 2359).any() or (cells.dtype == pl.String and (cells.str.len_bytes() > 4).any())
    if has_seconds:
        hours, minutes, seconds = numbers // 10_000, numbers // 100 % 100, numbers % 100
    else:
        hours, minutes, seconds = numbers // 100 % 100, numbers % 100, numbers * 0
    is_valid = (hours < 24) & (minutes < 60) & (seconds < 60)
    return hours * 3600 + minutes * 60 + seconds if is_valid.all() else None


def _is_compact_time_of_day(cells: pl.Series) -> bool:
    """Whether all cells are texts as 0900 or 093000; the leading zero tells them from seconds."""
    if cells.dtype != pl.String or not (cells.str.starts_with("0") & (cells.str.len_bytes() >= 4)).any():
        return False
    lengths = cells.drop_nulls().str.len_bytes().unique().to_list()
    return lengths in ([4], [6]) and _compact_time_of_day(cells) is not None
