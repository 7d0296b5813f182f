"""Small histories and corpora, and their batches example by example."""

from typing import Any

import numpy as np
from torch import Tensor

from cllm4rec.corpora.base import Batch, Corpus, Tensors
from cllm4rec.corpora.content import ContentBatch, ContentCorpus, Document
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.history_batches import CollaborativeBatch, RecommendationBatch
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.interactions import Interactions

N_USERS, N_ITEMS = 100, 200
CLLM4RecBatch = CollaborativeBatch | RecommendationBatch | ContentBatch
KINDS = ("collaborative", "recommendation", "content")


def histories(lists: list[list[int]], n_users: int | None = None, n_items: int = N_ITEMS) -> Interactions:
    """Interactions from a list of items of each user, in time order."""
    users = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    items = np.array([item for items in lists for item in items], dtype=np.int64)
    return Interactions(users, items, n_users or len(lists), n_items)


def random_histories(seed: int = 0, n_users: int = N_USERS, longest: int = 30) -> Interactions:
    """Users with 0 to `longest` items; users 0 and 1 have none and one."""
    generator = np.random.default_rng(seed)
    lengths = [0, 1, *generator.integers(0, longest + 1, n_users - 2).tolist()]
    return histories([generator.choice(N_ITEMS, length, replace=False).tolist() for length in lengths])


def examples_of(batch: CLLM4RecBatch, tokenizer: ExtendedTokenizer) -> list[dict[str, Any]]:
    """Each example of a batch without padding: tokens, targets, indices of its states, weights of its IDs."""
    width = batch.tokens.shape[1]
    if isinstance(batch, RecommendationBatch):
        index, targets, row_of_target = batch.query_index, batch.target_items, batch.target_rows
    else:
        targets = batch.target_tokens if isinstance(batch, ContentBatch) else batch.target_items
        index, row_of_target = batch.state_index, batch.state_index // width
    row_of_id = (batch.mask & (batch.tokens >= tokenizer.n_text_tokens)).nonzero()[:, 0]
    return [
        {
            "tokens": batch.tokens[row][batch.mask[row]].tolist(),
            "targets": targets[row_of_target == row].tolist(),
            "read": (index[index // width == row] - row * width).tolist(),
            "weights": batch.id_weights[row_of_id == row].tolist(),
        }
        for row in range(len(batch.tokens))
    ]


def named_tensors(batch: Tensors) -> dict[str, Tensor]:
    """The tensors of a batch, and of its optional records, by name."""
    named: dict[str, Tensor] = {}
    for name, value in vars(batch).items():
        if isinstance(value, Tensors):
            named |= {f"{name}.{inner}": tensor for inner, tensor in named_tensors(value).items()}
        elif value is not None:
            named[name] = value
    return named


def whole_epoch(corpus: Corpus, epoch: int, size: int = 16) -> list[Batch]:
    """All batches of an epoch."""
    order = corpus.selection(epoch)
    return [corpus.batch(order[start : start + size], epoch) for start in range(0, len(order), size)]


def content_corpus(
    tokenizer: ExtendedTokenizer, tokens_per_pass: int = 10**9, n: int = 60, **options: Any
) -> tuple[ContentCorpus, list[Document]]:
    """Documents of all kinds about these users and items, some of them long."""
    generator = np.random.default_rng(1)
    kinds = [("review", "", True, True), ("item", "title", False, True), ("user", "biography", True, False)]
    documents: list[Document] = []
    for number in range(n):
        kind, field, has_user, has_item = kinds[number % 3]
        words = generator.integers(1, tokenizer.n_text_tokens, int(generator.integers(1, 40)))
        user = int(generator.integers(N_USERS)) if has_user else -1
        item = int(generator.integers(N_ITEMS)) if has_item else -1
        documents.append((kind, field, user, item, words))
    given = HistoryCorpusOptions(**({"context": 64} | options))
    return ContentCorpus(documents, tokenizer, given, tokens_per_pass), documents


def corpora(tokenizer: ExtendedTokenizer, **options: Any) -> dict[str, Any]:
    """A corpus of each kind, over the same users and items."""
    given = HistoryCorpusOptions(**({"context": 32} | options))
    train = random_histories()
    return {
        "collaborative": CollaborativeCorpus(train, tokenizer, given),
        "recommendation": RecommendationCorpus(train, tokenizer, given),
        "content": content_corpus(tokenizer, **options)[0],
    }
