"""Files as their publishers write them: RecBole, MovieLens, Amazon, Yelp."""

from pathlib import Path

from cllm4rec.data.readers.tables import read_events, read_items, read_users
from tests.support.tables import json_lines, refused, written


def test_recbole_files(tmp_path: Path) -> None:
    events = written(
        tmp_path / "ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3.0\t8.0\n"
    )
    assert read_events(events).rows() == [("1", "2", 3.0, 8)]
    content = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    content += "2\tToy Story\t1995\tAnimation Comedy\n"
    items = read_items(written(tmp_path / "ml.item", content))
    assert items.to_dicts() == [
        {"item_id": "2", "title": "Toy Story", "categories": "Animation Comedy", "year": "1995"}
    ]
    assert read_users(written(tmp_path / "ml.user.gz", "user_id:token\tage:token\n1\t24\n")).rows() == [
        ("1",)
    ]
    assert "line 2, column rating" in refused(
        read_events, written(tmp_path / "b.inter", "user_id:token\titem_id:token\trating:float\n1\t2\tx\n")
    )


def test_movielens_files_without_a_header(tmp_path: Path) -> None:
    for name in ("ratings.dat", "ratings.dat.gz"):
        assert read_events(written(tmp_path / name, "1::1193::5::978300760\n")).rows() == [
            ("1", "1193", 5.0, 978300760)
        ]
    movies = written(tmp_path / "movies.dat", "1::Am\xe9lie (2001)::Comedy|Romance\n".encode("latin-1"))
    assert read_items(movies).rows() == [("1", "Amélie (2001)", "Comedy, Romance")]
    assert read_items(written(tmp_path / "movies.dat", "1::Amélie::Comedy\n")).rows() == [
        ("1", "Amélie", "Comedy")
    ]
    assert read_users(written(tmp_path / "users.dat", "1::F::1::10::48067\n")).rows() == [("1",)]
    for name in ("u.data", "u1.base", "ua.test"):
        assert read_events(written(tmp_path / name, "196\t242\t3\t881250949\n")).rows() == [
            ("196", "242", 3.0, 881250949)
        ]
    flags = ["0"] * 19
    flags[3] = flags[4] = "1"
    cells = ["1", "Mis\xe9rables, Les (1995)", "01-Jan-1995", "", "http://x", *flags]
    item = read_items(written(tmp_path / "u.item", ("|".join(cells) + "\n").encode("latin-1")))
    assert item.rows() == [("1", "Misérables, Les (1995)", "Animation, Children's")]
    assert f"{tmp_path / 'u.data'}, line 2: 3 cells where this kind of file has 4" in refused(
        read_events, written(tmp_path / "u.data", "1\t2\t3\t4\n1\t2\t3\n")
    )
    assert "line 1, column rating" in refused(read_events, written(tmp_path / "ratings.dat", "1::2::x::3\n"))


def test_movielens_tables_of_the_newer_sets(tmp_path: Path) -> None:
    assert read_events(
        written(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,9\n")
    ).rows() == [("1", "2", 3.5, 9)]
    items = read_items(
        written(tmp_path / "movies.csv", 'movieId,title,genres\n2,"A, the (1995)",Adventure|Children\n')
    )
    assert items.rows() == [("2", "A, the (1995)", "Adventure, Children")]


def test_amazon_reviews_and_metadata_of_2014(tmp_path: Path) -> None:
    review = {
        "reviewerID": "A1",
        "asin": "B1",
        "helpful": [0, 1],
        "reviewText": "fine",
        "overall": 5.0,
        "unixReviewTime": 1252800000,
    }
    frame = read_events(written(tmp_path / "reviews.json.gz", json_lines(review)))
    assert frame.to_dicts() == [
        {"user_id": "A1", "item_id": "B1", "rating": 5.0, "timestamp": 1252800000, "review_text": "fine"}
    ]
    first = "{'asin': 'B1', 'title': 'It\\'s \"it\"', 'salesRank': {'Music': 3}, "
    first += "'categories': [['Music', 'Rock'], ['Gifts']]}"
    second = "{'asin': 'B2', 'description': None, 'brand': 'b\\x41'}"
    items = read_items(written(tmp_path / "meta.json.gz", f"{first}\n{second}\n"))
    assert items.to_dicts() == [
        {
            "item_id": "B1",
            "title": 'It\'s "it"',
            "description": "",
            "categories": "Music, Rock, Gifts",
            "brand": "",
        },
        {"item_id": "B2", "title": "", "description": "", "categories": "", "brand": "bA"},
    ]


def test_amazon_metadata_of_2018(tmp_path: Path) -> None:
    record = {
        "asin": "B1",
        "title": "T",
        "category": ["Music", "Rock"],
        "description": ["One.", "", "Two."],
        "brand": "b",
        "also_buy": [],
    }
    assert read_items(written(tmp_path / "m.json", json_lines(record))).rows() == [
        ("B1", "T", "One. Two.", "Music, Rock", "b")
    ]


def test_amazon_reviews_and_metadata_of_2023(tmp_path: Path) -> None:
    review = {
        "rating": 4.0,
        "title": "of the review",
        "text": "good",
        "asin": "child",
        "parent_asin": "P",
        "user_id": "U",
    }
    review |= {"timestamp": 1588687728923, "images": [], "verified_purchase": True}
    frame = read_events(written(tmp_path / "r.jsonl", json_lines(review)))
    assert frame.to_dicts() == [
        {"user_id": "U", "item_id": "P", "rating": 4.0, "timestamp": 1588687728, "review_text": "good"}
    ]
    metas = [
        {
            "parent_asin": f"P{i}",
            "title": "T",
            "description": [],
            "categories": ["A", "B"],
            "store": "S",
            "details": {f"key {i}": i},
        }
        for i in range(2000)
    ]
    items = read_items(written(tmp_path / "m.jsonl", json_lines(*metas)))
    assert items.row(1999, named=True) == {
        "item_id": "P1999",
        "title": "T",
        "description": "",
        "categories": "A, B",
        "brand": "S",
    }


def test_yelp(tmp_path: Path) -> None:
    review = {
        "review_id": "r",
        "user_id": "u",
        "business_id": "b",
        "stars": 3,
        "text": "ok",
        "date": "2016-03-09 16:00:00",
    }
    assert read_events(written(tmp_path / "review.json", json_lines(review))).rows() == [
        ("u", "b", 3.0, 1457539200, "ok")
    ]
    shop = {
        "business_id": "b",
        "name": "Shop",
        "categories": "Food, Bars",
        "attributes": {"x": "1"},
        "hours": None,
    }
    assert read_items(written(tmp_path / "business.json", json_lines(shop))).rows() == [
        ("b", "Shop", "Food, Bars")
    ]
