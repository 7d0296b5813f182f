"""Times of events: dates joined with times of day, several columns of times, typed columns."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.tables import read_event_table
from tests.support.event_files import single_user_file
from tests.support.tables import refused

TEN = 1706695200  # 2024-01-31 10:00:00 UTC
DAY = 1706659200  # 2024-01-31


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        ("0900", 32400), ("900", 32400), ("09:00", 32400), ("9:00 PM", 75600), ("12:30am", 1800),
        ("09:00:00.5", 32400), ("090000", 32400), ("21:00:30", 75630),
        ("09:00+02:00", 25200), ("09:00:00Z", 32400),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "date", ["2024-01-31", "20240131", "31/01/2024", "31-Jan-2024", "2024-01-31 00:00:00"]
)
def test_a_date_and_a_time_of_day_are_joined(date: str, clock: str, seconds: int, tmp_path: Path) -> None:
    checked = read_event_table(single_user_file(tmp_path, "date|time", f"{date}|{clock}", f"{date}|"))
    assert checked.frame["timestamp"].to_list() == [DAY + seconds, DAY]
    assert checked.mapping["timestamp"] == "date + time"
    assert checked.unread == ()


def test_a_date_and_a_time_of_day_may_be_named(tmp_path: Path) -> None:
    path = single_user_file(tmp_path, "day|clock|time", "2024-01-31|0900|5")
    checked = read_event_table(path, {"timestamp": "day+clock"})
    assert (checked.frame["timestamp"].to_list(), checked.unread) == ([DAY + 9 * 3600], ("time",))
    assert "'timestamp' cannot be read from a column 'day+hour'" in refused(
        read_event_table, path, names={"timestamp": "day+hour"}
    )
    assert "column day: '2024-01-31': expected a column of times of day" in refused(
        read_event_table, path, names={"timestamp": "clock+day"}
    )


def test_the_time_of_day_does_not_order_events_of_different_days(tmp_path: Path) -> None:
    path = single_user_file(
        tmp_path, "date|time", "2020-02-01|0900", "2020-01-01|1800", "2020-01-15|1200", "|0100"
    )
    dataset = Dataset.from_frame(path, split="leave-last-out")
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
    checked = read_event_table(source)
    assert checked.frame["timestamp"].to_list() == [DAY + 9 * 3600, DAY, None]
    assert checked.mapping["timestamp"] == "date + time"


@pytest.mark.parametrize("cells", [("09:00", "10:00"), ("0900", "1800"), ("9:00 PM", "")])
def test_a_time_of_day_without_a_date_is_refused(cells: tuple[str, ...], tmp_path: Path) -> None:
    message = refused(read_event_table, single_user_file(tmp_path, "time", *cells))
    assert f"line 2, column time: {cells[0]!r}: a time of day needs a column of dates" in message
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "time": [datetime.time(9)]})
    assert "the events, row 1, column time" in refused(read_event_table, frame)


def test_a_time_of_day_in_a_row_without_a_date_is_not_used(tmp_path: Path) -> None:
    path = single_user_file(tmp_path, "date|time", "2024-01-31|09:00", "|11:00")
    assert read_event_table(path).frame["timestamp"].to_list() == [DAY + 9 * 3600, None]


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
def test_a_second_column_of_equal_times_changes_nothing(
    header: str, rows: list[str], taken: str, seconds: int, tmp_path: Path
) -> None:
    checked = read_event_table(single_user_file(tmp_path, header, *rows))
    assert (checked.frame["timestamp"].to_list(), checked.mapping["timestamp"]) == ([seconds], taken)
    assert set(checked.unread) == set(header.split("|")) - set(taken.split(" + "))


@pytest.mark.parametrize(
    ("header", "rows", "ways"),
    [
        (
            "timestamp|date",
            [f"{TEN}|2024-01-31", f"{TEN}|2024-03-01"],
            "timestamp=timestamp or timestamp=date",
        ),
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
    path = single_user_file(tmp_path, header, *rows)
    message = refused(read_event_table, path)
    assert "may each be the time of an event, and differ in line" in message
    assert f"name the right one (`columns` {ways})" in message
    name = ways.rsplit("=", 1)[1]
    assert read_event_table(path, {"timestamp": name}).mapping["timestamp"] == name.replace("+", " + ")


def test_the_first_column_has_to_be_read(tmp_path: Path) -> None:
    message = refused(
        read_event_table, single_user_file(tmp_path, "timestamp|date", "soon|2024-01-31", "5|2024-01-31")
    )
    assert "line 2, column timestamp: 'soon'" in message
    message = refused(read_event_table, single_user_file(tmp_path, "date|time", "01/02/2024|09:00"))
    assert "column date: '01/02/2024': day and month cannot be told apart" in message


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (pd.to_datetime(pd.Series(["2024-01-31 10:00:00.123456789", None])), [TEN, None]),
        (pd.to_datetime(pd.Series(["2024-01-31 10:00:00.5+01:00", None])), [TEN - 3600, None]),
        (pd.Series(["2024-01-31 10:00:00", None]).astype("datetime64[s]"), [TEN, None]),
        (
            pd.Series([datetime.datetime(2024, 1, 31, 10), None], dtype=pd.ArrowDtype(pa.timestamp("ns"))),
            [TEN, None],
        ),
        (pd.array([TEN * 1000, None], dtype="Int64"), [TEN, None]),
        (pd.Categorical(["2024-01-31", "2024-01-31 10:00:00 UTC"]), [DAY, TEN]),
        (
            pd.Series(
                [pd.Timestamp("2024-01-31 11:00", tz="Europe/Paris"), pd.NaT, "2024-01-31", 5, np.nan],
                dtype=object,
            ),
            [TEN, None, DAY, 5, None],
        ),
    ],
)  # fmt: skip
def test_times_of_pandas(cells: Any, seconds: list[int | None]) -> None:
    frame = pd.DataFrame({"user_id": 1, "item_id": range(len(seconds)), "timestamp": cells})
    assert read_event_table(frame).frame["timestamp"].to_list() == seconds


def test_a_boolean_and_a_number_of_64_bits_are_no_times() -> None:
    for cells in ([True], pl.Series([2**64 - 1], dtype=pl.UInt64), [{"a": 1}]):
        assert "row 1, column timestamp" in refused(
            read_event_table, pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": cells})
        )
