"""Encoding of histories in forward passes of similar length."""

import numpy as np
import pytest
import torch
from torch import nn

from cllm4rec.models.histories import encode_by_length, tokens_at_once

CPU = torch.device("cpu")


@pytest.mark.parametrize(("width", "tokens"), [(16, 16384), (64, 8192), (640, 819), (4096, 512)])
def test_tokens_of_a_pass_on_a_cpu_by_hand(width: int, tokens: int) -> None:
    assert tokens_at_once(width, CPU) == tokens
    assert tokens_at_once(width, torch.device("cuda")) == 16384


def test_each_history_is_encoded_once_within_the_limit() -> None:
    """Empty ones are not, and have the state zero."""
    lengths, passes = np.random.default_rng(0).integers(0, 90, 200), []

    def encode(rows: np.ndarray) -> torch.Tensor:
        passes.append(rows)
        return torch.from_numpy(rows + 1.0)[:, None].expand(-1, 640)

    states = encode_by_length(nn.Linear(1, 1), lengths, 640, encode)
    assert max(len(rows) * lengths[rows].max() for rows in passes) <= 819
    assert sorted(np.concatenate(passes)) == np.flatnonzero(lengths).tolist()
    assert torch.equal(states[:, 0], torch.from_numpy(np.where(lengths, np.arange(200) + 1.0, 0)).float())
