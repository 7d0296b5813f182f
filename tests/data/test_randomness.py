"""Counter-based random numbers, permutations and hashes of ids."""

import hashlib

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.ids import hash_ids
from cllm4rec.data.randomness import mix, permutation, uniform


def test_mix_gives_known_values() -> None:
    """The first two are SplitMix64's published first outputs for the seeds 0 and 1234567."""
    assert int(mix(0)[0]) == 0xE220A8397B1DCDAF
    assert int(mix(1234567)[0]) == 6457827717110365317
    assert mix(1, np.array([2, -1])).tolist() == [13608149317741381227, 11917333196513764506]


def test_mix_equals_splitmix64_in_whole_numbers_of_any_size() -> None:
    def plain(*keys: int) -> int:
        mask, state = 2**64 - 1, 0
        for key in keys:
            state = ((state ^ (key & mask)) + 0x9E3779B97F4A7C15) & mask
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
            state ^= state >> 31
        return state

    generator = np.random.default_rng(0)
    keys = generator.integers(-(2**63), 2**63 - 1, (3, 50))
    assert mix(*keys).tolist() == [plain(*column) for column in keys.T.tolist()]


def test_the_order_and_the_number_of_keys_matter_and_arrays_broadcast() -> None:
    assert mix(1, 2)[0] != mix(2, 1)[0]
    assert mix(1)[0] != mix(1, 0)[0]
    table = mix(7, np.arange(4)[:, None], np.arange(3))
    assert table.shape == (4, 3)
    assert all(table[a, b] == mix(7, a, b)[0] for a in range(4) for b in range(3))
    assert len(np.unique(mix(0, np.arange(100_000)))) == 100_000


@pytest.mark.parametrize("key", [(0,), (1, 2), (0, -1, 5)])
def test_uniform_numbers_are_uniform(key: tuple[int, ...]) -> None:
    draws = uniform(*key, np.arange(100_000))
    assert 0 <= draws.min() and draws.max() < 1
    assert draws.mean() == pytest.approx(0.5, abs=0.005)  # standard error 0.0009
    assert draws.var() == pytest.approx(1 / 12, abs=0.001)
    counts = np.bincount((draws * 20).astype(int), minlength=20)
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-square with 19 degrees of freedom, p < 0.0002
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.015


def test_hashes_of_ids_go_by_their_text_alone() -> None:
    expected = int.from_bytes(hashlib.blake2b(b"007", digest_size=8).digest(), "big") % 2**63
    assert hash_ids(["007", "7", 7]).tolist()[0] == expected
    assert hash_ids(["7"]).tolist() == hash_ids([7]).tolist() == hash_ids(pl.Series([7])).tolist()
    assert (hash_ids(range(1000)) >= 0).all()


def test_permutations_hold_every_number_once_and_differ_by_key() -> None:
    orders = [permutation(500, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(500)) for order in orders)
    assert len(set(map(tuple, orders))) == 9
    assert permutation(500, 1, 2).tolist() == permutation(500, 1, 2).tolist()
    firsts = np.array([permutation(10, seed)[0] for seed in range(2000)])
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 33  # chi-square with 9 degrees of freedom, p < 0.0002
