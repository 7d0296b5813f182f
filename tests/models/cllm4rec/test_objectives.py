"""Loss terms and their gradients against the Hugging Face model."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cllm4rec.corpora.content import ContentBatch, ContentCorpus, content_documents
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.history_batches import CollaborativeBatch, RecommendationBatch
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.models.cllm4rec.config import PAPER, CLLM4RecConfig
from cllm4rec.models.cllm4rec.net import CLLM4RecBatch, CLLM4RecNet
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from tests.support.llama import MUTUAL, PRIOR, llama_network, normalised
from tests.support.reviewed_books import reviewed_books


def batch_of(objective: str, tokenizer: ExtendedTokenizer, targets: str = "unseen") -> CLLM4RecBatch:
    """A batch of real examples, some without their user token, with different mutual weights."""
    train = reviewed_books().train
    options = HistoryCorpusOptions(128, user_dropping=0.3, mask_share=0.5, targets=targets, seed=2)
    if objective == "content":
        documents = content_documents(train, tokenizer)
        batch = ContentCorpus(documents, tokenizer, options, 10**6).batch(np.arange(0, len(documents), 3), 0)
    else:
        corpus = {"collaborative": CollaborativeCorpus, "recommend": RecommendationCorpus}[objective]
        batch = corpus(train.interactions, tokenizer, options).batch(np.arange(10), 0)
    generator = torch.Generator().manual_seed(3)
    return replace(batch, id_weights=0.1 + torch.rand(len(batch.ids), generator=generator))


class Reference:
    """The same losses in float64 by the Hugging Face model, example by example, with a dense log-softmax."""

    def __init__(self, net: CLLM4RecNet, objective: str, batch: CLLM4RecBatch) -> None:
        self.n_text_tokens, self.n_users, self.id_scale = (
            net.backbone.n_text_tokens,
            net.n_users,
            net.backbone.id_scale,
        )
        self.model = copy.deepcopy(net.backbone.model).double().eval()
        tables = [table.whole().double().requires_grad_(True) for table in (net.collaborative, net.content)]
        self.table, self.other_table = tables[::-1] if objective == "content" else tables
        self.as_set = objective == "recommend" and net.config.attention == "bidirectional"
        self.pooled = net.config.readout == "pooled"
        self.rows = [tokens[mask] for tokens, mask in zip(batch.tokens, batch.mask, strict=True)]
        if objective == "recommend":
            self.nll = self._recommend(batch)
        else:
            self.nll = self._next(batch, objective == "content")
        ids = torch.cat([tokens[tokens >= self.n_text_tokens] for tokens in self.rows]) - self.n_text_tokens
        rows, other = self.table.detach()[ids], self.other_table.detach()[ids]  # (n, d)
        weights = batch.id_weights.double()
        assert len(ids.unique()) < len(ids), "an ID that occurs twice counts twice"
        distances = [(a - b).square().sum() for a, b in zip(rows, other, strict=True)]
        self.mutual = MUTUAL / 2 * sum(w * distance for w, distance in zip(weights, distances, strict=True))
        self.prior = PRIOR / 2 * sum(w * a.square().sum() for w, a in zip(weights, rows, strict=True))
        zero = torch.zeros_like(self.table)
        self.mutual_slope = zero.index_add(0, ids, MUTUAL * weights[:, None] * (rows - other))
        self.prior_slope = zero.index_add(0, ids, PRIOR * weights[:, None] * rows)

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States (L, d) of one example and the model's own logits of words (L, n_text_tokens)."""
        is_id = tokens >= self.n_text_tokens
        words = self.model.get_input_embeddings()(tokens.masked_fill(is_id, 0))
        ids = self.table[(tokens - self.n_text_tokens).clamp(min=0)] * self.id_scale
        further: dict[str, Tensor] = {}
        if self.as_set:  # full attention, and all items at the position of the first
            is_item, positions = tokens >= self.n_text_tokens + self.n_users, torch.arange(len(tokens))
            if is_item.any():
                first, last = int(positions[is_item].min()), int(positions[is_item].max())
                after = torch.where(positions > last, positions - (last - first), positions)
                positions = torch.where(is_item, first, after)
            added = torch.zeros(1, 1, len(tokens), len(tokens), dtype=torch.float64)  # to attention logits
            further = {"attention_mask": added, "position_ids": positions[None]}
        embedded = torch.where(is_id[:, None], ids, words)[None]
        answer = self.model(inputs_embeds=embedded, output_hidden_states=True, use_cache=False, **further)
        return answer.hidden_states[-1][0], answer.logits[0]

    def _next(self, batch: CollaborativeBatch | ContentBatch, content: bool) -> Tensor:
        answers = [self.states(tokens) for tokens in self.rows]
        total, width = torch.zeros((), dtype=torch.float64), batch.tokens.shape[1]
        targets = batch.target_tokens if isinstance(batch, ContentBatch) else batch.target_items
        for read, target in zip(batch.state_index.tolist(), targets.tolist(), strict=True):
            row, index = divmod(read, width)
            token = target if content else self.n_text_tokens + self.n_users + target
            assert self.rows[row][index + 1] == token, "a state predicts the next token"
            states, words = answers[row]
            logits = words[index] if content else self.table[self.n_users :] @ normalised(states[index])
            total = total - logits.log_softmax(0)[target]
        return total

    def _recommend(self, batch: RecommendationBatch) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row, tokens in enumerate(self.rows):
            states, _ = self.states(tokens)
            is_item = tokens >= self.n_text_tokens + self.n_users
            state = states[is_item].mean(0) if self.pooled and is_item.any() else states[-1]
            logits = self.table[self.n_users :] @ normalised(state)
            if batch.excluded is not None:
                left_out = batch.excluded.items[batch.excluded.rows == row]
                logits = logits.index_fill(0, left_out, -torch.inf)
            total = total - logits.log_softmax(0)[batch.target_items[batch.target_rows == row]].sum()
        return total


