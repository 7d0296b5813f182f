"""Words and bigrams of the texts of users and items, counted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from cllm4rec.data.audit import learns_from
from cllm4rec.data.column_names import ITEM_TEXTS, USER_TEXTS
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.texts import texts_by_column

WORD = r"\w+"


@dataclass(frozen=True)
class WordCounts:
    """How often each word is in each text.

    Attributes:
        vocabulary: words, and bigrams as two words with a space between, sorted.
        matrix: float32 (n, len(vocabulary)), the counts.
        in_training: bool (n,), the rows that chose the vocabulary.
    """

    vocabulary: list[str]
    matrix: sp.csr_matrix
    in_training: np.ndarray

    def bags(self, most: int) -> sp.csr_matrix:
        """Each row's distinct words with equal weights 1 / sqrt(number of its words), float32.

        Of a row with more than `most` words the most specific are kept: those of largest count x IDF, where
        IDF = ln(rows / rows with the word), of training rows. Equal ones are kept in the order of the
        vocabulary.
        """
        matrix = self.matrix.tocsr()
        n_words = np.diff(matrix.indptr)
        rows = np.repeat(np.arange(matrix.shape[0]), n_words)
        n_rows = np.bincount(matrix[self.in_training].indices, minlength=matrix.shape[1])  # with each word
        idf = np.log(self.in_training.sum() / np.maximum(n_rows, 1))
        order = np.lexsort((matrix.indices, -matrix.data * idf[matrix.indices], rows))
        rank = np.arange(len(order)) - matrix.indptr[rows[order]]  # in the row, from 0
        keep = np.sort(order[rank < most])
        weights = 1 / np.sqrt(np.minimum(n_words, most)[rows[keep]], dtype=np.float32)
        kept = sp.csr_matrix((weights.astype(np.float32), (rows[keep], matrix.indices[keep])), matrix.shape)
        kept.sort_indices()
        return kept


def item_documents(train: Dataset) -> list[list[str]]:
    """The texts of each item: one for each text column, or else its reviews.

    Items without training events have their texts too. Reviews are those of training events, and are read
    only where no item has a text.
    """
    learns_from("words of items", train.interactions)
    documents = item_texts(train.items)
    reviews = train.interactions.reviews
    if reviews is None or any(text for texts in documents for text in texts):
        return documents
    documents = [[] for _ in range(train.n_items)]
    for item, review in zip(train.interactions.items.tolist(), reviews.to_list(), strict=True):
        documents[item].append(review)
    return documents


def item_texts(items: pl.DataFrame) -> list[list[str]]:
    """The texts of each item of a table, one for each text column."""
    return _columns(items, ITEM_TEXTS)


def user_documents(train: Dataset) -> list[list[str]]:
    """The texts of each user, one for each text column."""
    return _columns(train.users, USER_TEXTS)


def _columns(table: pl.DataFrame, names: tuple[str, ...]) -> list[list[str]]:
    """The text columns of each row."""
    columns = texts_by_column(table, names, np.ones(len(table), dtype=bool)).values()
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in range(len(table))]


def split_words(texts: pl.Series) -> pl.Series:
    """The words of texts in lower case, lists (n,); letters are composed, so that equal ones are equal."""
    return texts.str.normalize("NFC").str.to_lowercase().str.extract_all(WORD)


def count_words(
    documents: Sequence[Sequence[str]],
    in_training: np.ndarray,
    *,
    bigrams: bool = True,
    min_rows: int = 3,
    max_share: float = 1.0,
    vocabulary: Sequence[str] | None = None,
) -> WordCounts:
    """Words of documents, without regard to case.

    Args:
        documents: texts of each row, (n,). A bigram lies within one text.
        in_training: bool (n,), the rows that choose the vocabulary. The words of others are counted too.
        bigrams: whether pairs of adjacent words are counted.
        min_rows: fewest training rows that have a word.
        max_share: largest share of the training rows that have a word.
        vocabulary: the words to count, instead of those that the training rows choose.
    """
    numbers = np.repeat(np.arange(len(documents)), [len(texts) for texts in documents])
    texts = pl.Series([text for document in documents for text in document], dtype=pl.String)
    words = (
        pl.DataFrame({"row": numbers, "word": split_words(texts)})
        .with_row_index("text")
        .explode("word")
        .drop_nulls("word")
    )
    if bigrams:
        following = pl.col("word").shift(-1).over("text")
        pairs = words.with_columns(pl.col("word") + " " + following).drop_nulls("word")
        words = pl.concat([words, pairs])
    counts = words.group_by("row", "word").len()
    if vocabulary is None:
        trained = pl.Series(in_training)[counts["row"].to_numpy()]
        n_rows = counts.filter(trained).group_by("word").len("n_rows")
        most = max_share * int(in_training.sum())
        chosen = n_rows.filter(pl.col("n_rows").is_between(min_rows, most)).sort("word")
    else:
        chosen = pl.DataFrame({"word": vocabulary}, schema={"word": pl.String})
    chosen = chosen.with_row_index("column")
    entries = counts.join(chosen, on="word")
    matrix = sp.csr_matrix(
        (
            entries["len"].to_numpy().astype(np.float32),
            (entries["row"].to_numpy(), entries["column"].to_numpy()),
        ),
        shape=(len(documents), len(chosen)),
    )
    matrix.sort_indices()
    return WordCounts(chosen["word"].to_list(), matrix, in_training)
