"""Dates and times as text -> seconds since the epoch, in the forms in which databases and languages write them."""

import datetime
import re
import zoneinfo

import polars as pl

SAMPLE = 1000  # texts by which a form is tried before it is applied to all
FORMS = (  # tried on the texts as they are
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.f%z",
    "%Y-%m-%dT%H:%M:%S%.f%z",
)
PLAIN_FORMS = (  # tried after `_plain_texts`
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
REPLACEMENTS = (  # pattern, replacement: what the forms do not differ in
    (r"\s+", " "),
    (r" ?\([^()]*\)$", ""),  # JavaScript's name of a zone
    (r"\[[A-Za-z_/]+\]$", ""),  # Java's, behind the offset
    (r"^(\d\d-[A-Za-z]{3}-\d+ \d\d)\.(\d\d)\.(\d\d)", "${1}:${2}:${3}"),  # Oracle's 31-JAN-24 10.00.00 AM
    (r"^(\d\d-[A-Za-z]{3}-)([0-4]\d)( |$)", "${1}20${2}${3}"),
    (r"^(\d\d-[A-Za-z]{3}-)([5-9]\d)( |$)", "${1}19${2}${3}"),
    (r"(:\d\d)[.,]\d+", "${1}"),  # fractions of a second
    (r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})\b", "${1}-${2}-${3}"),
    (r"^(\d{4}-\d{1,2}-\d{1,2})(?:[Tt]|, ?)(\d)", "${1} ${2}"),
    (r"(\d) ?([AaPp])\.?[Mm]\.?$", "${1} ${2}M"),
    (r"(\d) ?(?:UTC|GMT)([+-]\d)", "${1}${2}"),
    (r"(:\d\d) (?:UTC|GMT) (\d{4})$", "${1} +0000 ${2}"),  # date of Unix
    (r"(:\d\d) ?(?:Z|z|UTC|GMT)$", "${1}+0000"),
    (r"(:\d\d) ?([+-]\d\d)$", "${1}${2}00"),
    (r"(:\d\d) ?([+-]\d\d):?(\d\d)$", "${1}${2}${3}"),
)
_MONTHS = "january february march april may june july august september october november december".split()
MONTHS = {name: i for i, month in enumerate(_MONTHS, 1) for name in (month, month[:3])} | {"sept": 9}
WITH_MONTH = re.compile(  # a date with the name of a month, day and year around it, maybe a time and a zone
    r"(?:[A-Za-z]{3,9},? )?(?:(?P<day>\d{1,2})(?:st|nd|rd|th)?[ -])?(?P<month>[A-Za-z]{3,9})\.?[ -]"
    r"(?:(?P<later_day>\d{1,2})(?:st|nd|rd|th)?(?:, ?| ))?(?P<clock>\d{1,2}:\d\d(?::\d\d)? )?(?P<year>\d{4})"
    r"(?:,? (?:at )?(?P<later_clock>\d{1,2}:\d\d(?::\d\d)?)(?: (?P<half>[AP])M)?)?(?P<zone>[+-]\d{4})?",
    re.ASCII,
)
CLOCK = (  # without Unicode: the digits are those of ASCII
    r"(?-u)^(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?: ?([AaPp])\.?[Mm]\.?)?"
    r"(?: ?(?:Z|UTC|([+-])(\d\d):?(\d\d)))?$"
)
EARLIEST = -30_610_224_000  # year 1000; a year of fewer digits is not taken as it is written


