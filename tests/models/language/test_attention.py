"""Attention of the backbones against that of the library."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, FalconConfig, MistralConfig
from transformers.models.auto import AutoModelForCausalLM

from cllm4rec.models.language import attention as attention_module
from cllm4rec.models.language.attention import ATTENTION, EAGER_WIDTHS, attention, eager_attention
from cllm4rec.models.language.config import BackboneConfig
from cllm4rec.models.language.loading import load_backbone
from tests.support.backbones import save_backbone

LONGEST_EAGER = EAGER_WIDTHS * 8  # tokens, for heads of width 8


def test_sliding_window_attention_is_that_of_the_language_model(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path)
    n_tokens = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).config.vocab_size
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=n_tokens, num_key_value_heads=2, sliding_window=3, **sizes)
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    original = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    ).eval()
    net = load_backbone(BackboneConfig(str(folder), dtype="float32"))[0].eval()
    tokens = torch.arange(20).view(2, 10)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        expected = original(tokens).logits
        torch.testing.assert_close(
            net(tokens, mask, torch.zeros(1, 32)) @ net.output_embeddings.T, expected, rtol=1e-4, atol=1e-5
        )
        changed = tokens.clone()
        changed[:, 0] = 99  # two layers of three tokens reach four back
        same = original(changed).logits == expected
        assert same[:, 5:].all()
        assert not same[:, :5].all()


def heads(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries of four heads, keys and values of two."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, n, length, 8, generator=generator) for n in (4, 2, 2))
    return query, key, value


@pytest.mark.parametrize("mask", [None, "added", "boolean", "causal"])
def test_eager_attention_is_that_of_the_library(mask: str | None) -> None:
    query, key, value = (tensor.double().requires_grad_() for tensor in heads(5))
    attended = torch.tensor([True, True, True, False, True]).expand(2, 1, 5, 5)
    masks = {
        None: None,
        "added": torch.zeros(attended.shape).masked_fill(~attended, -torch.inf),
        "boolean": attended,
        "causal": torch.ones(5, 5, dtype=torch.bool).tril(),
    }
    states = eager_attention(query, key, value, masks[mask], 0.3)
    mask_tensor = None if mask in (None, "causal") else masks["boolean"]
    expected = scaled_dot_product_attention(
        query, key, value, attn_mask=mask_tensor, is_causal=mask == "causal", scale=0.3, enable_gqa=True
    )
    assert torch.allclose(states, expected.transpose(1, 2), atol=1e-12)
    output_gradient = torch.randn(states.shape, dtype=torch.float64)
    gradients = [
        torch.autograd.grad(states, (query, key, value), output_gradient),
        torch.autograd.grad(expected, (query, key, value), output_gradient.transpose(1, 2)),
    ]
    for gradient, expected_gradient in zip(*gradients, strict=True):
        assert torch.allclose(gradient, expected_gradient, atol=1e-12)


@pytest.mark.parametrize(
    "mask", [torch.zeros(1, 1, 3, 3) - torch.inf, torch.zeros(1, 1, 3, 3, dtype=torch.bool)]
)
def test_a_query_that_may_see_nothing_has_a_finite_state(mask: torch.Tensor) -> None:
    query, key, value = (torch.ones(1, 1, 3, 4).bfloat16() for _ in range(3))
    assert torch.equal(eager_attention(query, key, value, mask, None), torch.ones(1, 3, 1, 4).bfloat16())


def test_unknown_arguments_of_attention_are_left_to_the_library() -> None:
    query, key, value = heads(5)
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="softcap"):
        attention(module, query, key, value, None, softcap=30.0)


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "held"])
@pytest.mark.parametrize("masked", [False, True], ids=["causal", "masked"])
@pytest.mark.parametrize("length", [1, 5, LONGEST_EAGER, LONGEST_EAGER + 1])
def test_attention_in_bf16_on_a_cpu_is_that_of_float32(length: int, masked: bool, autocast: bool) -> None:
    """Long examples under autocast are in float32. Else products and weights are rounded by 1/256 each."""
    query, key, value = (tensor.bfloat16().requires_grad_() for tensor in heads(length))
    attended = torch.arange(length) < max(1, length - 2)
    added = torch.zeros(length).masked_fill(~attended, -torch.inf).expand(2, 1, length, length)
    mask = added.to(torch.float32 if autocast else torch.bfloat16) if masked else None
    groups = torch.nn.Module()
    groups.num_key_value_groups = 2
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        states, _ = attention(groups, query, key, value, mask)  # (B, L, heads, width)
    states.sum().backward()
    single = [tensor.detach().float().requires_grad_() for tensor in (query, key, value)]
    exact = scaled_dot_product_attention(
        *single, attn_mask=added if masked else None, is_causal=not masked, enable_gqa=True
    )
    exact = exact.transpose(1, 2)
    exact.bfloat16().sum().backward()
    assert states.dtype == torch.bfloat16
    tolerance = 1e-5 if autocast and length > LONGEST_EAGER else 0.02
    assert torch.allclose(states, exact.bfloat16(), rtol=tolerance, atol=tolerance)
    for tensor, float_tensor in zip((query, key, value), single, strict=True):
        exact = float_tensor.grad.bfloat16()
        assert (tensor.grad - exact).norm() <= tolerance * (exact.norm() + 1)


@pytest.mark.parametrize("n_cached", [1, 5, LONGEST_EAGER])
@pytest.mark.parametrize("n_queries", [1, 4])
def test_attention_after_a_cache_in_bf16_is_that_of_float32(
    n_queries: int, n_cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single token, and long inputs, are left to the library."""
    fused = Mock(side_effect=attention_module.sdpa_attention_forward)
    monkeypatch.setattr(attention_module, "sdpa_attention_forward", fused)
    query, key, value = (tensor.bfloat16() for tensor in heads(n_cached + n_queries))
    query = query[:, :, n_cached:]
    mask = torch.ones(n_queries, n_cached + n_queries, dtype=torch.bool).tril(n_cached).expand(2, 1, -1, -1)
    groups = torch.nn.Module()
    groups.num_key_value_groups = 2
    states, _ = attention(groups, query, key, value, mask if n_queries > 1 else None)
    assert fused.called == (n_queries == 1 or n_cached == LONGEST_EAGER)
    exact = scaled_dot_product_attention(
        query.float(), key.float(), value.float(), attn_mask=mask, enable_gqa=True
    )
    assert states.dtype == torch.bfloat16
    assert torch.allclose(states.float(), exact.transpose(1, 2), rtol=0.02, atol=0.02)


