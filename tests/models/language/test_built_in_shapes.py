"""Backbones that are built with random weights, of any number of layers and width."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.language.config import BackboneConfig, built_in_shape
from cllm4rec.training.config import TrainConfig
from tests.support.backbones import small_dataset

TRAINING = TrainConfig(epochs=1, batch_size=16, warmup_steps=2)


def test_names_and_shapes() -> None:
    assert built_in_shape("tiny") == (2, 128)
    assert built_in_shape("12x768") == (12, 768)
    assert [built_in_shape(name) for name in ("gpt2", "1x", "x64", "1x64/", "-1x64")] == [None] * 5
    assert BackboneConfig("3x64").built_in and BackboneConfig("3x64").tuned


@pytest.mark.parametrize("backbone", ["1x100", "2x0"])
def test_widths_that_heads_do_not_divide_are_refused(backbone: str) -> None:
    with pytest.raises(ValueError, match=f"`backbone={backbone}`: the width has to be a multiple of 64"):
        BackboneConfig(backbone)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_shape_trains_and_scores_the_same_after_saving(layers: int, tmp_path: Path) -> None:
    model, dataset = CLLM4Rec(CLLM4RecConfig(backbone=f"{layers}x64")), small_dataset()
    for stage in model.stages:
        model.fit_stage(dataset, stage, replace(TRAINING))
    assert model.net.backbone.width == 64
    assert model.net.backbone.model.config.num_hidden_layers == layers
    model.save(tmp_path / "model")
    loaded, users = CLLM4Rec.load(tmp_path / "model"), np.arange(dataset.train.n_users)
    one, other = (next(iter(each.rank_batches(users, dataset.seen, 5))) for each in (model, loaded))
    np.testing.assert_array_equal(one.items, other.items)
    np.testing.assert_array_equal(one.scores, other.scores)
