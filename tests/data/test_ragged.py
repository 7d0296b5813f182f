"""Ragged arrays against plain lists."""

import numpy as np
import pytest

from cllm4rec.data.ragged import Ragged
from tests.support.ragged import random_lists


def as_lists(ragged: Ragged) -> list[list[int]]:
    """The rows of a ragged array."""
    ends = np.cumsum(ragged.lengths)
    assert ends[-1] == len(ragged.values)
    return [
        ragged.values[end - length : end].tolist() for end, length in zip(ends, ragged.lengths, strict=True)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_ragged_lists_do_what_plain_loops_do(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lists = random_lists(seed)
    ragged = Ragged.from_lists(lists)
    plain_lists = [values.tolist() for values in lists]
    assert as_lists(ragged) == plain_lists
    assert ragged.rows.tolist() == [row for row, values in enumerate(plain_lists) for _ in values]
    assert ragged.positions.tolist() == [index for values in plain_lists for index in range(len(values))]
    assert ragged.starts.tolist() == [sum(map(len, plain_lists[:row])) for row in range(len(plain_lists))]
    for n in (0, 1, 3, 100):
        assert as_lists(ragged.first(n)) == [values[:n] for values in plain_lists]
        assert as_lists(ragged.last(n)) == [values[max(0, len(values) - n) :] for values in plain_lists]
    counts = generator.integers(0, 5, len(lists))
    assert as_lists(ragged.first(counts)) == [
        values[:n] for values, n in zip(plain_lists, counts.tolist(), strict=True)
    ]
    rows = generator.integers(0, len(lists), 12)
    assert as_lists(ragged.take(rows)) == [plain_lists[row] for row in rows.tolist()]
    keep = generator.random(len(ragged.values)) < 0.5
    flags = as_lists(Ragged(keep, ragged.lengths))
    assert as_lists(ragged.filter(keep)) == [
        [value for value, kept in zip(values, keeps, strict=True) if kept]
        for values, keeps in zip(plain_lists, flags, strict=True)
    ]
    keys = generator.integers(0, 2**64, len(ragged.values), dtype=np.uint64)
    by_key = as_lists(Ragged(keys, ragged.lengths))
    assert as_lists(ragged.sorted_by(keys)) == [
        [value for _, value in sorted(zip(row_keys, values, strict=True))]
        for row_keys, values in zip(by_key, plain_lists, strict=True)
    ]


def test_ragged_constants_and_singles() -> None:
    assert as_lists(Ragged.repeated(np.array([4, 5]), 3)) == [[4, 5]] * 3
    assert as_lists(Ragged.singles(np.array([7, 8]))) == [[7], [8]]
    assert as_lists(Ragged.singles(np.array([7, 8, 9]), np.array([True, False, True]))) == [[7], [], [9]]


def test_no_lists_at_all_are_a_ragged_too() -> None:
    nothing = Ragged.from_lists([])
    assert nothing.starts.tolist() == nothing.positions.tolist() == nothing.rows.tolist() == []
    assert nothing.first(3).values.tolist() == []