CASES = [
    ("content", {}, "unseen"),
    ("collaborative", {}, "unseen"),
    ("recommend", {"readout": "pooled", "attention": "causal"}, "unseen"),
    ("recommend", {"readout": "last", "attention": "causal"}, "masked"),
    ("recommend", {"readout": "pooled", "attention": "bidirectional"}, "all"),
    ("recommend", {"readout": "last", "attention": "bidirectional"}, "unseen"),
]
each_case = pytest.mark.parametrize(
    ("objective", "settings", "targets"),
    CASES,
    ids=["-".join([objective, *settings.values(), targets]) for objective, settings, targets in CASES],
)


def close(tensor: Tensor, reference: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether a tensor is near a reference that is not zero."""
    error, norm = (tensor.double() - reference).norm(), reference.norm()
    return bool(error <= tolerance * norm) and bool(norm > 0)


@each_case
def test_every_loss_term_equals_that_of_the_language_model(
    objective: str, settings: dict[str, str], targets: str, llama: Path
) -> None:
    net, tokenizer = llama_network(llama, **settings)
    batch = batch_of(objective, tokenizer, targets)
    reference = Reference(net, objective, batch)
    terms = net(objective, batch)
    assert set(terms) == {objective, "mutual", "prior"}
    assert terms[objective].item() == pytest.approx(reference.nll.item(), rel=1e-5)
    assert terms["mutual"].item() == pytest.approx(float(reference.mutual), rel=1e-5)
    assert terms["prior"].item() == pytest.approx(float(reference.prior), rel=1e-5)


@each_case
def test_every_loss_term_moves_the_table_of_its_objective_and_never_the_other(
    objective: str, settings: dict[str, str], targets: str, llama: Path
) -> None:
    """Content moves z^c, the others move z^l, with the gradients of the reference."""
    net, tokenizer = llama_network(llama, **settings)
    batch = batch_of(objective, tokenizer, targets)
    reference = Reference(net, objective, batch)
    table, other = net.collaborative, net.content
    if objective == "content":
        table, other = other, table
    (expected,) = torch.autograd.grad(reference.nll, [reference.table])
    slopes = {objective: expected, "mutual": reference.mutual_slope, "prior": reference.prior_slope}
    terms = net(objective, batch)
    for name, slope in slopes.items():
        weights = [*table.parameters(), *other.parameters()]
        users, items, *untouched = torch.autograd.grad(
            terms[name], weights, allow_unused=True, retain_graph=True
        )
        assert untouched == [None, None], name
        assert close(torch.cat([users.to_dense(), items]), slope, 1e-4), name


@each_case
def test_only_content_moves_the_output_words_of_a_tuned_backbone(
    objective: str, settings: dict[str, str], targets: str, llama: Path
) -> None:
    net, tokenizer = llama_network(llama, **settings)
    batch = batch_of(objective, tokenizer, targets)
    reference = Reference(net, objective, batch)
    weights = [net.backbone.output_embeddings, net.backbone.token_embeddings]
    head, words = torch.autograd.grad(net(objective, batch)[objective], weights, allow_unused=True)
    model = reference.model
    weights = [model.get_output_embeddings().weight, model.get_input_embeddings().weight]
    expected_head, expected_words = torch.autograd.grad(reference.nll, weights, allow_unused=True)
    assert close(words, expected_words, 1e-4), "the words of the prompt are read by every objective"
    if objective == "content":
        assert close(head, expected_head, 1e-4)
    else:
        assert head is None
        assert expected_head is None


def test_strengths_of_zero_leave_the_likelihood_alone(llama: Path) -> None:
    net, tokenizer = llama_network(llama)
    net.config = replace(net.config, mutual=0.0, prior=0.0)
    for objective in ("content", "collaborative", "recommend"):
        terms = net(objective, batch_of(objective, tokenizer))
        assert terms["mutual"].item() == terms["prior"].item() == 0
        assert terms[objective].item() > 0


@pytest.mark.parametrize(
    ("settings", "finetuning"),
    [
        ({}, ["recommend"]),
        ({"content_passes": "both"}, ["content", "recommend"]),
        (PAPER["system"], ["content", "recommend"]),
        ({"content_passes": "both", "content_ratio": 0.0}, ["recommend"]),
    ],
)
def test_stages_have_the_content_passes_that_they_are_to_have(
    settings: dict[str, Any], finetuning: list[str]
) -> None:
    model = CLLM4Rec(CLLM4RecConfig(**settings))
    model.build(reviewed_books().train)
    train = reviewed_books().train
    names = {
        stage: [objective.name for objective in model.objectives(train, stage, TrainConfig())]
        for stage in model.stages
    }
    content = [] if settings.get("content_ratio") == 0 else ["content"]
    assert names == {"pretrain": [*content, "collaborative"], "finetune": finetuning}


def test_an_unknown_objective_is_refused(llama: Path) -> None:
    net, tokenizer = llama_network(llama)
    with pytest.raises(ValueError, match="objective 'history' is unknown"):
        net("history", batch_of("collaborative", tokenizer))
