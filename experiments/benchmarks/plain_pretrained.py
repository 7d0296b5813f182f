"""The plainest loops on a frozen pretrained model: the comparators of `pretrained`.

They read the same padded batches as the package, through the library's own model with its default attention.
IDs are rows of an `nn.Embedding`, each softmax is dense, and the optimiser is PyTorch's AdamW.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from cllm4rec.corpora.history_batches import HistoryPrompts, RecommendationBatch
from cllm4rec.models.language.adapters import LORA_RANK
from cllm4rec.models.language.pretrained import quiet
from cllm4rec.training.batching import MicroBatches

TEMPERATURE = 0.1  # of the item contrast


def load_frozen(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a folder, as a script loads it."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)
    return model.requires_grad_(False).eval()


def cross_entropy(states: Tensor, classes: Tensor, targets: Tensor) -> Tensor:
    """The dense cross-entropy, summed; the product is in the dtype of the states."""
    logits = (states @ classes.to(states.dtype).T).float()
    return functional.cross_entropy(logits, targets, reduction="sum")


class PlainModel(nn.Module):
    """A model that also reads ID vectors.

    Args:
        model: the language model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.n_words, self.width = cast(nn.Embedding, model.get_input_embeddings()).weight.shape

    def states(self, tokens: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        """States (B * L, d) of tokens (B, L): words, and IDs n_words + row of the table (n, d)."""
        is_id = (tokens >= self.n_words)[..., None]  # (B, L, 1)
        words = self.model.get_input_embeddings()(tokens.clamp(max=self.n_words - 1))  # (B, L, d)
        ids = functional.embedding((tokens - self.n_words).clamp(min=0), table).to(words.dtype)
        embedded = torch.where(is_id, ids, words)
        output = self.model.base_model(inputs_embeds=embedded, attention_mask=mask, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states.flatten(0, 1)

    def word_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of words (T,) by states (T, d), summed."""
        logits = self.model.get_output_embeddings()(states).float()
        return functional.cross_entropy(logits, targets, reduction="sum")


class PlainCLLM4Rec(PlainModel):
    """Two tables of ID embeddings (n_users + n_items, d)."""

    def __init__(self, model: PreTrainedModel, n_users: int, n_items: int) -> None:
        super().__init__(model)
        self.n_users = n_users
        self.collaborative, self.content = (nn.Embedding(n_users + n_items, self.width) for _ in range(2))

    def forward(self, objective: str, batch: Any) -> Tensor:
        """The loss of a batch, summed over its targets."""
        table = (self.content if objective == "content" else self.collaborative).weight
        states, items = self.states(batch.tokens, batch.mask, table), table[self.n_users :]
        if objective == "content":
            return self.word_loss(states[batch.state_index], batch.target_tokens)
        if objective == "collaborative":
            return cross_entropy(states[batch.state_index], items, batch.target_items)
        assert isinstance(batch, RecommendationBatch)
        return cross_entropy(states[batch.query_index][batch.target_rows], items, batch.target_items)

    @torch.no_grad()
    def item_scores(self, batches: Sequence[HistoryPrompts]) -> Tensor:
        """The bare forward passes and products; the scores (B, n_items) of the last batch."""
        table = self.collaborative.weight
        for batch in batches:
            states = self.states(batch.tokens, batch.mask, table)[batch.query_index].float()
            scores = states @ table[self.n_users :].T
        return scores


class PlainRSLLM(PlainModel):
    """The model under LoRA, ID embeddings (n_items, d_s) and their projector."""

    def __init__(self, model: PreTrainedModel, n_items: int, n: int) -> None:
        adapters = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear")
        inject_adapter_in_model(adapters, model)
        super().__init__(model)
        self.items, self.norm = nn.Embedding(n_items, n), nn.LayerNorm(self.width)
        self.projector = nn.Sequential(nn.Linear(n, 2 * n), nn.ReLU(), nn.Linear(2 * n, self.width))

    def forward(self, objective: str, batch: Any) -> Tensor:
        """The loss of a batch, summed over its targets; in stage 2 with both contrasts over all items."""
        table: Tensor = self.projector(self.items.weight)  # (n_items, d)
        tokens, is_unified = batch.tokens, objective == "unified"
        if is_unified:  # the soft tokens of a batch are numbered within it
            items = self.n_words + batch.items[(tokens - self.n_words).clamp(min=0)]
            tokens = torch.where(tokens < self.n_words, tokens, items)
        states = self.states(tokens, batch.mask, table)
        loss = self.word_loss(states[batch.state_index], batch.target_tokens)
        return loss + self._contrasts(batch, states.float(), table) if is_unified else loss

    def _contrasts(self, batch: Any, states: Tensor, table: Tensor) -> Tensor:
        users = self.norm(states[batch.history_index])
        loss = cross_entropy(users, table, batch.items[batch.local_targets])
        n_titles = len(batch.local_history)
        summed = states.new_zeros(n_titles, states.shape[1])
        summed = summed.index_add(0, batch.title_rows, states[batch.title_index])
        counts = torch.bincount(batch.title_rows, minlength=n_titles).clamp(min=1)[:, None]
        titles = functional.normalize(self.norm(summed / counts), dim=-1) / TEMPERATURE
        unit = functional.normalize(table, dim=-1)
        return loss + cross_entropy(titles, unit, batch.items[batch.local_history])


def plain_steps(
    net: nn.Module, objective: str, steps: list[MicroBatches], optimizer: torch.optim.Optimizer
) -> None:
    """Steps of a plain loop."""
    for step in steps:
        n_targets = sum(batch.n_targets for batch, _ in step)
        for batch, _ in step:
            (net(objective, batch) / n_targets).backward()
        torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
