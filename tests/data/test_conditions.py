"""Conditions on items: the masks of hand-made tables, and what is refused."""

from typing import Literal
from unicodedata import normalize

import polars as pl
import pytest

from cllm4rec.data.conditions import LONGEST, matching_items

ITEMS = pl.DataFrame(
    {
        "item_id": ["1", "2", "3", "4"],
        "title": ["Star Wars", "Heat", "Star", "The Star"],
        "categories": ["Drama, Sci-Fi", "Drama", "Sci", ""],
        "year": ["1977", "1995", "", "about 1990"],
    }
)


@pytest.mark.parametrize(
    ("condition", "matching"),
    [
        ('title == "Star"', "3"),
        ('"Star" == title', "3"),
        ('title != "Star"', "124"),
        ('title < "Star"', "2"),
        ("year >= 1990", "2"),
        ("1990 < year", "2"),
        ("not year >= 1990", "1"),  # cells without a number fulfil neither
        ("1970 <= year < 1980.5", "1"),
        ("year != 1977", "2"),
        ("year > -1", "12"),
        ("item_id <= 2", "12"),
        ('title.contains("Star")', "134"),
        ('title.contains(".")', ""),  # no regular expression
        ('categories.contains("Sci")', "3"),  # a whole category
        ('categories.contains("Drama")', "12"),
        ('categories.is_in(["Sci", "Sci-Fi"])', "13"),
        ('title.is_in(("Star", "Heat"))', "23"),
        ("year.is_in([1977, 1995])", "12"),
        ("title.is_in([])", ""),
        ('categories.contains("Drama") and not title.contains("Star")', "2"),
        ('title == "Heat" or year < 1990 and title == "Star"', "2"),
        ('(title == "Heat" or year < 1990) and title == "Star"', ""),
        ('  title == "Heat"\n', "2"),
        (f"year < 1{'0' * 400}", "12"),
        (f"year > -1{'0' * 400}", "12"),
        ("not " * 400 + "year > 1980", "2"),
    ],
)
def test_conditions_select_items(condition: str, matching: str) -> None:
    mask = matching_items(condition, ITEMS)
    assert (mask.shape, mask.dtype) == ((len(ITEMS),), bool)
    assert "".join(ITEMS["item_id"].filter(pl.Series(mask))) == matching


def test_ids_may_be_whole_numbers_and_cells_empty() -> None:
    items = pl.DataFrame({"item_id": [10, 11], "brand": [None, "Acme"]})
    assert matching_items("item_id > 10", items).tolist() == [False, True]
    assert matching_items('item_id == "10"', items).tolist() == [True, False]
    assert matching_items('brand != "Other"', items).tolist() == [False, True]


def test_long_integer_ids_are_compared_exactly() -> None:
    items = pl.DataFrame({"item_id": [9007199254740992, 9007199254740993]})
    assert matching_items("item_id == 9007199254740993", items).tolist() == [False, True]
    assert matching_items("item_id < -9007199254740993", items).tolist() == [False, False]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_letters_with_accents_are_the_same_in_either_form(form: Literal["NFC", "NFD"]) -> None:
    titles = [normalize(other, "Café") for other in ("NFC", "NFD")] + ["Cafe"]
    items = pl.DataFrame({"item_id": ["1", "2", "3"], "title": titles, "categories": titles})
    name = normalize(form, "Café")
    conditions = [f'title == "{name}"', f'title.contains("{name[-2:]}")', f'categories.contains("{name}")']
    for condition in conditions:
        assert matching_items(condition, items).tolist() == [True, True, False]


def test_cells_that_read_nan_are_no_numbers() -> None:
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "year": ["nan", "1999", "inf"]})
    assert matching_items("year >= 1990", items).tolist() == [False, True, True]
    assert matching_items("not year >= 1990", items).tolist() == [False, False, False]


@pytest.mark.parametrize("condition", [5, None, pl.col("title") == "x"])
def test_a_condition_is_a_text(condition: object) -> None:
    with pytest.raises(ValueError, match="^`where` is .*: expected a text, as in "):
        matching_items(condition, ITEMS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("", "`where` is empty"),
        ("year = 3", "invalid syntax"),
        ('"a\0" == title', "null bytes"),
        ("(" * 500 + "year > 1" + ")" * 500, "too many nested parentheses"),
        ("year", "'year' is no condition"),
        ("year > -True", "'True' is neither"),
        ("year > -'1'", "is neither"),
        ("1 == 2", "'1' is not the name of a column"),
        ("title == year", "'title' is neither a text in quotes nor a number"),
        ("year >= True", "'True' is neither"),
        ('title == f"{year}"', "is neither"),
        ('title is "Heat"', "compares otherwise than by =="),
        ('title in ["Heat"]', "compares otherwise than by ==, !=, <, <=, > and >=; there is is_in"),
        ("title.contains(1)", "'title.contains(1)' is no condition"),
        ('title.contains("a", literal=False)', "is no condition"),
        ('title.upper() == "HEAT"', "is not the name of a column"),
        ('__import__("os").system("true")', "is no condition"),
        ("lambda: 1", "is no condition"),
        ('title.is_in("Heat")', "is no condition"),
        ('brand == "Acme"', "the items have no column 'brand', but item_id, title, categories, year"),
        ("y" * (LONGEST + 1), "has 2,001 characters: write at most 2,000"),
    ],
)
def test_other_conditions_are_refused_in_one_line(
    condition: str, reason: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(ValueError, match="^`where` ") as error:
        matching_items(condition, ITEMS)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert not recwarn.list
