"""Dates and times as text -> seconds since the epoch. Forms: those of databases, languages, spreadsheets."""

import datetime
import re
import zoneinfo

import polars as pl

SAMPLE_TEXTS = 1000  # a format that parses none of them is not tried on the whole column
# Tried on the texts as they are.
FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.f%z",
    "%Y-%m-%dT%H:%M:%S%.f%z",
)
# Tried on the texts after `REPLACEMENTS`.
NORMALISED_FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S%z",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M%z",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%d %B %Y %H:%M:%S",
    "%d %B %Y",
    "%d-%B-%Y",
    "%B %d, %Y",
    "%a %b %d %Y %H:%M:%S%z",
    "%a, %d %b %Y %H:%M:%S%z",
    "%a %b %d %H:%M:%S %z %Y",
)
DAY_AND_MONTH = r"^([0-9]{1,2})[/. -]([0-9]{1,2})(?:[/.-]|,? )([0-9]{4})\b,?(.*)$"
# Pattern -> replacement: brings texts to the `NORMALISED_FORMATS`.
REPLACEMENTS = (
    (r"\s+", " "),
    (r" ?\([^()]*\)$", ""),  # name of a zone, as JavaScript writes it
    (r"\[[A-Za-z_/]+\]$", ""),  # name of a zone after the offset, as Java writes it
    (r"^(\d\d-[A-Za-z]{3}-\d+ \d\d)\.(\d\d)\.(\d\d)", "${1}:${2}:${3}"),  # Oracle: 31-JAN-24 10.00.00 AM
    (r"^(\d\d-[A-Za-z]{3}-)([0-4]\d)( |$)", "${1}20${2}${3}"),
    (r"^(\d\d-[A-Za-z]{3}-)([5-9]\d)( |$)", "${1}19${2}${3}"),
    (r"(:\d\d)[.,]\d+", "${1}"),  # fractions of a second
    (r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})\b", "${1}-${2}-${3}"),
    (r"^(\d{4}-\d{1,2}-\d{1,2})(?:[Tt]|, ?)(\d)", "${1} ${2}"),
    (r"(\d) ?([AaPp])\.?[Mm]\.?$", "${1} ${2}M"),
    (r"(\d) ?(?:UTC|GMT)([+-]\d)", "${1}${2}"),
    (r"(:\d\d) (?:UTC|GMT) (\d{4})$", "${1} +0000 ${2}"),  # the command date of Unix
    (r"(:\d\d) ?(?:Z|z|UTC|GMT)$", "${1}+0000"),
    (r"(:\d\d) ?([+-]\d\d)$", "${1}${2}00"),
    (r"(:\d\d) ?([+-]\d\d):?(\d\d)$", "${1}${2}${3}"),
)
_MONTHS = "january february march april may june july august september october november december".split()
MONTH_NUMBERS = {name: i for i, month in enumerate(_MONTHS, 1) for name in (month, month[:3])} | {"sept": 9}
# A date with the name of its month, after or before the day; optional weekday, time and zone.
DATE_WITH_MONTH_NAME = re.compile(
    r"(?:[A-Za-z]{3,9},? )?(?:(?P<day>\d{1,2})(?:st|nd|rd|th)?[ -])?(?P<month>[A-Za-z]{3,9})\.?[ -]"
    r"(?:(?P<later_day>\d{1,2})(?:st|nd|rd|th)?(?:, ?| ))?(?P<clock>\d{1,2}:\d\d(?::\d\d)? )?(?P<year>\d{4})"
    r"(?:,? (?:at )?(?P<later_clock>\d{1,2}:\d\d(?::\d\d)?)(?: (?P<half>[APap])M)?)?(?P<zone>[+-]\d{4})?",
    re.ASCII,
)
# Groups: hour, minute, second, A or P, sign, hours and minutes of the zone. Digits are those of ASCII.
TIME_OF_DAY = (
    r"(?-u)^(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?: ?([AaPp])\.?[Mm]\.?)?"
    r"(?: ?(?:Z|UTC|([+-])(\d\d):?(\d\d)))?$"
)
YEAR_1000_SECONDS = -30_610_224_000  # earlier dates need a year of four digits


