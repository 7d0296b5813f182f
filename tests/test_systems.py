"""What every system promises, whatever it is: one suite over SYSTEMS."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import checkerboard, shuffled_items, taste_world
from cllm4rec.evaluation import PER_USER, measure
from cllm4rec.models import SYSTEMS, retrieval, system_class, system_settings
from cllm4rec.models.base import Recommender
from cllm4rec.models.neural import NeuralRecommender
from cllm4rec.models.one_stage import OneStage
from cllm4rec.training.config import TrainConfig

SETTINGS = {  # fixed, so that nothing is searched; a system that is not named here keeps its defaults
    "ials": {"factors": 16, "regularization": 10.0, "alpha": 3.0},
    "ease": {"regularization": 50.0},
    "itemknn": {"neighbours": 10, "shrinkage": 5.0},
    "sasrec": {"dropout": 0.1},
    "gru4rec": {"dropout": 0.1},
    "rsllm": {"dropout": 0.1, "title_words": 4},
}
QUICK = TrainConfig(epochs=2, batch_size=16, warmup_steps=5)
ONE_STAGE = [name for name in SYSTEMS if issubclass(system_class(name), OneStage)]
PERSONAL = [name for name in SYSTEMS if name != "popularity"]
CHOOSING = [name for name in ONE_STAGE if system_class(name).grid]  # their settings are chosen on validation events


@cache
def small_world(seed: int = 1) -> Dataset:
    """80 readers, 60 books with titles, texts and reviews."""
    world = taste_world(seed, n_users=80, n_items=60, n_events=12)
    return build_dataset(world.events, world.items)


def new_system(name: str, **settings: object) -> Recommender:
    system = system_class(name)
    return system(system.config_class(**{**SETTINGS.get(name, {}), **settings}))


def fit(model: Recommender, dataset: Dataset, training: TrainConfig = QUICK) -> Recommender:
    """Fit any system, all its stages."""
    if not isinstance(model, NeuralRecommender):
        return model.fit(dataset.train, dataset.validation)
    for stage in model.stages:
        model.fit(dataset.train, dataset.validation, training, stage)
    return model


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_table_of_systems_names_the_settings_of_each(name: str) -> None:
    assert system_settings(name) is system_class(name).config_class
    assert bool(system_settings(name).training) == issubclass(system_class(name), NeuralRecommender)


@cache
def fitted(name: str) -> Recommender:
    """Each system fitted once on the small world."""
    return fit(new_system(name), small_world())


@pytest.fixture(params=SYSTEMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Recommender:
    return fitted(name)


def lists(model: Recommender, dataset: Dataset, k: int = 20) -> np.ndarray:
    return model.recommend(np.arange(dataset.n_users), dataset.train, k).items


def with_user(dataset: Dataset, user_id: str, history: np.ndarray) -> Dataset:
    """The dataset with one more user, who took the items of `history` (items and other users as they were)."""
    events, n = dataset.interactions, len(history)
    interactions = Interactions(
        np.append(events.users, np.full(n, dataset.n_users)),
        np.append(events.items, history),
        dataset.n_users + 1,
        dataset.n_items,
        None if events.times is None else np.append(events.times, np.arange(n) + 2_000_000_000),
        None if events.reviews is None else pl.concat([events.reviews, pl.Series([""] * n, dtype=pl.String)]),
    )
    users = pl.concat([dataset.users, pl.DataFrame({"user_id": [user_id]})], how="diagonal")
    return replace(dataset, interactions=interactions, users=users, part=np.append(dataset.part, np.zeros(n, np.uint8)))


def renumbered(dataset: Dataset, order: np.ndarray) -> Dataset:
    """The same events, with the item that had number order[j] now having number j."""
    new_number = np.argsort(order)
    interactions = replace(dataset.interactions, items=new_number[dataset.interactions.items])
    return replace(dataset, interactions=interactions, items=dataset.items[order])


def test_scores_are_finite_and_cover_the_catalogue(model: Recommender) -> None:
    dataset = small_world()
    scores = model.score(np.array([3, 0, 7]), dataset.train)
    assert scores.shape == (3, dataset.n_items)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_recommended_items_are_the_best_unseen_ones_in_order(model: Recommender) -> None:
    dataset = small_world()
    users = np.arange(dataset.n_users)
    scores, best = model.score(users, dataset.train), model.recommend(users, dataset.train, k=10)
    for user in users:
        seen = dataset.train.interactions.history(user)
        unseen = np.setdiff1d(np.arange(dataset.n_items), seen)
        np.testing.assert_array_equal(best.scores[user], np.sort(scores[user, unseen])[::-1][:10])
        np.testing.assert_array_equal(best.scores[user], scores[user, best.items[user]])
        assert len(set(best.items[user])) == 10


@pytest.mark.parametrize("items_at_once", [7, 1, None])
def test_seen_items_are_never_recommended(
    model: Recommender, items_at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_world()
    if items_at_once is not None:
        monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", items_at_once * dataset.n_users)
    for user, items in enumerate(lists(model, dataset, dataset.n_items)):
        unseen = np.setdiff1d(np.arange(dataset.n_items), dataset.train.interactions.history(user))
        assert sorted(items[items >= 0]) == unseen.tolist()


def test_masked_items_are_never_recommended_though_the_model_does_not_see_them(model: Recommender) -> None:
    dataset = small_world()
    users = np.arange(dataset.n_users)
    best = model.recommend(users, dataset.train, dataset.n_items, masked=dataset)
    for user, items in enumerate(best.items):
        assert not set(items[items >= 0]) & set(dataset.interactions.history(user))


def test_a_batch_gives_what_its_users_give_one_by_one(model: Recommender) -> None:
    dataset = small_world()
    users = np.random.default_rng(0).permutation(dataset.n_users)[:25]
    scores, batch = model.score(users, dataset.train), model.recommend(users, dataset.train, 10)
    for row, user in enumerate(users):
        alone = model.score(np.array([user]), dataset.train)[0]
        np.testing.assert_allclose(scores[row], alone, rtol=1e-4, atol=1e-4 * np.abs(scores).max())
        np.testing.assert_array_equal(batch.items[row], model.recommend(np.array([user]), dataset.train, 10).items[0])


def test_batches_together_serve_every_user_in_order(model: Recommender) -> None:
    dataset = small_world()
    users = np.arange(dataset.n_users)
    parts = list(model.recommend_batches(users, dataset.train, k=10, batch_size=32))
    np.testing.assert_array_equal(np.concatenate([part.users for part in parts]), users)
    np.testing.assert_array_equal(np.concatenate([part.items for part in parts]), lists(model, dataset, 10))


def test_same_seed_gives_the_same_lists(name: str, model: Recommender) -> None:
    again = fit(new_system(name), small_world())
    np.testing.assert_array_equal(lists(model, small_world()), lists(again, small_world()))


def test_a_second_fit_starts_afresh(name: str, model: Recommender) -> None:
    again = fit(fit(new_system(name), small_world(seed=2)), small_world())
    np.testing.assert_array_equal(lists(model, small_world()), lists(again, small_world()))


@pytest.mark.parametrize("name", CHOOSING)
def test_a_second_fit_chooses_its_settings_anew(name: str) -> None:
    system, given = system_class(name), {"factors": 16} if name == "ials" else {}
    shuffled = shuffled_items(taste_world(3, n_users=80, n_items=60, n_events=12).events)
    first, second = build_dataset(shuffled), small_world()
    new = fit(system(system.config_class(**given)), second)
    assert fit(system(system.config_class(**given)), first).config != new.config, "the worlds must call for other settings"
    again = fit(fit(system(system.config_class(**given)), first), second)
    assert again.config == new.config


def test_scoring_changes_nothing(model: Recommender) -> None:
    dataset = small_world()
    before = model.score(np.arange(10), dataset.train)
    lists(model, dataset)
    np.testing.assert_array_equal(before, model.score(np.arange(10), dataset.train))


def test_saved_and_loaded_model_gives_the_same_lists(name: str, model: Recommender, tmp_path: Path) -> None:
    dataset = small_world()
    model.save(tmp_path)
    loaded = system_class(name).load(tmp_path)
    np.testing.assert_array_equal(lists(model, dataset), lists(loaded, dataset))
    assert loaded.config == model.config


def test_nothing_saved_is_a_pickle(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path)
    kinds = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert kinds <= {".json", ".safetensors", ".parquet"}


def test_a_user_unknown_to_the_model_is_served_from_the_history(model: Recommender) -> None:
    dataset = small_world().train
    history = dataset.interactions.history(0)
    extended = with_user(dataset, "a new reader", history)
    newcomer = np.array([dataset.n_users])
    scores = model.score(newcomer, extended)
    assert scores.shape == (1, dataset.n_items)
    assert np.isfinite(scores).all()
    items = model.recommend(newcomer, extended, k=10).items[0]
    assert (items >= 0).all()
    assert not set(items) & set(history)
    for user in (0, 5):
        np.testing.assert_allclose(
            model.score(np.array([user]), extended), model.score(np.array([user]), dataset), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", PERSONAL)
def test_the_history_of_an_unknown_user_matters(model: Recommender) -> None:
    dataset = small_world().train
    one, other = (with_user(dataset, "a new reader", dataset.interactions.history(user)) for user in (0, 1))
    newcomer = np.array([dataset.n_users])
    assert not np.allclose(model.score(newcomer, one), model.score(newcomer, other))


@pytest.mark.parametrize("name", PERSONAL)
def test_a_history_taken_on_after_training_changes_the_scores_of_a_known_user(model: Recommender) -> None:
    dataset = small_world()
    user = np.unique(dataset.validation.interactions.users)[:1]
    later = dataset.only("train", "validation")
    assert not np.array_equal(model.score(user, dataset.train), model.score(user, later))


def test_other_items_than_those_of_training_are_refused(model: Recommender) -> None:
    other = build_dataset(checkerboard(10, 12))
    with pytest.raises(ValueError, match="items"):
        model.score(np.array([0]), other)


def test_renumbered_items_are_refused_and_not_mixed_up(model: Recommender) -> None:
    dataset = small_world().train
    with pytest.raises(ValueError, match="items"):
        model.score(np.array([0]), renumbered(dataset, np.arange(dataset.n_items)[::-1]))


def test_a_number_that_is_no_users_is_refused(model: Recommender) -> None:
    dataset = small_world().train
    for number in (-1, dataset.n_users):
        with pytest.raises(ValueError, match=f"there is no user {number} in data of {dataset.n_users} users"):
            model.score(np.array([0, number]), dataset)


def test_an_unknown_user_without_history_is_refused_by_name(model: Recommender) -> None:
    dataset = small_world().train
    extended = with_user(dataset, "stranger-17", np.empty(0, dtype=np.int64))
    with pytest.raises(ValueError, match="stranger-17"):
        model.score(np.array([0, dataset.n_users]), extended)


def test_k_beyond_the_catalogue_gives_every_unseen_item_once(model: Recommender) -> None:
    dataset = small_world()
    best = model.recommend(np.arange(5), dataset.train, k=10 * dataset.n_items)
    for user, items in enumerate(best.items):
        seen = set(dataset.train.interactions.history(user))
        assert sorted(items[items >= 0]) == sorted(set(range(dataset.n_items)) - seen)
    assert np.isneginf(best.scores[best.items < 0]).all()
    assert np.isfinite(best.scores[best.items >= 0]).all()


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused(model: Recommender, k: int) -> None:
    with pytest.raises(ValueError, match=str(k)):
        model.recommend(np.arange(2), small_world().train, k)


def test_nobody_asked_for_gives_no_rows(model: Recommender) -> None:
    nobody = np.empty(0, dtype=np.int64)
    assert model.score(nobody, small_world().train).shape == (0, small_world().n_items)
    assert len(model.recommend(nobody, small_world().train, 5).items) == 0


def test_checkerboard_is_mastered(name: str) -> None:
    """Each user took 40 of the 50 items of one parity: the other ten, five of which are test events, come first."""
    dataset = build_dataset(checkerboard(60, 100).drop("timestamp"))  # in no order: there is no next item
    epochs = 40 if name in ("sasrec", "gru4rec", "rsllm") else 4  # those that start at random have more to learn
    untitled = {"prompt": "ids"} if name == "rsllm" else {}
    model = fit(new_system(name, **untitled), dataset, TrainConfig(epochs=epochs, batch_size=8, warmup_steps=5))
    measured = measure(model, dataset.train, dataset.test)
    users = np.arange(dataset.n_users)
    best = model.recommend(users, dataset.train, k=10).items
    parity = np.array([int(one[1:]) % 2 for one in dataset.item_ids.ids])
    own = np.array([int(one[1:]) % 2 for one in dataset.user_ids.ids])
    same = float((parity[best] == own[:, None]).mean())
    if name == "popularity":
        assert measured.metrics["recall@20"] < 0.6
        assert same < 0.7
    else:
        assert measured.metrics["recall@20"] > 0.98
        assert same > 0.98


class RandomScorer:
    """Scores without any knowledge."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        return self.generator.random((len(users), seen.n_items), dtype=np.float32)


