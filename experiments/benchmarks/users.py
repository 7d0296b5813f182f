"""Time of a training step as the number of users grows.

    python -m experiments.benchmarks.users --output bench

Data: generated; collaborative steps of 64 users with 20 items each, out of 5,000 items.

Prints the time with 10 thousand and with 1 million users. Comparator: dense gradients of the user table and
PyTorch's AdamW, which reads and writes all users in each step.
"""

from collections.abc import Callable
from functools import partial

import torch

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.training.batching import MicroBatches
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.row_adam import RowAdam
from experiments.benchmarks.generated import N_BATCHES, collaborative_run
from experiments.benchmarks.measurement import side_by_side
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.benchmarks.steps import loop_steps
from experiments.commands import ends_in_one_line

N_ITEMS = 5_000
FEW_USERS, MANY_USERS, DENSE_USERS = 10_000, 1_000_000, 200_000
STEPS_BEFORE = 125_000  # eight epochs of a million users


def age(adam: RowAdam) -> None:
    """Give the optimiser the moments of a long training in which each row was read in the last epoch."""
    weight = adam.table.weight
    n_rows = len(weight)
    adam.load_moments(
        {
            "mean": torch.tensor(1e-5).expand_as(weight),
            "square": torch.tensor(1.5e-10).expand_as(weight),
            "done": torch.randint(STEPS_BEFORE - n_rows // 64, STEPS_BEFORE, (n_rows,)),
            "rates": torch.full((STEPS_BEFORE,), 1e-3, dtype=torch.float64),
        }
    )


def training_run(
    n_users: int, sparse: bool = True, n_items: int = N_ITEMS
) -> tuple[TrainingRun, list[MicroBatches]]:
    """A training run and its batches; `sparse`: whether gradients hold only the users of the step."""

    def initialise(net: CLLM4RecNet) -> None:
        for table in (net.collaborative, net.content):
            table.users.sparse = sparse
            for weight in table.parameters():
                torch.nn.init.uniform_(weight, -0.02, 0.02)

    run, batches = collaborative_run(CLLM4RecConfig(), n_users, n_items, initialise)
    if sparse:
        age(run.optimizer.row_adams["collaborative.users"])
    return run, batches


def timed_steps(n_users: int, sparse: bool = True) -> Callable[[], object]:
    """A function that makes `N_BATCHES` steps."""
    run, batches = training_run(n_users, sparse)
    return partial(loop_steps, run, "collaborative", batches)


def main(settings: Settings) -> list[Row]:
    n_dense = DENSE_USERS // 4 if settings.short else DENSE_USERS
    sizes = {
        "few": (FEW_USERS, True),
        "many": (MANY_USERS, True),
        "few, dense": (FEW_USERS, False),
        "dense": (n_dense, False),
    }
    functions = {name: timed_steps(*size) for name, size in sizes.items()}
    times = side_by_side(functions, 3 if settings.short else 7)
    shown = {name: f"{seconds / N_BATCHES * 1e3:.0f} ms" for name, seconds in times.items()}
    growth = times["many"] / times["few"]
    measured = f"{shown['few']} with {FEW_USERS:,} users, {shown['many']} with {MANY_USERS:,}"
    comparator = f"dense: {shown['few, dense']} with {FEW_USERS:,}, {shown['dense']} with {n_dense:,}"
    question = "a step as users grow from 10 thousand to 1 million"
    return report("users", [Row(question, measured, comparator, growth, 1.2, True)], settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
