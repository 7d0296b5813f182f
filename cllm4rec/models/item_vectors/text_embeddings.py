"""Embeddings of users or items from their texts: learned words and a learned map of frozen vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.models.fitted import FittedModule, entries_of
from cllm4rec.models.item_vectors.config import ItemTextConfig
from cllm4rec.models.item_vectors.sources import TextSources
from cllm4rec.models.kept import KeptValue
from cllm4rec.training.step_values import computed_once


class TextEmbeddings(FittedModule):
    """t_j = sum over the words of j of their rows / sqrt(their number) + f_j A, for n users or items.

    Words and bigrams w have learned rows u_w; f_j is the frozen, whitened vector of the text, A is learned.
    All start at zero, so that texts add nothing at first. The parameters are u_w / `text_rate` and
    A / `text_rate`: Adam moves them as far as any other, and so u_w and A `text_rate` times as far.

    In training, rows without training events have no texts: a softmax over all items would learn that their
    words are never chosen. In scoring they have texts alone: that softmax has taught e the same.

    Attributes:
        words: (V, width), the parameters of the words; None without words.
        columns, starts, weights: the words of each row, in compressed rows.
        map: the parameters of A, (D, width); None without vectors.
        vectors: f, (n, D).
        vocabulary: uint8 (bytes,), the V words in UTF-8, with line breaks between.
        in_training: (n,), 1 for rows with training events, else 0.
    """

    words: nn.Parameter | None
    map: nn.Parameter | None
    columns: Tensor
    starts: Tensor
    weights: Tensor
    vectors: Tensor
    vocabulary: Tensor
    in_training: Tensor
    _trained: "Entries | None" = None

    def __init__(
        self,
        config: ItemTextConfig,
        width: int,
        n: int,
        n_words: int,
        n_entries: int,
        n_dimensions: int,
        n_bytes: int,
    ) -> None:
        """No words and zeros for vectors.

        Args:
            config: rates.
            width: of t.
            n, n_words, n_entries: users or items, V, entries of the bags.
            n_dimensions, n_bytes: D, bytes of the vocabulary.
        """
        super().__init__()
        self._latest: KeptValue[Tensor] = KeptValue()
        self.rate, self.dropout = config.text_rate, config.word_dropout
        self.words = nn.Parameter(torch.zeros(n_words, width)) if n_words else None
        self.map = nn.Parameter(torch.zeros(n_dimensions, width)) if n_dimensions else None
        if n_words:
            self.register_buffer("columns", torch.zeros(n_entries, dtype=torch.int64))
            self.register_buffer("starts", torch.zeros(n + 1, dtype=torch.int64))
            self.register_buffer("weights", torch.zeros(n_entries))
            self.register_buffer("vocabulary", torch.zeros(n_bytes, dtype=torch.uint8))
        if n_dimensions:
            self.register_buffer("vectors", torch.zeros(n, n_dimensions))
        self.register_buffer("in_training", torch.zeros(n))

    @classmethod
    def of_shapes(
        cls, config: ItemTextConfig, shapes: Mapping[str, tuple[int, ...]], prefix: str
    ) -> Self | None:
        """Embeddings of a saved model, without their weights; None if it has none.

        Args:
            config: of the model.
            shapes: of the arrays in its model.safetensors, by name.
            prefix: of their names.
        """
        names = ("words", "columns", "starts", "map", "vectors", "vocabulary")
        words, columns, starts, mapped, vectors, vocabulary = (shapes.get(prefix + name) for name in names)
        if words is None and mapped is None:
            return None
        n = _length(starts) - 1 if words is not None else _length(vectors)
        lengths = map(_length, (words, columns, mapped, vocabulary))
        return cls(config, _width(words or mapped), n, *lengths)

    @classmethod
    def of(cls, config: ItemTextConfig, sources: TextSources, width: int) -> Self | None:
        """Embeddings of what was read; None if it is nothing."""
        words, vectors = sources.words, sources.vectors
        if words is None and vectors is None:
            return None
        n_words, n_entries = (0, 0) if words is None else (words.shape[1], words.nnz)
        n_dimensions = 0 if vectors is None else vectors.shape[1]
        listed = np.frombuffer("\n".join(sources.vocabulary).encode(), dtype=np.uint8)
        new = cls(config, width, len(sources.in_training), n_words, n_entries, n_dimensions, len(listed))
        new.in_training.copy_(torch.from_numpy(sources.in_training))
        if words is not None:
            new.columns.copy_(torch.from_numpy(words.indices))
            new.starts.copy_(torch.from_numpy(words.indptr))
            new.weights.copy_(torch.from_numpy(words.data))
            new.vocabulary.copy_(torch.from_numpy(listed.copy()))
        if vectors is not None:
            new.vectors.copy_(torch.from_numpy(vectors))
        return new

    @property
    def word_list(self) -> list[str]:
        """The V words and bigrams."""
        return self.vocabulary.cpu().numpy().tobytes().decode().split("\n")

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """t (R, width) of rows (R,), or of all."""
        result: Tensor | None = None
        if self.words is not None:
            result = self._of_words(rows)
        if self.map is not None:
            mapped = (self.vectors if rows is None else self.vectors[rows]) @ self.map
            if self.training:
                mapped = mapped.mul_((self.in_training if rows is None else self.in_training[rows])[:, None])
            result = mapped if result is None else result + mapped
        assert result is not None
        return result * self.rate

    def added_to(self, table: Tensor) -> Tensor:
        """z = e + t, (n, width), of a table e (n, width); z = t of rows that are scored by texts alone.

        In training it is computed once a step, in scoring kept until a weight changes or training goes on.
        """
        if self.training or torch.is_grad_enabled():
            return computed_once((self, table), lambda: self.added_to_rows(table))
        return self._latest.of([table, *self.parameters()], lambda: self.added_to_rows(table))

    def added_to_rows(self, embeddings: Tensor, rows: Tensor | None = None) -> Tensor:
        """`added_to` of the embeddings (R, width) of rows (R,), or of all."""
        if not self.training:
            embeddings = embeddings * ~self.by_texts_alone(rows)[:, None]
        return embeddings + self(rows)

    def by_texts_alone(self, rows: Tensor | None = None) -> Tensor:
        """Whether rows (R,), or all, have a text and no training events, bool (R,)."""
        chosen = slice(None) if rows is None else rows
        has_text = torch.zeros_like(self.in_training[chosen], dtype=torch.bool)
        if self.words is not None:
            has_text |= self.starts.diff()[chosen] > 0
        if self.map is not None:
            has_text |= self.vectors[chosen].any(1)
        return has_text & (self.in_training[chosen] == 0)

    def train_on(self, has_event: np.ndarray) -> None:
        """Count rows with events among those with training events from now on; bool (n,)."""
        self.in_training.copy_(self.in_training.maximum(torch.from_numpy(has_event).to(self.in_training)))
        self._trained = None
        self._latest.free()

    def train(self, mode: bool = True) -> Self:
        """Set the mode. The sum that was kept is freed: fused optimisers do not count their changes."""
        if mode != self.training:
            self._latest.free()
            self._trained = None
        return super().train(mode)

    def _entries(self) -> "Entries":
        """The words of all rows; in training those of rows with training events.

        Entries of weight zero would not do: they change the order of sums, and so the last bits of gradients.
        """
        assert self.words is not None
        n_words = len(self.words)
        if not self.training:
            return Entries(self.columns, self.weights, self.starts, n_words)
        if self._trained is None or self._trained.columns.device != self.columns.device:
            shown, counts = self.in_training > 0, self.starts.diff()
            kept, starts = shown.repeat_interleave(counts), torch.zeros_like(self.starts)
            starts[1:] = (counts * shown).cumsum(0)
            self._trained = Entries(self.columns[kept], self.weights[kept], starts, n_words)
        return self._trained

    def _of_words(self, rows: Tensor | None) -> Tensor:
        """The weighted sums of the words' parameters (R, width)."""
        assert self.words is not None
        entries = self._entries()
        if rows is None:
            weights = functional.dropout(entries.weights, self.dropout, self.training)
            if self.words.is_cuda:  # frequent words make sums of many rows, which a GPU was not timed on
                return weighted_sums(self.words, entries.columns, entries.starts[:-1], weights)
            summed: Tensor = _WordSums.apply(self.words, entries, weights)
            return summed
        numbers, counts = entries_of(entries.starts, rows)
        weights = functional.dropout(entries.weights[numbers], self.dropout, self.training)
        starts = counts.cumsum(0) - counts
        return weighted_sums(self.words, entries.columns[numbers], starts, weights)


