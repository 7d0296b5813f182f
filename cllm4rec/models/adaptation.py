"""A fitted model for another dataset: with further users and items, or without some users."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.data.column_names import ITEM_TEXTS
from cllm4rec.data.dataset import Dataset
from cllm4rec.messages import counted, shorten
from cllm4rec.models.item_vectors.config import ItemTextConfig
from cllm4rec.models.item_vectors.sources import TextSources
from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings
from cllm4rec.models.storage import StoredModel

NEW_AT_ONCE = 1024  # new items whose cosines are computed together
NEAREST = 5  # known items that stand for a new one where its text cannot


@dataclass(frozen=True)
class OldRows:
    """Where the users and items of another dataset are in a fitted model.

    Attributes:
        users, items: int64 (n_users,) and (n_items,), their numbers in the model; -1 for new ones.
        reread: bool (n_items,), new items and those that have lost reviews.
        lost_users: whether users of the model are missing.
        lost_reviews: whether any item has lost reviews that the model may have read.
    """

    users: np.ndarray
    items: np.ndarray
    reread: np.ndarray
    lost_users: bool
    lost_reviews: bool


class UnreadItemsError(ValueError):
    """New items have no text that the model reads.

    Attributes:
        ids: of these items.
        n_new: number of all new items.
    """

    def __init__(self, ids: list[Any], n_new: int) -> None:
        self.ids, self.n_new = ids, n_new
        super().__init__(
            f"item {shorten(repr(ids[0]))} has no text that the model reads ({len(ids):,} of {n_new:,} new "
            "items): give it a text, or leave it out"
        )


class AdaptableModel(StoredModel):
    """A model that serves further users and items, or forgets some of its users."""

    @property
    def _item_texts(self) -> TextEmbeddings | None:
        """What the texts of the items add to their vectors; None if the system reads none."""
        return None

    def _adapt(self, dataset: Dataset, rows: OldRows) -> None:
        """Change the arrays to those for another dataset, which has all items of the model.

        Systems whose arrays depend on users, or which read texts of items, override this.

        Args:
            dataset: its ids are in place already.
            rows: its users and items in the arrays from before.
        """

    def _old_rows(self, dataset: Dataset) -> OldRows:
        """Where the users and items of a dataset are in this model.

        Raises:
            ValueError: the dataset lacks an item of the model, or reviews are lost and the dataset of
                training, which tells of which items, is not known.
        """
        users = self.user_ids.find(dataset.user_ids.ids)
        items = self.item_ids.find(dataset.item_ids.ids)
        missing = np.setdiff1d(np.arange(len(self.item_ids)), items)
        if len(missing):
            name = shorten(repr(self.item_ids.ids[int(missing[0])]))
            raise ValueError(
                f"the dataset lacks {counted(len(missing), 'item')} of the model, such as {name}: items can "
                "be added, not taken out"
            )
        lost, reviewed = np.setdiff1d(np.arange(len(self.user_ids)), users), np.zeros(len(items), dtype=bool)
        if len(lost) and not _has_texts(dataset):
            before = self._source_dataset().train.interactions
            if before.reviews is not None:
                of_lost = np.isin(before.users, lost) & (before.reviews != "").to_numpy()
                reviewed = np.isin(items, before.items[of_lost])
        return OldRows(users, items, (items < 0) | reviewed, len(lost) > 0, bool(reviewed.any()))

    def adapted_to(self, dataset: Dataset) -> Self:
        """A copy for a dataset with further users and items, or without some of its users.

        Nothing is trained. A new item has the vector of its texts alone, by the words and the encoder that
        the model has learned to read. A new user is served from the history.

        Args:
            dataset: has the items and training events of the training set, further items and users, or
                fewer users: `extended` and `without_users` of `data.extension` make it.

        Raises:
            UnreadItemsError: the texts of new items have nothing that the model reads.
            ValueError: an item of the model is missing, the system or the dataset has no texts of items, or
                an encoder gives other vectors of known items than in training.
        """
        self._check_fitted()
        rows = self._old_rows(dataset)
        (new,) = np.nonzero(rows.items < 0)
        if len(new) and self._item_texts is None:
            raise ValueError(
                f"this {self.name} has no vectors that read texts, and so none of new items: take a system "
                "that has them, such as cllm4rec or bag, on a dataset with titles"
            )
        if len(new) and not _has_texts(dataset):
            raise ValueError(
                "the dataset has no texts of items but reviews, so that new items cannot be read: prepare it "
                "with a table of items that has titles"
            )
        adapted = copy(self)
        adapted._learn_ids(dataset)
        adapted._adapt(dataset, rows)
        if adapted._item_texts is not None:
            unread = new[~adapted._item_texts.by_texts_alone(torch.from_numpy(new)).numpy(force=True)]
            if len(unread):
                raise UnreadItemsError(dataset.item_ids.names(unread).to_list(), len(new))
        return adapted


def _has_texts(dataset: Dataset) -> bool:
    """Whether any item has a text other than reviews."""
    names = [name for name in ITEM_TEXTS if name in dataset.items.columns]
    return any(bool((dataset.items[name] != "").any()) for name in names)


def chosen_rows(table: Tensor, rows: np.ndarray) -> Tensor:
    """Rows (n, ...) of a table; zeros for -1."""
    numbers = torch.from_numpy(rows).to(table.device)
    chosen = table.detach()[numbers.clamp(min=0)]
    chosen[numbers < 0] = 0
    return chosen


def chosen_entries(matrix: sp.csr_matrix, rows: np.ndarray) -> sp.csr_matrix:
    """Rows (n, columns) of a sparse matrix; empty ones for -1."""
    entries = _selection(rows, matrix.shape[0]) @ matrix
    entries.sort_indices()
    return entries


def nearest_known(vectors: Tensor, rows: np.ndarray, known: np.ndarray) -> sp.csr_matrix:
    """Each item as a mixture of known ones, float32 (n_old, n): itself if known, else its nearest ones.

    The nearest are the `NEAREST` of largest cosine, with shares in proportion to it.

    Args:
        vectors: of the n items, (n, d).
        rows: int64 (n,), number of each item among the old ones; -1 for new ones.
        known: bool (n,), old items that may be the nearest.
    """
    unit = functional.normalize(vectors.detach().float(), dim=1).cpu()
    (new,), (candidates,) = np.nonzero(rows < 0), np.nonzero(known)
    n_nearest, others = min(NEAREST, len(candidates)), unit[candidates].T
    found = [(unit[part] @ others).topk(n_nearest, dim=1) for part in np.split(new, _starts(len(new)))]
    cosines, places = (torch.cat(each) for each in zip(*found, strict=True))
    shares = functional.normalize(cosines.clamp(min=1e-6), p=1, dim=1).numpy()
    of_new = sp.csr_matrix(
        (shares.ravel(), (rows[candidates][places.numpy()].ravel(), np.repeat(new, n_nearest))),
        shape=(int(rows.max()) + 1, len(rows)),
    )
    return sp.csr_matrix(_selection(rows, of_new.shape[0]).T + of_new)


def _starts(n: int) -> list[int]:
    """Where parts of n new items begin, without 0."""
    return list(range(NEW_AT_ONCE, n, NEW_AT_ONCE))


def _selection(rows: np.ndarray, n_old: int) -> sp.csr_matrix:
    """Float32 (n, n_old), 1 at the old row of each row."""
    (known,) = np.nonzero(rows >= 0)
    ones = np.ones(len(known), dtype=np.float32)
    return sp.csr_matrix((ones, (known, rows[known])), shape=(len(rows), n_old))


def copy_equal_shapes(source: nn.Module, target: nn.Module) -> None:
    """Copy the parameters of a network that have the same shape in another."""
    own = dict(source.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if name in own and own[name].shape == parameter.shape:
                parameter.copy_(own[name])


def adapted_texts(
    text: TextEmbeddings | None,
    config: ItemTextConfig,
    rows: np.ndarray,
    read: Callable[[TextSources], TextSources] | None,
    forget: bool,
) -> TextEmbeddings | None:
    """Text embeddings of other rows: known ones as they are, others by what was learned of words.

    Args:
        text: of the model; None if it reads no texts.
        config: of the model.
        rows: int64 (n,), numbers in the model; -1 for new ones.
        read: adds the texts that have to be read anew; None if there are none.
        forget: whether words that no row has lose their names and vectors.
    """
    if text is None:
        return None
    sources = _sources_of(text, rows)
    if read is not None:
        sources = read(sources)
    unused = np.zeros(0, dtype=np.int64)
    if forget and sources.words is not None:
        unused = np.flatnonzero(np.bincount(sources.words.indices, minlength=sources.words.shape[1]) == 0)
        names = np.array(sources.vocabulary, dtype=object)
        names[unused] = ""
        sources = replace(sources, vocabulary=names.tolist())
    new = TextEmbeddings.of(config, sources, next(text.parameters()).shape[1])
    assert new is not None
    copy_equal_shapes(text, new)
    if new.words is not None:
        new.words.data[torch.from_numpy(unused)] = 0
    return new


def _sources_of(text: TextEmbeddings, rows: np.ndarray) -> TextSources:
    """What a model holds of the texts of rows (n,); nothing for -1."""
    words, vectors, vocabulary = None, None, list[str]()
    if text.words is not None:
        arrays = tuple(array.numpy(force=True) for array in (text.weights, text.columns, text.starts))
        bags = sp.csr_matrix(arrays, shape=(len(text.starts) - 1, len(text.words)))
        words, vocabulary = chosen_entries(bags, rows), text.word_list
    if text.map is not None:
        vectors = chosen_rows(text.vectors, rows).numpy(force=True)
    in_training = chosen_rows(text.in_training, rows).numpy(force=True) > 0
    return TextSources(in_training, words, vectors, vocabulary)
