"""Lists for all users of a data set, known items left out: time and extra memory.

    python -m experiments.benchmarks.scoring --output bench

Data: Amazon Beauty and MovieLens 1M, as `experiments.recipes` writes them (--datasets).

Prints users per second, and the extra memory for all users three times over against once. Comparator: a bare
forward of the same prompts and the product with all items.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.history_batches import HistoryPrompts, fill, prompt_batch
from cllm4rec.corpora.padding import batches_by_length
from cllm4rec.corpora.prompts import Template
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.histories import tokens_at_once
from experiments.benchmarks.datasets import dataset_names, read_dataset
from experiments.benchmarks.measurement import extra_memory, side_by_side, synchronised
from experiments.benchmarks.objectives import untrained
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

K, USERS_AT_ONCE = 20, 512


def build(train: Dataset, backbone: str = "tiny") -> CLLM4Rec:
    """CLLM4Rec with initial weights."""
    return untrained(CLLM4Rec(CLLM4RecConfig(backbone=backbone, start="random")), train)


def users_of(train: Dataset) -> np.ndarray:
    """Users with training events."""
    return np.flatnonzero(np.diff(train.interactions.indptr) > 0)


def lists(model: CLLM4Rec, users: np.ndarray, train: Dataset) -> None:
    """The lists, discarded, in batches as the command `recommend` makes them."""
    for _ in model.rank_batches(users, train, K, USERS_AT_ONCE):
        pass


def prompts(model: CLLM4Rec, users: np.ndarray, train: Dataset) -> list[list[HistoryPrompts]]:
    """The prompts of each batch of users, cut by length as `recommend` does."""
    template, batches = Template.compile(model.config.list_template, model.tokenizer), []
    for start in range(0, len(users), USERS_AT_ONCE):
        batch_users = users[start : start + USERS_AT_ONCE]
        lengths = train.interactions.histories(batch_users).lengths + template.n_fixed
        cut = batches_by_length(lengths, tokens_at_once(model.net.backbone.width, model.device))
        batches.append([prompts_of(model, batch_users[rows], train) for rows in cut])
    return batches


def prompts_of(model: CLLM4Rec, users: np.ndarray, train: Dataset) -> HistoryPrompts:
    """The prompts of users, as one batch."""
    template = Template.compile(model.config.list_template, model.tokenizer)
    items = train.interactions.histories(users).last(model.net.backbone.context - template.n_fixed)
    with_user = np.full(len(users), model.config.reads_user_token(finetuned=True))
    filled = fill(template, model.tokenizer, users, items, with_user)
    return prompt_batch(model.tokenizer, *filled).to(model.device)


@torch.no_grad()
def bare(model: CLLM4Rec, batches: list[list[HistoryPrompts]]) -> Tensor:
    """The forward passes, and the products of states and items; the scores (B, n_items) of the last batch."""
    model.net.eval()
    vectors = model.net.id_vectors()
    for micro_batches in batches:
        states = torch.cat([model.net.user_states(batch, True, vectors) for batch in micro_batches])
        scores = states @ vectors.items.T
    return scores


def prepare(settings: Settings, name: str, times: int) -> Callable[[], object]:
    """`lists` of all users, so many times over, not yet called."""
    train = read_dataset(name, settings).train
    model, users = build(train), np.tile(users_of(train), times)
    lists(model, users[:64], train)
    return partial(lists, model, users, train)


def time_row(question: str, model: CLLM4Rec, users: np.ndarray, train: Dataset) -> Row:
    """The time of the lists against that of the bare forward passes and products."""
    functions = {
        "lists": synchronised(partial(lists, model, users, train)),
        "bare": synchronised(partial(bare, model, prompts(model, users, train))),
    }
    times = side_by_side(functions, 3)
    rates = {name: f"{len(users) / seconds:,.0f} users/s" for name, seconds in times.items()}
    return Row(question, rates["lists"], f"bare {rates['bare']}", times["lists"] / times["bare"], 1.15, True)


def memory_row(name: str, settings: Settings) -> Row:
    """Extra memory for all users three times over against once."""
    many, once = (extra_memory(prepare, settings, name, times, threads=settings.threads) for times in (3, 1))
    question = f"top {K} of all users three times over, {name}: extra memory"
    return Row(question, f"{many:,.0f} MiB", f"once {once:,.0f} MiB", many / once, 1.2, True)


def main(settings: Settings) -> list[Row]:
    rows = []
    for name in dataset_names(settings):
        train = read_dataset(name, settings).train
        users = users_of(train)[: 2048 if settings.short else None]
        rows.append(time_row(f"top {K} of all users, {name}: time", build(train), users, train))
        if not settings.short:
            rows.append(memory_row(name, settings))
    return report("scoring", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
