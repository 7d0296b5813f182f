"""States of a pretrained model may be of any width: the softmax over items starts near uniform."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.backbones import save_backbone, small_dataset


@pytest.mark.parametrize("readout", ["last", "pooled"])
@torch.no_grad()
def test_the_width_of_a_pretrained_models_states_does_not_matter(readout: str, tmp_path: Path) -> None:
    """As in Gemma, the final norm has large weights."""
    train = small_dataset().train
    folder = Path(save_backbone(tmp_path, "llama", titled=True))
    losses = []
    for factor in (1.0, 20.0):
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"] *= factor
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        config = CLLM4RecConfig(backbone=str(folder), start="random", readout=readout, dtype="float32")
        model = CLLM4Rec(config)
        model.build(train)
        found = {}
        for stage in model.stages:
            objective = model.objectives(train, stage, TrainConfig())[-1]
            batch = objective.corpus.batch(objective.corpus.selection(0)[:16], 0)
            found[objective.name] = float(model.net(objective.name, batch)[objective.name]) / batch.n_targets
        assert found["collaborative"] == pytest.approx(math.log(train.n_items), rel=0.05)
        assert found["recommend"] == pytest.approx(math.log(train.n_items), rel=0.2)  # seen items left out
        losses.append(list(found.values()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
