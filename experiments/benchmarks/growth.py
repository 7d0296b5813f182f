"""How a step grows with users, and the item loss with items: growth.svg and growth.json, with no target (needs matplotlib)."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import matplotlib
from torch import Tensor

from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks import item_loss, users
from experiments.benchmarks.common import Settings, extra_memory, machine, settings, side_by_side
from experiments.commands import show

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of a backend without a screen

WIDTH = 64
USERS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
ITEMS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
MOST_DENSE_USERS = 300_000


@dataclass
class Panel:
    """One picture: curves of (size, value)."""

    title: str
    across: str
    up: str
    scale: str = "log"  # of what goes up
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: {"ours": [], "dense": []})


def of_users(sizes: tuple[int, ...], repeats: int) -> Panel:
    """Milliseconds of a step."""
    panel = Panel("a training step", "users", "ms", "linear")
    for n in sizes:
        timed = {"ours": users.steps(n)[1]}
        if n <= MOST_DENSE_USERS:
            timed["dense"] = users.steps(n, sparse=False)[1]
        for name, seconds in side_by_side(timed, repeats).items():
            panel.curves[name].append((n, seconds / users.BATCHES * 1e3))
    return panel


def of_items(sizes: tuple[int, ...], repeats: int, threads: int) -> list[Panel]:
    """Seconds and extra memory of the item loss, value and gradients."""
    what = f"item loss, 256 states, d = {WIDTH}"
    panels = [Panel(what, "items", "s"), Panel(what, "items", "MiB beyond inputs and gradients")]
    losses: dict[str, Callable[..., Tensor]] = {"ours": multinomial_nll, "dense": item_loss.dense}
    for n in sizes:
        times = side_by_side({name: item_loss.step(loss, n, WIDTH) for name, loss in losses.items()}, repeats)
        gradients = (n + item_loss.BATCH) * WIDTH * 4 / 2**20
        for name, loss in losses.items():
            panels[0].curves[name].append((n, times[name]))
            memory = extra_memory(item_loss.step, loss, n, WIDTH, threads=threads) - gradients
            panels[1].curves[name].append((n, max(memory, 1.0)))
    return panels


def main(given: Settings) -> None:
    most, repeats = (3, 2) if given.short else (len(USERS), 3)
    panels = [of_users(USERS[:most], repeats), *of_items(ITEMS[:most], repeats, given.threads)]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        for name, points in panel.curves.items():
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale=panel.scale, xlabel=panel.across, ylabel=panel.up, title=panel.title)
        if panel.scale == "linear":
            axis.set_ylim(bottom=0)
        axis.legend()
    given.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.output / "growth.svg", metadata={"Date": None})
    found = {f"{one.title}, {one.up}": one.curves for one in panels}
    (given.output / "growth.json").write_text(json.dumps({"machine": machine(given.threads), "curves": found}, indent=2) + "\n")
    for name, curves in found.items():
        show(
            f"{name}: "
            + "; ".join(f"{curve} {[(n, round(value, 3)) for n, value in points]}" for curve, points in curves.items())
        )


if __name__ == "__main__":
    main(settings(__doc__))