def test_tokens_after_a_cache_are_read_as_without_one_in_bf16(tmp_path: Path) -> None:
    net = load_backbone(BackboneConfig(str(save_backbone(tmp_path)), dtype="bfloat16"))[0].eval()
    tokens = torch.arange(20).view(2, 10)
    mask, table = torch.ones_like(tokens, dtype=torch.bool), torch.zeros(1, net.width)
    with torch.no_grad():
        whole, cache = net(tokens, mask, table), DynamicCache(config=net.model.config)
        parts = [net(tokens[:, part], mask[:, part], table, cache=cache) for part in (slice(4), slice(4, 10))]
    assert torch.allclose(torch.cat(parts, dim=1).float(), whole.float(), rtol=0.02, atol=0.02)


def test_a_backbone_that_cannot_switch_its_attention_uses_that_of_the_library(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path)
    config = FalconConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, bias=False
    )
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    assert (
        load_backbone(BackboneConfig(str(folder), dtype="float32"))[0].model.config._attn_implementation
        == "sdpa"
    )


def test_attention_in_float32_is_that_of_the_library(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path)
    model = load_backbone(BackboneConfig(str(folder), dtype="float32"))[0].model
    expected = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", trust_remote_code=False
    )
    tokens = torch.arange(12).view(2, 6)
    assert model.config._attn_implementation == ATTENTION
    assert torch.equal(model(tokens).logits, expected(tokens).logits)
