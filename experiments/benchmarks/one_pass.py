"""Twenty items for each user: one pass against beam search over the titles, with the same backbone and the same prompts.

The beam search has what it can have: the prompt is read once and its keys and values are kept, all users of a batch go side by
side, a trie allows the titles of the catalogue and nothing else, and its best batch size counts. Prompts are the newest tokens
of each history, all of one length, so that no padding is computed. Weights are random: they make no difference to the time.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from cllm4rec.models.backbone import Backbone
from cllm4rec.models.configs import RSLLMConfig
from cllm4rec.models.retrieval import score_blocks
from cllm4rec.models.rsllm import RSLLM
from cllm4rec.models.sasrec import SASRec
from cllm4rec.ranking import TopK
from cllm4rec.text.ragged import Ragged
from cllm4rec.training.config import TrainConfig
from experiments.benchmarks.common import Row, Settings, report, settings, side_by_side
from experiments.benchmarks.padding import SETS, read

K, PROMPT = 20, 96  # items a user; tokens of a prompt


class Trie:
    """The answers as a tree. Children of a node stand side by side, `tokens` and `nodes` from starts[node] to starts[node + 1];
    a leaf is an item, or several of one title."""

    def __init__(self, answers: list[np.ndarray]) -> None:
        children: list[dict[int, int]] = [{}]
        for answer in answers:
            node = 0
            for token in answer.tolist():
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                node = children[node][token]
        self.starts = torch.tensor([0, *np.cumsum([len(own) for own in children]).tolist()])
        self.tokens = torch.tensor([token for own in children for token in own])
        self.nodes = torch.tensor([node for own in children for node in own.values()])
        self.leaf = torch.tensor([not own for own in children])


@torch.no_grad()
def beam_search(backbone: Backbone, prompts: Tensor, table: Tensor, trie: Trie) -> tuple[Tensor, Tensor]:
    """The K likeliest answers (B, K), as leaves of the trie, and their log-probabilities."""
    n, cache = len(prompts), DynamicCache()
    states = backbone(prompts, torch.ones_like(prompts, dtype=torch.bool), table, cache=cache)[:, -1:]
    cache.batch_repeat_interleave(K)
    states = states.repeat_interleave(K, dim=0)
    nodes = torch.zeros(n, K, dtype=torch.int64)
    scores = torch.full((n, K), -torch.inf)
    scores[:, 0] = 0.0
    while not bool((trie.leaf[nodes] | (scores == -torch.inf)).all()):
        words = (states[:, -1] @ backbone.word_head.T).log_softmax(-1)  # (B K, words)
        flat, done = nodes.flatten(), trie.leaf[nodes].flatten()
        counts = torch.where(done, 1, trie.starts[flat + 1] - trie.starts[flat])  # what is done goes on as it is
        beam = torch.repeat_interleave(torch.arange(n * K), counts)
        place = torch.arange(len(beam)) - (counts.cumsum(0) - counts)[beam]
        child = (trie.starts[flat][beam] + place).clamp(max=len(trie.tokens) - 1)
        token = torch.where(done[beam], 0, trie.tokens[child])
        node = torch.where(done[beam], flat[beam], trie.nodes[child])
        score = scores.flatten()[beam] + torch.where(done[beam], 0.0, words[beam, token])
        user = beam // K
        order = score.argsort(descending=True, stable=True)
        order = order[user[order].argsort(stable=True)]  # by user, the best first
        first = torch.searchsorted(user[order], torch.arange(n))
        rank = torch.arange(len(order)) - first[user[order]]
        kept = order[rank < K]
        chosen = torch.full((n, K), -1)
        chosen[user[kept], rank[rank < K]] = kept
        missing = chosen < 0
        chosen = chosen.clamp(min=0)
        scores, nodes = score[chosen].masked_fill(missing, -torch.inf), node[chosen]
        cache.batch_select_indices(beam[chosen].flatten())
        step = token[chosen].view(n * K, 1)
        states = backbone(step, torch.ones_like(step, dtype=torch.bool), table, cache=cache)
    return nodes, scores


@torch.no_grad()
def one_pass(model: RSLLM, prompts: Tensor, table: Tensor, tie_order: Tensor) -> Tensor:
    """The K best items of each user (B, K)."""
    states = model.net.norm(model.net.backbone(prompts, torch.ones_like(prompts, dtype=torch.bool), table)[:, -1])
    best = TopK(len(prompts), K, tie_order)
    for first, scores in score_blocks(states, table):
        best.offer(scores, first)
    return best.items


def equal_prompts(model: RSLLM, given: Settings, n: int) -> tuple[Tensor, Tensor, Trie, Tensor]:
    """Prompts (n, PROMPT), projected items, the trie of titles, and an order of ties."""
    train = read(given, SETS[0]).train
    model.given_first = SASRec().fit(train, None, TrainConfig(epochs=0))
    model.fit(train, None, TrainConfig(epochs=0))
    writer = model.writer(train.items)
    users = np.argsort(-np.diff(train.interactions.indptr), kind="stable")[:n]
    events, lengths = train.interactions.histories(users)
    tokens = writer.expand(Ragged(train.interactions.items[events], lengths)).last(PROMPT)
    assert (tokens.lengths == PROMPT).all(), "all prompts are full"
    prompts = torch.from_numpy(tokens.values.reshape(n, PROMPT))
    answers = writer.answers_of(np.arange(train.n_items))
    return prompts, model.net.projected().detach(), Trie(answers), torch.from_numpy(train.tie_order)


def main(given: Settings) -> list[Row]:
    model = RSLLM(RSLLMConfig())
    prompts, table, trie, ties = equal_prompts(model, given, 128 if given.short else 512)
    model.net.eval()
    sizes = (4, 16) if given.short else (1, 4, 16, 64)
    generated = {
        f"beam search, {size} users at once": partial(beam_search, model.net.backbone, prompts[:size], table, trie)
        for size in sizes
    }
    ours = "one pass"
    times = side_by_side({ours: partial(one_pass, model, prompts, table, ties), **generated}, 2 if given.short else 5)
    rates = {ours: len(prompts) / times[ours]}
    rates |= {name: size / times[name] for name, size in zip(generated, sizes, strict=True)}
    best = max(generated, key=lambda name: rates[name])
    shown = f"{rates[ours]:,.0f} users/s", f"{best}: {rates[best]:,.2f} users/s"
    what = f"top {K} of {len(table):,} items, one pass against generation"
    return report("one_pass", [Row(what, *shown, rates[ours] / rates[best], 20, False, rates)], given)


if __name__ == "__main__":
    main(settings(__doc__))
