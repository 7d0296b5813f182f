"""The multinomial item loss over a million items: difference, memory and time.

    python -m experiments.benchmarks.item_loss --output bench

Data: random states and items, 256 states with five targets each.

Prints the largest difference from dense logits, the memory beyond inputs and gradients, and the time of a
forward and a backward pass. Comparator: all logits at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks.measurement import extra_memory, side_by_side
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

BATCH, TARGETS = 256, 5  # states, targets of a state
CPU = torch.device("cpu")


def inputs(n_items: int, width: int, device: torch.device = CPU) -> dict[str, Tensor]:
    """Arguments of the loss: states, items, and targets in ascending order of their state."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(BATCH, width, generator=generator).to(device).requires_grad_()
    items = (torch.randn(n_items, width, generator=generator) / width**0.5).to(device).requires_grad_()
    rows = torch.arange(BATCH, device=device).repeat_interleave(TARGETS)
    targets = torch.randint(n_items, (len(rows),), generator=generator).to(device)
    return {"states": states, "classes": items, "rows": rows, "targets": targets}


def dense(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The same loss from all logits at once."""
    return -functional.log_softmax(states @ classes.T, dim=1)[rows, targets].sum()


def step(
    loss: Callable[..., Tensor], n_items: int, width: int, device: torch.device = CPU
) -> Callable[[], object]:
    """A forward and a backward pass on given inputs; the gradients are allocated anew in each call."""
    tensors = inputs(n_items, width, device)

    def run() -> None:
        tensors["states"].grad = tensors["classes"].grad = None
        loss(**tensors).backward()

    return run


def difference(
    n_items: int, width: int, loss: Callable[..., Tensor] = multinomial_nll, device: torch.device = CPU
) -> float:
    """Largest difference from dense logits in value and gradients, relative to the largest number of each."""
    results = []
    for function in (loss, dense):
        tensors = inputs(n_items, width, device)
        value = function(**tensors)
        value.backward()
        results.append((value.detach(), tensors["states"].grad, tensors["classes"].grad))
    pairs = zip(*results, strict=True)
    return max(float((tested - exact).abs().max() / exact.abs().max()) for tested, exact in pairs)


def gradients_mib(n_items: int, width: int) -> float:
    """Memory of the gradients in MiB, which every form of the loss needs."""
    return (n_items + BATCH) * width * 4 / 2**20


def rows_of(n_items: int, width: int, settings: Settings) -> list[Row]:
    """Rows of one width."""
    prefix = f"item loss, {n_items:,} items, d = {width}"
    losses: dict[str, Callable[..., Tensor]] = {"cllm4rec": multinomial_nll, "dense": dense}
    memory = {
        name: extra_memory(step, loss, n_items, width, threads=settings.threads)
        - gradients_mib(n_items, width)
        for name, loss in losses.items()
    }
    times = side_by_side({name: step(loss, n_items, width) for name, loss in losses.items()}, 3)
    mib = f"{memory['cllm4rec']:,.0f} MiB", f"dense {memory['dense']:,.0f} MiB"
    seconds = f"{times['cllm4rec']:.2f} s", f"dense {times['dense']:.2f} s"
    return [
        Row(f"{prefix}: difference from dense", "", "", difference(n_items, width), 1e-5, True),
        Row(f"{prefix}: extra memory", *mib, memory["cllm4rec"] / memory["dense"], 0.1, True),
        Row(f"{prefix}: time", *seconds, times["cllm4rec"] / times["dense"], 1.2, True),
    ]


def main(settings: Settings) -> list[Row]:
    n_items = 300_000 if settings.short else 1_000_000
    rows = [row for width in (64, 256) for row in rows_of(n_items, width, settings)]
    return report("item_loss", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
