"""Names of columns, and the names by which they are found in tables."""

ALIASES = {  # a column of this package <- names under which it is found, the first present one wins
    "user_id": ("user_id", "user", "userId", "userid", "customer_id", "reviewerID"),
    "item_id": (
        "item_id",
        "item",
        "itemId",
        "itemid",
        "movieId",
        "movie_id",
        "product_id",
        "business_id",
        "parent_asin",
        "asin",
    ),
    "item_ids": ("item_ids", "item_id_list", "history"),
    "rating": ("rating", "overall", "stars", "score"),
    "timestamp": ("timestamp", "time", "unixReviewTime", "date"),
    "review_text": ("review_text", "review", "reviewText", "text"),
    "title": ("title", "name", "item_name", "movie_title"),
    "categories": ("categories", "category", "genres", "genre", "class"),
    "brand": ("brand", "store"),
    "year": ("year", "release_year"),
    "biography": ("biography", "bio"),
}


EVENT_COLUMNS = ("user_id", "item_id", "item_ids", "rating", "timestamp", "position", "review_text")


ITEM_COLUMNS = ("item_id", "title", "description", "categories", "brand", "year")


USER_COLUMNS = ("user_id", "biography")


ITEM_TEXTS = (
    "title",
    "description",
    "categories",
    "brand",
    "year",
)  # columns of the items table that are text


USER_TEXTS = ("biography",)  # columns of the users table that are text
