"""The attention of the backbones: the library's, but under autocast on a CPU it stays in float32.

In bfloat16 its gradient takes several times as long there, as `experiments.benchmarks.steps` measures.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_in_float32_on_cpu"  # its name in the library


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **further: Any
) -> tuple[Tensor, None]:
    """As the library calls it: query, key and value (B, heads, L, width of a head)."""
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **further)
    with torch.autocast("cpu", enabled=False):
        states, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **further)
    return states.to(query.dtype), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
