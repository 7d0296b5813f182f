"""Random weights in the architecture of a pretrained model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from experiments.random_backbone import save_random_backbone
from tests.support.backbones import save_backbone


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return save_backbone(tmp_path / "backbone", "llama")


def test_random_weights_have_the_architecture_and_the_words_of_the_pretrained_model(
    backbone: Path, tmp_path: Path
) -> None:
    folder = save_random_backbone(backbone, tmp_path / "random", seed=3)
    pretrained, drawn = (load_backbone(BackboneConfig(str(path)))[0].model for path in (backbone, folder))
    before, after = pretrained.state_dict(), drawn.state_dict()
    assert {name: tensor.shape for name, tensor in after.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    matrices = [name for name, tensor in before.items() if tensor.dim() == 2]
    assert len(matrices) > 10
    assert not any(torch.equal(before[name], after[name]) for name in matrices)
    words, same_words = (
        AutoTokenizer.from_pretrained(path, trust_remote_code=False) for path in (backbone, folder)
    )
    assert words("a user has interacted")["input_ids"] == same_words("a user has interacted")["input_ids"]


def test_random_weights_are_a_function_of_the_seed_in_the_format_of_the_pretrained(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "backbone")
    AutoModelForCausalLM.from_pretrained(
        backbone, dtype=torch.bfloat16, trust_remote_code=False
    ).save_pretrained(backbone)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    files = [
        save_random_backbone(backbone, tmp_path / name, seed) / "model.safetensors"
        for name, seed in (("one", 1), ("again", 1), ("two", 2))
    ]
    one, again, two = (file.read_bytes() for file in files)
    assert one == again != two
    assert len(one) < 0.6 * 4 * sum(
        p.numel() for p in load_backbone(BackboneConfig(str(backbone)))[0].parameters()
    )
    assert torch.equal(torch.get_rng_state(), state), "draws of the caller stay as they were"


def test_a_model_of_random_weights_that_exists_is_left_alone(backbone: Path, tmp_path: Path) -> None:
    folder = save_random_backbone(backbone, tmp_path / "random", seed=1)
    before = (folder / "model.safetensors").read_bytes()
    save_random_backbone(backbone, folder, seed=2)
    assert (folder / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="there is no such folder"):
        save_random_backbone(tmp_path / "nowhere", tmp_path / "other", seed=1)
    assert not (tmp_path / "other").exists()
