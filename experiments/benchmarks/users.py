"""How long a training step takes as users grow: a collaborative step of 64 users with 20 items each, of 5,000 items.

Beside ours, the same step with dense gradients of users and PyTorch's AdamW, which reads and writes all of them each time.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator

from cllm4rec.data.interactions import Interactions
from cllm4rec.models.backbone import build_backbone
from cllm4rec.models.cllm4rec import CLLM4RecNet
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.text.histories import CollaborativeCorpus, HistoryOptions
from cllm4rec.text.prompts import OF_CLLM4REC, training_texts
from cllm4rec.text.tokenizer import ExtendedTokenizer
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Course
from cllm4rec.training.rows import RowAdam
from experiments.benchmarks.common import Row, Settings, report, settings, side_by_side
from experiments.benchmarks.steps import our_steps

N_ITEMS, A_HISTORY, BATCHES = 5_000, 20, 8
FEW, MANY, DENSE = 10_000, 1_000_000, 200_000
STEPS_BEFORE = 125_000  # eight epochs of a million users


def age(adam: RowAdam) -> None:
    """As if training had gone on for long, and each row was read in the last epoch."""
    adam.rates, adam.n_steps = torch.full((STEPS_BEFORE,), 1e-3, dtype=torch.float64), STEPS_BEFORE
    adam._begin()
    adam.done.random_(STEPS_BEFORE - len(adam.done) // 64, STEPS_BEFORE)
    adam.mean.normal_(std=1e-5)
    adam.square.uniform_(1e-10, 2e-10)


def steps(n_users: int, sparse: bool = True, n_items: int = N_ITEMS) -> tuple[Course, Callable[[], object]]:
    """A training under way, and some steps of users spread over all."""
    generator = np.random.default_rng(0)
    indices = np.sort(generator.choice(n_users, 64 * BATCHES, replace=False)).repeat(A_HISTORY)
    train = Interactions(indices, generator.integers(0, n_items, len(indices)), n_users, n_items)
    backbone, words = build_backbone(CLLM4RecConfig(), training_texts(OF_CLLM4REC, {}), 0)
    net = CLLM4RecNet(backbone, CLLM4RecConfig(), n_users, n_items)
    for table in (net.collaborative, net.content):
        table.users.sparse = sparse
        for side in table.parameters():
            torch.nn.init.uniform_(side, -0.02, 0.02)
    corpus = CollaborativeCorpus(
        train, ExtendedTokenizer(words, backbone.n_words, n_users, n_items), HistoryOptions(backbone.context)
    )
    batches = [[(corpus.batch(part, 0), 1.0)] for part in np.array_split(generator.permutation(64 * BATCHES), BATCHES)]
    course = Course(net, TrainConfig(), Accelerator(cpu=True), None)
    if sparse:
        age(course.optimizer.rows["collaborative.users"])
    return course, partial(our_steps, course, "collaborative", batches)


def main(given: Settings) -> list[Row]:
    dense = DENSE // 4 if given.short else DENSE
    sizes = {"few": (FEW, True), "many": (MANY, True), "few, dense": (FEW, False), "dense": (dense, False)}
    timed = {name: steps(*size)[1] for name, size in sizes.items()}
    times = side_by_side(timed, 3 if given.short else 7)
    shown = {name: f"{value / BATCHES * 1e3:.0f} ms" for name, value in times.items()}
    growth = times["many"] / times["few"]
    ours = f"{shown['few']} with {FEW:,} users, {shown['many']} with {MANY:,}"
    theirs = f"dense: {shown['few, dense']} with {FEW:,}, {shown['dense']} with {dense:,}"
    return report("users", [Row("a step as users grow from 10 thousand to 1 million", ours, theirs, growth, 1.2, True)], given)


if __name__ == "__main__":
    main(settings(__doc__))
