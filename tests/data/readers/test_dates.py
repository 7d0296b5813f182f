"""Dates: forms of text, units of numbers, order of day and month."""

import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cllm4rec.data.readers.dates import FORMATS, NORMALISED_FORMATS
from cllm4rec.data.readers.tables import read_event_table, read_events
from tests.support.event_files import single_user_file
from tests.support.tables import refused, written

TEN = 1706695200  # 2024-01-31 10:00:00 UTC
DAY = 1706659200  # 2024-01-31


def times(folder: Path, *cells: str) -> list[int | None]:
    return read_events(single_user_file(folder, "timestamp", *cells))["timestamp"].to_list()


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
        ("Jan 31, 2024 10:00 pm", TEN + 12 * 3600),
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


@pytest.mark.parametrize("date_format", [*FORMATS, *NORMALISED_FORMATS])
def test_every_format_gives_the_seconds_of_its_moment(date_format: str, tmp_path: Path) -> None:
    moments = [datetime.datetime(2000 + year, 1 + year % 12, 13, year % 24, 59) for year in range(60)]
    written = [
        moment.replace(tzinfo=datetime.UTC).strftime(date_format.replace("%.f", ".5")) for moment in moments
    ]
    expected = [int(moment.replace(tzinfo=datetime.UTC).timestamp()) for moment in moments]
    if "%H" not in date_format and "%I" not in date_format:
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
    column = times(tmp_path, *cells)
    assert [
        None if second is None else str(datetime.datetime.fromtimestamp(second, datetime.UTC))[:10]
        for second in column
    ] == [*days]


@pytest.mark.parametrize(
    "cells", [("01/02/2024", "02/01/2024"), ("31/01/2024", "01/31/2024"), ("01.02.2024 10:00", "5")]
)
def test_day_and_month_that_cannot_be_told_apart_are_refused(cells: tuple[str, ...], tmp_path: Path) -> None:
    message = refused(read_event_table, single_user_file(tmp_path, "timestamp", *cells))
    assert f"line 2, column timestamp: {cells[0]!r}: day and month cannot be told apart" in message
    assert "write dates as 2024-01-31" in message


@pytest.mark.parametrize(
    "cell",
    [
        "24-01-31", "1/31/24", "0000-00-00 00:00:00", "2024-02-30", "2024-13-01", "13/13/2024",
        "31/12/2024 25:00", "2024-01-31 13:00 PM", "2024-01-31 10:00:00 CET", "2024-01",
        "yesterday", "31 de enero de 2024", "inf", "1e300",
    ],
)  # fmt: skip
def test_invalid_dates_are_refused(cell: str, tmp_path: Path) -> None:
    message = refused(read_event_table, single_user_file(tmp_path, "timestamp", "5", cell))
    assert f"line 3, column timestamp: {cell!r}: expected seconds, milliseconds or a date" in message


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("1588687728923", 1588687728),
        ("99999999999", 99999999999),
        ("-5", -5),
        ("-1588687728923", -1588687729),
        ("2016-03-09", 1457481600),
        ("2016-03-09 16:00", 1457539200),
        ("20160309T160000Z", 1457539200),
        ("1969-12-31 23:59:59", -1),
        (" 7 ", 7),
        ("", None),
        ("1e300", "refused"),
        ("1e15", 1_000_000_000),
        ("1e21", "refused"),
        ("inf", "refused"),
        ("nan", None),
        ("09/03/2016", "ambiguous"),
        ("yesterday", "refused"),
    ],
)
def test_timestamps(tmp_path: Path, cell: str, seconds: Any) -> None:
    path = written(
        tmp_path / "e.csv", f"user_id,item_id,timestamp\n1,x,{cell}\n1,y,5\n2,z,2024-01-31T10:00:01+02:00\n"
    )
    if seconds == "ambiguous":
        assert f"line 2, column timestamp: {cell!r}: day and month cannot be told apart" in refused(
            read_events, path
        )
    elif seconds == "refused":
        assert (
            f"{path}, line 2, column timestamp: {cell!r}: expected seconds, milliseconds or a date"
            in refused(read_events, path)
        )
    else:
        assert read_events(path)["timestamp"].to_list() == [seconds, 5, 1706688001]


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
def test_the_unit_of_a_number_depends_on_its_size(
    number: int, seconds: int, dtype: str, tmp_path: Path
) -> None:
    if dtype == "text":
        assert times(tmp_path, str(number)) == [seconds]
    else:
        cells = pl.Series([number, None], dtype=pl.Int64 if dtype == "int" else pl.Float64)
        frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": cells})
        assert read_event_table(frame).frame["timestamp"].to_list() == [seconds, None]


def test_nanoseconds_are_exact_and_numbers_are_dates_only_if_all_are(tmp_path: Path) -> None:
    assert times(tmp_path, "1706695200999999999", "20240131") == [TEN, 20240131]
    assert times(tmp_path, "20240131", "20240231") == [20240131, 20240231]
    assert times(tmp_path, "20240131", "2024-01-31 10:00:00") == [DAY, TEN]


@pytest.mark.parametrize("cell", ["1/٣/2024", "9:0٣", "٣ January 2024", "2024-01-٣1", "1\u20282/2024"])
def test_digits_of_other_scripts_are_no_digits(cell: str) -> None:
    for name in ("timestamp", "time"):
        assert f"row 1, column {name}" in refused(
            read_event_table, pl.DataFrame({"user_id": [1], "item_id": [1], name: [cell]})
        )