@cache
def shuffled_world() -> tuple[Dataset, float]:
    """A world where nothing can be learned, and the NDCG@100 of chance in it, averaged over 50 random scorers."""
    world = taste_world(3, n_users=250, n_items=150, n_events=12)
    dataset = build_dataset(shuffled_items(world.events), world.items)
    masked = dataset.only("train", "validation")
    values = [measure(RandomScorer(seed), dataset.train, dataset.test, masked).metrics["ndcg@100"] for seed in range(50)]
    return dataset, float(np.mean(values))


def test_shuffled_labels_leave_a_system_at_chance(name: str) -> None:
    """Within four standard errors of the mean over users (about 250 of them) of what random scorers reach."""
    dataset, chance = shuffled_world()
    model = fit(new_system(name), dataset)
    values = measure(model, dataset.train, dataset.test, dataset.only("train", "validation")).per_user["ndcg@100"]
    assert abs(values.mean() - chance) < 4 * values.std(ddof=1) / np.sqrt(len(values))


def test_measured_metrics_are_the_means_of_their_users(model: Recommender) -> None:
    dataset = small_world()
    measured = measure(model, dataset.train, dataset.test, dataset.only("train", "validation"))
    assert set(measured.per_user) == set(PER_USER)
    for metric, values in measured.per_user.items():
        assert measured.metrics[metric] == pytest.approx(values.mean())
    assert all(0 <= value <= 1 for value in measured.metrics.values())


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in ONE_STAGE), ("itemknn", {"neighbours": 3, "shrinkage": 0.0})],
    ids=[*ONE_STAGE, "itemknn with ties at the last neighbour"],
)
def test_renumbering_the_items_permutes_the_scores_of_a_refitted_system(name: str, settings: dict[str, float]) -> None:
    dataset = small_world()
    order = np.random.default_rng(5).permutation(dataset.n_items)
    turned = renumbered(dataset, order)
    users = np.arange(dataset.n_users)
    scores = fit(new_system(name, **settings), dataset).score(users, dataset.train)
    again = fit(new_system(name, **settings), turned).score(users, turned.train)
    np.testing.assert_allclose(again, scores[:, order], rtol=1e-4, atol=1e-4 * np.abs(scores).max())


