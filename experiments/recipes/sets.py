"""The data sets that have a recipe. A page in `datasets/` describes each."""

import polars as pl

from experiments.recipes.recipe import Counts, Recipe


def movielens_100k_items(items: pl.DataFrame) -> pl.DataFrame:
    """Adds the year of the title; spaces separate the genres, as in the republished table."""
    return items.with_columns(
        pl.col("title").str.extract(r"\((\d{4})\)$").fill_null("").alias("year"),
        pl.col("categories").str.replace_all(", ", " ", literal=True),
    )


RECIPES = {
    "ml-100k": Recipe(
        title="MovieLens 100K",
        event_file="u.data",
        item_file="u.item",
        event_columns=("rating", "timestamp"),
        item_columns=("title", "year", "categories"),
        published=Counts(read=100_000, kept=54_413, users=938, items=1_008),
        republished=Counts(read=100_000, kept=54_413, users=938, items=1_008),
        hashes=(
            "475dbd97a9c03cb1779f7a27b31c814757f71fb43ecf67e4077a75374b50104f",
            "8fbe6579a07eaecc7a1d153a715442919db7d247ec99b1e125cf6702f8bb3179",
            "6174d76722eadbb0310e50aadf59f98ba74cbaee0c000563c46dbea20f2e8f38",
        ),
        confirmed=True,
        min_rating=4,
        complete_items=movielens_100k_items,
    ),
    "ml-1m": Recipe(
        title="MovieLens 1M",
        event_file="ratings.dat",
        item_file="movies.dat",
        event_columns=("rating", "position", "timestamp"),
        item_columns=("title", "categories"),
        published=Counts(read=1_000_209, kept=1_000_209, users=6_040, items=3_706),
        republished=Counts(read=999_611, kept=999_611, users=6_040, items=3_416),
        hashes=(
            "787a1bdb075dacddd5c5af700d54d77c0897dbea1ea748273aa5dc6a1c467602",
            "bd8e0b1ec9c6f165adc44fc1b582b1de00c97dbf9e473c2ca1fd2406e9766081",
            "79a16e70d8d9c8f309ebfaa9e51cc885cde34459a8ba6338db0969ce339c8b42",
        ),
    ),
    "beauty": Recipe(
        title="Amazon Beauty 2014, 5-core",
        event_file="reviews_Beauty_5.json",
        item_file="meta_Beauty.json",
        event_columns=("rating", "position", "timestamp"),
        item_columns=("title",),
        published=Counts(read=198_502, kept=198_502, users=22_363, items=12_101),
        republished=Counts(read=198_502, kept=198_502, users=22_363, items=12_101),
        hashes=(
            "155a33fc1176a86924ed553d9cc3bc7993c527bd768a0757ad664c49bebb26fa",
            "34939f4cbc785510e149fd0c4ac32bafd26a22ef08aba1eb5876a354da1f9f1f",
            "f7bdae5786059e966b8365bbdc4cd578f77d75ee8abd5620dea2c7e4649896a1",
        ),
    ),
    "musical": Recipe(
        title="Amazon Musical Instruments 2014, 5-core",
        event_file="reviews_Musical_Instruments_5.json",
        item_file="meta_Musical_Instruments.json",
        event_columns=("rating", "timestamp", "review_text"),
        item_columns=("title", "description"),
        published=Counts(read=10_261, kept=10_261, users=1_429, items=900),
        republished=Counts(read=10_261, kept=10_261, users=1_429, items=900),
        hashes=(
            "4cef796260d38008a16f76fdbf1b5e43b4434729a958b8bcbbad81b69aa6bad8",
            "f6372f5dbb89410fa17fe51a373ea6db76b3b3b95fe7f48b6eda80e28391d157",
            "4d49afaa88a107a3f05e1291290af38a8133348bc41b045c5c6763a0587d06c5",
        ),
        items_optional=True,
    ),
}
