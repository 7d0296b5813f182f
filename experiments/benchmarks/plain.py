"""Training steps written without any thought of speed: what a step of the loop is compared with.

A plain step has no padding: the batch's tokens stand in rows of equal length. It looks them up in the same tables, runs the
library's model with its own causal mask, takes the dense cross-entropy of as many states, and steps with PyTorch's AdamW.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.models.backbone import Backbone
from cllm4rec.models.cllm4rec import CLLM4RecNet
from cllm4rec.models.rsllm_net import RSLLMNet
from cllm4rec.text.ragged import Batch
from cllm4rec.training.loop import MicroBatches


def states_of(backbone: Backbone, tokens: Tensor, n_rows: int, table: Tensor) -> Tensor:
    """States (N, d) of tokens (N,) cut into rows of equal length; a few are left over."""
    length = max(1, round(len(tokens) / n_rows))
    rows = tokens[: len(tokens) // length * length].view(-1, length)
    words, ids = rows.clamp(max=backbone.n_words - 1), (rows - backbone.n_words).clamp(min=0)
    known = functional.embedding(ids, table) * backbone.id_scale
    embedded = torch.where((rows >= backbone.n_words)[..., None], known, backbone.words[words] * backbone.word_scale)
    states: Tensor = backbone.model.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return states.flatten(0, 1)


def some_of(states: Tensor, n: int) -> Tensor:
    """As many states as are read: which ones makes no difference to the time."""
    return states[torch.linspace(0, len(states) - 1, n).long()]


def nll(states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """The dense cross-entropy, summed."""
    return -(states @ classes.T).log_softmax(-1)[rows, targets].sum()


class PlainCLLM4Rec(nn.Module):
    """The same backbone, tables and heads."""

    def __init__(self, net: CLLM4RecNet) -> None:
        super().__init__()
        self.backbone, self.n_users = copy.deepcopy(net.backbone), net.n_users
        self.collaborative, self.content = nn.Parameter(net.collaborative.whole()), nn.Parameter(net.content.whole())

    def forward(self, objective: str, step: MicroBatches) -> Tensor:
        """The mean loss of a step."""
        table = self.content if objective == "content" else self.collaborative
        tokens = torch.cat([batch["tokens"][batch["mask"]] for batch, _ in step])
        states = states_of(self.backbone, tokens, sum(len(batch["mask"]) for batch, _ in step), table)
        counts = [int(batch["rows"].max()) + 1 for batch, _ in step]
        rows = torch.cat([batch["rows"] + sum(counts[:i]) for i, (batch, _) in enumerate(step)])
        targets = torch.cat([batch["targets"] for batch, _ in step])
        classes = self.backbone.word_head if objective == "content" else table[self.n_users :]
        return nll(some_of(states, sum(counts)), classes, rows, targets) / len(targets)


class PlainRSLLM(nn.Module):
    """The same backbone, projector and heads; where IDs are read, all items are projected, and contrasted with."""

    def __init__(self, net: RSLLMNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)

    def forward(self, objective: str, step: MicroBatches) -> Tensor:
        """The mean loss of a step."""
        net, batches = self.net, [batch for batch, _ in step]
        table: Tensor = net.projected(None if "items" in batches[0] else torch.zeros(1, dtype=torch.long))
        tokens = torch.cat([self._tokens(batch) for batch in batches])
        states = states_of(net.backbone, tokens, sum(len(batch["mask"]) for batch in batches), table)
        words = torch.cat([batch["words"] if "items" in batch else batch["targets"] for batch in batches])
        loss, n_targets = nll(some_of(states, len(words)), net.backbone.word_head, torch.arange(len(words)), words), len(words)
        if "items" in batches[0]:
            targets, titled = (torch.cat([batch["items"][batch[name]] for batch in batches]) for name in ("targets", "titled"))
            own, n_targets = net.norm(some_of(states, len(targets))), len(targets)
            user = nll(own, table, torch.arange(len(targets)), targets)
            of = torch.linspace(0, len(titled) - 1, sum(len(batch["title_words"]) for batch in batches)).long()
            titles = torch.zeros(len(titled), states.shape[1]).index_add(0, of, some_of(states, len(of)))
            titles = titles / torch.bincount(of, minlength=len(titled))[:, None]
            unit = partial(functional.normalize, dim=-1)
            item = nll(unit(net.norm(titles)) / net.config.temperature, unit(table), torch.arange(len(titled)), titled)
            loss = loss + net.config.beta * user + net.config.alpha * item
        return loss / n_targets

    def _tokens(self, batch: Batch) -> Tensor:
        """Its tokens, items numbered as in the catalogue."""
        tokens, n_words = batch["tokens"][batch["mask"]], self.net.backbone.n_words
        if "items" not in batch:
            return tokens
        return torch.where(tokens < n_words, tokens, n_words + batch["items"][(tokens - n_words).clamp(min=0)])


def plain_steps(net: Any, objective: str, steps: list[MicroBatches], optimizer: torch.optim.Optimizer) -> None:
    """Steps of the plain training."""
    net.train()
    for step in steps:
        net(objective, step).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
