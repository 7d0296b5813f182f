"""Every system refuses likely slips of its methods in one line, and says whether it is fitted."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import cllm4rec
from cllm4rec import Dataset, TrainConfig, measure, measure_choices
from cllm4rec.data.interactions import Interactions
from cllm4rec.models import SYSTEMS, system_class
from cllm4rec.models.base import Recommender
from cllm4rec.models.baselines.config import ItemKNNConfig, PopularityConfig
from cllm4rec.models.neural import NeuralRecommender
from tests.support.systems import fit, new_system
from tests.support.tables import refused
from tests.support.worlds import taste_dataset

NETWORKS = [name for name in SYSTEMS if issubclass(system_class(name), NeuralRecommender)]
EVENTS = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [3, 4, 3]})


def new_network(name: str) -> NeuralRecommender:
    model = new_system(name)
    assert isinstance(model, NeuralRecommender)
    return model


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_and_its_config_are_public(name: str) -> None:
    for cls in (system_class(name), system_class(name).config_class):
        assert getattr(cllm4rec, cls.__name__) is cls


def test_an_unfitted_model_is_refused(name: str, tmp_path: Path) -> None:
    model, dataset, users = new_system(name), taste_dataset(), np.arange(3)
    candidates = np.zeros((3, 2), dtype=np.int64)
    calls = [
        lambda: model.recommend(dataset.user_ids.ids[:3]),
        lambda: model.recommend(histories=[dataset.item_ids.ids[:3]]),
        lambda: model.recommend(dataset.user_ids.ids[:3], dataset=dataset),
        lambda: model.rank(users, dataset),
        lambda: list(model.rank_batches(users, dataset)),
        lambda: model.score(users, dataset),
        lambda: model.choose(users, candidates, dataset),
        model.item_vectors,
        lambda: model.rank(users, dataset, diversity=0.5),
        lambda: model.similar(dataset.item_ids.ids[0]),
        lambda: model.save(tmp_path / "model"),
        lambda: measure(model, dataset),
        lambda: measure_choices(model, dataset, candidates=5),
    ]
    if name == "rsllm":
        calls.append(lambda: model.choose(users, candidates, dataset, by="likelihood"))
    if isinstance(model, NeuralRecommender):
        calls += [lambda: model.device, lambda: model.set_config(model.config)]
    for call in calls:
        assert f"this {type(model).__name__} is not fitted: call its method fit" in refused(call)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_whose_second_fit_failed_is_not_fitted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ids are those of the new dataset, and its weights those of the old one."""
    model = new_network(name)
    fit(model, taste_dataset(), TrainConfig(epochs=0))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model), "_build", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(model, taste_dataset(2))
    assert "is not fitted" in refused(model.score, np.arange(3), taste_dataset(2))


def test_the_representation_has_settings_and_whether_it_is_fitted(name: str, model: Recommender) -> None:
    cls, config = type(model).__name__, model.config_class.__name__
    assert repr(type(model)()) == f"<{cls}({config}()), not fitted>"
    assert repr(model).endswith("), fitted on 80 users, 60 items>")
    if name == "itemknn":
        assert repr(model).startswith("<ItemKNN(ItemKNNConfig(neighbours=10, shrinkage=5.0)), fitted on ")


def test_the_settings_of_another_system_are_refused(name: str) -> None:
    system = type(new_system(name))
    other = PopularityConfig() if name == "itemknn" else ItemKNNConfig()
    for config in (other, 3, {"backbone": "tiny"}, system):
        message = refused(system, config)
        assert message.endswith(f" is no config of {system.name}: give {system.config_class.__name__}(...)")


def test_settings_of_a_derived_class_are_refused() -> None:
    """The model folder would hold settings that GRU4Rec does not know."""
    config = system_class("sasrec").config_class()
    assert "is no config of gru4rec: give SequentialConfig(...)" in refused(system_class("gru4rec"), config)


def test_settings_outside_a_config_are_refused_with_the_name_of_the_config(name: str) -> None:
    system = type(new_system(name))
    with pytest.raises(
        TypeError, match=rf"^`width` is no argument of .*{system.config_class.__name__}\(width"
    ):
        system(width=3)


@pytest.mark.parametrize(
    "given", [EVENTS, EVENTS.to_dicts(), None, 3], ids=["frame", "list", "None", "number"]
)
def test_fitting_on_what_is_no_dataset_is_refused(name: str, given: object) -> None:
    model = new_system(name)
    calls = [lambda: model.fit(given)]
    if isinstance(model, NeuralRecommender):
        calls.append(lambda: model.fit_stage(given, "pretrain"))
    for call in calls:
        assert "is no dataset: give one, such as Dataset.from_frame(events)" in refused(call)


