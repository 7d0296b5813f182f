"""Lists for all users of a data set, known items left out, against a bare forward of the same prompts and the item product."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.models.cllm4rec import TOKENS_AT_ONCE, CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.text.histories import fill, prompt_batch
from cllm4rec.text.prompts import Template
from cllm4rec.text.ragged import Batch, Ragged, batches_by_length
from cllm4rec.training.config import TrainConfig
from experiments.benchmarks.common import Row, Settings, extra_memory, report, settings, side_by_side, synchronised
from experiments.benchmarks.padding import SETS, read

K, USERS_AT_ONCE = 20, 512


def built(train: Dataset, backbone: str = "tiny") -> CLLM4Rec:
    """The system as it starts: weights make no difference here."""
    model = CLLM4Rec(CLLM4RecConfig(backbone=backbone, start="random"))
    for stage in model.stages:
        model.fit(train, None, TrainConfig(epochs=0), stage)
    return model


def lists(model: CLLM4Rec, users: np.ndarray, train: Dataset) -> None:
    """What `recommend` does."""
    for _ in model.recommend_batches(users, train, K, USERS_AT_ONCE):
        pass


def prompts(model: CLLM4Rec, users: np.ndarray, train: Dataset) -> list[list[Batch]]:
    """The prompts of each batch of users, as `recommend` makes them."""
    template, found = Template.compile("recommend", model.tokenizer), []
    for start in range(0, len(users), USERS_AT_ONCE):
        own = users[start : start + USERS_AT_ONCE]
        events, lengths = train.interactions.histories(own)
        items = Ragged(train.interactions.items[events], lengths).last(model.net.backbone.context - template.n_fixed)
        parts = batches_by_length(lengths + template.n_fixed, TOKENS_AT_ONCE)
        keep = np.ones(len(own), dtype=bool)
        filled = [fill(template, model.tokenizer, own[rows], items.take(rows), keep[rows]) for rows in parts]
        batches = [prompt_batch(model.tokenizer, *one) for one in filled]
        found.append([{name: tensor.to(model.device) for name, tensor in batch.items()} for batch in batches])
    return found


@torch.no_grad()
def bare(model: CLLM4Rec, batches: list[list[Batch]]) -> Tensor:
    """The forward passes, and the states by all items."""
    model.net.eval()
    table = model.net.collaborative.items.weight
    for parts in batches:
        scores = torch.cat([model.net.user_states(batch, True) for batch in parts]) @ table.T
    return scores


def ready(given: Settings, name: str, times: int) -> Callable[[], object]:
    """Lists of all users, so many times over."""
    train = read(given, name).train
    model, users = built(train), np.tile(np.flatnonzero(np.diff(train.interactions.indptr) > 0), times)
    lists(model, users[:64], train)
    return partial(lists, model, users, train)


def time_row(question: str, model: CLLM4Rec, users: np.ndarray, train: Dataset) -> Row:
    """The time of their lists against that of the bare forward passes and products."""
    both = {
        "ours": synchronised(partial(lists, model, users, train)),
        "bare": synchronised(partial(bare, model, prompts(model, users, train))),
    }
    times = side_by_side(both, 3)
    ours, other = (f"{len(users) / seconds:,.0f} users/s" for seconds in times.values())
    return Row(question, ours, f"bare {other}", times["ours"] / times["bare"], 1.15, True)


def main(given: Settings) -> list[Row]:
    rows = []
    for name in SETS[: 1 if given.short else None]:
        train = read(given, name).train
        model, users = built(train), np.flatnonzero(np.diff(train.interactions.indptr) > 0)
        users = users[:2048] if given.short else users
        rows.append(time_row(f"top {K} of all users, {name}: time", model, users, train))
        if not given.short:
            many, once = (extra_memory(ready, given, name, times, threads=given.threads) for times in (3, 1))
            rows.append(Row(f"top {K} of all users three times over, {name}: extra memory", f"{many:,.0f} MiB",
                            f"once {once:,.0f} MiB", many / once, 1.2, True))  # fmt: skip
    return report("scoring", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
