"""Ragged arrays joined and padded, and batches by length."""

import itertools

import numpy as np
import pytest

from cllm4rec.corpora.padding import assemble, batches_by_length
from cllm4rec.data.ragged import Ragged
from tests.support.ragged import random_lists


@pytest.mark.parametrize("seed", range(5))
def test_assembled_pieces_are_the_lists_joined_and_padded(seed: int) -> None:
    pieces = [random_lists(10 * seed + i, n=12, longest=i) for i in (1, 4, 0, 6)]
    tokens, mask, indices = assemble([Ragged.from_lists(piece) for piece in pieces])
    joined = [[value for piece in pieces for value in piece[row].tolist()] for row in range(12)]
    width = max(map(len, joined))
    assert tokens.tolist() == [values + [0] * (width - len(values)) for values in joined]
    assert mask.tolist() == [[True] * len(values) + [False] * (width - len(values)) for values in joined]
    for piece, index in zip(pieces, indices, strict=True):
        assert tokens.flatten()[index].tolist() == [value for values in piece for value in values.tolist()]
        assert (index // width).tolist() == [row for row, values in enumerate(piece) for _ in values]


def test_the_example_of_assemble() -> None:
    first, second = [np.array([1]), np.array([2])], [np.array([10, 11]), np.array([])]
    tokens, mask, indices = assemble([Ragged.from_lists(first), Ragged.from_lists(second)])
    assert tokens.tolist() == [[1, 10, 11], [2, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert [index.tolist() for index in indices] == [[0, 3], [1, 2]]


@pytest.mark.parametrize("free", [5, 100, 1024])
@pytest.mark.parametrize("tokens", [1, 20, 64, 10_000])
def test_batches_by_length_hold_every_row_once_within_the_limit(tokens: int, free: int) -> None:
    lengths = np.random.default_rng(tokens).integers(1, 30, 200)
    batches = batches_by_length(lengths, tokens, free)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= tokens for rows in batches)
    for rows, following in itertools.pairwise(batches):  # no batch could have taken one row more
        assert lengths[rows].max() <= lengths[following].min()
        length, positions = lengths[following].min(), (len(rows) + 1) * lengths[following].min()
        padded = positions - lengths[rows].sum() - length
        assert positions > tokens or padded > max(0.1 * positions, free)
    assert batches_by_length(np.empty(0, dtype=np.int64), 10) == []
