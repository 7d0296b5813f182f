"""Candidate sets: the target and others, without known items and without two of one title."""

import numpy as np
import pytest

from cllm4rec.data.candidates import draw_candidates


def test_candidates_hold_the_target_once_and_nothing_known_and_no_title_twice() -> None:
    generator = np.random.default_rng(0)
    groups = np.arange(50)
    groups[30:40] = np.arange(10)  # ten pairs of one title
    for row in range(200):
        target, excluded = int(generator.integers(50)), generator.integers(0, 50, 8)
        excluded = excluded[groups[excluded] != groups[target]]
        drawn = draw_candidates(target, excluded, groups, 12, 1, row)
        assert (drawn == target).sum() == 1
        assert len(set(groups[drawn].tolist())) == 12
        assert not set(drawn.tolist()) & set(excluded.tolist())


def test_candidates_are_drawn_evenly_and_the_target_is_at_any_index() -> None:
    groups, n = np.arange(30), 3000
    drawn = np.stack([draw_candidates(4, np.array([0, 1]), groups, 7, 0, row) for row in range(n)])
    counts = np.bincount(drawn.ravel(), minlength=30)
    assert counts[4] == n
    assert (counts[:2] == 0).all()
    others = np.delete(counts, [0, 1, 4])  # each with probability 6 / 27
    assert abs(others - n * 6 / 27).max() < 5 * np.sqrt(n * 6 / 27 * 21 / 27)
    indices = np.bincount((drawn == 4).argmax(1), minlength=7)
    assert abs(indices - n / 7).max() < 5 * np.sqrt(n / 7 * 6 / 7)


def test_candidates_depend_on_their_key_and_on_nothing_else() -> None:
    first, again, other = (
        draw_candidates(3, np.array([5]), np.arange(100), 20, seed, 2) for seed in (0, 0, 1)
    )
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_small_catalogue_is_used_up_and_then_refused() -> None:
    groups = np.array([0, 1, 2, 2, 4])
    assert sorted(groups[draw_candidates(0, np.array([1]), groups, 3, 0)].tolist()) == [0, 2, 4]
    with pytest.raises(ValueError, match="4 candidates are asked for, and items of 3 titles are left"):
        draw_candidates(0, np.array([1]), groups, 4, 0)
