"""Which events a system sees, and which are masked, when it is measured and when it recommends."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec import evaluate, pretrain, recommend
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import full_ranking, measure
from cllm4rec.models.base import Recommender
from cllm4rec.models.baselines.popularity import Popularity
from tests.support.reviewed_books import reviewed_books
from tests.support.scorers import Scorer


def pairs(dataset: Dataset) -> set[tuple[int, int]]:
    """User and item of each event."""
    return set(zip(dataset.interactions.users.tolist(), dataset.interactions.items.tolist(), strict=True))


def pairs_listed(users: np.ndarray, items: np.ndarray) -> set[tuple[int, int]]:
    """User and item of each recommendation; items (n_users, k), -1 after the last."""
    rows = zip(users.tolist(), items.tolist(), strict=True)
    return {(user, item) for user, row in rows for item in row if item >= 0}


class Recorder:
    """A scorer that records its inputs. The score of an event is the worth of its part; others are 0."""

    def __init__(self, **worth: float) -> None:
        self.worth = worth
        self.asked: list[tuple[np.ndarray, Dataset]] = []

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        self.asked.append((users, seen))
        scores = np.zeros((reviewed_books().n_users, reviewed_books().n_items), dtype=np.float32)
        for part, worth in self.worth.items():
            events = reviewed_books().only(part).interactions
            scores[events.users, events.items] = worth
        return scores[users]

    def method(self) -> Callable[..., np.ndarray]:
        """A replacement for `_score` of a system."""
        return lambda system, users, known, seen: self.score(users, seen)


def test_measure_shows_the_scorer_the_seen_events_and_not_the_masked_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, recorder = reviewed_books(), Recorder(train=4, validation=3, test=1)
    monkeypatch.setattr(full_ranking, "USERS_AT_ONCE", 4)
    result = measure(Scorer(world, recorder.score), world)
    assert len(recorder.asked) > 1
    assert all(pairs(given) == pairs(world.train) for _, given in recorder.asked)
    np.testing.assert_array_equal(np.concatenate([users for users, _ in recorder.asked]), result.users)
    assert result.metrics["mrr@100"] == 1, "items of training and validation are not ranked"
    assert result.metrics["ndcg@100"] == 1


def test_measure_at_validation_masks_the_seen_events_alone() -> None:
    world, recorder = reviewed_books(), Recorder(train=4, test=3, validation=1)
    result = measure(Scorer(world, recorder.score), world, "validation")
    assert all(pairs(given) == pairs(world.train) for _, given in recorder.asked)
    n_test = np.diff(world.test.interactions.indptr)[result.users]
    np.testing.assert_allclose(
        result.per_user["mrr@100"], 1 / (1 + n_test), err_msg="test items rank above the held-out items"
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the popularity system."""
    folder = tmp_path_factory.mktemp("popularity")
    reviewed_books().save(folder / "data")
    pretrain.main(
        ["--system", "popularity", "--dataset", str(folder / "data"), "--output", str(folder / "run")]
    )
    return folder / "run"


def evaluated(
    run: Path, scorer: Recorder, split: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> pl.DataFrame:
    """Metrics of each user as the command writes them."""
    monkeypatch.setattr(Popularity, "_score", scorer.method())
    evaluate.main(["--run", str(run), "--split", split, "--per-user", str(folder / "users.parquet")])
    return pl.read_parquet(folder / "users.parquet")


def test_evaluate_at_test_takes_training_events_in_and_masks_training_and_validation(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Recorder(train=4, validation=3, test=1)
    values = evaluated(run_folder, scorer, "test", tmp_path, monkeypatch)
    assert scorer.asked
    for _, given in scorer.asked:
        assert pairs(given) == pairs(reviewed_books().train)
    assert len(values) == 9
    assert (values["mrr@100"] == 1).all()
    assert (values["ndcg@100"] == 1).all()


def test_evaluate_at_validation_takes_training_events_in_and_masks_them_alone(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Recorder(train=4, test=3, validation=1)
    values = evaluated(run_folder, scorer, "validation", tmp_path, monkeypatch)
    assert scorer.asked
    for _, given in scorer.asked:
        assert pairs(given) == pairs(reviewed_books().train)
    users = reviewed_books().user_ids.index(values["user_id"].to_list())
    n_test = np.diff(reviewed_books().test.interactions.indptr)[users]
    np.testing.assert_allclose(
        values["mrr@100"].to_numpy(), 1 / (1 + n_test), err_msg="test events are not known yet"
    )


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[Recommender, Recorder]:
    """A system, and the recorder that scores instead of it."""
    model, recorder = Popularity().fit(reviewed_books().train), Recorder(train=4, validation=3, test=2)
    monkeypatch.setattr(model, "_score", lambda users, known, seen: recorder.score(users, seen))
    return model, recorder


def test_recommend_shows_the_model_all_events_and_masks_them_all(
    recorded: tuple[Recommender, Recorder],
) -> None:
    model, recorder = recorded
    world, users = reviewed_books(), np.arange(reviewed_books().n_users)
    lists = model.rank(users, world, k=world.n_items)
    ((asked, given),) = recorder.asked
    np.testing.assert_array_equal(asked, users)
    assert pairs(given) == pairs(world) == pairs(world.train) | pairs(world.validation) | pairs(world.test)
    everything = {(user, item) for user in users.tolist() for item in range(world.n_items)}
    assert pairs_listed(users, lists.items) == everything - pairs(world)


def test_recommend_in_batches_shows_the_model_all_events(recorded: tuple[Recommender, Recorder]) -> None:
    model, recorder = recorded
    world = reviewed_books()
    for lists in model.rank_batches(np.arange(world.n_users), world, k=3, batch_size=4):
        assert not pairs(world) & pairs_listed(lists.users, lists.items)
    assert len(recorder.asked) == 3
    assert all(pairs(given) == pairs(world) for _, given in recorder.asked)


def test_recommend_with_another_mask_still_shows_the_model_what_is_seen(
    recorded: tuple[Recommender, Recorder],
) -> None:
    model, recorder = recorded
    world, users = reviewed_books(), np.arange(reviewed_books().n_users)
    lists = model.rank(users, world.train, k=world.n_items, masked=world.validation)
    assert all(given is world.train for _, given in recorder.asked)
    everything = {(user, item) for user in users.tolist() for item in range(world.n_items)}
    assert pairs_listed(users, lists.items) == everything - pairs(world.validation)


def test_the_recommend_command_shows_the_model_all_events_and_lists_none_of_them(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, world = Recorder(train=4, validation=3, test=2), reviewed_books()
    monkeypatch.setattr(Popularity, "_score", recorder.method())
    recommend.main(
        ["--run", str(run_folder), "--all", "--k", "4", "--output", str(tmp_path / "lists.parquet")]
    )
    assert recorder.asked
    assert all(pairs(given) == pairs(world) for _, given in recorder.asked)
    table = pl.read_parquet(tmp_path / "lists.parquet")
    users = world.user_ids.index(table["user_id"].to_list())
    items = world.item_ids.index(table["item_id"].to_list())
    assert len(table) == 4 * world.n_users
    assert not pairs(world) & set(zip(users.tolist(), items.tolist(), strict=True))
