"""Attention of the backbones: the library's default form for a family, fused where the family has one.

In bfloat16 on a CPU another form takes the place of the fused one, which takes two to three times as long as
`eager_attention`, and its gradient up to six times. `experiments.benchmarks.steps` times the gradients. Two
inputs are left to the fused form: a single token, and the longest, as `eager_attention` keeps all (L, S)
weights for the gradient. Under autocast they stay in float32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_or_eager"  # its name in the library
# Longest input of `eager_attention`, in widths of a head: from there on the fused form is as fast.
EAGER_WIDTHS = 8
# arguments that `attention` handles; the last three change nothing here
HANDLED_ARGUMENTS = {"is_causal", "scaling", "sliding_window", "position_ids", "use_cache"}


def use_fused_attention(model: PreTrainedModel) -> None:
    """Replace the library's fused form by `attention`, in a model that uses it.

    A model that cannot switch, such as Falcon, keeps its own.
    """
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        model.set_attn_implementation(ATTENTION)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **further: Any,
) -> tuple[Tensor, None]:
    """An attention function as the library calls it.

    Args:
        module: the attention layer.
        query: (B, heads, L, head width).
        key, value: (B, heads or fewer, S, head width); S > L after a cache.
        attention_mask: (B, 1, L, S), added to the scores, or True where attention is allowed.
        further: the library's other arguments.

    Returns:
        States (B, L, heads, head width), and None instead of the weights.
    """
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else query.dtype
    if query.device.type != "cpu" or dtype != torch.bfloat16:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **further)
    unhandled = any(
        isinstance(argument, Tensor) or argument
        for name, argument in further.items()
        if name not in HANDLED_ARGUMENTS
    )
    with torch.autocast("cpu", enabled=False):
        n_queries, n_keys, width = query.shape[2], *key.shape[2:]
        # The library leaves a mask out after a cache for a single token alone, which attends to all keys.
        unmasked = n_queries != n_keys and attention_mask is None
        if n_queries == 1 or unmasked or n_keys > EAGER_WIDTHS * width or unhandled:
            fused = torch.float32 if autocast else dtype
            q, k, v = (tensor.to(fused) for tensor in (query, key, value))
            states, _ = sdpa_attention_forward(module, q, k, v, attention_mask, **further)
            return states.to(query.dtype), None
        causal = further.get("is_causal")
        if attention_mask is None and (getattr(module, "is_causal", True) if causal is None else causal):
            attention_mask = torch.ones(n_queries, n_keys, dtype=torch.bool).tril()
        q, k, v = (tensor.to(dtype) for tensor in (query, key, value))
        return eager_attention(q, k, v, attention_mask, further.get("scaling")).to(query.dtype), None


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Attention as products and a softmax in the dtype of its inputs.

    The library has no single eager form: each model has one of its own. Llama's softmax in float32 takes half
    as long again; GPT-2's scales the products instead of the queries, which rounds differently. Here the
    queries that share keys are multiplied with them at once: keys and values are not repeated.

    Args:
        query: (B, heads, L, head width).
        key, value: (B, heads or fewer, S, head width).
        mask: (B, 1, L, S) or what broadcasts to it, added to the scores, or True where attention is allowed.
            A query that may attend to nothing attends to everything equally.
        scaling: factor of the scores; by default head width ** -0.5.

    Returns:
        States (B, L, heads, head width).
    """
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    shared = (len(key), key.shape[1], -1)  # B, heads of the keys, the rows that share them
    scores = scaled.reshape(*shared, query.shape[-1]) @ key.transpose(-1, -2)
    scores = scores.view(*query.shape[:3], -1)  # (B, heads, L, S)
    if mask is not None:  # added, since filling all heads' scores takes longer
        lowest = torch.finfo(scores.dtype).min
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=scores.dtype, device=mask.device).masked_fill(~mask, lowest)
        scores = scores + mask.to(scores.dtype).clamp(min=lowest)
    states = scores.softmax(-1).view(*shared, scores.shape[-1]) @ value
    return states.view(*query.shape[:3], -1).transpose(1, 2)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
