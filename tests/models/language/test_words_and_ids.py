"""Words and IDs of a backbone in bfloat16, batches without IDs, and order at the commands of a run."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.config import ID_EMBEDDING_STD
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.training.config import TrainConfig
from tests.support.backbones import small_dataset
from tests.support.families import random_model, relative_error, save_family
from tests.support.tables import refused

WORDS_AND_IDS = torch.tensor([[5, 9, 400, 401, 4, 7, 402, 3]])  # IDs from 400 on, with 310 words at most


def with_ids(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of words and three IDs, the mask, and a table that learns."""
    tokens = torch.where(WORDS_AND_IDS >= 400, WORDS_AND_IDS - 400 + backbone.n_text_tokens, WORDS_AND_IDS)
    rows = torch.randn(3, backbone.width, generator=torch.Generator().manual_seed(0))
    return tokens, torch.ones_like(tokens, dtype=torch.bool), (ID_EMBEDDING_STD * rows).requires_grad_()


@pytest.mark.parametrize("name", ["Gemma 3 (text)", "Gemma 2", "Granite", "Phi", "GPT-2"])
def test_a_backbone_in_bfloat16_gives_about_the_likelihoods_of_float32(name: str) -> None:
    """bfloat16 has 8 bits: two layers are off by some hundredths. Losses and ID gradients are float32."""
    single = Backbone(random_model(name), "frozen", 1.0)
    half = Backbone(random_model(name).to(torch.bfloat16), "frozen", 1.0)
    assert half.id_scale == pytest.approx(single.id_scale, rel=0.01)
    targets, slopes, losses = torch.tensor([2, 8, 0]), [], []
    for backbone, dtype in ((single, torch.float32), (half, torch.bfloat16)):
        tokens, mask, table = with_ids(backbone)
        states = backbone(tokens, mask, table)
        assert states.dtype == dtype
        loss = backbone.word_nll(states[0, -3:], targets)
        assert loss.dtype == backbone.word_logits(states).dtype == torch.float32
        loss.backward()
        assert table.grad is not None
        losses.append(loss.item())
        slopes.append(table.grad)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert (slopes[1] - slopes[0]).norm() < 0.2 * slopes[0].norm()


def test_no_gradient_passes_the_layers_of_a_frozen_model_without_ids() -> None:
    backbone = Backbone(random_model("Llama"), "frozen", 1.0)
    tokens, mask, table = with_ids(backbone)
    assert backbone(tokens, mask, table).requires_grad
    assert not backbone(tokens.clamp(max=9), mask, table).requires_grad


@pytest.mark.parametrize(("name", "allowed"), [("BLOOM", False), ("LFM2", False), ("Llama", True)])
def test_a_run_refuses_bidirectional_attention_that_its_model_cannot_hold(
    name: str, allowed: bool, tmp_path: Path
) -> None:
    folder = save_family(tmp_path, name)
    model = CLLM4Rec(CLLM4RecConfig(backbone=str(folder)))
    model.fit_stage(small_dataset(), "pretrain", TrainConfig(epochs=1, batch_size=40))
    other = replace(model.config, attention="bidirectional")
    if allowed:
        model.set_config(other)
    else:
        assert "`attention=bidirectional`" in refused(lambda: model.set_config(other))
    assert model.config.bidirectional == allowed


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("The size of tensor a (8) must match the size of tensor b (10)"), False),
        (TypeError("forward() got an unexpected keyword argument 'position_ids'"), False),
    ],
)
def test_lack_of_memory_is_not_taken_for_reading_an_order(
    error: Exception, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone(random_model("Llama"), "frozen", 1.0)
    assert backbone.reads_sets()

    def fails(_: object, *, position_ids: torch.Tensor, **named: object) -> object:
        raise error

    monkeypatch.setattr(type(backbone.model.base_model), "forward", fails)
    if passes:
        with pytest.raises(type(error), match="allocate"):
            backbone.reads_sets()
    else:
        assert not backbone.reads_sets()


def test_a_title_of_one_word_starts_as_that_word_enters() -> None:
    """Gemma multiplies its words by sqrt(width), and IDs pass that module by."""
    backbone = Backbone(random_model("Gemma"), "frozen", 1.0)
    word = backbone.token_embeddings[7]
    torch.testing.assert_close(backbone.as_ids(word) * backbone.id_scale, word * 32**0.5)


@pytest.mark.slow
@torch.no_grad()
def test_gemma_has_its_own_logits_and_widths() -> None:
    folder = os.environ.get("CLLM4REC_GEMMA")
    if folder is None:
        pytest.skip("no Gemma")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    tokens = torch.randint(1000, (2, 20), generator=torch.Generator().manual_seed(0))
    expected = model(tokens).logits
    backbone = Backbone(model, "frozen", 1.0)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    states = backbone(tokens, mask, torch.zeros(1, 640))
    assert relative_error(backbone.word_logits(states), expected) <= 1e-5
    log_p = expected[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])
    nll = backbone.word_nll(states[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert nll.item() == pytest.approx(-log_p.sum().item(), rel=1e-5)
    rows = ID_EMBEDDING_STD * torch.randn(500, 640, generator=torch.Generator().manual_seed(0))
    words = model.get_input_embeddings()(torch.arange(backbone.n_text_tokens)).square().mean().sqrt()
    assert (rows * backbone.id_scale).square().mean().sqrt().item() == pytest.approx(words.item(), rel=0.05)
    assert backbone.reads_sets()
