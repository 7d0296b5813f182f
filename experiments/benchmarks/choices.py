"""Candidates by the likelihood of their titles, and full ranking: RSLLM against the plainest loop.

    python -m experiments.benchmarks.choices --backbone FOLDER --data datasets/ml-100k/seed0 --output bench

Data: any causal language model, and any dataset folder whose items have titles. The model has adapters.
Prompts have ten items, as the rows of `experiments.candidates` have.

Prints users per second, beside those of loops that make a pass for each sequence. The careful loop computes
no logits that it does not need. For candidates it reads the prompt with each of 20 titles, and each title
after the prompt without a history; prompts name the candidates or do not. For full ranking it reads one
prompt after another. The plain loop does so by a call of the Hugging Face model as it was trained. It
computes the logits of all tokens, its adapters are separate, and its attention is that of the library. The
second plain loop has merged adapters, as the package and the careful loop have. `--cpu` compares CPU times.
The last line has the users per second of the sequential recommender alone.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cllm4rec.commands.entry import say
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.language.attention import ATTENTION
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.models.sequential.sasrec import SASRec
from cllm4rec.training.allocator import keep_freed_memory
from experiments.benchmarks.measurement import process_memory, side_by_side
from experiments.benchmarks.objectives import untrained
from experiments.benchmarks.results import Row, report, settings_from, settings_parser
from experiments.candidate_folds import HISTORY
from experiments.commands import ends_in_one_line

N_CANDIDATES, K = 20, 20
N_LISTS, LISTS_ROUNDS, N_CHECKED = 48, 3, 8


Pass = Callable[[Backbone, Tensor, Tensor], Tensor]


def as_trained(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model before its adapters are merged, with the attention of the library."""
    copied = copy.deepcopy(model)
    if copied.config._attn_implementation == ATTENTION:
        copied.set_attn_implementation("sdpa")
    return copied


def whole_pass(model: PreTrainedModel, backbone: Backbone, tokens: Tensor, table: Tensor) -> Tensor:
    """The states (L, d) of tokens (L,), by a call of a Hugging Face model: it computes all logits too.

    Args:
        model: that of the backbone, or a copy.
        backbone: the language model.
        tokens: (L,).
        table: (n_items, d) of the soft tokens.
    """
    is_item = tokens >= backbone.n_text_tokens
    embedded = backbone.model.get_input_embeddings()(tokens.masked_fill(is_item, 0)) * backbone.token_scale
    items = table[tokens[is_item] - backbone.n_text_tokens] * backbone.id_scale
    embedded[is_item] = items.to(embedded.dtype)
    states = model(inputs_embeds=embedded[None], output_hidden_states=True, use_cache=False)
    return cast(Tensor, states.hidden_states[-1][0])


def careful_pass(backbone: Backbone, tokens: Tensor, table: Tensor) -> Tensor:
    """The same without logits."""
    return backbone(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool), table)[0]


def likelihood(model: RSLLM, prompt: np.ndarray, answer: np.ndarray, table: Tensor) -> float:
    """Mean log-probability of the tokens of an answer (T,) after a prompt (L,), in one pass over both."""
    backbone, tokens = model.net.backbone, torch.from_numpy(np.concatenate([prompt, answer]))
    states = careful_pass(backbone, tokens, table)[len(prompt) - 1 : -1]
    log_p = torch.log_softmax(backbone.word_logits(states), dim=-1)
    return float(log_p[torch.arange(len(answer)), torch.from_numpy(answer)].mean())


@torch.no_grad()
def loop_choices(model: RSLLM, users: np.ndarray, shown: np.ndarray, seen: Dataset) -> list[int]:
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
            likelihood(model, prompts[0], answer, table) - likelihood(model, prompts[1], answer, table)
            for answer in answers
        ]
        chosen.append(int(np.argmax(gains)))
    return chosen


@torch.no_grad()
def loop_lists(read: Pass, model: RSLLM, users: np.ndarray, seen: Dataset) -> np.ndarray:
    """The best items of each user (B, K), one prompt after another."""
    writer, backbone, items = model.writer(seen.items), model.net.backbone, model.net.projected()
    best = []
    for user in users.tolist():
        history = Ragged.from_lists([seen.interactions.history(user)[-model.config.length :]])
        prompts, _ = writer.fill(history, backbone.context, asked=False)
        states = read(backbone, torch.from_numpy(prompts.tokens[0]), items)
        scores = model.net.norm(states[-1].float()) @ items.T
        scores[torch.from_numpy(seen.interactions.history(user))] = -torch.inf
        best.append(scores.topk(K).indices.numpy())
    return np.array(best)


