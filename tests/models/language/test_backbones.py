"""Backbones given as a folder, frozen and tuned: training, saving, loading."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.corpora.prompts import Template
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.evaluation import measure
from cllm4rec.models.baselines.popularity import Popularity
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import NO_HOOKS, Hooks
from cllm4rec.training.records import EpochRecord
from tests.support.backbones import ARCHITECTURES, fingerprint, save_backbone, small_dataset
from tests.support.worlds import taste_dataset

ID_TABLES = {
    f"{table}.{side}.weight" for table in ("collaborative", "content") for side in ("users", "items")
}
# 5 steps a pass over 40 users: at least 20 in each stage
TRAINING = TrainConfig(epochs=4, batch_size=8, warmup_steps=2, learning_rate=1e-3)


PLAIN = {"item_text": "none", "linear": "none"}  # the ID tables alone are trained


def fit(folder: Path, tune: str, hooks: Hooks = NO_HOOKS) -> CLLM4Rec:
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder), tune=tune, dtype="float32", **PLAIN))
    for stage in model.stages:
        model.fit_stage(small_dataset(), stage, TRAINING, hooks)
    return model


@pytest.fixture(scope="module", params=ARCHITECTURES)
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CLLM4Rec, Path]:
    folder = save_backbone(tmp_path_factory.mktemp(request.param), request.param, titled=True)
    return fit(folder, "frozen"), folder


@pytest.mark.parametrize("tune", ["frozen", "full"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_backbone_by_folder_trains_and_scores_the_same_after_saving(
    architecture: str, tune: str, tmp_path: Path
) -> None:
    records: list[EpochRecord] = []
    model = fit(save_backbone(tmp_path / "backbone", architecture, titled=True), tune, Hooks(records.append))
    for name in ("collaborative", "recommend"):
        values = [record.losses[name] for record in records if name in record.losses]
        assert len(values) == TRAINING.epochs
        assert values[-1] < values[0]
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    loaded = CLLM4Rec.load(tmp_path / "saved")
    users = np.arange(small_dataset().n_users)
    scores = model.score(users, small_dataset().train)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(loaded.score(users, small_dataset().train), scores)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_tuning_changes_the_backbone_and_stores_it(architecture: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone", architecture, titled=True)
    before = fingerprint(folder)
    model = fit(folder, "full")
    assert model.net.backbone.fingerprint() != before
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    for file in folder.iterdir():
        file.unlink()
    loaded = CLLM4Rec.load(tmp_path / "saved")
    # the folder is not needed any more
    assert loaded.net.backbone.fingerprint() == model.net.backbone.fingerprint()


def test_a_frozen_backbone_stays_bit_identical(frozen: tuple[CLLM4Rec, Path]) -> None:
    model, folder = frozen
    original = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    ).state_dict()
    trained = model.net.backbone.model.state_dict()
    assert set(trained) == set(original)
    for name, tensor in original.items():
        assert torch.equal(tensor, trained[name]), name
    assert set(model._trained()) == ID_TABLES


def test_the_id_tables_of_a_frozen_backbone_are_trained(frozen: tuple[CLLM4Rec, Path]) -> None:
    model, _ = frozen
    untrained = CLLM4Rec(model.config)
    untrained.build(small_dataset().train)
    for name in ("collaborative", "content"):
        assert not torch.equal(getattr(model.net, name).whole(), getattr(untrained.net, name).whole())


def test_a_run_with_a_frozen_backbone_stores_the_id_tables_alone(
    frozen: tuple[CLLM4Rec, Path], tmp_path: Path
) -> None:
    model, _ = frozen
    model.save(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == ID_TABLES
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "items.parquet",
        "manifest.json",
        "model.json",
        "model.safetensors",
        "users.parquet",
    ]
    assert len(json.loads((tmp_path / "model.json").read_text())["backbone_sha256"]) == 64


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_frozen_backbone_that_changed_on_disk_is_refused(architecture: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone", architecture, titled=True)
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder)))
    model.fit_stage(small_dataset().train, "pretrain", TrainConfig(epochs=1))
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    CLLM4Rec.load(tmp_path / "saved")
    save_backbone(folder, architecture, seed=1, titled=True)
    message = "the weights of backbone .* are not those this run was trained with"
    with pytest.raises(ValueError, match=message):
        CLLM4Rec.load(tmp_path / "saved")


def test_a_frozen_backbone_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone", titled=True)
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder)))
    model.fit_stage(small_dataset().train, "pretrain", TrainConfig(epochs=1))
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="backbone .* cannot be loaded"):
        CLLM4Rec.load(tmp_path / "saved")


def test_an_unknown_value_of_tune_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, frozen, lora, full"):
        _ = BackboneConfig("tiny", tune="half").tuned


def test_built_in_backbones_are_tuned_and_pretrained_ones_frozen_by_default() -> None:
    assert BackboneConfig("tiny").tuned
    assert BackboneConfig("small").tuned
    assert not BackboneConfig("some/folder").tuned
    assert not BackboneConfig("tiny", tune="frozen").tuned
    assert BackboneConfig("some/folder", tune="full").tuned


@torch.no_grad()
@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_dropout_of_a_frozen_backbone_stays_off_in_training_mode(tune: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, dropout=0.1, titled=True)
    net = load_backbone(BackboneConfig(str(folder), tune))[0]
    parent = torch.nn.ModuleList([net])
    parent.train()
    tokens, mask = torch.arange(12)[None], torch.ones(1, 12, dtype=torch.bool)
    table = torch.zeros(1, net.width)
    states, again = (net(tokens, mask, table) for _ in range(2))
    if tune == "frozen":
        assert not any(module.training for module in net.modules())
        assert torch.equal(states, again)
    else:
        assert not torch.equal(states, again), "where the backbone is trained its dropout works"
        parent.eval()
        assert torch.equal(net(tokens, mask, table), net(tokens, mask, table))


def test_hidden_states_are_those_of_the_language_model(frozen: tuple[CLLM4Rec, Path]) -> None:
    """No factor, no further position, no other mask: the input is as in pretraining."""
    model, folder = frozen
    original = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    ).eval()
    tokens = torch.tensor([[5, 9, 2, 300, 17, 4]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    net = model.net.backbone
    with torch.no_grad():
        states = net(tokens, mask, model.net.collaborative)
        torch.testing.assert_close(
            states @ net.output_embeddings.T, original(tokens).logits, rtol=1e-4, atol=1e-5
        )


def test_a_history_longer_than_the_context_of_the_backbone_is_served(tmp_path: Path) -> None:
    save_backbone(tmp_path, context=96)
    dataset = Dataset.from_frame(taste_world(1, n_users=20, n_items=450, n_events=150).events, split="random")
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(tmp_path)))
    model.fit(dataset, TrainConfig(epochs=1, batch_size=8))
    assert model.net.backbone.context == 96
    room = 96 - Template.compile("recommend", model.tokenizer).n_fixed
    assert np.diff(dataset.train.interactions.indptr).max() > room
    assert np.isfinite(model.score(np.arange(20), dataset.train)).all()


@pytest.mark.slow
def test_a_real_pretrained_backbone_frozen_beats_popularity_on_the_demo_world(shared: Path) -> None:
    dataset = taste_dataset(0, 500, 300, 24)
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(shared / "backbones" / "stories260K")))
    assert not model.config.tuned
    for stage, epochs in (("pretrain", 4), ("finetune", 12)):
        config = replace(CLLM4Rec.config_class.training[stage], epochs=epochs)
        model.fit_stage(dataset, stage, config)
    trained, popular = (
        measure(system, dataset).metrics["ndcg@100"] for system in (model, Popularity().fit(dataset.train))
    )
    assert trained > popular
