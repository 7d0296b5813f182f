"""Answering a prompt in words: likelihood of each candidate's title, or free generation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from cllm4rec.models.language.backbone import Backbone


def _log_probabilities(backbone: Backbone, states: Tensor) -> Tensor:
    """Of the next word (..., n_words), from states (..., d)."""
    return torch.log_softmax((states @ backbone.word_head.T).float(), dim=-1)


def read_prompt(backbone: Backbone, tokens: Tensor, table: Tensor) -> tuple[Tensor, DynamicCache]:
    """The last state (d,) of a prompt (L,), and keys and values of all of it."""
    cache = DynamicCache()
    states = backbone(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool), table, cache=cache)
    return states[0, -1], cache


def likelihoods(backbone: Backbone, prompt: Tensor, answers: Sequence[Tensor], table: Tensor) -> Tensor:
    """Mean log-probability of the words of each answer after a prompt, (C,).

    The prompt is read once; the answers are read side by side behind its keys and values.

    Args:
        prompt: tokens (L,).
        answers: words of each answer, the end token among them, each (T_c,) with T_c >= 1.
        table: (n_items, d) of the soft tokens.
    """
    last, cache = read_prompt(backbone, prompt, table)
    lengths = torch.tensor([len(answer) for answer in answers], device=prompt.device)
    words = torch.nn.utils.rnn.pad_sequence(list(answers), batch_first=True)  # (C, T)
    mask = torch.arange(words.shape[1], device=prompt.device)[None, :] < lengths[:, None]
    states = last.expand(len(answers), 1, -1)
    if words.shape[1] > 1:
        cache.batch_repeat_interleave(len(answers))
        states = torch.cat([states, backbone(words[:, :-1], mask[:, :-1], table, cache=cache)], dim=1)
    own = _log_probabilities(backbone, states).gather(-1, words[..., None]).squeeze(-1)
    return own.masked_fill(~mask, 0.0).sum(1) / lengths


def generate(backbone: Backbone, prompt: Tensor, end: int, most: int, table: Tensor) -> list[int]:
    """The likeliest word after a prompt (L,), and so on, to the end token or to `most` words; the end token left out."""
    state, cache = read_prompt(backbone, prompt, table)
    words: list[int] = []
    while len(words) < most:
        word = _log_probabilities(backbone, state).argmax()
        if int(word) == end:
            break
        words.append(int(word))
        state = backbone(
            word[None, None], torch.ones(1, 1, dtype=torch.bool, device=word.device), table, cache=cache
        )[0, -1]
    return words
