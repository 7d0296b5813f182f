"""Both systems train on each family, and a saved run scores as before. Frozen weights stay as they were."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.base import Recommender
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.base import LanguageRecommender
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import Hooks
from cllm4rec.training.records import EpochRecord
from tests.support import rsllm
from tests.support.backbones import small_dataset
from tests.support.families import FAMILIES, random_model, save_family

each_family = pytest.mark.parametrize("name", FAMILIES)
# 5 steps an epoch, over 40 or 80 users: 20 a stage
OF_CLLM4REC = TrainConfig(epochs=6, batch_size=8, warmup_steps=2, learning_rate=1e-2)
OF_RSLLM = TrainConfig(epochs=4, batch_size=16, warmup_steps=2, learning_rate=1e-3)


def check_frozen(model: LanguageRecommender, name: str) -> None:
    """Every weight of the model that was saved is there, unchanged to the bit."""
    kept = {
        weight.replace(".base_layer", ""): tensor
        for weight, tensor in model.net.backbone.model.state_dict().items()
        if ".lora_" not in weight
    }
    saved = random_model(name).state_dict()
    assert kept.keys() == saved.keys()
    for weight, tensor in saved.items():
        assert torch.equal(kept[weight], tensor), weight


def check_saved(model: Recommender, dataset: Dataset, folder: Path) -> None:
    """A loaded model scores as the saved one does."""
    folder.mkdir()
    model.save(folder)
    users = np.arange(dataset.n_users)
    scores = model.score(users, dataset.train)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(type(model).load(folder).score(users, dataset.train), scores)


@pytest.mark.slow
@each_family
def test_cllm4rec_trains_on_a_frozen_model(name: str, tmp_path: Path) -> None:
    folder, records, dataset = save_family(tmp_path / "model", name), list[EpochRecord](), small_dataset()
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder), dtype="float32"))
    for stage in model.stages:
        model.fit_stage(dataset, stage, OF_CLLM4REC, Hooks(records.append))
    assert np.isfinite([record.losses.get("content", 0.0) for record in records]).all()
    for objective in ("collaborative", "recommend"):  # random words tell nothing, and content need not fall
        losses = [record.losses[objective] for record in records if objective in record.losses]
        assert losses[-1] < losses[0], objective
    check_frozen(model, name)
    check_saved(model, dataset, tmp_path / "run")


@pytest.mark.slow
@each_family
def test_rsllm_trains_adapters_on_a_frozen_model(name: str, tmp_path: Path) -> None:
    folder, records, dataset = (
        save_family(tmp_path / "model", name),
        list[EpochRecord](),
        rsllm.small_dataset(),
    )
    model = RSLLM(RSLLMConfig(backbone=str(folder), dtype="float32", title_words=4, length=6))
    assert model.config.tuning == "lora"
    model.trained_base = rsllm.sasrec()
    for stage in model.stages:
        model.fit_stage(dataset, stage, OF_RSLLM, Hooks(records.append))
    for objective in ("text", "unified"):
        losses = [record.losses[objective] for record in records if objective in record.losses]
        assert losses[-1] < losses[0], objective
    check_frozen(model, name)
    assert any(".lora_" in weight for weight in model._trained()), "adapters are trained"
    check_saved(model, dataset, tmp_path / "run")
