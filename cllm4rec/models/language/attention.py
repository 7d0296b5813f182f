"""The attention of the backbones: the library's, except under autocast on a CPU.

There the gradient of the fused form takes several times as long in bfloat16 as in float32. What is short is written out in the
type of autocast, which is faster than both, and the rest stays in float32: `experiments.benchmarks.steps` times all three.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_or_written_out"  # its name in the library
SHORT = 256  # tokens: all products of that many are kept for the gradient
UNDERSTOOD = {
    "is_causal",
    "scaling",
    "sliding_window",
    "position_ids",
    "use_cache",
}  # the last three change nothing here


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **further: Any,
) -> tuple[Tensor, None]:
    """As the library calls it: query (B, heads, L, width of a head), key and value (B, heads or fewer, L, width), a mask that
    is added or True where attention is allowed; states (B, L, heads, width).
    """
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **further)
    with torch.autocast("cpu", enabled=False):
        special = any(
            isinstance(one, Tensor) or one for name, one in further.items() if name not in UNDERSTOOD
        )
        if query.shape[2] != key.shape[2] or key.shape[2] > SHORT or special:
            states, _ = sdpa_attention_forward(
                module, query.float(), key.float(), value.float(), attention_mask, **further
            )
            return states.to(query.dtype), None
        causal = further.get("is_causal")
        if attention_mask is None and (getattr(module, "is_causal", True) if causal is None else causal):
            attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
        groups = query.shape[1] // key.shape[1]
        q, k, v = (
            one.to(torch.get_autocast_dtype("cpu"))
            for one in (query, repeat_kv(key, groups), repeat_kv(value, groups))
        )
        return written_out(q, k, v, attention_mask, further.get("scaling")).to(query.dtype), None


def written_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """States (B, L, heads, width) of queries, keys and values (B, heads, L, width), by products, softmax and products in
    their type. Where a query may see nothing it sees all alike."""
    weights = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    lowest = torch.finfo(weights.dtype).min
    if mask is not None and mask.dtype == torch.bool:
        weights = weights.masked_fill(~mask, lowest)
    elif mask is not None:
        weights = weights + mask.to(weights.dtype).clamp(min=lowest)
    return (weights.softmax(-1) @ value).transpose(1, 2)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
