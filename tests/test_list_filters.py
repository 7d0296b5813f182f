"""Filters of lists: item ids -> a mask, and lists that equal a brute-force filter."""

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.ids import IdMap
from cllm4rec.list_filters import excluded_items
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from tests.support.worlds import taste_dataset

ITEMS = pl.DataFrame({"item_id": ["007", "7", "a b", "é"], "title": ["Star", "Sun", "A star", ""]})
ITEM_IDS = IdMap(ITEMS["item_id"])


def test_without_filters_no_item_is_excluded() -> None:
    mask = excluded_items(ITEM_IDS, ITEMS)
    assert (mask.dtype, mask.tolist()) == (bool, [False] * 4)


@pytest.mark.parametrize(
    ("allow", "deny", "excluded"),
    [
        (["7", "é"], None, [True, False, True, False]),
        (None, ["007"], [True, False, False, False]),
        (["7", "é", 7], ["é"], [True, False, True, True]),
        (["a b"], [], [True, True, False, True]),
    ],
)
def test_only_allowed_items_that_are_not_denied_remain(
    allow: list[object] | None, deny: list[object] | None, excluded: list[bool]
) -> None:
    assert excluded_items(ITEM_IDS, ITEMS, allow, deny).tolist() == excluded


@pytest.mark.parametrize("name", ["allow", "deny"])
def test_unknown_items_are_refused_in_one_line(name: str) -> None:
    message = rf"^`{name}`: item '8' is not in the data \(2 of 3 unknown\)$"
    with pytest.raises(ValueError, match=message):
        excluded_items(ITEM_IDS, ITEMS, **{name: ["7", "8", "9"]})


def test_filters_that_leave_no_item_are_refused() -> None:
    with pytest.raises(ValueError, match="^`allow` leaves no item to recommend$"):
        excluded_items(ITEM_IDS, ITEMS, allow=[])
    with pytest.raises(ValueError, match="^`allow` and `deny` leave no item to recommend$"):
        excluded_items(ITEM_IDS, ITEMS, allow=["7"], deny=["7"])
    with pytest.raises(ValueError, match="^`deny` and `where` leave no item to recommend$"):
        excluded_items(ITEM_IDS, ITEMS, deny=["7"], where='title == "Sun"')


def test_a_condition_goes_with_allowed_and_denied_items() -> None:
    mask = excluded_items(ITEM_IDS, ITEMS, ["007", "7", "a b"], ["007"], 'title.contains("tar")')
    assert mask.tolist() == [True, True, False, True]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_lists_equal_a_brute_force_filter(share: float) -> None:
    dataset = taste_dataset()
    model = EASE(EASEConfig(regularization=10.0)).fit(dataset.train)
    users = np.arange(dataset.n_users)
    excluded = np.random.default_rng(0).random(dataset.n_items) < share
    lists = model.rank(users, dataset.train, 7, excluded_items=excluded)
    (batched,) = model.rank_batches(users, dataset.train, 7, len(users), excluded_items=excluded)
    np.testing.assert_array_equal(batched.items, lists.items)
    full = model.rank(users, dataset.train, dataset.n_items)
    for row in range(len(users)):
        kept = [item for item in full.items[row] if item >= 0 and not excluded[item]][:7]
        expected = kept + [-1] * (lists.items.shape[1] - len(kept))
        assert lists.items[row].tolist() == expected
        assert np.isfinite(lists.scores[row]).tolist() == [item >= 0 for item in expected]


def test_a_mask_of_another_shape_or_type_is_refused() -> None:
    dataset = taste_dataset()
    model = EASE(EASEConfig(regularization=10.0)).fit(dataset.train)
    for mask in (np.zeros(3, dtype=bool), np.zeros(dataset.n_items), [0]):
        with pytest.raises(ValueError, match=r"`excluded_items` is .*: give bool"):
            model.rank(np.arange(2), dataset.train, excluded_items=mask)
