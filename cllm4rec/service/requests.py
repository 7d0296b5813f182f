"""Bodies of requests and answers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cllm4rec.data.conditions import LONGEST as LONGEST_CONDITION
from cllm4rec.models.diversity import POOL

MOST_ITEMS = POOL  # of a list, so that a shorter list is the beginning of a longer one; and of a history
MOST_FILTERED = 100_000  # item ids of a filter
LONGEST_WISH = 1_000  # characters

ItemId = str | int
Ids = Annotated[list[ItemId], Field(max_length=MOST_FILTERED)]


class Strict(BaseModel):
    """A body without unknown fields. Numbers are not read from texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ListRequest(Strict):
    """A list for a user of the dataset, for a history, or for a wish alone."""

    user: ItemId | None = Field(None, description="id of a user of the dataset")
    history: Annotated[list[ItemId], Field(min_length=1, max_length=MOST_ITEMS)] | None = Field(
        None, description="item ids of somebody without an id, the oldest first"
    )
    wish: Annotated[str, Field(max_length=LONGEST_WISH)] | None = Field(
        None, description="words that move the list, such as: a warm strap, not leather"
    )
    k: int = Field(10, ge=1, le=MOST_ITEMS, description="maximum length of the list")
    allow: Ids | None = Field(None, description="the only items that the list may hold")
    deny: Ids | None = Field(None, description="items that the list may not hold")
    where: Annotated[str, Field(max_length=LONGEST_CONDITION)] | None = Field(
        None, description="condition on the items, such as: year >= 1990"
    )
    repeats: bool = Field(False, description="whether the list may hold items of the history")
    diversity: float = Field(0.0, ge=0, le=1, description="how much the items of the list shall differ")

    @model_validator(mode="after")
    def _one_source(self) -> "ListRequest":
        if self.user is not None and self.history is not None:
            raise ValueError("give `user` or `history`, not both")
        if self.user is None and self.history is None and self.wish is None:
            raise ValueError("give `user`, `history` or `wish`")
        return self


class ExplainRequest(Strict):
    """Why a user, or somebody with a history, gets an item."""

    item: ItemId
    user: ItemId | None = None
    history: Annotated[list[ItemId], Field(min_length=1, max_length=MOST_ITEMS)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "ExplainRequest":
        if (self.user is None) == (self.history is None):
            raise ValueError("give `user` or `history`")
        return self


class ListedItem(BaseModel):
    """An item of a list."""

    item_id: ItemId
    rank: int
    score: float
    title: str | None = None


class SimilarItems(BaseModel):
    """Items in their order, the first one the best."""

    items: list[ListedItem]


class ItemList(SimilarItems):
    """A list, perhaps moved by a wish."""

    ignored_words: list[str] = Field([], description="words of the wish that no text of the items has")


class Effect(BaseModel):
    """What the score of the explained item would lose without an item of the history; null: not known."""

    item_id: ItemId
    effect: float | None
    title: str | None = None


class WordEffect(BaseModel):
    """What the score of the explained item would lose without a word of its text."""

    word: str
    effect: float


class Reasons(BaseModel):
    """Why an item is recommended."""

    score: float
    rank: int
    items: list[Effect]
    words: list[WordEffect]


class FoundItem(BaseModel):
    """An item of the catalogue."""

    item_id: ItemId
    title: str | None = None


class FoundItems(BaseModel):
    """Items of the catalogue."""

    items: list[FoundItem]


class FoundUsers(BaseModel):
    """Users of the dataset."""

    users: list[ItemId]


class MappedItem(FoundItem):
    """An item and its position, -1 .. 1."""

    x: float
    y: float


class ItemMap(BaseModel):
    """Items in two dimensions."""

    items: list[MappedItem]
    n_items: int = Field(description="items of the catalogue")
    variance: float = Field(description="share of the variance of the item vectors that the map holds")


class Health(BaseModel):
    """The run that is served."""

    run: str
    system: str
    n_items: int
    n_users: int


class Problem(BaseModel):
    """What is wrong, and what to do."""

    error: str