def date_seconds(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Dates as seconds since the epoch; UTC where no zone is given.

    Args:
        texts: stripped texts.

    Returns:
        seconds: int64, rounded down, null where a text is no date.
        ambiguous: where nothing in the column says which number is the day and which the month.
    """
    seconds = _read(texts, FORMS)
    ambiguous = pl.repeat(False, len(texts), dtype=pl.Boolean, eager=True)
    left = (seconds.is_null() & texts.is_not_null()).arg_true()
    if len(left):
        plain, unsettled = _year_first(_plain_texts(texts.gather(left)))
        found = _read(plain, PLAIN_FORMS)
        others = plain.filter(found.is_null()).unique()
        known = {text: moment for text in others.to_list() if (moment := _moment(text)) is not None}
        if known:
            found = found.fill_null(plain.replace_strict(known, default=None, return_dtype=pl.Int64))
        seconds = seconds.scatter(left, found)
        ambiguous = ambiguous.scatter(left, unsettled)
    return seconds, ambiguous


def clock_seconds(texts: pl.Series) -> pl.Series:
    """Times of day with a colon (09:00, 9:00 PM, 09:00:00.5, 09:00+02:00) as seconds of the day, int64; null for others."""
    parts = texts.str.extract_groups(CLOCK).struct.unnest()
    hour, minute, second = (parts[str(place)].cast(pl.Int64) for place in (1, 2, 3))
    half = parts["4"].str.to_lowercase()
    in_range = (
        (hour < 24) & (minute < 60) & (second.fill_null(0) < 60) & (half.is_null() | hour.is_between(1, 12))
    )
    hour = (hour % 12 + (half == "p").cast(pl.Int64) * 12).zip_with(half.is_not_null(), hour)
    offset = parts["6"].cast(pl.Int64).fill_null(0) * 3600 + parts["7"].cast(pl.Int64).fill_null(0) * 60
    offset = (-offset).zip_with((parts["5"] == "-").fill_null(False), offset)
    return (hour * 3600 + minute * 60 + second.fill_null(0) - offset).set(~in_range.fill_null(False), None)


def _read(texts: pl.Series, forms: tuple[str, ...]) -> pl.Series:
    """Seconds of the texts by the first form that reads them; a form that reads none of a sample is passed over."""
    seconds = pl.repeat(None, len(texts), dtype=pl.Int64, eager=True)
    left = texts.is_not_null().arg_true()
    for form in forms:
        pieces = texts if len(left) == len(texts) else texts.gather(left)
        sample = pieces.gather_every(1 + len(pieces) // SAMPLE)
        if _by_form(sample, form).null_count() == len(sample):
            continue
        found = _by_form(pieces, form)
        seconds = found if pieces is texts else seconds.scatter(left, found)
        left = left.filter(found.is_null())
    return seconds


def _by_form(texts: pl.Series, form: str) -> pl.Series:
    seconds = texts.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("s")
    early = seconds < EARLIEST
    return seconds.set(early & ~texts.str.contains(r"^[0-9]{4}"), None) if early.any() else seconds


def _plain_texts(texts: pl.Series) -> pl.Series:
    column = pl.col("text")
    for pattern, replacement in REPLACEMENTS:
        column = column.str.replace_all(pattern, replacement)
    return texts.to_frame("text").select(column)["text"]


def _year_first(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Dates as 31/01/2024 and 01/31/2024 with the year first, and where day and month cannot be told apart.

    A number above 12 in one row settles it for the whole column.
    """
    parts = texts.str.extract_groups(DAY_AND_MONTH).struct.unnest()
    first, second = parts["1"].cast(pl.Int64), parts["2"].cast(pl.Int64)
    day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
    if day_first == month_first:
        unsettled = (first != second).fill_null(False)
        day_first = True
    else:
        unsettled = pl.repeat(False, len(texts), dtype=pl.Boolean, eager=True)
    order = "${3}-${2}-${1}${4}" if day_first else "${3}-${1}-${2}${4}"
    rewritten = texts.str.replace(DAY_AND_MONTH, order)
    return rewritten.set(unsettled, None).fill_null(texts), unsettled


def _moment(text: str) -> int | None:
    """Seconds of a date in a rare form, or None."""
    words = WITH_MONTH.fullmatch(text)
    moment = _iso(text) if words is None else _with_month(words)
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(seconds=1)


def _iso(text: str) -> datetime.datetime | None:
    """ISO 8601, maybe with the name of a zone behind it, as Trino writes it."""
    head, _, zone = text.rpartition(" ")
    try:
        if "/" in zone:
            return datetime.datetime.fromisoformat(head).replace(tzinfo=zoneinfo.ZoneInfo(zone))
        return datetime.datetime.fromisoformat(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None


def _with_month(words: re.Match[str]) -> datetime.datetime | None:
    month, day = MONTHS.get(words["month"].lower()), words["day"] or words["later_day"]
    clock = (words["clock"] or words["later_clock"] or "0:00").strip()
    if month is None or day is None or (words["day"] and words["later_day"]):
        return None
    hour, minute, second = (*map(int, clock.split(":")), 0)[:3]
    if words["half"] is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (words["half"] == "P")
    zone = words["zone"]
    try:
        tz = datetime.datetime.strptime(zone, "%z").tzinfo if zone else None
        return datetime.datetime(int(words["year"]), month, int(day), hour, minute, second, tzinfo=tz)
    except ValueError:
        return None
