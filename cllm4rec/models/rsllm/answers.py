"""Choosing among candidates by their titles: by likelihood, or by a generated title."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cllm4rec.corpora.rsllm_prompts import PromptWriter
from cllm4rec.data.ragged import Ragged
from cllm4rec.models.language.backbone import Backbone
from cllm4rec.models.rsllm.generation import Beginning, generate, likelihoods

WAYS = ("likelihood", "generation", "constrained")


class TitleChooser:
    """Answers prompts with titles.

    Args:
        backbone: the language model.
        writer: of the prompts.
        table: (n_items, d) of the soft tokens.
        length: most items of a history.
        named: whether prompts name the candidates.
    """

    def __init__(
        self, backbone: Backbone, writer: PromptWriter, table: Tensor, length: int, named: bool
    ) -> None:
        self.backbone, self.writer, self.table = backbone, writer, table
        self.length, self.named = length, named
        self.end = writer.tokenizer.document.end
        self._alone: dict[int, float] = {}  # item -> likelihood of its title without a history
        self._beginning: Beginning | None = None  # of all prompts, from the first one on

    def choose(self, history: np.ndarray, candidates: np.ndarray, by: str) -> int:
        """Index of the chosen candidate; -1 if no title is generated, or no candidate has one.

        Args:
            history: items, oldest first.
            candidates: items (C,).
            by: one of `WAYS`.
        """
        answers = [
            torch.from_numpy(tokens).to(self.table.device) for tokens in self.writer.answers_of(candidates)
        ]
        titled = [number for number, answer in enumerate(answers) if len(answer) > len(self.end)]
        if not titled:
            return -1
        shown = [answers[number] for number in titled]
        if by == "likelihood":
            gain = self._likelihoods(history, candidates, shown) - self._without_history(
                candidates, titled, shown
            )
            return titled[int(gain.argmax())]
        prompt = self._prompt(history, candidates, shown)
        titles = [answer.tolist() for answer in shown]
        allowed = titles if by == "constrained" else None
        most = max(map(len, titles))
        tokens = generate(self.backbone, prompt, self.end, most, self.table, allowed, self._beginning)
        named = [
            number for number, title in zip(titled, titles, strict=True) if title == [*tokens, *self.end]
        ]
        return named[0] if named else -1

    def _prompt(self, history: np.ndarray, candidates: np.ndarray, answers: Sequence[Tensor]) -> Tensor:
        """The question after a history, tokens (L,); there is room for the longest answer."""
        room = self.backbone.context - max(len(answer) for answer in answers)
        named = Ragged.from_lists([candidates]) if self.named else None
        prompts, _ = self.writer.fill(Ragged.from_lists([history[-self.length :]]), room, named)
        prompt = torch.from_numpy(prompts.tokens[0]).to(self.table.device)
        if self._beginning is None and (n := self.writer.n_beginning(self.named)):
            self._beginning = Beginning.of(self.backbone, prompt[:n], self.table)
        return prompt

    def _likelihoods(self, history: np.ndarray, candidates: np.ndarray, answers: Sequence[Tensor]) -> Tensor:
        """Mean log-probability of a token of each answer, (C,)."""
        prompt = self._prompt(history, candidates, answers)
        return likelihoods(self.backbone, prompt, answers, self.table, self._beginning).float().cpu()

    def _without_history(
        self, candidates: np.ndarray, titled: Sequence[int], answers: Sequence[Tensor]
    ) -> Tensor:
        """The same after a prompt without a history.

        It depends on an item alone, unless the prompt names the candidates.
        """
        empty, items = candidates[:0], candidates[list(titled)].tolist()
        if self.named:
            return self._likelihoods(empty, candidates, answers)
        new = [number for number, item in enumerate(items) if item not in self._alone]
        if new:
            found = self._likelihoods(empty, candidates, [answers[number] for number in new])
            self._alone |= {items[number]: value for number, value in zip(new, found.tolist(), strict=True)}
        return torch.tensor([self._alone[item] for item in items])
