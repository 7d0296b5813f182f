"""Recommender: the interface of every system. Top-k lists are computed here once, by numbers."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.ids import listed_ids
from cllm4rec.evaluation.processes import USERS_AT_ONCE
from cllm4rec.models.arguments import (
    check_events,
    checked_share,
    item_mask,
    list_length,
    user_numbers,
)
from cllm4rec.models.diversity import diversified, pool_size
from cllm4rec.models.explanation import Explanation, explained
from cllm4rec.models.lists_by_id import RecommendsByID
from cllm4rec.models.wishes import with_wish
from cllm4rec.ranking import Ranking, TopK

SCORES_AT_ONCE = 1 << 26  # scores of a batch of users: 256 MiB in float32


class Recommender(RecommendsByID):
    """A system: learns from training events and scores the catalogue for users, given their input events.

    The input events `seen` are an argument, not state: one model serves new histories, and evaluation cannot
    leak. Users and items are matched by their ids, so that `seen` may hold users without training events.
    These are served from their history.

    Attributes:
        ways: methods of scoring and choosing that the system knows.
        scores_in_blocks: whether `_blocks` yields the scores of some items at a time.
        most_validated_users: most users whose validation events training reads; None: all.
    """

    ways: ClassVar[tuple[str, ...]] = ("scores",)
    scores_in_blocks: ClassVar[bool] = False
    most_validated_users: ClassVar[int | None] = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of its training stages."""
        return tuple(self.config_class.training) or ("pretrain",)

    def check(self, dataset: Dataset) -> None:  # noqa: B027 - most systems can be fitted on any dataset
        """Refuse a dataset or settings before a folder is made or a base system is trained.

        Raises:
            ValueError: the message names what is missing.
        """

    @abstractmethod
    def fit(self, dataset: Dataset | str | Path) -> Self:
        """Learn from scratch, in all stages.

        Args:
            dataset: the data, or its folder. Its training events are learned from. Open settings and the best
                epoch are chosen on its validation events, predicted from `seen`. Test events are not read.
        """

    @abstractmethod
    def _score(self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Scores, float32 (B, n_items), in an array that the caller may overwrite.

        Args:
            users: user numbers in `seen`, (B,).
            trained_users: numbers of the same users in the training set, (B,); -1 for new users.
            seen: the input events.
        """

    def score(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Scores of all items, float32 (B, n_items), higher is better. Seen items are scored too.

        Args:
            users: user numbers in `seen`, (B,).
            seen: the input events. Its items must be those of training, in the same order.

        Raises:
            ValueError: the items differ, `users` are no numbers of users, or a user is new and has no
                history; the message names it.
        """
        users, trained_users = self._checked(users, seen)
        return self._score(users, trained_users, seen)

    def _checked(self, users: np.ndarray, seen: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Check users as `score` does.

        Returns:
            Their numbers in `seen`, int64 (B,), and in the training set, int64 (B,), -1 for new users.
        """
        self._check_fitted()
        check_events(seen, seen)
        self._check_items(seen)
        users = user_numbers(users, seen.n_users)
        trained_users = self._trained_users(users, seen)
        starts = seen.interactions.indptr
        without_input = users[(trained_users < 0) & (starts[users] == starts[users + 1])]
        if len(without_input):
            raise ValueError(
                f"user {seen.user_ids.names(without_input[:1])[0]!r} is unknown to the model and has no "
                "history: there is nothing to recommend from"
            )
        return users, trained_users

    def _blocks(
        self, users: np.ndarray, trained_users: np.ndarray, seen: Dataset
    ) -> Iterator[tuple[int, Tensor]]:
        """The scores of `_score` in blocks of consecutive items.

        By default all items are one block. Systems that need not hold all scores at once override this.

        Yields:
            The number of the block's first item, and the scores (B, items of the block).
        """
        yield 0, torch.from_numpy(self._score(users, trained_users, seen))

    def rank(
        self,
        users: np.ndarray,
        seen: Dataset,
        k: int = 10,
        masked: Dataset | None = None,
        *,
        excluded_items: np.ndarray | None = None,
        wish: np.ndarray | None = None,
        diversity: float = 0.0,
    ) -> Ranking:
        """The k best items of each user, without those of its events in `masked` and those excluded for all.

        Args:
            users, seen: as in `score`.
            k: maximum length of a list.
            masked: events whose items are left out of their user's list; `seen` if not given.
            excluded_items: bool (n_items,), items left out of all lists; none if not given.
            wish: float32 (n_items,), scores that are added to those of each user by `with_wish`.
            diversity: 0 .. 1, how much the items of a list shall differ, see `diversified`; 0: not at all.

        Raises:
            ValueError: `k` is no whole number or below 1, `excluded_items` has another shape or type, or
                `diversity` is no such number, or the system has no item vectors; or as in `score`.
        """
        masked = seen if masked is None else masked
        check_events(seen, masked)
        k, diversity = min(list_length(k), seen.n_items), checked_share(diversity, "diversity")
        vectors = self.item_vectors() if diversity else None
        if excluded_items is not None:
            excluded_items = item_mask(excluded_items, seen.n_items)
            excluded_items = excluded_items if excluded_items.any() else None
        users, trained_users = self._checked(users, seen)
        histories = masked.interactions.histories(users)
        order = np.argsort(histories.values, kind="stable")
        rows, items = histories.rows[order], histories.values[order]
        best: TopK | None = None
        blocks = self._blocks(users, trained_users, seen)
        if wish is not None:
            blocks = iter([(0, with_wish(torch.from_numpy(self._score(users, trained_users, seen)), wish))])
        for start, scores in blocks:  # (B, W) of the items from `start` on
            if best is None:
                n_best = k if vectors is None else pool_size(k, seen.n_items)
                best = TopK(len(users), n_best, torch.from_numpy(seen.tie_order).to(scores.device))
            end = start + scores.shape[1]
            in_block = slice(*np.searchsorted(items, [start, end]))
            scores[torch.from_numpy(rows[in_block]), torch.from_numpy(items[in_block] - start)] = -torch.inf
            if excluded_items is not None:
                columns = torch.from_numpy(np.flatnonzero(excluded_items[start:end]))
                scores[:, columns.to(scores.device)] = -torch.inf
            best.offer(scores, start)
        assert best is not None
        lists = best.items, best.scores
        if vectors is not None:
            lists = diversified(*lists, vectors.to(best.scores.device), k, diversity)
        return Ranking(users, *(each.cpu().numpy() for each in lists))

    def _item_vectors(self) -> Tensor:
        raise ValueError(
            f"{self.name} has no item vectors, which `diversity`, `similar` and the map need: "
            "take another system"
        )

    def keeping_vectors(self) -> AbstractContextManager[None]:
        """Within the block, a language model reads each batch of users only once.

        Neither its weights nor the users' events may change in the block.
        """
        return nullcontext()

    def scored_by(self, by: str) -> AbstractContextManager[None]:
        """Within the block the system scores by one of its `ways`.

        Raises:
            ValueError: it cannot.
        """
        if by != "scores":
            raise ValueError(f"{self.name} chooses by scores, not by {by}: leave `by` out")
        return nullcontext()

    def choose(
        self, users: np.ndarray, candidates: np.ndarray, seen: Dataset, by: str = "scores"
    ) -> np.ndarray:
        """Index of the best candidate of each user, int64 (B,).

        Args:
            users, seen: as in `score`.
            candidates: item numbers (B, C).
            by: one of `ways`. An answer of RSLLM in words may name no candidate: its index is -1.

        Raises:
            ValueError: the system does not know the method.
        """
        with self.scored_by(by):
            scores = self.score(users, seen)
        scores = np.take_along_axis(scores, candidates, axis=1)  # (B, C)
        order = np.lexsort((seen.tie_order[candidates], -scores), axis=1)  # ties by `tie_order`
        return np.asarray(order[:, 0], dtype=np.int64)

    def rank_batches(
        self,
        users: np.ndarray,
        seen: Dataset,
        k: int = 10,
        batch_size: int = USERS_AT_ONCE,
        masked: Dataset | None = None,
        **options: Any,
    ) -> Iterator[Ranking]:
        """`rank` for many users, one batch at a time. Without users, one empty batch.

        A system whose scores do not come in blocks gets a batch in parts of at most `SCORES_AT_ONCE` scores.
        Further arguments are those of `rank`.
        """
        users = user_numbers(users, seen.n_users)
        at_once = self.scores_in_blocks and options.get("wish") is None
        n_parts = 1 if at_once else -(-batch_size * seen.n_items // SCORES_AT_ONCE)
        for start in range(0, max(1, len(users)), batch_size):
            for batch in np.array_split(users[start : start + batch_size], max(1, min(n_parts, batch_size))):
                yield self.rank(batch, seen, k, masked, **options)

    def explain(
        self,
        user: object,
        item: object,
        *,
        history: Iterable[object] | None = None,
        dataset: Dataset | str | Path | None = None,
    ) -> Explanation:
        """Why a user gets an item: what its score would lose without each item of the history, and each word.

        Args:
            user: id of a user, as in `recommend`; None for a history.
            item: id of an item that is not in the history.
            history: item ids, the oldest first, instead of a user.
            dataset: as in `recommend`.

        Raises:
            ValueError: the user or an item is unknown, there is no history, or the item is in it.
        """
        if (user is None) == (history is None) or (history is not None and dataset is not None):
            raise ValueError("give either a `user`, with or without `dataset`, or None and a `history`")
        users = None if user is None else [user]
        histories = None if history is None else [listed_ids(history, "history")]
        if histories == [[]]:
            raise ValueError("`history` is empty: there is nothing to explain from")
        seen, numbers = self._events_of(users, histories, dataset)
        (number,) = self.item_ids.index([item], "item")
        return explained(self, int(number), int(numbers[0]), seen)

    def _word_effects(self, item: int, user: int, seen: Dataset) -> tuple[list[str], np.ndarray]:
        """The words that the vector of an item reads, and what a user's score would lose without each (n,).

        Args:
            item, user: an item that is not in the history, and a user of `seen`.
            seen: the input events.
        """
        return [], np.zeros(0)

    def merge_adapters(self) -> None:  # noqa: B027 - most systems have none
        """Merge adapters into the weights that they adapt, so that scoring costs nothing for them."""

    def _trained_users(self, users: np.ndarray, seen: Dataset) -> np.ndarray:
        """Numbers of users (B,) of `seen` in the training set, int64 (B,); -1 if new."""
        if seen.anonymous:
            return np.full(len(users), -1, dtype=np.int64)
        numbers = (
            users if seen.user_ids.is_same(self.user_ids) else self.user_ids.find(seen.user_ids.names(users))
        )
        found = numbers >= 0
        if not found.any():  # `has_history` may be empty
            return np.full_like(numbers, -1)
        return np.where(found & self.has_history[numbers], numbers, -1)
