"""Answers to a prompt: the likelihood of each candidate's title, or free generation."""

import copy
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from cllm4rec.models.language.backbone import Backbone


def _log_probabilities(backbone: Backbone, states: Tensor) -> Tensor:
    """Log-probabilities of the next token (..., n_text_tokens), from states (..., d)."""
    return torch.log_softmax(backbone.word_logits(states), dim=-1)


class Beginning(NamedTuple):
    """What many prompts begin with.

    Attributes:
        tokens: (N,), N >= 1.
        cache: their keys and values. They are copied for each prompt.
    """

    tokens: Tensor
    cache: DynamicCache

    @classmethod
    def of(cls, backbone: Backbone, tokens: Tensor, table: Tensor) -> "Beginning":
        """Read tokens (N,) once."""
        return cls(tokens, read_prompt(backbone, tokens, table)[1])

    def begins(self, prompt: Tensor) -> bool:
        """Whether a prompt (L,) begins with these tokens, and goes on."""
        n = len(self.tokens)
        return len(prompt) > n and torch.equal(prompt[:n], self.tokens)

    def copies(self, n: int) -> DynamicCache:
        """The keys and values for each of n prompts, which may be extended."""
        return repeated(copy.deepcopy(self.cache), n)


def repeated(cache: DynamicCache, n: int) -> DynamicCache:
    """The cache of one prompt, made one of n equal prompts."""
    # `batch_repeat_interleave` lacks states of convolutions
    cache.reorder_cache(cast(torch.LongTensor, torch.zeros(n, dtype=torch.int64)))
    return cache


def read_prompt(
    backbone: Backbone, tokens: Tensor, table: Tensor, beginning: Beginning | None = None
) -> tuple[Tensor, DynamicCache]:
    """The last state (d,) of a prompt (L,), and its cached keys and values.

    Args:
        backbone: the language model.
        tokens: (L,).
        table: (n_items, d) of the soft tokens.
        beginning: is not computed again if the prompt begins with it.
    """
    if beginning is not None and beginning.begins(tokens):
        cache, tokens = beginning.copies(1), tokens[len(beginning.tokens) :]
    else:  # layers of some families keep a window, or a state
        cache = DynamicCache(config=backbone.model.config)
    states = backbone(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool), table, cache=cache)
    return states[0, -1], cache


def likelihoods(
    backbone: Backbone,
    prompt: Tensor,
    answers: Sequence[Tensor],
    table: Tensor,
    beginning: Beginning | None = None,
) -> Tensor:
    """Mean log-probability of the tokens of each answer after a prompt, (C,).

    The prompt is read once; the answers are one batch on its cached keys and values.

    Args:
        backbone: the language model.
        prompt: tokens (L,).
        answers: tokens of each answer with the end tokens, each (T_c,) with T_c >= 1.
        table: (n_items, d) of the soft tokens.
        beginning: as in `read_prompt`.
    """
    last, cache = read_prompt(backbone, prompt, table, beginning)
    lengths = torch.tensor([len(answer) for answer in answers], device=prompt.device)
    tokens = torch.nn.utils.rnn.pad_sequence(list(answers), batch_first=True)  # (C, T)
    mask = torch.arange(tokens.shape[1], device=prompt.device)[None, :] < lengths[:, None]
    first = _log_probabilities(backbone, last)[tokens[:, 0]]  # (C,), all from one state
    log_p = torch.zeros(tokens.shape, device=first.device)  # (C, T), 0 at padding
    log_p[:, 0] = first
    if tokens.shape[1] > 1:
        cache = repeated(cache, len(answers))
        states = backbone(tokens[:, :-1], mask[:, :-1], table, cache=cache)  # (C, T - 1, d)
        later = mask[:, 1:]
        logits = backbone.word_logits(states[later])  # of tokens alone, without padding
        targets = tokens[:, 1:][later]
        log_p[:, 1:][later] = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
    return log_p.sum(1) / lengths


def generate(
    backbone: Backbone,
    prompt: Tensor,
    end: Sequence[int],
    most: int,
    table: Tensor,
    answers: Sequence[list[int]] | None = None,
    beginning: Beginning | None = None,
) -> list[int]:
    """Greedy decoding after a prompt, to the end tokens (left out) or to `most` tokens.

    Args:
        backbone: the language model.
        prompt: tokens (L,).
        end: the end tokens.
        most: maximum number of tokens.
        table: (n_items, d) of the soft tokens.
        answers: each with the end tokens; what is generated is one of them. None: anything.
        beginning: as in `read_prompt`.
    """
    state, cache = read_prompt(backbone, prompt, table, beginning)
    tokens: list[int] = []
    while len(tokens) < most:
        log_p = _log_probabilities(backbone, state)  # (n_text_tokens,)
        if answers is not None:
            n = len(tokens)
            allowed = {answer[n] for answer in answers if answer[:n] == tokens and len(answer) > n}
            choices = torch.tensor(sorted(allowed), device=log_p.device)
            token = choices[log_p[choices].argmax()]
        else:
            token = log_p.argmax()
        tokens.append(int(token))
        if tokens[-len(end) :] == list(end):
            return tokens[: -len(end)]
        mask = torch.ones(1, 1, dtype=torch.bool, device=token.device)
        state = backbone(token[None, None], mask, table, cache=cache)[0, -1]
    return tokens
