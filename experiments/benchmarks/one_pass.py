"""Twenty items for each user: one forward pass against beam search over the titles.

    python -m experiments.benchmarks.one_pass --output bench

Data: Amazon Beauty, as `experiments.recipes` writes it (--datasets). Prompts are the newest tokens of each
history, all of one length.

Prints users per second. Comparator: beam search with the same backbone and prompts. It reads the prompt
once and caches keys and values, searches for all users of a batch together, allows only titles of the
catalogue (a trie), and its best batch size counts. Weights are random: they make no difference to the time.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from cllm4rec.models.inner_product import score_blocks
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.ranking import TopK
from experiments.benchmarks.datasets import BEAUTY, read_dataset
from experiments.benchmarks.measurement import side_by_side
from experiments.benchmarks.objectives import start_stage
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

K, PROMPT = 20, 96  # items a user; tokens of a prompt


class Trie:
    """Answers as a tree of tokens.

    Attributes:
        starts: (n_nodes + 1,); the children of a node are starts[node] .. starts[node + 1].
        tokens: (n_nodes - 1,) token of each child.
        nodes: (n_nodes - 1,) node of each child.
        leaf: (n_nodes,) whether a node ends an answer: an item, or several of the same title.
    """

    def __init__(self, answers: list[np.ndarray]) -> None:
        children: list[dict[int, int]] = [{}]
        for answer in answers:
            node = 0
            for token in answer.tolist():
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                node = children[node][token]
        self.starts = torch.tensor([0, *np.cumsum([len(by_token) for by_token in children]).tolist()])
        self.tokens = torch.tensor([token for by_token in children for token in by_token])
        self.nodes = torch.tensor([node for by_token in children for node in by_token.values()])
        self.leaf = torch.tensor([not by_token for by_token in children])


@torch.no_grad()
def beam_search(backbone: Backbone, prompts: Tensor, table: Tensor, trie: Trie) -> tuple[Tensor, Tensor]:
    """The K likeliest answers of each prompt.

    Args:
        backbone: of all prompts.
        prompts: (B, L).
        table: embeddings of the IDs (n_items, d).
        trie: the answers.

    Returns:
        Leaves of the trie (B, K) and their log-probabilities (B, K), -inf where the answers ran out.
    """
    n, cache = len(prompts), DynamicCache()
    states = backbone(prompts, torch.ones_like(prompts, dtype=torch.bool), table, cache=cache)[:, -1:]
    cache.batch_repeat_interleave(K)
    states = states.repeat_interleave(K, dim=0)  # (B K, 1, d)
    nodes = torch.zeros(n, K, dtype=torch.int64)
    scores = torch.full((n, K), -torch.inf)
    scores[:, 0] = 0.0
    while not bool((trie.leaf[nodes] | (scores == -torch.inf)).all()):
        log_p = (states[:, -1] @ backbone.output_embeddings.T).log_softmax(-1)  # (B K, n_text_tokens)
        # Every beam is extended by all children of its node; a finished beam is kept once, unchanged.
        flat, done = nodes.flatten(), trie.leaf[nodes].flatten()
        counts = torch.where(done, 1, trie.starts[flat + 1] - trie.starts[flat])
        beam = torch.repeat_interleave(torch.arange(n * K), counts)  # (C,) of each candidate
        offset = torch.arange(len(beam)) - (counts.cumsum(0) - counts)[beam]
        child = (trie.starts[flat][beam] + offset).clamp(max=len(trie.tokens) - 1)
        token = torch.where(done[beam], 0, trie.tokens[child])
        node = torch.where(done[beam], flat[beam], trie.nodes[child])
        score = scores.flatten()[beam] + torch.where(done[beam], 0.0, log_p[beam, token])
        # The K best candidates of each user are kept; `chosen` (B, K) holds their indices, -1 for none.
        user = beam // K
        order = score.argsort(descending=True, stable=True)
        order = order[user[order].argsort(stable=True)]  # by user, best first
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
    states = model.net.norm(
        model.net.backbone(prompts, torch.ones_like(prompts, dtype=torch.bool), table)[:, -1]
    )
    best = TopK(len(prompts), K, tie_order)
    for first, scores in score_blocks(states, table):
        best.offer(scores, first)
    return best.items


def prepare(model: RSLLM, settings: Settings, n: int) -> tuple[Tensor, Tensor, Trie, Tensor]:
    """Prompts (n, PROMPT), projected items (n_items, d), the trie of titles, and the order of ties."""
    train = read_dataset(BEAUTY, settings).train
    start_stage(model, train, "pretrain")
    writer = model.writer(train.items)
    longest_first = np.argsort(-np.diff(train.interactions.indptr), kind="stable")
    tokens = writer.expand(train.interactions.histories(longest_first[:n])).last(PROMPT)
    assert (tokens.lengths == PROMPT).all(), "all prompts are full"
    prompts = torch.from_numpy(tokens.values.reshape(n, PROMPT))
    answers = writer.answers_of(np.arange(train.n_items))
    return prompts, model.net.projected().detach(), Trie(answers), torch.from_numpy(train.tie_order)


def main(settings: Settings) -> list[Row]:
    model = RSLLM()
    prompts, table, trie, ties = prepare(model, settings, 128 if settings.short else 512)
    model.net.eval()
    sizes = (4, 16) if settings.short else (1, 4, 16, 64)
    searches = {f"beam search, {size} users at once": size for size in sizes}
    functions: dict[str, Callable[[], object]] = {"one pass": partial(one_pass, model, prompts, table, ties)}
    for name, size in searches.items():
        functions[name] = partial(beam_search, model.net.backbone, prompts[:size], table, trie)
    times = side_by_side(functions, 2 if settings.short else 5)
    n_users = {"one pass": len(prompts), **searches}
    rates = {name: n_users[name] / seconds for name, seconds in times.items()}
    best = max(searches, key=lambda name: rates[name])
    question = f"top {K} of {len(table):,} items, one pass against generation"
    measured, comparator = f"{rates['one pass']:,.0f} users/s", f"{best}: {rates[best]:,.2f} users/s"
    ratio = rates["one pass"] / rates[best]
    return report("one_pass", [Row(question, measured, comparator, ratio, 20, False, rates)], settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
