"""Do explanations name the items that matter? Removes the first item of an explanation, and another one.

    OMP_NUM_THREADS=1 python -m experiments.explanations --run runs/musical

For each of some random users with at least five input events, an item at a random rank from 5 to 50 of the
list is explained. The rank of this item is computed again without the item of the history that has the
largest effect, and without another random one. Items of the whole history stay out of the ranking.

Prints for how many pairs of user and item the first item costs more ranks than the other; ties count half.
"""

from pathlib import Path

import numpy as np

from cllm4rec import load
from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.models.base import Recommender
from cllm4rec.models.explanation import explained, without_each_item
from experiments.commands import argument_parser, ends_in_one_line

FEWEST_EVENTS = 5
RANKS = (5, 50)  # of the explained items, from 1


def ranks_without_each(model: Recommender, item: int, user: int, seen: Dataset) -> np.ndarray:
    """Rank of an item in the list of a user, without each item of the history (n,), from 1."""
    history = seen.interactions.history(user)
    scores = model.score(np.arange(len(history)), without_each_item(seen, user))  # (n, n_items)
    better = scores > scores[:, [item]]
    better |= (scores == scores[:, [item]]) & (seen.tie_order < seen.tie_order[item])
    better[:, history] = False
    return better.sum(1) + 1


def measured_pairs(
    model: Recommender, seen: Dataset, n_pairs: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks that an item loses without the first item of its explanation, and without another (n_pairs,).

    Raises:
        SystemExit: too few users have enough events.
    """
    generator = np.random.default_rng(seed)
    users = np.flatnonzero(np.diff(seen.interactions.indptr) >= FEWEST_EVENTS)
    if len(users) < n_pairs:
        raise SystemExit(f"error: {len(users)} users have {FEWEST_EVENTS} events: take fewer --pairs")
    users = generator.permutation(users)[:n_pairs]
    lists = model.rank(users, seen, RANKS[1]).items
    if (lists[:, RANKS[0] - 1 :] < 0).all(axis=1).any() or lists.shape[1] < RANKS[0]:
        raise SystemExit(f"error: a list has fewer than {RANKS[0]} items: take a larger catalogue")
    lost = []
    for user, listed in zip(users.tolist(), lists, strict=True):
        rank = int(generator.integers(RANKS[0], min(RANKS[1], int((listed >= 0).sum())) + 1))
        item, history = int(listed[rank - 1]), seen.interactions.history(user)
        first = seen.item_ids.index(explained(model, item, user, seen).items["item_id"][:1])[0]
        other = generator.choice(history[history != first])
        ranks = ranks_without_each(model, item, user, seen)
        lost.append([int(ranks[history == removed][0]) - rank for removed in (first, other)])
    of_first, of_other = np.array(lost).T
    return of_first, of_other


def main(run: Path, pairs: int, seed: int) -> None:
    model = load(run)
    of_first, of_other = measured_pairs(model, model._source_dataset().seen, pairs, seed)
    wins = (of_first > of_other) + 0.5 * (of_first == of_other)
    low, high = bootstrap_interval(wins)
    say(f"{run}, {model.name}, {pairs} pairs of user and item, seed {seed}")
    say(f"the first item costs more ranks: {wins.mean():.1%} [{low:.1%}, {high:.1%}], ties half")
    medians = np.median(of_first), np.median(of_other)
    say("ranks lost, median: {:g} without the first, {:g} without another".format(*medians))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder; its dataset has to be there")
    parser.add_argument("--pairs", type=int, default=200, help="users, each with an item (default: 200)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the users, ranks and other items (default: 0)"
    )
    arguments = vars(parser.parse_args())
    with ends_in_one_line():
        main(**arguments)
