"""Candidates by the likelihood of their titles, and full ranking: RSLLM against the plainest loop.

    python -m experiments.benchmarks.choices --backbone FOLDER --data datasets/ml-100k/seed0 --output bench

Data: any causal language model, and any dataset folder whose items have titles. The model has adapters, which
are merged before both are timed.

Prints users per second. The plain loop of the candidate protocol reads the prompt with each of 20 titles, one
after another, and each title after the prompt without a history; it computes the logits of the titles alone.
Prompts name the candidates or do not. The plain loop of full ranking reads one prompt after another. `--cpu`
compares CPU times. The last line has the users per second of the sequential recommender alone.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.allocator import keep_freed_memory
from experiments.benchmarks.measurement import process_memory, side_by_side
from experiments.benchmarks.objectives import untrained
from experiments.benchmarks.results import Row, report, settings_from, settings_parser
from experiments.commands import ends_in_one_line

N_CANDIDATES, K = 20, 20


def plain_likelihood(model: RSLLM, prompt: np.ndarray, answer: np.ndarray, table: Tensor) -> float:
    """Mean log-probability of the tokens of an answer (T,) after a prompt (L,), in one pass over both."""
    backbone = model.net.backbone
    tokens = torch.from_numpy(np.concatenate([prompt, answer]))[None]
    states = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool), table)[0, len(prompt) - 1 : -1]
    log_p = torch.log_softmax(backbone.word_logits(states), dim=-1)
    return float(log_p[torch.arange(len(answer)), torch.from_numpy(answer)].mean())


@torch.no_grad()
def plain_choices(model: RSLLM, users: np.ndarray, shown: np.ndarray, seen: Dataset) -> list[int]:
    """The candidate of each user whose likelihood gains most from the history."""
    writer, table, chosen = model.writer(seen.items), model.net.projected(), []
    context = model.net.backbone.context
    for user, candidates in zip(users.tolist(), shown, strict=True):
        answers = writer.answers_of(candidates)
        room = context - max(map(len, answers))
        history = seen.interactions.history(user)[-model.config.length :]
        named = Ragged.from_lists([candidates]) if model.config.candidates else None
        prompts = [
            writer.fill(Ragged.from_lists([items]), room, named)[0].tokens[0]
            for items in (history, history[:0])
        ]
        gains = [
            plain_likelihood(model, prompts[0], answer, table)
            - plain_likelihood(model, prompts[1], answer, table)
            for answer in answers
        ]
        chosen.append(int(np.argmax(gains)))
    return chosen


@torch.no_grad()
def plain_lists(model: RSLLM, users: np.ndarray, seen: Dataset) -> list[Tensor]:
    """The best items of each user, one prompt after another."""
    lists = []
    for user in users:
        states, items = model._vectors(np.array([user]), np.array([user]), seen)
        lists.append((states @ items.T).topk(K).indices)
    return lists


def main(arguments: argparse.Namespace) -> list[Row]:
    settings = settings_from(arguments)
    keep_freed_memory()
    dataset, n_users = Dataset.load(arguments.data), 2 if settings.short else 6
    model = untrained(RSLLM(RSLLMConfig(backbone=str(arguments.backbone), tune="lora")), dataset.train)
    model.merge_adapters()
    model.net.eval()
    generator = np.random.default_rng(0)
    users = generator.permutation(np.flatnonzero(np.diff(dataset.seen.interactions.indptr) > 0))
    shown = np.stack([generator.permutation(dataset.n_items)[:N_CANDIDATES] for _ in range(n_users)])
    clock = time.process_time if arguments.cpu else time.perf_counter
    repeats, few, many = 1 if settings.short else 3, users[:n_users], users[: 8 * n_users]
    seen = dataset.seen
    named = copy.copy(model)
    named.config = replace(model.config, candidates=N_CANDIDATES)
    for each in (model, named):
        assert each.choose(few, shown, seen, "likelihood").tolist() == plain_choices(each, few, shown, seen)
    questions: dict[str, dict[str, Callable[[], object]]] = {
        f"1 of {N_CANDIDATES} candidates by likelihood": {
            "ours": partial(model.choose, few, shown, seen, "likelihood"),
            "plain": partial(plain_choices, model, few, shown, seen),
        },
        f"the same, {N_CANDIDATES} candidates named": {
            "ours": partial(named.choose, few, shown, seen, "likelihood"),
            "plain": partial(plain_choices, named, few, shown, seen),
        },
        f"top {K} of {dataset.n_items:,} items": {
            "ours": lambda: list(model.rank_batches(many, seen, K)),
            "plain": partial(plain_lists, model, many, seen),
        },
    }
    base = untrained(SASRec(), dataset.train)
    alone = {"SASRec": lambda: list(base.rank_batches(users, seen, K))}
    base_seconds = side_by_side(alone, repeats, clock)["SASRec"] / len(users)
    rows = []
    for (question, functions), n in zip(questions.items(), (n_users, n_users, len(many)), strict=True):
        times = side_by_side(functions, repeats, clock)
        rates = {form: f"{n / seconds:,.2f} users/s" for form, seconds in times.items()}
        ratio = times["plain"] / times["ours"]
        rows.append(Row(question, rates["ours"], f"plain {rates['plain']}", ratio, 3, False, times))
    peak = process_memory("VmHWM") / 1024
    rows.append(Row("peak memory of both", f"{peak:.2f} GiB", "", peak, 6, True))
    printed = report("choices", rows, settings)
    say(f"\nlists of SASRec alone: {1 / base_seconds:,.0f} users/s")
    return printed


if __name__ == "__main__":
    parser = settings_parser(__doc__)
    parser.add_argument("--backbone", required=True, help="folder of a pretrained model")
    parser.add_argument("--data", required=True, help="dataset folder with titles")
    parser.add_argument("--cpu", action="store_true", help="compare CPU times, not wall times")
    with ends_in_one_line():
        main(parser.parse_args())
