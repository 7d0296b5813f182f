"""Is the memory of training what docs/scaling.md says?

4 bytes a frozen number; a trained one has a weight, a gradient (but where a table is read by rows), two moments, a best weight;
and items under a full softmax two more gradients for a moment, as those of the prompts, the pull and the softmax are added up.
"""

from collections.abc import Callable

from experiments.benchmarks.common import Row, Settings, extra_memory, report, settings
from experiments.benchmarks.users import steps

SIZES = ((1_000_000, 50_000), (100_000, 300_000))  # users, items; tiny backbone


def trained(n_users: int, n_items: int) -> None:
    """What an epoch does: steps, all rows brought up to date, the best weights kept."""
    course, collaborative = steps(n_users, n_items=n_items)
    for _ in range(2):
        collaborative()
        course.optimizer.catch_up()
        course.keep_best(lambda: None)
        course.net.diagnostics()


def ready(n_users: int, n_items: int) -> Callable[[], object]:
    return lambda: trained(n_users, n_items)


def expected(n_users: int, n_items: int) -> float:
    """GiB by the formula, of steps that train the collaborative table alone: content is neither stepped nor has moments."""
    d, users, items = 128, n_users, n_items
    collaborative, content = 16 * d * users + 28 * d * items + 8 * users, 8 * d * (users + items)
    return (collaborative + content) / 2**30


def main(given: Settings) -> list[Row]:
    rows = []
    for n_users, n_items in SIZES[: 1 if given.short else None]:
        n_users, n_items = (n // 4 if given.short else n for n in (n_users, n_items))
        formula, measured = expected(n_users, n_items), extra_memory(ready, n_users, n_items, threads=given.threads) / 1024
        what = f"memory of training, {n_users:,} users, {n_items:,} items, d = 128, by the formula"
        rows.append(Row(what, f"{measured:.2f} GiB", f"{formula:.2f} GiB", measured / formula, 1.2, True))
    return report("memory", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