def check(
    loops: dict[str, Pass],
    model: RSLLM,
    named: RSLLM,
    users: np.ndarray,
    shown: np.ndarray,
    of_lists: np.ndarray,
    seen: Dataset,
) -> None:
    """All ways choose the same candidates. Lists differ in one item at most, in two items in bfloat16."""
    for each in (model, named):
        chosen = each.choose(users, shown, seen, "likelihood").tolist()
        assert chosen == loop_choices(each, users, shown, seen)
    ranked = np.concatenate([batch.items for batch in model.rank_batches(of_lists, seen, K)])
    for read in loops.values():
        found = loop_lists(read, model, of_lists, seen)
        shared = [len({*ours} & {*other}) for ours, other in zip(ranked, found, strict=True)]
        most = 2 if model.net.backbone.dtype == torch.bfloat16 else 1
        assert min(shared) >= K - most, "lists differ by more than rounding"


def main(arguments: argparse.Namespace) -> list[Row]:
    settings = settings_from(arguments)
    keep_freed_memory()
    dataset, n_users = Dataset.load(arguments.data), 2 if settings.short else 6
    config = RSLLMConfig(backbone=str(arguments.backbone), tune="lora", length=HISTORY)
    model = untrained(RSLLM(config), dataset.train)
    model.net.eval()
    backbone = model.net.backbone
    loops: dict[str, Pass] = {"plain": partial(whole_pass, as_trained(backbone.model))}
    model.merge_adapters()
    loops |= {"plain, merged": partial(whole_pass, backbone.model), "careful": careful_pass}
    generator = np.random.default_rng(0)
    users = generator.permutation(np.flatnonzero(np.diff(dataset.seen.interactions.indptr) > 0))
    shown = np.stack([generator.permutation(dataset.n_items)[:N_CANDIDATES] for _ in range(n_users)])
    clock = time.process_time if arguments.cpu else time.perf_counter
    repeats, few, many = 1 if settings.short else 3, users[:n_users], users[:N_LISTS]
    seen = dataset.seen
    named = copy.copy(model)
    named.config = replace(model.config, candidates=N_CANDIDATES)
    check(loops, model, named, few, shown, users[:N_CHECKED], seen)
    questions: dict[str, dict[str, Callable[[], object]]] = {
        f"1 of {N_CANDIDATES} candidates by likelihood": {
            "ours": partial(model.choose, few, shown, seen, "likelihood"),
            "careful": partial(loop_choices, model, few, shown, seen),
        },
        f"the same, {N_CANDIDATES} candidates named": {
            "ours": partial(named.choose, few, shown, seen, "likelihood"),
            "careful": partial(loop_choices, named, few, shown, seen),
        },
        f"top {K} of {dataset.n_items:,} items": {
            "ours": lambda: list(model.rank_batches(many, seen, K)),
            **{name: partial(loop_lists, read, model, many, seen) for name, read in loops.items()},
        },
    }
    base = untrained(SASRec(), dataset.train)
    alone = {"SASRec": lambda: list(base.rank_batches(users, seen, K))}
    base_seconds = side_by_side(alone, repeats, clock)["SASRec"] / len(users)
    rows = []
    for (question, functions), n in zip(questions.items(), (n_users, n_users, len(many)), strict=True):
        of_lists = "plain" in functions
        times = side_by_side(functions, LISTS_ROUNDS if of_lists else repeats, clock)
        rates = {form: f"{n / seconds:,.2f} users/s" for form, seconds in times.items()}
        for form in times:
            if form != "ours":
                ratio, loop = times[form] / times["ours"], f"{form} loop {rates[form]}"
                target = 1 if of_lists and form != "plain" else 3
                rows.append(Row(question, rates["ours"], loop, ratio, target, False, times))
    peak = process_memory("VmHWM") / 1024
    rows.append(Row("peak memory, loops included", f"{peak:.2f} GiB", "", peak, 6, True))
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