@pytest.mark.parametrize("name", ["ease", "sasrec"])
def test_a_dataset_may_be_named_by_its_folder(name: str, tmp_path: Path) -> None:
    taste_dataset().save(tmp_path)
    models = [new_system(name) for _ in range(2)]
    if name == "sasrec":
        config = TrainConfig(epochs=1)
        models.append(new_network(name).fit_stage(str(tmp_path), "pretrain", config))
        scored = [models[0].fit(tmp_path, config), models[1].fit(taste_dataset(), config), models[2]]
    else:
        scored = [models[0].fit(tmp_path), models[1].fit(taste_dataset())]
    expected = scored[1].score(np.arange(9), taste_dataset())
    for model in scored:
        np.testing.assert_array_equal(model.score(np.arange(9), taste_dataset()), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_settings_of_another_type_are_refused(name: str) -> None:
    model, dataset = new_network(name), taste_dataset()
    for given in (3, "pretrain", [TrainConfig()], {"pretrain": 3}, {"pretrain": None}, model.config):
        message = refused(model.fit, dataset, given)
        assert message.startswith("`training` is ")
        assert message.endswith(": give a TrainConfig, or a dict of stage -> TrainConfig")
    assert "`training` is 3: give a TrainConfig" in refused(model.fit_stage, dataset, "pretrain", 3)


def of_other(users: dict[str, str], items: dict[str, str]) -> Dataset:
    """The taste dataset with other ids; users and items keep their numbers."""
    dataset = taste_dataset()
    tables = {
        "users": dataset.users.with_columns(pl.col("user_id").replace(users)),
        "items": dataset.items.with_columns(pl.col("item_id").replace(items)),
    }
    return Dataset(dataset.interactions, part=dataset.part, description=dataset.description, **tables)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "finetune" in system_class(name)().stages])
def test_a_later_stage_on_other_users_or_items_is_refused(name: str) -> None:
    model, dataset = new_network(name), taste_dataset()
    model.fit_stage(dataset, "pretrain", TrainConfig(epochs=0))
    user, item = dataset.user_ids.ids[3], dataset.item_ids.ids[4]
    for other, message in (
        (
            of_other({user: "X"}, {}),
            f"other users: number 3 is {user!r}, in this dataset 'X': give the dataset",
        ),
        (
            of_other({}, {item: "X"}),
            f"other items: number 4 is {item!r}, in this dataset 'X': give the dataset",
        ),
        (taste_dataset(1, 81), "other users: number "),
    ):
        assert f"the model was trained on {message}" in refused(model.fit_stage, other, "finetune")
        assert model.stage == "pretrain"
        assert model.source is dataset
    model.fit_stage(dataset, "finetune", TrainConfig(epochs=0))


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (["a", "b", "d"], "number 2 is 'c', in this dataset 'd'"),
        (["a", "b"], "number 2 is 'c', in this dataset missing"),
        (["a", "b", "c", "d"], "number 3 is missing, in this dataset 'd'"),
        ([7, 8, 9], "number 0 is 'a' (text), in this dataset 7 (a whole number)"),
    ],
)
def test_the_first_item_that_differs_is_named(ids: list[str] | list[int], named: str) -> None:
    def over(items: list[str] | list[int]) -> Dataset:
        nothing = np.zeros(0, dtype=np.int64)
        users, part = pl.DataFrame({"user_id": ["u"]}), np.zeros(0, dtype=np.uint8)
        return Dataset(
            Interactions(nothing, nothing, 1, len(items)), users, pl.DataFrame({"item_id": items}), part
        )

    model = new_system("popularity")
    model._learn_ids(over(["a", "b", "c"]))
    message = refused(model.score, np.array([0]), over(ids))
    assert message.startswith(
        f"the model was trained on other items: {named}: give the dataset of its training"
    )


def test_a_later_stage_refuses_to_hold_out_what_an_earlier_one_has_learned() -> None:
    dataset = taste_dataset()
    untrained = TrainConfig(epochs=0)
    everything = Dataset(dataset.interactions, dataset.users, dataset.items, np.zeros_like(dataset.part))
    model = new_network("cllm4rec").fit_stage(dataset, "pretrain", untrained)
    model.fit_stage(everything, "finetune", untrained)
    message = refused(model.fit_stage, dataset, "finetune", untrained)
    assert re.match(
        r"finetune has learned from \d+ held-out events, the first of user '.+' and item", message
    )
