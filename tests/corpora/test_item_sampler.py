"""Items are drawn as often as the sampler says, anew in each step."""

import numpy as np
import pytest

from cllm4rec.corpora.item_sampler import ItemSampler
from tests.support.skewed import N_ITEMS, skewed_interactions


@pytest.mark.parametrize("n_draws", [1, 5, 40])
def test_an_item_is_in_a_sample_as_often_as_it_says(n_draws: int) -> None:
    sampler = ItemSampler(skewed_interactions(), n_draws, 7)
    samples = [sampler.draw(step // 100, step % 100) for step in range(4000)]
    assert all(len(sample) <= n_draws and (np.diff(sample) > 0).all() for sample in samples)
    found = np.bincount(np.concatenate(samples), minlength=N_ITEMS) / len(samples)
    expected = np.exp(sampler.log_inclusion(np.arange(N_ITEMS)))
    assert expected[0] > 1.3 * expected[-1]
    assert (np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / len(samples)) + 1e-3).all()


def test_a_sample_depends_on_its_step_and_key_alone() -> None:
    sampler, equal, other = (ItemSampler(skewed_interactions(), 8, *key) for key in ((7, 1), (7, 1), (8, 1)))
    assert sampler.draw(2, 3).tolist() == equal.draw(2, 3).tolist()
    steps = ((2, 3), (2, 4), (3, 3))
    assert len({tuple(drawn.draw(*step)) for drawn in (sampler, other) for step in steps}) == 6
