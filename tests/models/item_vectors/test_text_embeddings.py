"""What texts add to the vectors of items: numbers by hand, gradients, a kept sum that follows the weights."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from cllm4rec.models.item_vectors.config import ItemTextConfig
from cllm4rec.models.item_vectors.sources import TextSources
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings

WORDS = sp.csr_matrix(
    np.array([[0.5, 0.5, 0, 0.5], [0, 0, 0, 0], [0, 0, 1, 0], [0.5, 0, 0.25, 0]], dtype=np.float32)
)
VECTORS = np.array([[1, 2], [0, 0], [3, -1], [0.5, 0]], dtype=np.float32)
WIDTH, ALL = 3, np.ones(4, dtype=bool)
PARTS = {"words": (WORDS, None), "vectors": (None, VECTORS), "both": (WORDS, VECTORS)}
each_part = pytest.mark.parametrize("part", PARTS)


def embeddings_of(part: str, in_training: np.ndarray = ALL, **settings: float) -> TextEmbeddings:
    """Text embeddings with random weights."""
    words, vectors = PARTS[part]
    text = TextEmbeddings.of(ItemTextConfig(**settings), TextSources(in_training, words, vectors), WIDTH)
    assert text is not None
    generator = torch.Generator().manual_seed(0)
    for parameter in text.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return text


def expected(text: TextEmbeddings) -> Tensor:
    """The same by dense matrices."""
    total = torch.zeros(4, WIDTH)
    if text.words is not None:
        total = total + torch.from_numpy(WORDS.toarray()) @ (text.words * text.rate)
    if text.map is not None:
        total = total + torch.from_numpy(VECTORS) @ (text.map * text.rate)
    return total


@each_part
def test_texts_add_their_words_and_their_mapped_vectors(part: str) -> None:
    text = embeddings_of(part, text_rate=2.5)
    torch.testing.assert_close(text(), expected(text))
    rows = torch.tensor([3, 0, 0, 1])
    torch.testing.assert_close(text(rows), expected(text)[rows])
    assert text(rows[:0]).shape == (0, WIDTH)


@each_part
def test_gradients_are_those_of_dense_matrices(part: str) -> None:
    text = embeddings_of(part)
    weights = list(text.parameters())
    slope, rows = torch.randn(4, WIDTH), torch.tensor([2, 2, 3])
    for given, reference in ((text(), expected(text)), (text(rows), expected(text)[rows])):
        found = torch.autograd.grad((given * slope[: len(given)]).sum(), weights)
        wanted = torch.autograd.grad((reference * slope[: len(given)]).sum(), weights)
        for left, right in zip(found, wanted, strict=True):
            torch.testing.assert_close(left, right)


@each_part
def test_rows_without_training_events_have_their_texts_in_scoring_alone(part: str) -> None:
    """In training they add no value and no gradient."""
    text, rows = embeddings_of(part, np.array([False, True, True, False])), torch.tensor([3, 2, 0])
    reference = expected(text) * torch.tensor([0.0, 1, 1, 0])[:, None]
    for given, wanted in ((text(), reference), (text(rows), reference[rows])):
        torch.testing.assert_close(given, wanted)
        slopes = [
            torch.autograd.grad(sums.square().sum(), [*text.parameters()], retain_graph=True)
            for sums in (given, wanted)
        ]
        torch.testing.assert_close(*slopes)
    torch.testing.assert_close(text.eval()(), expected(text))
    torch.testing.assert_close(text(rows), expected(text)[rows])


@each_part
@torch.no_grad()
def test_the_kept_sum_follows_every_weight(part: str) -> None:
    text, table = embeddings_of(part).eval(), torch.randn(4, WIDTH)
    first = text.added_to(table)
    torch.testing.assert_close(first, table + expected(text))
    assert text.added_to(table) is first
    for weight in (table, *text.parameters()):
        weight += 1
        torch.testing.assert_close(text.added_to(table), table + expected(text))
        weight.data = weight.data * 2
        torch.testing.assert_close(text.added_to(table), table + expected(text))


def test_the_kept_sum_follows_training() -> None:
    """A fused optimiser changes weights in place without counting it."""
    text, table = embeddings_of("both"), torch.randn(4, WIDTH).requires_grad_(True)
    optimizer = torch.optim.AdamW([table, *text.parameters()], lr=0.1, fused=True)
    for _ in range(3):
        text.train().added_to(table).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch.testing.assert_close(text.eval().added_to(table), table + expected(text))


def test_texts_add_nothing_before_training() -> None:
    text = TextEmbeddings.of(ItemTextConfig(), TextSources(ALL, WORDS, VECTORS), WIDTH)
    assert text is not None
    assert not text().any()
    assert TextEmbeddings.of(ItemTextConfig(), TextSources(ALL, None, None), WIDTH) is None


def test_dropped_words_keep_the_mean_and_are_never_dropped_in_scoring() -> None:
    text = embeddings_of("words", word_dropout=0.5)
    torch.manual_seed(0)
    draws = torch.stack([text().detach() for _ in range(4000)])
    assert (draws[:, 2].abs().sum(1) == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(draws.mean(0), expected(text).detach(), rtol=0.1, atol=0.1)
    torch.testing.assert_close(text.eval()(), expected(text))
