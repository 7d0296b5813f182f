"""Neighbours and correlations of items by the readings of their texts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from cllm4rec.data.dataset import Dataset
from experiments.item_neighbours import (
    ALL,
    AS_IS,
    NATURAL,
    NO_YEAR,
    PRETRAINED,
    RANDOM,
    collaborative_similarities,
    correlations,
    cosines,
    forms,
    frequent_items,
    main,
    neighbour_lists,
    neighbour_table,
)
from experiments.title_forms import without_year
from tests.support.backbones import save_backbone, small_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are not kept in the home folder."""
    monkeypatch.setenv("CLLM4REC_CACHE", str(tmp_path / "cache"))


def test_the_year_is_left_out_at_the_end_alone() -> None:
    titles = ["The Matrix (1999)", "2001: A Space Odyssey (1968)", "1984", "Blues (Blues) (1990) x"]
    assert [without_year(title) for title in titles] == [
        *("The Matrix", "2001: A Space Odyssey", "1984", "Blues (Blues) (1990) x")
    ]


def test_correlations_are_spearmans_over_pairs() -> None:
    """Ties included; the shuffled ones are of permuted texts."""
    generator = np.random.default_rng(0)
    collaborative = cosines(generator.integers(0, 2, (12, 9)).astype(float))
    text = cosines(generator.standard_normal((12, 5)))
    pairs = np.triu_indices(12, 1)
    correlation, shuffled = correlations(text, collaborative, n_shuffles=3, seed=5)
    assert correlation == pytest.approx(spearmanr(text[pairs], collaborative[pairs]).statistic)
    orders = np.random.default_rng(5)
    for value in shuffled:
        order = orders.permutation(12)
        expected = spearmanr(text[np.ix_(order, order)][pairs], collaborative[pairs]).statistic
        assert value == pytest.approx(expected)


def test_equal_similarities_correlate_and_shuffled_ones_do_not() -> None:
    similarities = cosines(np.random.default_rng(1).standard_normal((60, 8)))
    correlation, shuffled = correlations(similarities, similarities, n_shuffles=40, seed=0)
    assert correlation == pytest.approx(1)
    assert abs(shuffled.mean()) < 0.02 and abs(shuffled).max() < 0.2


def test_neighbours_by_hand() -> None:
    """Items on a circle at 0, 10, 90 and 100 degrees, and one without a vector."""
    angles = np.radians([0, 10, 90, 100])
    vectors = np.vstack([np.stack([np.cos(angles), np.sin(angles)], axis=1), np.zeros(2)])
    names = ["east", "near east", "north", "near north", "nowhere"]
    lists = neighbour_lists({"angle": cosines(vectors)}, names, np.array([0, 3]))
    assert lists == {
        "angle": {"east": ["near east", "north", "nowhere"], "near north": ["north", "near east", "nowhere"]}
    }
    table = neighbour_table(lists)
    assert table.splitlines()[2].replace(" ", "") == "|east|neareast;north;nowhere|"


def test_the_items_shown_have_the_most_training_events() -> None:
    train = small_dataset().train
    counts = np.bincount(train.interactions.items, minlength=train.n_items)
    chosen = frequent_items(train, 5)
    assert sorted(counts, reverse=True)[:5] == counts[chosen].tolist()
    ties = [(a, b) for a, b in zip(chosen, chosen[1:], strict=False) if counts[a] == counts[b]]
    assert all(a < b for a, b in ties)


def test_collaborative_similarity_sees_training_columns() -> None:
    train = small_dataset().train
    items = np.array([0, 3, 7])
    users = [set(train.interactions.users[train.interactions.items == item].tolist()) for item in items]
    columns = collaborative_similarities(train, items, seed=0)["columns"]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert columns[a, b] == pytest.approx(
            len(users[a] & users[b]) / np.sqrt(len(users[a]) * len(users[b]))
        )


def titled(dataset: Dataset) -> Dataset:
    """The dataset with titles of a catalogue."""
    titles = [f"Book {n}, The ({1990 + n % 9})" for n in range(dataset.n_items)]
    return replace(dataset, items=dataset.items.with_columns(pl.Series("title", titles)))


def test_the_forms_of_the_texts() -> None:
    dataset = titled(small_dataset())
    found = forms(dataset)
    first = {name: (texts.item_texts["title"][0], fields) for name, (texts, fields) in found.items()}
    assert first == {
        AS_IS: ("Book 0, The (1990)", ["title"]),
        NATURAL: ("The Book 0 (1990)", ["title"]),
        NO_YEAR: ("The Book 0", ["title"]),
        ALL: ("The Book 0 (1990)", None),
    }


def test_the_command_on_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = save_backbone(tmp_path / "backbone", "llama", seed=7)
    titled(small_dataset()).save(tmp_path / "data" / "seed0")
    main(backbone, tmp_path / "data", n_items=4, n_shuffles=5, seed=0, output=tmp_path / "out.json")
    described = json.loads((tmp_path / "out.json").read_text())
    rows = described["correlations"]
    assert [(row["weights"], row["texts"], row["collaborative"]) for row in rows] == [
        (weights, form, of)
        for weights in (PRETRAINED, RANDOM)
        for form in (AS_IS, NATURAL, NO_YEAR, ALL)
        for of in ("columns", "factors")
    ]
    for row in rows:
        low, high = row["shuffled_interval"]
        assert -1 <= low <= row["shuffled"] <= high <= 1
    assert len({row["correlation"] for row in rows}) == len(rows), "forms and weights are read differently"
    assert all(len(lists) == 4 for lists in described["neighbours"].values())
    printed = capsys.readouterr().out
    assert f"{rows[0]['correlation']:+.4f}" in printed
    assert all(name in printed for name in described["neighbours"][PRETRAINED])


def test_refusals(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "backbone")
    with pytest.raises(SystemExit, match="no folder seed0"):
        main(backbone, tmp_path, 4, 5, 0, None)
    dataset = small_dataset()
    replace(dataset, items=dataset.items.drop("title")).save(tmp_path / "untitled" / "seed0")
    with pytest.raises(SystemExit, match="no titles: name another --data"):
        main(backbone, tmp_path / "untitled", 4, 5, 0, None)
    dataset.save(tmp_path / "data" / "seed0")
    with pytest.raises(SystemExit, match="there is no such folder"):
        main(tmp_path / "nowhere", tmp_path / "data", 4, 5, 0, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"error: backbone .*cannot be loaded"):
        main(tmp_path / "empty", tmp_path / "data", 4, 5, 0, None)
