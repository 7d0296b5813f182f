"""Further columns of items, kept for conditions: from `prepare` to the lists of all commands."""

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from cllm4rec import EASE, Dataset, EASEConfig, load
from cllm4rec.data.readers.tables import read_item_table
from tests.support.commands import call, refusal

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "title": ["Iron axe", "Iron bow", "Iron cup", "Iron dish", "Elk"],
        "price": ["9.5", "20", None, "3", "5"],
        "In stock": ["yes", "no", "yes", "yes", "no"],
        "image": ["1.jpg"] * 5,
    }
)
EVENTS = pl.DataFrame({"user_id": ["u", "u", "v", "v", "w", "w"], "item_id": ["a", "b", "b", "c", "c", "d"]})
KEPT = ("--item-attributes", "price,stock=In stock")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Tables, a dataset with two attributes, and a run."""
    ITEMS.write_csv(tmp_path / "items.csv")
    EVENTS.write_csv(tmp_path / "events.csv")
    tables = ("--interactions", tmp_path / "events.csv", "--items", tmp_path / "items.csv")
    call("prepare", *tables, *KEPT, "--split", "none", "--keep-all-items", "--output", tmp_path / "data")
    call("pretrain", "--system", "popularity", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    return tmp_path


def listed(shop: Path, run: str, condition: str) -> list[str]:
    """The items of a list for an event of "a" alone."""
    (shop / "today.csv").write_text("user_id,item_id\nx,a\n")
    output = shop / "lists.csv"
    where = ("--where", condition, "--output", output)
    call("recommend", "--run", shop / run, "--histories", shop / "today.csv", *where)
    return sorted(pl.read_csv(output)["item_id"])


def test_conditions_read_attributes(shop: Path) -> None:
    assert listed(shop, "run", "price < 10") == ["d", "e"]
    assert listed(shop, "run", 'price < 10 and stock == "yes"') == ["d"]
    assert listed(shop, "run", 'stock.contains("y")') == ["c", "d"]
    dataset = Dataset.load(shop / "data")
    assert "price" not in dataset.item_texts
    assert dataset.description is not None
    assert dataset.description.texts == {"title": 5}
    with pytest.raises(ValueError, match=r"no column 'image', but item_id, title, price, stock"):
        load(shop / "run").recommend(histories=[["a"]], where='image == "1.jpg"')


def test_prepare_says_what_it_kept(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = ("--interactions", shop / "events.csv", "--items", shop / "items.csv")
    call("prepare", *tables, *KEPT, "--output", shop / "again")
    printed = capsys.readouterr().out
    assert "items.csv: stock from In stock" in printed
    assert "items.csv: columns not read: image" in printed
    assert "price: kept for conditions, a value for 3 of 4 items" in printed
    assert "title: a text for 4 of 4 items" in printed


def test_new_items_have_the_attributes_of_the_dataset(shop: Path) -> None:
    (shop / "new.csv").write_text("item_id,title,price,In stock\nf,Iron fan,4,yes\n")
    bag = ("--system", "bag", "--epochs", "1")
    call("pretrain", *bag, "--dataset", shop / "data", "--output", shop / "bag")
    flags = ("--run", shop / "bag", "--items", shop / "new.csv", "--output", shop / "wide")
    expected = (
        "new.csv: --item-attributes 'stock' cannot be read: the table has item_id, title, price, In stock: "
        "name another column as stock=COLUMN"
    )
    assert refusal("extend", *flags).endswith(expected)
    call("extend", *flags, "--item-attributes", "stock=In stock")
    assert listed(shop, "wide", "price < 10") == ["d", "e", "f"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "pandas", "polars", "arrow"])
def test_attributes_of_each_kind_of_table_are_texts(kind: str, tmp_path: Path) -> None:
    items = pl.DataFrame({"item_id": [1, 2], "price": [9.5, None], "sold": [True, False]})
    path = tmp_path / f"items.{kind}"
    source: Any = path
    match kind:
        case "csv":
            items.write_csv(path)
        case "parquet":
            items.write_parquet(path)
        case "jsonl":
            items.write_ndjson(path)
        case "pandas":
            source = pd.DataFrame(items.to_dicts())
        case "polars":
            source = items
        case "arrow":
            source = items.to_arrow()
    frame = read_item_table(source, attributes=["price", "sold"]).frame
    assert frame["price"].to_list() == ["9.5", ""]
    assert [text.lower() for text in frame["sold"]] == ["true", "false"]


def test_datasets_of_frames_keep_attributes(tmp_path: Path) -> None:
    dataset = Dataset.from_frame(EVENTS, ITEMS, item_attributes=["price"])
    assert dataset.items.columns == ["item_id", "title", "price"]
    dataset.save(tmp_path / "data")
    assert Dataset.load(tmp_path / "data").items.equals(dataset.items)
    model = EASE(EASEConfig(regularization=1.0)).fit(dataset)
    assert model.recommend(["u"], where="price <= 3")["item_id"].to_list() == ["d"]
    with pytest.raises(ValueError, match="`item_attributes` names columns of a table of items: give `items`"):
        Dataset.from_frame(EVENTS, item_attributes=["price"])


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("price,price", "names 'price' twice: name it once"),
        ("In stock", "'In stock' is no name that a condition can hold: take letters, digits and _"),
        ("", "'' is no name that a condition can hold"),
        ("is", "'is' is no name that a condition can hold"),
        ("title", "'title' is a column that is read anyway: leave it out"),
        ("colour", "'colour' cannot be read: the table has item_id, title, price, In stock, image: name"),
        ("price=Preis", "name another column as price=COLUMN"),
    ],
)
def test_other_names_are_refused(names: str, reason: str, tmp_path: Path) -> None:
    ITEMS.write_csv(tmp_path / "items.csv")
    EVENTS.write_csv(tmp_path / "events.csv")
    tables = ("--interactions", tmp_path / "events.csv", "--items", tmp_path / "items.csv")
    assert reason in refusal("prepare", *tables, "--item-attributes", names, "--output", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_column_that_is_a_text_is_no_attribute(tmp_path: Path) -> None:
    items = pl.DataFrame({"item_id": ["a"], "genre": ["war"]})
    with pytest.raises(ValueError, match="'genre' is read as categories: leave it out, and use categories"):
        read_item_table(items, attributes=["genre"])
    with pytest.raises(ValueError, match="`item_attributes` is one text, 'price': give a list of names"):
        read_item_table(items, attributes="price")
    tables = ("--interactions", tmp_path / "events.csv")
    refused = refusal("prepare", *tables, "--item-attributes", "price", "--output", tmp_path / "data")
    assert "--item-attributes names columns of a table that is not given: give --items too" in refused
