"""The multinomial item loss over a million items, against dense logits.

Value and gradients are the same; what counts is the memory beyond inputs and their gradients, and the time.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks.common import Row, Settings, extra_memory, report, settings, side_by_side

BATCH, TARGETS = 256, 5


CPU = torch.device("cpu")


def inputs(n_items: int, width: int, device: torch.device = CPU) -> dict[str, Tensor]:
    """States, items, and sorted targets."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(BATCH, width, generator=generator).to(device).requires_grad_()
    items = (torch.randn(n_items, width, generator=generator) / width**0.5).to(device).requires_grad_()
    rows = torch.arange(BATCH, device=device).repeat_interleave(TARGETS)
    targets = torch.randint(n_items, (len(rows),), generator=generator).to(device)
    return {"states": states, "classes": items, "rows": rows, "targets": targets}


def dense(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The same loss with all logits at once."""
    return -functional.log_softmax(states @ classes.T, dim=1)[rows, targets].sum()


def step(loss: Callable[..., Tensor], n_items: int, width: int, device: torch.device = CPU) -> Callable[[], object]:
    """A forward and a backward pass, on inputs that are there; the gradients are new."""
    given = inputs(n_items, width, device)

    def run() -> None:
        given["states"].grad = given["classes"].grad = None
        loss(**given).backward()

    return run


def difference(n_items: int, width: int, loss: Callable[..., Tensor] = multinomial_nll, device: torch.device = CPU) -> float:
    """Largest difference of value and gradients from those of dense logits, in their largest number."""
    found = []
    for function in (loss, dense):
        given = inputs(n_items, width, device)
        value = function(**given)
        value.backward()
        found.append((value.detach(), given["states"].grad, given["classes"].grad))
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in zip(*found, strict=True))


def main(given: Settings) -> list[Row]:
    n_items = 300_000 if given.short else 1_000_000
    rows = []
    for width in (64, 256):
        what = f"item loss, {n_items:,} items, d = {width}"
        rows.append(Row(f"{what}: difference from dense", "", "", difference(n_items, width), 1e-5, True))
        gradients = (n_items + BATCH) * width * 4 / 2**20  # MiB, which both need
        ours, other = (
            extra_memory(step, loss, n_items, width, threads=given.threads) - gradients for loss in (multinomial_nll, dense)
        )
        rows.append(Row(f"{what}: extra memory", f"{ours:,.0f} MiB", f"dense {other:,.0f} MiB", ours / other, 0.1, True))
        both = {"ours": step(multinomial_nll, n_items, width), "dense": step(dense, n_items, width)}
        times = side_by_side(both, 3)
        values = f"{times['ours']:.2f} s", f"dense {times['dense']:.2f} s"
        rows.append(Row(f"{what}: time", *values, times["ours"] / times["dense"], 1.2, True))
    return report("item_loss", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
