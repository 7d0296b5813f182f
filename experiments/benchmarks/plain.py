"""Training steps in plain PyTorch: the comparator of a step of the loop.

A plain step has no padding: the tokens of the batch are cut into rows of equal length. It looks them up in
the same tables, runs the library's model with its own causal mask, takes the dense cross-entropy of as many
states as the loop reads, and steps with PyTorch's AdamW.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.corpora.base import Batch
from cllm4rec.corpora.history_batches import RecommendationBatch
from cllm4rec.corpora.rsllm import AnswerBatch, ContrastiveBatch
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.rsllm.net import RSLLMNet
from cllm4rec.training.batching import MicroBatches


def states_of(backbone: Backbone, tokens: Tensor, n_rows: int, table: Tensor) -> Tensor:
    """States (N', d) of tokens (N,) cut into rows of equal length; the remainder is dropped."""
    length = max(1, round(len(tokens) / n_rows))
    rows = tokens[: len(tokens) // length * length].view(-1, length)  # (n_rows', length)
    words, ids = rows.clamp(max=backbone.n_text_tokens - 1), (rows - backbone.n_text_tokens).clamp(min=0)
    id_vectors = functional.embedding(ids, table) * backbone.id_scale
    word_vectors = backbone.token_embeddings[words] * backbone.token_scale
    embedded = torch.where((rows >= backbone.n_text_tokens)[..., None], id_vectors, word_vectors)
    states: Tensor = backbone.model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return states.flatten(0, 1)


def sample(states: Tensor, n: int) -> Tensor:
    """n of the states, spread over all: which ones makes no difference to the time."""
    return states[torch.linspace(0, len(states) - 1, n).long()]


def state_rows(batch: Batch) -> Tensor:
    """The state of each target (T,)."""
    return batch.target_rows if isinstance(batch, RecommendationBatch) else torch.arange(batch.n_targets)


def n_states(batch: Batch) -> int:
    """States that a batch reads."""
    return len(batch.mask) if isinstance(batch, RecommendationBatch) else batch.n_targets


def nll(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The dense cross-entropy, summed."""
    return -(states @ classes.T).log_softmax(-1)[rows, targets].sum()


class PlainCLLM4Rec(nn.Module):
    """The same backbone, ID tables and heads."""

    def __init__(self, net: CLLM4RecNet) -> None:
        super().__init__()
        self.backbone, self.n_users = copy.deepcopy(net.backbone), net.n_users
        self.collaborative, self.content = (
            nn.Parameter(net.collaborative.whole()),
            nn.Parameter(net.content.whole()),
        )

    def forward(self, objective: str, step: MicroBatches) -> Tensor:
        """The mean loss of a step."""
        table = self.content if objective == "content" else self.collaborative
        batches: list[Any] = [batch for batch, _ in step]
        tokens = torch.cat([batch.tokens[batch.mask] for batch in batches])
        states = states_of(self.backbone, tokens, sum(len(batch.mask) for batch in batches), table)
        counts = [n_states(batch) for batch in batches]
        rows = torch.cat([state_rows(batch) + sum(counts[:i]) for i, batch in enumerate(batches)])
        is_content = objective == "content"
        targets = torch.cat([batch.target_tokens if is_content else batch.target_items for batch in batches])
        classes = self.backbone.output_embeddings if is_content else table[self.n_users :]
        return nll(sample(states, sum(counts)), classes, rows, targets) / len(targets)


class PlainRSLLM(nn.Module):
    """The same backbone, projector and heads; where IDs are read, all items are projected and contrasted."""

    def __init__(self, net: RSLLMNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, objective: str, step: MicroBatches) -> Tensor:
        """The mean loss of a step."""
        batches: list[Any] = [batch for batch, _ in step]
        return self._contrast_loss(batches) if objective == "unified" else self._answer_loss(batches)

    def _answer_loss(self, batches: list[AnswerBatch]) -> Tensor:
        """Stage 1: the loss of the answers' words; prompts have no IDs."""
        states = self._states(batches, self.net.projected(torch.zeros(1, dtype=torch.long)))
        words = torch.cat([batch.target_tokens for batch in batches])
        return self._word_loss(states, words) / len(words)

    def _contrast_loss(self, batches: list[ContrastiveBatch]) -> Tensor:
        """Stage 2: the loss of the answers' words + beta C_user + alpha C_item."""
        config, table = self.net.config, self.net.projected(None)  # (n_items, d)
        states = self._states(batches, table)
        words = torch.cat([batch.target_tokens for batch in batches])
        targets = torch.cat([batch.items[batch.local_targets] for batch in batches])
        titled = torch.cat([batch.items[batch.local_history] for batch in batches])
        user_loss = nll(
            self.net.norm(sample(states, len(targets))), table, torch.arange(len(targets)), targets
        )
        title = torch.linspace(0, len(titled) - 1, sum(len(batch.title_index) for batch in batches)).long()
        summed = torch.zeros(len(titled), states.shape[1]).index_add(0, title, sample(states, len(title)))
        means = self.net.norm(summed / torch.bincount(title, minlength=len(titled))[:, None])
        unit = partial(functional.normalize, dim=-1)
        item_loss = nll(unit(means) / config.temperature, unit(table), torch.arange(len(titled)), titled)
        loss = self._word_loss(states, words) + config.beta * user_loss + config.alpha * item_loss
        return loss / len(targets)

    def _states(self, batches: Sequence[AnswerBatch], table: Tensor) -> Tensor:
        tokens = torch.cat([self._tokens(batch) for batch in batches])
        return states_of(self.net.backbone, tokens, sum(len(batch.mask) for batch in batches), table)

    def _word_loss(self, states: Tensor, words: Tensor) -> Tensor:
        return nll(
            sample(states, len(words)), self.net.backbone.output_embeddings, torch.arange(len(words)), words
        )

    def _tokens(self, batch: AnswerBatch) -> Tensor:
        """Tokens of a batch, its items numbered as in the catalogue."""
        tokens, n_text_tokens = batch.tokens[batch.mask], self.net.backbone.n_text_tokens
        if not isinstance(batch, ContrastiveBatch):
            return tokens
        return torch.where(
            tokens < n_text_tokens, tokens, n_text_tokens + batch.items[(tokens - n_text_tokens).clamp(min=0)]
        )


def plain_steps(
    net: Any, objective: str, steps: list[MicroBatches], optimizer: torch.optim.Optimizer
) -> None:
    """Steps of plain training."""
    net.train()
    for step in steps:
        net(objective, step).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
