"""The 20 best of a million items for many users, exact, against the bare matrix product in the same blocks."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from cllm4rec.models.retrieval import score_blocks
from cllm4rec.ranking import TopK
from cllm4rec.recommend import BATCH_SIZE
from experiments.benchmarks.common import Row, Settings, extra_memory, report, settings, side_by_side

K, WIDTH = 20, 64


def vectors(n_users: int, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random states and items, and an order of ties."""
    generator = torch.Generator().manual_seed(0)
    states, items = (torch.randn(n, WIDTH, generator=generator) for n in (n_users, n_items))
    return states, items, torch.randperm(n_items, generator=generator)


def product(states: Tensor, items: Tensor) -> None:
    """The scores, thrown away."""
    for batch in states.split(BATCH_SIZE):
        for _ in score_blocks(batch, items):
            pass


class Timed(TopK):
    """How long all of them took to look through blocks, and of it to take in what was found there."""

    offered = 0.0
    taken = 0.0

    def offer(self, scores: Tensor, first: int = 0) -> None:
        began = time.perf_counter()
        super().offer(scores, first)
        Timed.offered += time.perf_counter() - began

    def _take(self, row: Tensor, scores: Tensor, items: Tensor) -> None:
        began = time.perf_counter()
        super()._take(row, scores, items)
        Timed.taken += time.perf_counter() - began


def lists(states: Tensor, items: Tensor, tie_order: Tensor, kind: type[TopK] = TopK) -> Tensor:
    """The best items of all users (n_users, K)."""
    found = []
    for batch in states.split(BATCH_SIZE):
        best = kind(len(batch), K, tie_order)
        for first, scores in score_blocks(batch, items):
            best.offer(scores, first)
        found.append(best.items)
    return torch.cat(found)


def ready(n_users: int, n_items: int) -> Callable[[], object]:
    """The lists, vectors at hand."""
    given = vectors(n_users, n_items)
    return lambda: lists(*given)


def main(given: Settings) -> list[Row]:
    n_users, n_items = (1_000, 200_000) if given.short else (10_000, 1_000_000)
    states, items, tie_order = vectors(n_users, n_items)
    few = states[:100]
    assert torch.equal(lists(few, items, tie_order), (few @ items.T).topk(K).indices), "lists are exact"
    parts = {
        "product": lambda: product(states, items),
        "lists": lambda: lists(states, items, tie_order),
    }
    times = side_by_side(parts, 3)
    ratio = times["product"] / times["lists"]
    flops = 2 * n_users * n_items * WIDTH
    began = time.perf_counter()
    lists(states, items, tie_order, Timed)
    whole = time.perf_counter() - began
    spent = {"product": whole - Timed.offered, "prune": Timed.offered - Timed.taken, "merge": Timed.taken}
    shares = {name: seconds / whole for name, seconds in spent.items()}
    shown = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    what = f"top {K} for {n_users:,} users over {n_items:,} items, d = {WIDTH}"
    rates = [f"{flops / times[name] / 1e9:.0f} GFLOP/s" for name in ("lists", "product")]
    memory = extra_memory(ready, n_users, n_items, threads=given.threads)
    rows = [
        Row(f"{what}: rate ({shown})", rates[0], f"bare product {rates[1]}", ratio, 0.6, False, shares),
        Row(f"{what}: extra memory (MiB)", f"{memory:,.0f}", "", memory, 2048, True),
    ]
    return report("top_k", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