def test_renumbering_the_items_permutes_the_scores_of_cllm4rec_with_renumbered_rows(tmp_path: Path) -> None:
    model, dataset = fitted("cllm4rec"), small_world()
    order = np.random.default_rng(5).permutation(dataset.n_items)
    turned = renumbered(dataset, order)
    model.save(tmp_path)
    other = system_class("cllm4rec").load(tmp_path)
    assert isinstance(other, NeuralRecommender)
    rows = np.concatenate([np.arange(dataset.n_users), dataset.n_users + order])
    for table in (other.net.collaborative, other.net.content):
        table.fill(table.whole()[torch.from_numpy(rows)])
    other.item_ids = turned.item_ids
    users = np.arange(dataset.n_users)
    scores = model.score(users, dataset.train)
    np.testing.assert_allclose(other.score(users, turned.train), scores[:, order], rtol=1e-4, atol=1e-4 * np.abs(scores).max())
    lists_of_ids = [m.item_ids.ids.to_numpy()[lists(m, d)] for m, d in ((model, dataset), (other, turned))]
    np.testing.assert_array_equal(*lists_of_ids)


def test_an_unknown_system_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(ValueError, match="cllm4rec"):
        system_class("no-such-system")


@pytest.mark.parametrize("name", CHOOSING)
def test_open_settings_without_validation_events_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="validation"):
        system_class(name)().fit(small_world().train)