def date_seconds(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Dates as seconds since the epoch; UTC if no zone is given.

    Args:
        texts: stripped texts.

    Returns:
        seconds: int64, rounded down, null where a text is no date.
        is_ambiguous: where nothing in the column tells the day from the month.
    """
    seconds = _parse(texts, FORMATS)
    is_ambiguous = pl.repeat(False, len(texts), dtype=pl.Boolean, eager=True)
    rest = (seconds.is_null() & texts.is_not_null()).arg_true()
    if len(rest):
        normalised, rest_is_ambiguous = _year_first(_normalise(texts.gather(rest)))
        rest_seconds = _parse(normalised, NORMALISED_FORMATS)
        rare_texts = normalised.filter(rest_seconds.is_null()).unique().to_list()
        rare = {text: value for text in rare_texts if (value := _rare_date_seconds(text)) is not None}
        if rare:
            rare_seconds = normalised.replace_strict(rare, default=None, return_dtype=pl.Int64)
            rest_seconds = rest_seconds.fill_null(rare_seconds)
        seconds = seconds.scatter(rest, rest_seconds)
        is_ambiguous = is_ambiguous.scatter(rest, rest_is_ambiguous)
    return seconds, is_ambiguous


def time_of_day_seconds(texts: pl.Series) -> pl.Series:
    """Times of day with a colon (9:00 PM, 09:00:00.5, 09:00+02:00) as int64 seconds of the day, else null."""
    groups = texts.str.extract_groups(TIME_OF_DAY).struct.unnest()
    hour, minute, second = (groups[name].cast(pl.Int64) for name in ("1", "2", "3"))
    half = groups["4"].str.to_lowercase()
    in_range = (
        (hour < 24) & (minute < 60) & (second.fill_null(0) < 60) & (half.is_null() | hour.is_between(1, 12))
    )
    hour = (hour % 12 + (half == "p").cast(pl.Int64) * 12).zip_with(half.is_not_null(), hour)
    offset = groups["6"].cast(pl.Int64).fill_null(0) * 3600 + groups["7"].cast(pl.Int64).fill_null(0) * 60
    offset = (-offset).zip_with((groups["5"] == "-").fill_null(False), offset)
    return (hour * 3600 + minute * 60 + second.fill_null(0) - offset).set(~in_range.fill_null(False), None)


def _parse(texts: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    """Seconds by the first format that parses each text. Formats that parse none of a sample are skipped."""
    seconds = pl.repeat(None, len(texts), dtype=pl.Int64, eager=True)
    rest = texts.is_not_null().arg_true()
    for date_format in formats:
        rest_texts = texts if len(rest) == len(texts) else texts.gather(rest)
        sample = rest_texts.gather_every(1 + len(rest_texts) // SAMPLE_TEXTS)
        if _parse_format(sample, date_format).null_count() == len(sample):
            continue
        parsed = _parse_format(rest_texts, date_format)
        seconds = parsed if rest_texts is texts else seconds.scatter(rest, parsed)
        rest = rest.filter(parsed.is_null())
    return seconds


def _parse_format(texts: pl.Series, date_format: str) -> pl.Series:
    seconds = texts.str.to_datetime(date_format, strict=False, time_unit="us").dt.epoch("s")
    is_early = seconds < YEAR_1000_SECONDS
    return seconds.set(is_early & ~texts.str.contains(r"^[0-9]{4}"), None) if is_early.any() else seconds


def _normalise(texts: pl.Series) -> pl.Series:
    column = pl.col("text")
    for pattern, replacement in REPLACEMENTS:
        column = column.str.replace_all(pattern, replacement)
    return texts.to_frame("text").select(column)["text"]


def _year_first(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Dates as 31/01/2024 and 01/31/2024 with the year first, and where they are ambiguous.

    A number above 12 in one row tells the day from the month for the whole column.
    """
    groups = texts.str.extract_groups(DAY_AND_MONTH).struct.unnest()
    left, right = groups["1"].cast(pl.Int64), groups["2"].cast(pl.Int64)
    day_first, month_first = bool((left > 12).any()), bool((right > 12).any())
    if day_first == month_first:
        is_ambiguous = (left != right).fill_null(False)
        day_first = True
    else:
        is_ambiguous = pl.repeat(False, len(texts), dtype=pl.Boolean, eager=True)
    order = "${3}-${2}-${1}${4}" if day_first else "${3}-${1}-${2}${4}"
    rewritten = texts.str.replace(DAY_AND_MONTH, order)
    return rewritten.set(is_ambiguous, None).fill_null(texts), is_ambiguous


def _rare_date_seconds(text: str) -> int | None:
    """Seconds of a date in a form that Polars does not parse; None if it is no date."""
    match = DATE_WITH_MONTH_NAME.fullmatch(text)
    moment = _parse_iso(text) if match is None else _date_with_month_name(match)
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(seconds=1)


def _parse_iso(text: str) -> datetime.datetime | None:
    """ISO 8601, also with the name of a zone after it, as Trino writes it."""
    head, _, zone = text.rpartition(" ")
    try:
        if "/" in zone:
            return datetime.datetime.fromisoformat(head).replace(tzinfo=zoneinfo.ZoneInfo(zone))
        return datetime.datetime.fromisoformat(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None


def _date_with_month_name(match: re.Match[str]) -> datetime.datetime | None:
    month, day = MONTH_NUMBERS.get(match["month"].lower()), match["day"] or match["later_day"]
    clock = (match["clock"] or match["later_clock"] or "0:00").strip()
    if month is None or day is None or (match["day"] and match["later_day"]):
        return None
    hour, minute, second = (*map(int, clock.split(":")), 0)[:3]
    if match["half"] is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (match["half"] in "Pp")
    zone = match["zone"]
    try:
        tz = datetime.datetime.strptime(zone, "%z").tzinfo if zone else None
        return datetime.datetime(int(match["year"]), month, int(day), hour, minute, second, tzinfo=tz)
    except ValueError:
        return None
