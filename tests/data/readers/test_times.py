"""Times of events: forms of dates, units of numbers, dates joined with times of day, columns that disagree."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec.data.dates import FORMS, PLAIN_FORMS
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.readers import event_table, read_events

TEN = 1706695200  # 2024-01-31 10:00:00 UTC
DAY = 1706659200  # 2024-01-31


def table(folder: Path, header: str, *rows: str) -> Path:
    """A file of events of one user; cells are separated by |."""
    lines = [f"user_id|item_id|{header}", *(f"u|i{number}|{row}" for number, row in enumerate(rows))]
    (folder / "e.tsv").write_text("\n".join(lines).replace("|", "\t") + "\n")
    return folder / "e.tsv"


def times(folder: Path, *cells: str) -> list[int | None]:
    return read_events(table(folder, "timestamp", *cells))["timestamp"].to_list()


def refused(path: Any, **settings: Any) -> str:
    with pytest.raises(ValueError) as error:
        event_table(path, **settings)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("2024-01-31 10:00:00 UTC", TEN),  # BigQuery
        ("2024-01-31 10:00:00.123456 UTC", TEN),
        ("2024-01-31 10:00:00+00:00", TEN),  # pandas
        ("2024-01-31 10:00:00.123456789", TEN),
        ("2024-01-31 10:00:00.123456789+01:00", TEN - 3600),
        ("2024-01-31 10:00:00.000 -0800", TEN + 8 * 3600),  # Snowflake
        ("Wed, 31 Jan 2024 10:00:00 -0800", TEN + 8 * 3600),
        ("Wed, 31 Jan 2024 10:00:00 GMT", TEN),
        ("2024-01-31T10:00:00.000Z", TEN),  # JavaScript
        ("Wed Jan 31 2024 10:00:00 GMT+0100 (Central European Standard Time)", TEN - 3600),
        ("1/31/2024, 10:00:00 AM", TEN),
        ("2024-01-31 10:00:00+00", TEN),  # PostgreSQL
        ("2024-01-31 10:00:00.1234567 +02:00", TEN - 7200),  # SQL Server
        ("31-JAN-24 10.00.00.000000 AM", TEN),  # Oracle
        ("31-JAN-1999", 917740800),
        ("31-Jan-2024 10:00:00", TEN),
        ("31/01/2024 10:00", TEN),  # Excel
        ("1/31/2024 10:00:00 PM", TEN + 12 * 3600),
        ("31.01.2024 10:00", TEN),
        ("2024/01/31 10:00:00", TEN),
        ("2024/1/5", 1704412800),
        ("2024-01-31 9:05", TEN - 3300),
        ("2024-01-31T10:00Z", TEN),
        ("2024-01-31T10:00:00.000+0000", TEN),
        ("2024-01-31T10:00:00+01:00[Europe/Paris]", TEN - 3600),  # Java
        ("2024-01-31 10:00:00 America/New_York", TEN + 5 * 3600),  # Trino
        ("Wed Jan 31 10:00:00 2024", TEN),  # C
        ("Wed Jan 31 10:00:00 UTC 2024", TEN),  # Unix
        ("Fri Nov 10 14:23:25 -0800 2017", 1510352605),  # Goodreads
        ("January 31, 2024", DAY),
        ("Jan 31, 2024 10:00 AM", TEN),
        ("31 January 2024", DAY),
        ("09 13, 2009", 1252800000),  # Amazon 2014
        ("20240131T100000Z", TEN),
        ("1969-12-31 23:59:59.5 UTC", -1),
        ("1969-12-31 23:59:59.5", -1),
        ("0001-01-01 00:00:00", -62135596800),
    ],
)
def test_forms_of_dates(cell: str, seconds: int, tmp_path: Path) -> None:
    assert times(tmp_path, cell) == [seconds]
    assert times(tmp_path, "2023-01-01", cell, "", "1706695200") == [1672531200, seconds, None, TEN]


@pytest.mark.parametrize("form", [*FORMS, *PLAIN_FORMS])
def test_every_form_gives_the_seconds_of_its_moment(form: str, tmp_path: Path) -> None:
    moments = [datetime.datetime(2000 + year, 1 + year % 12, 13, year % 24, 59) for year in range(60)]
    written = [moment.replace(tzinfo=datetime.UTC).strftime(form.replace("%.f", ".5")) for moment in moments]
    expected = [int(moment.replace(tzinfo=datetime.UTC).timestamp()) for moment in moments]
    if "%H" not in form and "%I" not in form:
        expected = [second // 86400 * 86400 for second in expected]
    assert times(tmp_path, *written) == expected


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (("01/02/2024", "13/02/2024"), ("2024-02-01", "2024-02-13")),
        (("01/02/2024", "02/13/2024"), ("2024-01-02", "2024-02-13")),
        (("01.02.2024", "", "31.01.2024"), ("2024-02-01", None, "2024-01-31")),
        (("01/01/2024", "02/02/2024"), ("2024-01-01", "2024-02-02")),
        (("1-2-2024", "28-2-2024", "2024-03-01"), ("2024-02-01", "2024-02-28", "2024-03-01")),
    ],
)
def test_a_number_above_twelve_says_for_the_column_which_is_the_day(
    cells: tuple[str, ...], days: tuple[str | None, ...], tmp_path: Path
) -> None:
    found = times(tmp_path, *cells)
    assert [
        None if second is None else str(datetime.datetime.fromtimestamp(second, datetime.UTC))[:10] for second in found
    ] == [*days]


@pytest.mark.parametrize("cells", [("01/02/2024", "02/01/2024"), ("31/01/2024", "01/31/2024"), ("01.02.2024 10:00", "5")])
def test_day_and_month_that_cannot_be_told_apart_are_refused(cells: tuple[str, ...], tmp_path: Path) -> None:
    message = refused(table(tmp_path, "timestamp", *cells))
    assert f"line 2, column timestamp: {cells[0]!r}: day and month cannot be told apart" in message
    assert "write dates as 2024-01-31" in message


@pytest.mark.parametrize(
    "cell",
    [
        "24-01-31", "1/31/24", "0000-00-00 00:00:00", "2024-02-30", "2024-13-01", "13/13/2024", "31/12/2024 25:00",
        "2024-01-31 13:00 PM", "2024-01-31 10:00:00 CET", "2024-01", "yesterday", "31 de enero de 2024", "inf", "1e300",
    ],
)  # fmt: skip
def test_what_is_no_date_is_refused(cell: str, tmp_path: Path) -> None:
    message = refused(table(tmp_path, "timestamp", "5", cell))
    assert f"line 3, column timestamp: {cell!r}: seconds, milliseconds or a date" in message


@pytest.mark.parametrize("dtype", ["text", "int", "float"])
@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        (TEN, TEN),
        (TEN * 1000 + 999, TEN),
        (TEN * 10**6 + 999_999, TEN),
        (TEN * 10**9 + 999_000_000, TEN),
        (10**11, 10**11),
        (10**11 + 1, 10**8),
        (-TEN * 1000 - 1, -TEN - 1),
        (20240131, DAY),
        (20240131100000, TEN),
    ],
)
def test_the_unit_of_a_number_follows_from_its_size(number: int, seconds: int, dtype: str, tmp_path: Path) -> None:
    if dtype == "text":
        assert times(tmp_path, str(number)) == [seconds]
    else:
        cells = pl.Series([number, None], dtype=pl.Int64 if dtype == "int" else pl.Float64)
        frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": cells})
        assert event_table(frame).frame["timestamp"].to_list() == [seconds, None]


def test_nanoseconds_are_exact_and_numbers_are_dates_only_if_all_are(tmp_path: Path) -> None:
    assert times(tmp_path, "1706695200999999999", "20240131") == [TEN, 20240131]
    assert times(tmp_path, "20240131", "20240231") == [20240131, 20240231]
    assert times(tmp_path, "20240131", "2024-01-31 10:00:00") == [DAY, TEN]


# A date and a time of day.


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        ("0900", 32400), ("900", 32400), ("09:00", 32400), ("9:00 PM", 75600), ("12:30am", 1800), ("09:00:00.5", 32400),
        ("090000", 32400), ("21:00:30", 75630), ("09:00+02:00", 25200), ("09:00:00Z", 32400),
    ],
)  # fmt: skip
@pytest.mark.parametrize("date", ["2024-01-31", "20240131", "31/01/2024", "31-Jan-2024", "2024-01-31 00:00:00"])
def test_a_date_and_a_time_of_day_are_one_time(date: str, clock: str, seconds: int, tmp_path: Path) -> None:
    found = event_table(table(tmp_path, "date|time", f"{date}|{clock}", f"{date}|"))
    assert found.frame["timestamp"].to_list() == [DAY + seconds, DAY]
    assert found.taken["timestamp"] == "date + time"
    assert found.unread == ()


def test_the_time_of_day_does_not_order_events_of_different_days(tmp_path: Path) -> None:
    path = table(tmp_path, "date|time", "2020-02-01|0900", "2020-01-01|1800", "2020-01-15|1200", "|0100")
    dataset = build_dataset(path, split="leave-last-out")
    assert dataset.item_ids.names(dataset.interactions.items).to_list() == ["i3", "i1", "i2", "i0"]
    assert dataset.part.tolist() == [0, 0, 1, 2]


def cells_of_a_day() -> dict[str, dict[str, Any]]:
    date, clock = datetime.date(2024, 1, 31), datetime.time(9, 0, 0, 500000)
    return {
        "dates and times": {"date": [date, date, None], "time": [clock, None, clock]},
        "midnights and durations": {
            "date": [datetime.datetime(2024, 1, 31), datetime.datetime(2024, 1, 31), None],
            "time": [datetime.timedelta(hours=9), None, datetime.timedelta(hours=9)],
        },
        "numbers": {"date": [20240131.0, 20240131.0, None], "time": [900.0, None, 900.0]},
        "texts": {"date": ["2024-01-31", "2024-01-31", None], "time": ["09:00", None, "10:00"]},
    }


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame, pa.table, "parquet"])
@pytest.mark.parametrize("kind", cells_of_a_day())
def test_dates_and_times_of_day_of_typed_tables_are_joined(kind: str, frame: Any, tmp_path: Path) -> None:
    columns = {"user_id": [1, 1, 1], "item_id": [1, 2, 3], **cells_of_a_day()[kind]}
    source = columns if frame == "parquet" else frame(columns)
    if frame == "parquet":
        pl.DataFrame(columns).write_parquet(tmp_path / "e.parquet")
        source = tmp_path / "e.parquet"
    found = event_table(source)
    assert found.frame["timestamp"].to_list() == [DAY + 9 * 3600, DAY, None]
    assert found.taken["timestamp"] == "date + time"


def test_a_date_and_a_time_of_day_may_be_named(tmp_path: Path) -> None:
    path = table(tmp_path, "day|clock|time", "2024-01-31|0900|5")
    found = event_table(path, {"timestamp": "day+clock"})
    assert (found.frame["timestamp"].to_list(), found.unread) == ([DAY + 9 * 3600], ("time",))
    assert "'timestamp' cannot be taken from a column 'day+hour'" in refused(path, names={"timestamp": "day+hour"})
    assert "column day: '2024-01-31': a column of times of day" in refused(path, names={"timestamp": "clock+day"})


@pytest.mark.parametrize("cells", [("09:00", "10:00"), ("0900", "1800"), ("9:00 PM", "")])
def test_a_time_of_day_without_a_date_is_refused(cells: tuple[str, ...], tmp_path: Path) -> None:
    message = refused(table(tmp_path, "time", *cells))
    assert f"line 2, column time: {cells[0]!r}: a time of day needs a column of dates" in message
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "time": [datetime.time(9)]})
    assert "the events, row 1, column time" in refused(frame)


def test_a_time_of_day_in_a_row_without_a_date_is_not_used(tmp_path: Path) -> None:
    path = table(tmp_path, "date|time", "2024-01-31|09:00", "|11:00")
    assert event_table(path).frame["timestamp"].to_list() == [DAY + 9 * 3600, None]


# Two columns that could be the time.


@pytest.mark.parametrize(
    ("header", "rows", "taken", "seconds"),
    [
        ("timestamp|date", [f"{TEN}|2024-01-31"], "timestamp", TEN),
        ("timestamp|date", [f"{TEN}|2024-01-31 11:00:00"], "timestamp", TEN),  # another zone
        ("timestamp|date", [f"{TEN + 7}|2024-01-31 10:00"], "timestamp", TEN + 7),
        ("timestamp|date", [f"{TEN}|on a Wednesday"], "timestamp", TEN),
        ("timestamp|date", [f"{TEN}|01/02/2024"], "timestamp", TEN),
        ("timestamp|date", ["|2024-01-31"], "date", DAY),
        ("unixReviewTime|date", [f"{DAY}|2024-01-31"], "unixReviewTime", DAY),
        ("timestamp|time", [f"{TEN}|10:00"], "timestamp", TEN),
        ("timestamp|time", [f"{TEN}|{TEN}000"], "timestamp", TEN),
        ("timestamp|date|time", [f"{TEN}|2024-01-31|10:00"], "timestamp", TEN),
        ("timestamp|time", ["2024-01-31|0900"], "timestamp + time", DAY + 9 * 3600),
        ("date|time", [f"2024-01-31|{TEN}"], "time", TEN),
    ],
)
def test_a_second_column_that_says_the_same_changes_nothing(
    header: str, rows: list[str], taken: str, seconds: int, tmp_path: Path
) -> None:
    found = event_table(table(tmp_path, header, *rows))
    assert (found.frame["timestamp"].to_list(), found.taken["timestamp"]) == ([seconds], taken)
    assert set(found.unread) == set(header.split("|")) - set(taken.split(" + "))


@pytest.mark.parametrize(
    ("header", "rows", "ways"),
    [
        ("timestamp|date", [f"{TEN}|2024-01-31", f"{TEN}|2024-03-01"], "timestamp=timestamp or timestamp=date"),
        ("timestamp|date", ["5|2024-01-31", "|"], "timestamp=timestamp or timestamp=date"),
        ("timestamp|date", [f"{TEN}|2024-01-31", "|2024-01-31"], "timestamp=timestamp or timestamp=date"),
        ("timestamp|time", ["5|6", "6|5"], "timestamp=timestamp or timestamp=time"),
        ("timestamp|time", [f"{TEN}|10:01"], "timestamp=timestamp"),
        ("timestamp|date|time", [f"{TEN}|2024-01-31|10:01"], "timestamp=timestamp or timestamp=date+time"),
    ],
)
def test_columns_that_could_both_be_the_time_and_differ_are_refused_by_name(
    header: str, rows: list[str], ways: str, tmp_path: Path
) -> None:
    path = table(tmp_path, header, *rows)
    message = refused(path)
    assert "may each be the time of an event, and differ in line" in message
    assert f"name the right one (--columns {ways})" in message
    name = ways.rsplit("=", 1)[1]
    assert event_table(path, {"timestamp": name}).taken["timestamp"] == name.replace("+", " + ")


def test_the_first_column_has_to_be_read(tmp_path: Path) -> None:
    message = refused(table(tmp_path, "timestamp|date", "soon|2024-01-31", "5|2024-01-31"))
    assert "line 2, column timestamp: 'soon'" in message
    message = refused(table(tmp_path, "date|time", "01/02/2024|09:00"))
    assert "column date: '01/02/2024': day and month cannot be told apart" in message


# Frames.


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (pd.to_datetime(pd.Series(["2024-01-31 10:00:00.123456789", None])), [TEN, None]),
        (pd.to_datetime(pd.Series(["2024-01-31 10:00:00.5+01:00", None])), [TEN - 3600, None]),
        (pd.Series(["2024-01-31 10:00:00", None]).astype("datetime64[s]"), [TEN, None]),
        (pd.Series([datetime.datetime(2024, 1, 31, 10), None], dtype=pd.ArrowDtype(pa.timestamp("ns"))), [TEN, None]),
        (pd.array([TEN * 1000, None], dtype="Int64"), [TEN, None]),
        (pd.Categorical(["2024-01-31", "2024-01-31 10:00:00 UTC"]), [DAY, TEN]),
        (
            pd.Series([pd.Timestamp("2024-01-31 11:00", tz="Europe/Paris"), pd.NaT, "2024-01-31", 5, np.nan], dtype=object),
            [TEN, None, DAY, 5, None],
        ),
    ],
)  # fmt: skip
def test_times_of_pandas(cells: Any, seconds: list[int | None]) -> None:
    frame = pd.DataFrame({"user_id": 1, "item_id": range(len(seconds)), "timestamp": cells})
    assert event_table(frame).frame["timestamp"].to_list() == seconds


def test_a_boolean_and_a_number_of_64_bits_are_no_times() -> None:
    for cells in ([True], pl.Series([2**64 - 1], dtype=pl.UInt64), [{"a": 1}]):
        assert "row 1, column timestamp" in refused(pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": cells}))


@pytest.mark.parametrize("cell", ["1/٣/2024", "9:0٣", "٣ January 2024", "2024-01-٣1", "1\u20282/2024"])
def test_digits_of_other_scripts_are_no_digits(cell: str) -> None:
    for name in ("timestamp", "time"):
        assert f"row 1, column {name}" in refused(pl.DataFrame({"user_id": [1], "item_id": [1], name: [cell]}))
