"""What is no causal language model of keys and values is refused in one line, before its weights are read."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertGenerationConfig,
    Llama4TextConfig,
    Mamba2Config,
    MambaConfig,
    PreTrainedConfig,
    RwkvConfig,
    T5Config,
)
from transformers.models.auto import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.conformance import check_conforms
from cllm4rec.models.language.head import WordHead, embedding_factor
from cllm4rec.models.language.loading import load_backbone
from cllm4rec.models.language.pretrained import Pretrained
from tests.support.families import ENDS, random_model, tokenizer
from tests.support.tables import refused

SMALL = {"hidden_size": 32, "num_hidden_layers": 2}
REFUSED: dict[str, tuple[PreTrainedConfig, type, str]] = {
    "Mamba": (MambaConfig(**SMALL, **ENDS), AutoModelForCausalLM, "mamba take no cache"),
    "Mamba 2": (
        Mamba2Config(num_heads=4, head_dim=16, **SMALL, **ENDS),
        AutoModelForCausalLM,
        "mamba2 take no cache",
    ),
    "RWKV": (RwkvConfig(**SMALL, **ENDS), AutoModelForCausalLM, "rwkv take no cache"),
    "T5": (
        T5Config(d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4),
        AutoModelForSeq2SeqLM,
        "has an encoder and a decoder",
    ),
    "BERT": (
        BertConfig(num_attention_heads=4, intermediate_size=48, **SMALL),
        AutoModelForMaskedLM,
        "reads in both directions",
    ),
    "Llama 4": (
        Llama4TextConfig(num_attention_heads=4, intermediate_size_mlp=48, num_local_experts=2, **SMALL),
        AutoModelForCausalLM,
        "llama4_text cannot be used without its output layer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_before_their_weights_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, auto_class, reason = REFUSED[name]
    config.vocab_size = len(tokenizer())
    auto_class.from_config(config, trust_remote_code=False).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)

    def read(self: Pretrained) -> None:
        raise AssertionError("the weights are read")

    monkeypatch.setattr(Pretrained, "load", read)
    line = refused(lambda: load_backbone(BackboneConfig(str(tmp_path))))
    assert reason in line
    assert str(tmp_path) in line


def test_a_model_that_reads_to_the_left_too_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    """Nothing but its states tells: its configuration has a causal form, which it is not in."""
    config = BertGenerationConfig(
        vocab_size=len(tokenizer()), num_attention_heads=4, intermediate_size=48, **SMALL, **ENDS
    )
    for is_decoder in (False, True):
        config.is_decoder = is_decoder
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        for weight in model.parameters():
            weight.data += 0.25 * torch.randn(weight.shape)  # attention has to matter
        model.save_pretrained(tmp_path)
        tokenizer().save_pretrained(tmp_path)
        if is_decoder:
            load_backbone(BackboneConfig(str(tmp_path)))
        else:
            line = refused(lambda: load_backbone(BackboneConfig(str(tmp_path))))
            assert "bert-generation reads words otherwise than as embeddings from left to right" in line
            assert str(tmp_path) in line


@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "Qwen2-MoE"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_reads_word_tokens_beside_their_embeddings_is_refused(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Backbone(random_model(name).to(dtype), "frozen", 1.0)
    check_conforms(backbone)
    layers = backbone.model.base_model
    own = type(layers).forward

    def shifted(*, input_ids: Tensor | None = None, **named: object) -> object:
        if input_ids is not None:
            named["inputs_embeds"] = layers.get_input_embeddings()((input_ids + 1) % 100)
        return own(layers, **named)

    monkeypatch.setattr(layers, "forward", shifted)
    assert "reads words otherwise" in refused(lambda: check_conforms(backbone))


def test_a_forward_that_reads_more_of_the_layers_is_refused() -> None:
    model = random_model("Llama")
    own = type(model).forward

    class Odd(type(model)):  # type: ignore[misc]
        def forward(self, *arguments: object, **named: object) -> object:
            assert self.model(inputs_embeds=None).image_hidden_states is None
            return own(self, *arguments, **named)

    model.__class__ = Odd
    assert "its forward reads more of its layers than this package knows" in refused(
        lambda: WordHead.of(model)
    )


def test_an_unknown_change_of_the_logits_is_refused() -> None:
    model = random_model("Llama")
    own = type(model).forward

    class Odd(type(model)):  # type: ignore[misc]
        def forward(self, *arguments: object, **named: object) -> object:
            output = own(self, *arguments, **named)
            output.logits = self.change(output.logits)
            return output

        def change(self, logits: Tensor) -> Tensor:
            return logits.square()

    model.__class__ = Odd
    assert "in a way that this package does not know" in refused(lambda: WordHead.of(model))
    Odd.change = lambda self, logits: logits - logits.mean(-1, keepdim=True)
    assert "in a way that this package does not know" in refused(lambda: WordHead.of(model))
    Odd.change = lambda self, logits: 3 * torch.tanh(0.5 * logits / 3)
    assert WordHead.of(model).scale == pytest.approx(0.5)
    assert WordHead.of(model).softcap == pytest.approx(3)


def test_an_embedding_module_that_does_more_than_multiply_is_refused() -> None:
    model = random_model("Llama")
    words = model.get_input_embeddings()

    class Shifted(nn.Embedding):
        def forward(self, numbers: Tensor) -> Tensor:
            return super().forward(numbers) + 1

    words.__class__ = Shifted
    assert "does more than multiply" in refused(lambda: embedding_factor(model))


def test_an_output_layer_of_another_form_is_refused() -> None:
    model = random_model("Llama")
    model.set_output_embeddings(nn.Linear(32, 7))
    assert "its output layer has shape [7, 32]" in refused(lambda: WordHead.of(model))
    model.set_output_embeddings(nn.Sequential(nn.Linear(32, 32)))
    assert "its output layer is Sequential" in refused(lambda: WordHead.of(model))


def test_asking_a_model_leaves_it_as_it_was() -> None:
    model = random_model("Gemma 2")
    tokens = torch.arange(9)[None]
    before = model(tokens).logits
    assert WordHead.of(model).softcap == pytest.approx(3.0)
    assert torch.equal(model(tokens).logits, before)