def words_of_row(text: TextEmbeddings | None, row: int) -> tuple[list[str], Tensor]:
    """The distinct words of a row, sorted, and what its t would lose without each of them (n_words, width).

    A word is left out together with the bigrams that have it. What is left is divided by the root of its
    number of words and bigrams.
    """
    if text is None or text.words is None:
        return [], torch.zeros(0, 1)
    columns = text.columns[text.starts[row] : text.starts[row + 1]]
    vocabulary, rows, n = text.word_list, text.words[columns], len(columns)
    parts = [vocabulary[column].split(" ") for column in columns.tolist()]  # one word, or two
    words = sorted({word for part in parts for word in part})
    has = rows.new_tensor([[word in part for part in parts] for word in words]).reshape(len(words), n)
    total = rows.sum(0)
    left = (total - has @ rows) / (n - has.sum(1, keepdim=True)).clamp(min=1) ** 0.5  # of nothing: zeros
    return words, (total / max(n, 1) ** 0.5 - left) * text.rate


@dataclass(frozen=True)
class Entries:
    """A matrix of weights in compressed rows, (n, V).

    Attributes:
        columns: int64 (E,), row after row.
        weights: (E,).
        starts: int64 (n + 1,), first entry of each row, and E.
        n_columns: V.
    """

    columns: Tensor
    weights: Tensor
    starts: Tensor
    n_columns: int

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same entries column after column.

        The row of each (E,), first entry of each column (V,), and the place of each entry here (E,).
        """
        order = torch.argsort(self.columns, stable=True)
        counts = torch.bincount(self.columns, minlength=self.n_columns)
        numbers = torch.arange(len(self.starts) - 1, device=self.columns.device)
        rows = numbers.repeat_interleave(self.starts.diff())
        return rows[order], counts.cumsum(0) - counts, order


def weighted_sums(table: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (n, width) of rows of a table: those from starts[i] to starts[i + 1], for each i."""
    return functional.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)


class _WordSums(torch.autograd.Function):
    """Weighted sums of words. Their gradient is a weighted sum over the rows of a word, and needs no scatter.

    On a CPU it is faster than the gradient of `embedding_bag`.
    """

    @staticmethod
    def forward(ctx: Any, words: Tensor, entries: Entries, weights: Tensor) -> Tensor:
        ctx.entries = entries
        ctx.save_for_backward(weights)
        return weighted_sums(words, entries.columns, entries.starts[:-1], weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, starts, order = ctx.entries.transposed
        (weights,) = ctx.saved_tensors
        return weighted_sums(gradients[0].contiguous(), rows, starts, weights[order]), None, None


def _length(shape: tuple[int, ...] | None) -> int:
    """The first dimension of an array; 0 of none."""
    return shape[0] if shape else 0


def _width(shape: tuple[int, ...] | None) -> int:
    """The last dimension of an array; 0 of none."""
    return shape[-1] if shape else 0
