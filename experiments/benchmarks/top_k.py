"""The 20 best of a million items for 10,000 users, exact: rate and extra memory.

    python -m experiments.benchmarks.top_k --output bench

Data: random states and items.

Prints the rate, with the time's shares of product and selection, and the extra memory. Comparator: the bare
matrix product in the same blocks.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cllm4rec.models.base import USERS_AT_ONCE
from cllm4rec.models.inner_product import score_blocks
from cllm4rec.ranking import TopK
from experiments.benchmarks.measurement import extra_memory, side_by_side
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

K, WIDTH = 20, 64


def vectors(n_users: int, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random states, items, and order of ties."""
    generator = torch.Generator().manual_seed(0)
    states, items = (torch.randn(n, WIDTH, generator=generator) for n in (n_users, n_items))
    return states, items, torch.randperm(n_items, generator=generator)


def product(states: Tensor, items: Tensor) -> None:
    """The scores, discarded."""
    for batch in states.split(USERS_AT_ONCE):
        for _ in score_blocks(batch, items):
            pass


class TimedTopK(TopK):
    """`TopK` that adds the time of all selections up."""

    seconds = 0.0

    def offer(self, scores: Tensor, first: int = 0) -> None:
        start = time.perf_counter()
        super().offer(scores, first)
        TimedTopK.seconds += time.perf_counter() - start


def lists(states: Tensor, items: Tensor, tie_order: Tensor, kind: type[TopK] = TopK) -> Tensor:
    """The best items of all users (n_users, K)."""
    best_items = []
    for batch in states.split(USERS_AT_ONCE):
        best = kind(len(batch), K, tie_order)
        for first, scores in score_blocks(batch, items):
            best.offer(scores, first)
        best_items.append(best.items)
    return torch.cat(best_items)


def prepare(n_users: int, n_items: int) -> Callable[[], object]:
    """`lists` of random vectors, not yet called."""
    return partial(lists, *vectors(n_users, n_items))


def shares(states: Tensor, items: Tensor, tie_order: Tensor) -> dict[str, float]:
    """Shares of product and selection in the time of `lists`."""
    start = time.perf_counter()
    lists(states, items, tie_order, TimedTopK)
    selection = TimedTopK.seconds / (time.perf_counter() - start)
    return {"product": 1 - selection, "selection": selection}


def main(settings: Settings) -> list[Row]:
    n_users, n_items = (1_000, 200_000) if settings.short else (10_000, 1_000_000)
    states, items, tie_order = vectors(n_users, n_items)
    few = states[:100]
    assert torch.equal(lists(few, items, tie_order), (few @ items.T).topk(K).indices), "lists are exact"
    functions: dict[str, Callable[[], object]] = {
        "product": partial(product, states, items),
        "lists": partial(lists, states, items, tie_order),
    }
    times = side_by_side(functions, 3)
    time_shares = shares(states, items, tie_order)
    shown = ", ".join(f"{name} {share:.0%}" for name, share in time_shares.items())
    prefix = f"top {K} for {n_users:,} users over {n_items:,} items, d = {WIDTH}"
    flops = 2 * n_users * n_items * WIDTH
    rates = {name: f"{flops / seconds / 1e9:.0f} GFLOP/s" for name, seconds in times.items()}
    memory = extra_memory(prepare, n_users, n_items, threads=settings.threads)
    ratio = times["product"] / times["lists"]
    question, comparator = f"{prefix}: rate ({shown})", f"bare product {rates['product']}"
    rows = [
        Row(question, rates["lists"], comparator, ratio, 0.6, False, time_shares),
        Row(f"{prefix}: extra memory (MiB)", f"{memory:,.0f}", "", memory, 2048, True),
    ]
    return report("top_k", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
