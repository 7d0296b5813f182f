"""The measure of explanations, against ranks of lists one by one."""

import numpy as np
import pytest

from cllm4rec import EASE, EASEConfig
from experiments.explanations import measured_pairs, ranks_without_each
from tests.support.worlds import taste_dataset


@pytest.fixture(scope="module")
def ease() -> EASE:
    return EASE(EASEConfig(regularization=10.0)).fit(taste_dataset())


def test_ranks_are_those_of_lists_that_leave_out_the_whole_history(ease: EASE) -> None:
    seen, user = taste_dataset().seen, 3
    history = seen.item_ids.names(seen.interactions.history(user)).to_list()
    item = int(ease.rank(np.array([user]), seen, 9).items[0, 8])
    name = seen.item_ids.names(np.array([item]))[0]
    ranks = ranks_without_each(ease, item, user, seen)
    for left_out, rank in zip(history, ranks, strict=True):
        rest = [each for each in history if each != left_out]
        lists = ease.recommend(histories=[rest], k=seen.n_items, deny=history)
        assert lists["item_id"].to_list().index(name) + 1 == rank


def test_the_first_item_of_an_explanation_costs_more_ranks_than_another(ease: EASE) -> None:
    of_first, of_other = measured_pairs(ease, taste_dataset().seen, 40, seed=0)
    assert of_first.shape == of_other.shape == (40,)
    assert np.mean((of_first > of_other) + 0.5 * (of_first == of_other)) > 0.8


def test_too_few_users_are_refused(ease: EASE) -> None:
    with pytest.raises(SystemExit, match="users have 5 events: take fewer --pairs"):
        measured_pairs(ease, taste_dataset().seen, 10**6, seed=0)
