"""Growth of a training step with the users, and of the item loss with the items (needs matplotlib).

    python -m experiments.benchmarks.growth --output bench

Data: generated, as in `users` and `item_loss`.

Prints the points of the curves, of this package and of the dense forms; no targets. The figures are
written to OUTPUT/growth.svg and OUTPUT/growth.json.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from cllm4rec.commands.entry import say
from cllm4rec.training.losses import multinomial_nll
from experiments.benchmarks import item_loss, users
from experiments.benchmarks.generated import N_BATCHES
from experiments.benchmarks.measurement import extra_memory, side_by_side
from experiments.benchmarks.results import Settings, parse_settings, write_json
from experiments.commands import ends_in_one_line
from experiments.libraries import required_library

required_library("matplotlib", "plots").use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of a backend without a screen

WIDTH = 64
USERS = ITEMS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
MOST_DENSE_USERS = 300_000


@dataclass
class Panel:
    """A panel of the figure.

    Attributes:
        title: above the panel.
        x_label, y_label: of the axes.
        y_scale: of the vertical axis.
        curves: name -> points (size, value).
    """

    title: str
    x_label: str
    y_label: str
    y_scale: str = "log"
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: {"cllm4rec": [], "dense": []})


def user_panel(sizes: tuple[int, ...], repeats: int) -> Panel:
    """Milliseconds of a training step."""
    panel = Panel("a training step", "users", "ms", "linear")
    for n in sizes:
        functions = {"cllm4rec": users.timed_steps(n)}
        if n <= MOST_DENSE_USERS:
            functions["dense"] = users.timed_steps(n, sparse=False)
        for name, seconds in side_by_side(functions, repeats).items():
            panel.curves[name].append((n, seconds / N_BATCHES * 1e3))
    return panel


def item_panels(sizes: tuple[int, ...], repeats: int, threads: int) -> list[Panel]:
    """Seconds and extra memory of the item loss, value and gradients."""
    title = f"item loss, {item_loss.BATCH} states, d = {WIDTH}"
    seconds, memory = Panel(title, "items", "s"), Panel(title, "items", "MiB beyond inputs and gradients")
    losses: dict[str, Callable[..., Tensor]] = {"cllm4rec": multinomial_nll, "dense": item_loss.dense}
    for n in sizes:
        times = side_by_side({name: item_loss.step(loss, n, WIDTH) for name, loss in losses.items()}, repeats)
        for name, loss in losses.items():
            seconds.curves[name].append((n, times[name]))
            extra = extra_memory(item_loss.step, loss, n, WIDTH, threads=threads)
            memory.curves[name].append((n, max(extra - item_loss.gradients_mib(n, WIDTH), 1.0)))
    return [seconds, memory]


def main(settings: Settings) -> None:
    n_sizes, repeats = (3, 2) if settings.short else (len(USERS), 3)
    panels = [user_panel(USERS[:n_sizes], repeats), *item_panels(ITEMS[:n_sizes], repeats, settings.threads)]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        for name, points in panel.curves.items():
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale=panel.y_scale)
        axis.set(xlabel=panel.x_label, ylabel=panel.y_label, title=panel.title)
        if panel.y_scale == "linear":
            axis.set_ylim(bottom=0)
        axis.legend()
    curves = {f"{panel.title}, {panel.y_label}": panel.curves for panel in panels}
    write_json("growth", {"curves": curves}, settings)
    figure.savefig(settings.output / "growth.svg", metadata={"Date": None})
    for title, panel_curves in curves.items():
        shown = {name: [(n, round(value, 3)) for n, value in points] for name, points in panel_curves.items()}
        say(f"{title}: {'; '.join(f'{name} {points}' for name, points in shown.items())}")


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
