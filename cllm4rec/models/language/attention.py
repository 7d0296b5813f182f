"""Attention of the backbones: the library's default form for a family, fused where the family has one.

On a CPU, another form takes the place of the fused one under autocast, and where states in bfloat16 have a
gradient. The gradient of the fused form takes several times as long in bfloat16 as in float32. Short inputs
use `eager_attention` in bfloat16, which is faster than both. Longer ones stay in float32.
`experiments.benchmarks.steps` times all three forms.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_or_eager"  # its name in the library
EAGER_TOKENS = 256  # longest input of `eager_attention`, which keeps all (L, L) weights for the gradient
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
        key, value: (B, heads or fewer, L, head width).
        attention_mask: added to the scores, or True where attention is allowed.
        further: the library's other arguments.

    Returns:
        States (B, L, heads, head width), and None instead of the weights.
    """
    in_bfloat16 = torch.is_autocast_enabled("cpu") or (query.dtype == torch.bfloat16 and query.requires_grad)
    if query.device.type != "cpu" or not in_bfloat16:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **further)
    with torch.autocast("cpu", enabled=False):
        unhandled = any(
            isinstance(argument, Tensor) or argument
            for name, argument in further.items()
            if name not in HANDLED_ARGUMENTS
        )
        if query.shape[2] != key.shape[2] or key.shape[2] > EAGER_TOKENS or unhandled:
            states, _ = sdpa_attention_forward(
                module, query.float(), key.float(), value.float(), attention_mask, **further
            )
            return states.to(query.dtype), None
        causal = further.get("is_causal")
        if attention_mask is None and (getattr(module, "is_causal", True) if causal is None else causal):
            attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
        groups = query.shape[1] // key.shape[1]
        q, k, v = (
            tensor.to(torch.get_autocast_dtype("cpu"))
            for tensor in (query, repeat_kv(key, groups), repeat_kv(value, groups))
        )
        return eager_attention(q, k, v, attention_mask, further.get("scaling")).to(query.dtype), None


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """Attention as products and a softmax in the dtype of its inputs.

    The library has no single eager form: each model has one of its own. Llama's softmax in float32 takes half
    as long again; GPT-2's scales the products instead of the queries, which rounds differently.

    Args:
        query, key, value: (B, heads, L, head width).
        mask: added to the scores, or True where attention is allowed. A query that may attend to nothing
            attends to everything equally.
        scaling: factor of the scores; by default head width ** -0.5.

    Returns:
        States (B, L, heads, head width).
    """
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    if mask is not None:  # added, since filling all heads' scores takes longer
        lowest = torch.finfo(scores.dtype).min
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=scores.dtype, device=mask.device).masked_fill(~mask, lowest)
        scores = scores + mask.to(scores.dtype).clamp(min=lowest)  # (B, heads, L, L)
    return (scores.softmax(-1) @ value).transpose(1, 2)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
