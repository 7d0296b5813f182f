"""Filters of lists: files of item ids -> a mask, and lists that equal a brute-force filter."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.ids import IdMap
from cllm4rec.list_filters import ListFilters, excluded_items
from cllm4rec.models.baselines.config import EASEConfig
from cllm4rec.models.baselines.ease import EASE
from tests.support.worlds import taste_dataset

ITEM_IDS = IdMap(pl.Series(["007", "7", "a b", "é"]))


def ids_file(folder: Path, name: str, *ids: str) -> str:
    (folder / name).write_text("".join(f"{item_id}\n" for item_id in ids), encoding="utf-8")
    return str(folder / name)


def test_without_files_no_item_is_excluded() -> None:
    mask = excluded_items(ListFilters(), ITEM_IDS)
    assert (mask.dtype, mask.tolist()) == (bool, [False] * 4)


@pytest.mark.parametrize(
    ("allow", "deny", "excluded"),
    [
        (["7", "é"], None, [True, False, True, False]),
        (None, ["007"], [True, False, False, False]),
        (["7", "é", "", "7"], ["é"], [True, False, True, True]),
        (["a b"], [], [True, True, False, True]),
    ],
)
def test_only_allowed_items_that_are_not_denied_remain(
    allow: list[str] | None, deny: list[str] | None, excluded: list[bool], tmp_path: Path
) -> None:
    files = {"allow": allow, "deny": deny}
    filters = {name: None if ids is None else ids_file(tmp_path, name, *ids) for name, ids in files.items()}
    assert excluded_items(ListFilters(**filters), ITEM_IDS).tolist() == excluded


def test_a_file_with_a_byte_order_mark_and_other_line_ends_is_read(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes("\ufeff007\r\né\r\n".encode())
    mask = excluded_items(ListFilters(deny=str(tmp_path / "ids")), ITEM_IDS)
    assert mask.tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", ["allow", "deny"])
def test_files_that_cannot_be_used_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    unknown = ids_file(tmp_path, "unknown.txt", "7", "8", "9")
    (tmp_path / "latin").write_bytes(b"\xe9\n")
    for file, message in (
        (str(tmp_path / "none.txt"), r"none\.txt: there is no such file"),
        (str(tmp_path / "latin"), "latin: not UTF-8 text"),
        (unknown, r"unknown\.txt: item '8' is not in the data \(2 of 3 unknown\)"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            excluded_items(ListFilters(**{name: file}), ITEM_IDS)
        assert "\n" not in str(caught.value)


def test_filters_that_leave_no_item_are_refused(tmp_path: Path) -> None:
    empty, single = ids_file(tmp_path, "empty"), ids_file(tmp_path, "single", "7")
    for filters, names in (
        (ListFilters(allow=empty), f"`allow` {empty}: "),
        (ListFilters(allow=single, deny=single), f"`allow` {single} and `deny` {single}: "),
    ):
        with pytest.raises(ValueError) as caught:
            excluded_items(filters, ITEM_IDS)
        assert str(caught.value) == f"{names}no item is left to recommend"


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
