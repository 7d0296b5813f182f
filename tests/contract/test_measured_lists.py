"""What is measured is what is served: `measure` and `recommend` give the same lists of the same events."""

import math
from collections import defaultdict

import numpy as np

from cllm4rec.evaluation import measure
from cllm4rec.models.base import Recommender
from tests.support.worlds import taste_dataset

K = 10


def test_the_lists_of_recommend_have_the_measured_recall_and_ndcg(model: Recommender) -> None:
    """In validation, the events that are read are those whose items are left out, as in `recommend`."""
    dataset = taste_dataset()
    task = dataset.task("validation")
    measured = measure(model, dataset, "validation", metrics=["recall", "ndcg"], ks=[K])
    user_ids = dataset.user_ids.names(measured.users).to_list()
    table = model.recommend(user_ids, K, dataset=task.input)
    lists = defaultdict(list)
    for row in table.sort("rank").iter_rows(named=True):
        lists[row["user_id"]].append(row["item_id"])
    recall, ndcg = [], []
    for user, user_id in zip(measured.users.tolist(), user_ids, strict=True):
        held_out = dataset.item_ids.names(task.held_out.interactions.history(user)).to_list()
        hits = [rank for rank, item in enumerate(lists[user_id], 1) if item in held_out]
        n_best = min(K, len(held_out))
        recall.append(len(hits) / n_best)
        best_gain = sum(1 / math.log2(rank + 1) for rank in range(1, n_best + 1))
        ndcg.append(sum(1 / math.log2(rank + 1) for rank in hits) / best_gain)
    assert max(recall) > 0
    np.testing.assert_allclose(measured.per_user[f"recall@{K}"], recall, rtol=1e-12)
    np.testing.assert_allclose(measured.per_user[f"ndcg@{K}"], ndcg, rtol=1e-12)
    ranked = model.rank(measured.users, task.input, K, task.masked).items
    assert [lists[user_id] for user_id in user_ids] == [
        dataset.item_ids.names(items[items >= 0]).to_list() for items in ranked
    ]
