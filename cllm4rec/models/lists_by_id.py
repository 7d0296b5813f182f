"""`recommend`: lists by external ids, which every system has."""

import logging
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.corpora.item_words import item_documents, item_texts
from cllm4rec.corpora.word_search import WordSearch
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import listed_ids
from cllm4rec.data.loading import as_dataset
from cllm4rec.evaluation.full_ranking import Ranker
from cllm4rec.evaluation.processes import USERS_AT_ONCE
from cllm4rec.list_filters import excluded_items
from cllm4rec.messages import escaped, join_names, shorten
from cllm4rec.models.adaptation import AdaptableModel
from cllm4rec.models.arguments import checked_flag, list_length
from cllm4rec.models.item_map import principal_plane
from cllm4rec.models.recommendation import (
    Catalogue,
    matched,
    of_histories,
    of_nobody,
    recommendation_table,
)
from cllm4rec.ranking import Ranking, list_of_scores

log = logging.getLogger("cllm4rec")


class RecommendsByID(AdaptableModel, Ranker):
    """Lists by external ids, of a system that ranks by numbers."""

    # the items and the search over their texts; made when a wish is first given
    _wish_search: tuple[pl.DataFrame, WordSearch] | None = None

    def recommend(
        self,
        users: Iterable[object] | None = None,
        k: int = 10,
        *,
        histories: Any = None,
        dataset: Dataset | str | Path | None = None,
        wish: str | None = None,
        repeats: bool = False,
        diversity: float = 0.0,
        allow: Iterable[object] | None = None,
        deny: Iterable[object] | None = None,
        where: str | None = None,
    ) -> pl.DataFrame:
        """Top-k lists by external ids, of users of a dataset or of histories: `rank`, with names and titles.

        All events of a user, held-out ones too, are input, and their items are left out of the list.

        Args:
            users: user ids of `dataset`, as text or numbers: a list, an array or a column. A repeated user is
                served each time.
            k: maximum length of a list.
            histories: instead of `users`, item ids of each history, the oldest first; their `user_id` is the
                row, from 0. Or a table of events, as `Dataset.from_frame` takes it, with its own `user_id`.
                Of repeated items the latest is kept. Nobody in training is taken for their user.
            dataset: has the events of `users`, or is its folder; by default the dataset of training. Its
                items are matched with those of the model by their ids.
            wish: words that move the lists towards items whose texts have them, see `WordSearch`. Scores are
                those of `with_wish`. Without `users` and `histories` the list is of the wish alone.
            repeats: whether lists may hold items of their own history.
            diversity: as in `rank`. Scores then do not descend along a list.
            allow, deny, where: the items that lists may hold, see `excluded_items`; all if not given.

        Returns:
            Rows `user_id`, `item_id`, `rank` (from 1), `score`, and `title` where the items have titles.

        Raises:
            ValueError: a user or an item is unknown, a new user or history has no events, or no item is left;
                or the dataset is not known, `k` is no whole number or below 1, a `wish` alone has only words
                to avoid, or as in `rank`.
        """
        excluded = self._excluded(allow, deny, where)
        seen, batches = self._ranked(users, histories, dataset, k, wish, excluded, repeats, diversity)
        if wish is not None and (unknown := self._word_search().unknown(wish)):
            log.warning("no text of the items has these words of the wish: %s", join_names(unknown))
        return pl.concat([recommendation_table(batch, seen) for batch in batches])

    def _excluded(
        self, allow: Iterable[object] | None, deny: Iterable[object] | None, where: str | None
    ) -> np.ndarray:
        """The items that the arguments of `recommend` leave out of all lists, bool (n_items,)."""
        self._check_fitted()
        filters = {"allow": allow, "deny": deny}
        given = {name: listed_ids(ids, name) for name, ids in filters.items() if ids is not None}
        return excluded_items(self.item_ids, self.items, where=where, **given)

    def _ranked(
        self,
        users: Iterable[object] | None,
        histories: Any,
        dataset: Dataset | str | Path | None,
        k: int,
        wish: str | None,
        excluded: np.ndarray,
        repeats: bool,
        diversity: float,
    ) -> tuple[Dataset, Iterable[Ranking]]:
        """The lists of `recommend` as numbers, in batches, and the dataset that has these numbers."""
        if users is None and histories is None:
            if wish is None:
                raise ValueError("give `users`, with or without `dataset`, or `histories`, or a `wish`")
            if dataset is not None or repeats or diversity:
                raise ValueError("a `wish` alone takes neither `dataset` nor `repeats` and `diversity`")
            return of_nobody(self._catalogue), [self._list_of_wish(wish, list_length(k), excluded)]
        wished = None if wish is None else self._word_search().scores(wish)
        seen, numbers = self._events_of(users, histories, dataset)
        options = {"excluded_items": excluded, "diversity": diversity, "wish": wished}
        masked = seen.only() if checked_flag(repeats, "repeats") else seen
        return seen, self.rank_batches(numbers, seen, k, USERS_AT_ONCE, masked, **options)

    def _list_of_wish(self, wish: str, k: int, excluded: np.ndarray) -> Ranking:
        """The list of a wish alone: items of a positive score.

        Raises:
            ValueError: it has no word to look for that a text has.
        """
        search = self._word_search()
        found = search.scores(wish)
        if not search.looks_for_something(wish):
            raise ValueError(
                f"`wish` {shorten(escaped(repr(wish)))}: of its words that the items' texts have, all are to "
                "be avoided: add one to look for, or name users"
            )
        scores = np.where(excluded | (found <= 0), np.float32(-np.inf), found)
        if not np.isfinite(scores).any():
            log.warning("no item that the list may hold has a word of the wish")
        return list_of_scores(scores, self.tie_order, k)

    def _word_search(self) -> WordSearch:
        """Search over the texts of the items; where they have none, over the reviews of training events.

        Raises:
            ValueError: there are no texts, or the dataset of training, which has the reviews, is not known.
        """
        kept = self._wish_search
        if kept is not None and kept[0] is self.items:
            return kept[1]
        documents = item_texts(self.items)
        if not any(text for texts in documents for text in texts):
            try:
                documents = item_documents(self._source_dataset().train)
            except ValueError as error:
                raise ValueError(
                    "the items have no texts, and their reviews are in the dataset of training, which is not "
                    f"known: load the model with it ({error})"
                ) from error
        self._wish_search = self.items, WordSearch(documents)
        return self._wish_search[1]

    @property
    def _catalogue(self) -> Catalogue:
        return Catalogue(self.item_ids, self.items, self.tie_order)

    def similar(self, item: object, k: int = 10) -> pl.DataFrame:
        """The items whose learned vectors are most like that of an item, by cosine.

        The mean over all items is subtracted from the vectors first.

        Args:
            item: its id.
            k: maximum number of items.

        Returns:
            Rows `item_id`, `rank` (from 1), `score` (the cosine), and `title` where the items have titles.

        Raises:
            ValueError: the item is unknown, the system has no item vectors, or `k` is no whole number or
                below 1.
        """
        self._check_fitted()
        (number,) = self.item_ids.index([item], "item")
        unit = self._directions()
        cosines = (unit @ unit[number]).cpu().numpy()
        cosines[number] = -np.inf
        best = list_of_scores(cosines, self.tie_order, list_length(k))
        return recommendation_table(best, of_nobody(self._catalogue)).drop("user_id")

    def item_map(self) -> tuple[pl.DataFrame, float]:
        """A map of the items: their learned vectors in two dimensions, so that similar items are neighbours.

        It has the first two principal components of the vectors of which `similar` takes the cosine.

        Returns:
            Rows `item_id`, `x` and `y` (-1 .. 1, on one scale), and `title` where the items have titles; and
            the share of the variance that the map holds.

        Raises:
            ValueError: the system has no item vectors.
        """
        self._check_fitted()
        positions, share = principal_plane(self._directions())
        x, y = positions.double().round(decimals=4).T.numpy()
        table = pl.DataFrame({"item_id": self.item_ids.ids, "x": x, "y": y})
        return (table.with_columns(self.items["title"]) if "title" in self.items.columns else table), share

    def _directions(self) -> Tensor:
        """Vectors of all items minus their mean, of length 1, float32 (n_items, d)."""
        vectors = self.item_vectors().float()
        return functional.normalize(vectors - vectors.mean(0), dim=1)

    def history(self, user: object, dataset: Dataset | str | Path | None = None) -> pl.DataFrame:
        """The items from which `recommend` serves a user, the oldest first.

        Args:
            user: its id.
            dataset: as in `recommend`.

        Returns:
            Rows `item_id`, and `title` where the items have titles.

        Raises:
            ValueError: the user is unknown, or the dataset is not known.
        """
        seen, (number,) = self._events_of([user], None, dataset)
        items = seen.interactions.history(int(number))
        columns = [name for name in ("item_id", "title") if name in seen.items.columns]
        return seen.items.select(columns)[items.tolist()]

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """Vectors of all items (n_items, d) that were learned; their cosines say how similar items are.

        Raises:
            ValueError: the system has none, or is not fitted.
        """
        self._check_fitted()
        return self._item_vectors().detach()

    @abstractmethod
    def _item_vectors(self) -> Tensor:
        """Compute the vectors of `item_vectors`."""

    def _events_of(
        self, users: Iterable[object] | None, histories: Any, dataset: Dataset | str | Path | None
    ) -> tuple[Dataset, np.ndarray]:
        """Events of `users` or of `histories` over the model's items, and the numbers of these users."""
        if (users is None) == (histories is None) or (histories is not None and dataset is not None):
            raise ValueError("give either `users`, with or without `dataset`, or `histories`")
        self._check_fitted()
        catalogue = self._catalogue
        if histories is not None:
            seen = of_histories(histories, catalogue)
            return seen, np.arange(seen.n_users)
        ids = listed_ids(users, "users")
        seen = matched(self._source_dataset() if dataset is None else as_dataset(dataset), catalogue)
        try:
            return seen, seen.user_ids.index(ids, "user")
        except ValueError as error:
            raise ValueError(f"{error}: give a history of known items instead") from error

    def fitted_elsewhere(self, dataset: Dataset) -> Dataset | None:
        """The dataset that it was fitted on, if that is known and another than this one.

        That of a run is read from its folder; None if it is no longer there.
        """
        source = self.source
        if source is None or source is dataset:
            return None
        hashes = source.hashes if isinstance(source, Dataset) else source.description.dataset
        names = ("data_sha256", "split_sha256")
        if all(getattr(hashes, name) == getattr(dataset.hashes, name) for name in names):
            return None
        try:
            return self._source_dataset()
        except ValueError:
            return None