@pytest.mark.parametrize("name", CHOOSING)
def test_a_given_setting_is_kept_and_the_best_of_the_others_is_chosen(name: str) -> None:
    system = system_class(name)
    setting, value = next(iter(system.grid[-1].items()))
    given = {"factors": 16} if name == "ials" else {}
    model = fit(system(system.config_class(**given, **{setting: value})), small_world())
    assert getattr(model.config, setting) == value
    assert all(getattr(model.config, other) is not None for other in system.grid[0])


def test_a_user_without_training_events_is_served_as_a_new_one(model: Recommender) -> None:
    dataset = small_world()
    user = int(dataset.interactions.users[0])
    cold = replace(dataset, part=np.where(dataset.interactions.users == user, 2, dataset.part).astype(np.uint8))
    served = fit(new_system(model.name), cold)
    assert served._known_users(np.array([user]), cold).tolist() == [-1]
    renamed = cold.users.with_columns(user_id=pl.when(pl.int_range(pl.len()) == user).then(pl.lit("new")).otherwise("user_id"))
    as_known, as_new = served.score(np.array([user]), cold), served.score(np.array([user]), replace(cold, users=renamed))
    np.testing.assert_array_equal(as_known, as_new)
    with pytest.raises(ValueError, match="no history"):
        served.score(np.array([user]), cold.train)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if system_settings(name).training])
def test_training_a_loaded_model_further_leaves_its_file_alone(name: str, tmp_path: Path) -> None:
    """Weights are pages of the file, until they are written to."""
    fitted(name).save(tmp_path)
    file = tmp_path / "model.safetensors"
    before = file.read_bytes()
    model = system_class(name).load(tmp_path)
    assert isinstance(model, NeuralRecommender)
    users, dataset = np.arange(9), small_world()
    np.testing.assert_array_equal(model.score(users, dataset.train), fitted(name).score(users, dataset.train))
    with torch.no_grad():
        for parameter in model._trained().values():
            parameter.add_(1.0)
    assert file.read_bytes() == before
