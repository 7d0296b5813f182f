"""Encoding of histories in forward passes of similar length."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cllm4rec.corpora.padding import FREE_PADDING, batches_by_length
from cllm4rec.training.memory import FreedMemory

TOKENS_AT_ONCE = 1 << 14  # padded tokens of a forward pass when scoring
# On a CPU, tokens x width of a pass: more were slower at width 640, and take more memory. At least so many
# tokens, as each pass reads all weights.
NUMBERS_AT_ONCE_ON_CPU, FEWEST_TOKENS = 1 << 19, 512
FREE_NUMBERS = 1 << 17  # padded positions x width of a pass that cost less than a further pass


def tokens_at_once(width: int, device: torch.device) -> int:
    """Most padded tokens of a forward pass when scoring, of states of this width."""
    if device.type != "cpu":
        return TOKENS_AT_ONCE
    return min(TOKENS_AT_ONCE, max(FEWEST_TOKENS, NUMBERS_AT_ONCE_ON_CPU // width))


def encode_by_length(
    net: nn.Module, lengths: np.ndarray, width: int, encode: Callable[[np.ndarray], Tensor]
) -> Tensor:
    """States of histories, float32 (B, d), encoded in batches of similar length.

    Args:
        net: the network, which is put in evaluation mode.
        lengths: int64 (B,), approximate tokens of each history; the state of an empty one is zero.
        width: d.
        encode: gives the states (b, d) of the histories of some rows (b,).
    """
    device = next(net.parameters()).device
    states = torch.zeros(len(lengths), width, device=device)
    if net.training:
        net.eval()
    not_empty = np.flatnonzero(lengths)
    tokens = tokens_at_once(width, device)
    free = min(FREE_PADDING, FREE_NUMBERS // width) if device.type == "cpu" else FREE_PADDING
    freed = FreedMemory(device, None)
    for batch in batches_by_length(lengths[not_empty], tokens, free):
        rows = not_empty[batch]
        states[torch.from_numpy(rows)] = encode(rows).to(torch.float32)
        freed.after_micro_batch()
    return states
