"""Items without events: the measure against one user at a time, and the experiment on a small set."""

import gzip
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from experiments import cold_items
from experiments.cold_items import ColdItems
from experiments.commands import Cost
from experiments.recipes.recipe import EVENTS, ITEMS
from tests.support.experiments import names, run_here
from tests.support.worlds import taste_world

N_ITEMS, N_COLD = 300, 150


def split_world() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events with the split of MI4Rec's form, and items; every second item is cold."""
    world = taste_world(1, 80, N_ITEMS, 30)
    number = pl.col("item_id").rank("dense") - 1
    part = pl.int_range(pl.len()).over("user_id", number % 2) % 4  # the first one is for training
    warm = pl.when(part == 1).then(pl.lit("warm_test")).when(part == 2).then(pl.lit("warm_val"))
    cold = pl.when(number % 4 == 1).then(pl.lit("cold_test")).otherwise(pl.lit("cold_val"))
    split = pl.when(number % 2 == 1).then(cold).otherwise(warm.otherwise(pl.lit("train")))
    return world.events.unique(["user_id", "item_id"], maintain_order=True).with_columns(
        split=split
    ), world.items


@pytest.fixture(scope="module")
def cold() -> ColdItems:
    """Twenty cold items have no title: they cannot be listed, and count as missed."""
    events, items = split_world()
    warm = events.filter(~pl.col("split").str.starts_with("cold"))
    held_out = events.filter(
        pl.col("split").str.starts_with("cold"), pl.col("user_id").is_in(warm["user_id"].implode())
    )
    of_cold = items.filter(pl.col("item_id").is_in(held_out["item_id"].implode()))
    of_warm = items.filter(pl.col("item_id").is_in(warm["item_id"].implode()))
    return ColdItems.of(Dataset.from_frame(warm.drop("split"), of_warm), of_cold[20:], held_out)


@pytest.mark.parametrize("among_all", [False, True])
def test_users_are_measured_among_the_items_of_a_part(cold: ColdItems, among_all: bool) -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(cold.dataset.n_users, cold.dataset.n_items)).astype(np.float32)
    recalls, ndcgs = cold.measured(lambda users: scores[users], "cold_test", among_all)
    held_out, seen = cold.held_out["cold_test"].toarray(), cold.dataset.train.interactions
    may = {*np.flatnonzero(held_out[:, :-1].any(0)).tolist()}
    may |= {*range(cold.n_warm)} if among_all else set()
    users = [user for user in range(len(held_out)) if held_out[user].any()]
    assert len(users) == len(recalls) > 50
    for user, recall, ndcg in zip(users, recalls, ndcgs, strict=True):
        listed = sorted(may - {*seen.history(user).tolist()}, key=lambda item: -scores[user, item])[:100]
        hits = [bool(held_out[user, item]) for item in listed]
        n = int(held_out[user].sum())
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(n, 100)))
        assert recall == pytest.approx(sum(hits[:20]) / min(n, 20))
        assert ndcg == pytest.approx(sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits)) / ideal)


@pytest.mark.parametrize("among_all", [False, True])
def test_chance_is_the_mean_of_random_lists(cold: ColdItems, among_all: bool) -> None:
    generator, shape, draws = np.random.default_rng(0), (cold.dataset.n_users, cold.dataset.n_items), []
    for _ in range(300):
        scores = generator.random(shape, dtype=np.float32)
        of_draw = cold.measured(lambda users, scores=scores: scores[users], "cold_test", among_all)
        draws.append([values.mean() for values in of_draw])
    expected = [values.mean() for values in cold_items.chance(cold, among_all)]
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - expected) < 4 * error)
    assert np.all(error < 0.02 * np.array(expected))


def test_the_text_prior_is_that_of_the_inverse_of_all_items(cold: ColdItems) -> None:
    vectors = np.random.default_rng(0).normal(size=(cold.dataset.n_items, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    users, histories = np.arange(5), cold.dataset.train.interactions.matrix.toarray()
    for penalty, scorer in zip(cold_items.PENALTIES, cold_items.text_prior(cold, vectors), strict=True):
        inverse = np.linalg.inv(vectors @ vectors.T + penalty * np.eye(len(vectors)))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        unseen = histories[users] == 0
        np.testing.assert_allclose(scorer(users)[unseen], (histories[users] @ weights)[unseen], rtol=1e-6)


def test_ridge_finds_factors_that_are_linear_in_the_vectors(cold: ColdItems) -> None:
    generator = np.random.default_rng(0)
    vectors = np.eye(cold.dataset.n_items)[:, : cold.n_warm] + 0.0
    vectors[cold.n_warm :] = vectors[generator.integers(cold.n_warm, size=cold.dataset.n_items - cold.n_warm)]
    first = cold_items.ridge(cold, 1e3 * vectors)[0](np.arange(4))
    copies = vectors[cold.n_warm :].argmax(1)
    np.testing.assert_allclose(first[:, cold.n_warm :], first[:, copies], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_experiment_on_a_small_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events, items = split_world()
    for name, table in (
        (EVENTS, events.select("user_id", "item_id", "timestamp")),
        (ITEMS, items.select("item_id", "title")),
    ):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(table.write_csv(separator="\t").encode()))
    events.select("user_id", "item_id", "split").write_csv(tmp_path / "split.tsv", separator="\t")
    calls = run_here(monkeypatch, Cost(1.0, 1.0, 1.0), cold_items)
    cold_items.main(tmp_path, tmp_path / "split.tsv", tmp_path / "output", None)
    assert names(calls) == ["pretrain", "finetune", "pretrain"]
    printed = capsys.readouterr().out
    found = re.search(r"cold test events, among (\d+) cold items and (\d+) of all", printed)
    assert found and 50 < int(found[1]) < int(found[2])
    rows = {row[0].strip(): row[1:] for row in re.findall(r"^\| (\S.*?) +\| +(\.?[\d.]+).*$", printed, re.M)}
    assert {"CLLM4Rec", "bag", "ridge", "text prior", "TF-IDF", "chance"} <= rows.keys()
    assert float(rows["CLLM4Rec"][0]) > float(rows["chance"][0]) + 0.05
