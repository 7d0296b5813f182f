"""Vectors of items for systems in closed form: of an encoder, of a file, or of the words of texts."""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import norm, svds

from cllm4rec.corpora.item_words import WordCounts, count_words, item_documents
from cllm4rec.data.dataset import Dataset
from cllm4rec.models.readings.config import TextVectorConfig
from cllm4rec.models.readings.item_texts import ItemVectors
from cllm4rec.models.readings.item_vectors import item_vectors

MIN_ITEMS, MAX_SHARE = 5, 0.5  # items with training events that have a word: at least, and at most
DIRECTIONS = 200


def text_vectors(config: TextVectorConfig, dataset: Dataset) -> ItemVectors:
    """A vector for each item, not standardised: by the encoder, from the file, or from the words of texts.

    Args:
        config: names the encoder or the file. If it names neither, `word_vectors` are given.
        dataset: its items, and its training events.

    Raises:
        ValueError: the encoder, the file or the texts are refused.
    """
    if config.encoder is None and config.item_vectors is None:
        return word_vectors(dataset)
    return item_vectors(dataset, config.encoder, config.item_vectors, standardise=False)


def has_text_vectors(config: TextVectorConfig, dataset: Dataset) -> bool:
    """Whether `text_vectors` has something to read: an encoder, a file, or words that some items share."""
    if config.encoder is not None or config.item_vectors is not None:
        return True
    return bool(_counted(dataset.train).vocabulary)


def word_vectors(dataset: Dataset) -> ItemVectors:
    """TF-IDF of the words of each item, in the leading singular directions.

    Texts are those of `item_documents`: text columns, or else the reviews of training events. Of items with
    training events, at least MIN_ITEMS and at most MAX_SHARE have a word. A count c becomes 1 + ln c. With n
    items and n_w that have the word it is multiplied by ln((1 + n) / (1 + n_w)) + 1. Then each item's row
    gets length 1. The DIRECTIONS leading right singular vectors of the items with training events are kept.
    Where there are no more words or items than that, nothing is left out and the TF-IDF itself is given.

    Raises:
        ValueError: no word is in so many items.
    """
    train = dataset.train
    in_training = train.interactions.item_has_event
    words = _counted(train)
    if not words.vocabulary:
        raise ValueError(
            f"no word is in {MIN_ITEMS} to half of the items' texts or training reviews, so that items have "
            "no vectors: give `encoder` or `item_vectors`, or prepare the dataset with texts of items"
        )
    counts = sp.csr_array(words.matrix, dtype=np.float64)
    n_items = np.bincount(counts[in_training].indices, minlength=counts.shape[1])  # with each word
    counts.data = 1 + np.log(counts.data)
    weighted = counts @ sp.diags_array(np.log((1 + in_training.sum()) / (1 + n_items)) + 1)
    lengths = norm(weighted, axis=1)
    tfidf = sp.csr_array(sp.diags_array(1 / np.where(lengths > 0, lengths, 1.0)) @ weighted)
    values = tfidf @ _directions(tfidf[in_training])
    dense = values.toarray() if sp.issparse(values) else values
    return ItemVectors(dataset.item_ids.ids, np.asarray(dense, dtype=np.float32), lengths > 0)


def _counted(train: Dataset) -> WordCounts:
    """The words of the items' texts that are in MIN_ITEMS to MAX_SHARE of those with training events."""
    documents, in_training = item_documents(train), train.interactions.item_has_event
    return count_words(documents, in_training, bigrams=False, min_rows=MIN_ITEMS, max_share=MAX_SHARE)


def _directions(rows: sp.csr_array) -> sp.sparray | np.ndarray:
    """The leading right singular vectors of rows (n, V), float64 (V, d); the identity if n or V is small."""
    if min(rows.shape) <= DIRECTIONS:
        return sp.eye_array(rows.shape[1], format="csr")
    # ARPACK converges to machine precision from any start: the numbering of items does not matter
    start = np.ones(min(rows.shape))
    _, _, right = svds(rows, DIRECTIONS, v0=start, return_singular_vectors="vh")
    return np.ascontiguousarray(right.T)
