"""Memory of training against the formula of docs/scaling.md.

    python -m experiments.benchmarks.memory --output bench

Data: generated, as in `users`; tiny backbone.

Prints the measured GiB and those of the formula. A frozen number takes 4 bytes. A trained number has a
weight, a gradient (except in tables read by rows), two moments and a best weight. Items under a full softmax
have two more gradients for a moment, as those of the prompts, the pull and the softmax are added up.
"""

from collections.abc import Callable
from functools import partial

from experiments.benchmarks.generated import train_epochs
from experiments.benchmarks.measurement import extra_memory
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.benchmarks.users import training_run
from experiments.commands import ends_in_one_line

SIZES = ((1_000_000, 50_000), (100_000, 300_000))  # users, items


def build_and_train(n_users: int, n_items: int) -> None:
    """Build the network and train two epochs."""
    train_epochs(*training_run(n_users, n_items=n_items))


def prepare(n_users: int, n_items: int) -> Callable[[], object]:
    """`build_and_train`, not yet called."""
    return partial(build_and_train, n_users, n_items)


def expected(n_users: int, n_items: int) -> float:
    """GiB by the formula; only the collaborative table has gradients and moments."""
    width = 128
    collaborative, content = (
        16 * width * n_users + 28 * width * n_items + 8 * n_users,
        8 * width * (n_users + n_items),
    )
    return (collaborative + content) / 2**30


def main(settings: Settings) -> list[Row]:
    rows = []
    for n_users, n_items in SIZES[:1] if settings.short else SIZES:
        n_users, n_items = (n // 4 if settings.short else n for n in (n_users, n_items))
        formula = expected(n_users, n_items)
        measured = extra_memory(prepare, n_users, n_items, threads=settings.threads) / 1024
        question = f"memory of training, {n_users:,} users, {n_items:,} items, d = 128, by the formula"
        rows.append(Row(question, f"{measured:.2f} GiB", f"{formula:.2f} GiB", measured / formula, 1.2, True))
    return report("memory", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
