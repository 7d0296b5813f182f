"""Histories as prompts and as texts: the collaborative and the recommendation corpus, and prompts for scoring."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cllm4rec.data.interactions import Interactions
from cllm4rec.data.randomness import mix, permutation, uniform
from cllm4rec.text.corpora import EpochCounts, as_tensors, id_numbers
from cllm4rec.text.prompts import Template
from cllm4rec.text.ragged import Batch, Ragged, assemble
from cllm4rec.text.tokenizer import ExtendedTokenizer


@dataclass(frozen=True)
class HistoryOptions:
    """How histories become prompts and texts.

    Attributes:
        context: most tokens of an example; items are left out to keep to it, the words of the template never.
        order: "random" (shuffled anew each epoch) or "time".
        user_dropping: share of examples without their user token.
        mask_share: share of a history that is masked in finetuning (at least one item, and one stays).
        targets: what finetuning predicts: "unseen" (the masked items, the rest of the history left out of the softmax),
            "masked" (the masked items, softmax over all) or "all" (all items of the history).
        seed: of all of it.
    """

    context: int
    order: str = "random"
    user_dropping: float = 0.0
    mask_share: float = 0.2
    targets: str = "unseen"
    seed: int = 0


class HistoryCorpus(ABC):
    """What the collaborative and the recommendation corpus share: one example a user with training items."""

    name: ClassVar[str]  # of its template
    salt: ClassVar[int]  # keeps the draws of the two corpora apart

    def __init__(self, train: Interactions, tokenizer: ExtendedTokenizer, options: HistoryOptions) -> None:
        self.train, self.tokenizer, self.options = train, tokenizer, options
        self.template = Template.compile(self.name, tokenizer)
        self.users = np.flatnonzero(np.diff(train.indptr) > 0)
        self.room = options.context - self.template.n_fixed  # items that fit
        if self.room < 2:
            raise ValueError(f"a context of {options.context} tokens has no room for two items: use a longer one")
        self.lengths = self.template.n_fixed + np.minimum(np.diff(train.indptr)[self.users], self.room)
        self._occurrences = EpochCounts(self)

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.users), self.options.seed, self.salt, epoch)

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        batch = self.unweighed(examples, epoch)
        return batch | {"weights": 1.0 / self._occurrences(epoch)[batch["ids"]]}

    @abstractmethod
    def unweighed(self, examples: np.ndarray, epoch: int) -> Batch: ...

    def _draw(self, examples: np.ndarray, epoch: int) -> tuple[np.ndarray, Ragged, np.ndarray]:
        """Users (B,), their items in this epoch's order, and whether each keeps its user token."""
        users = self.users[examples]
        events, lengths = self.train.histories(users)
        items = Ragged(self.train.items[events], lengths)
        key = (self.options.seed, self.salt, epoch)
        if self.options.order == "random":
            items = items.ordered(mix(*key, np.repeat(users, lengths), items.places))
        return users, items, uniform(*key, users, -1) >= self.options.user_dropping


def fill_template(
    template: Template, tokenizer: ExtendedTokenizer, users: np.ndarray, items: Ragged, keep_user: np.ndarray
) -> Batch:
    """A history template filled in for users (B,), some without their token, and their items.

    Returns:
        `tokens` and `mask` (B, L); `ids`; and where states may be read, as flat places: `pool` (P,) the items, with
        `pool_rows` (P,) their examples, and `query` (B,) the last token.
    """
    tokens_of = {
        "user": Ragged.single(tokenizer.n_words + users, keep_user),
        "history": Ragged(tokenizer.n_words + tokenizer.n_users + items.values, items.lengths),
    }
    pieces = template.pieces
    tokens, mask, places = assemble(
        [tokens_of[piece] if isinstance(piece, str) else Ragged.constant(piece, len(users)) for piece in pieces]
    )
    last = mask.sum(1) - 1 + np.arange(len(users)) * tokens.shape[1]
    return as_tensors(
        tokens=tokens,
        mask=mask,
        ids=id_numbers(tokens, mask, tokenizer),
        pool=places[template.history],
        pool_rows=items.rows,
        query=last,
    )


class CollaborativeCorpus(HistoryCorpus):
    """`user_i has interacted with` + the user's training items; every item is predicted from what stands before it."""

    name = "collaborative"
    salt = 1

    def unweighed(self, examples: np.ndarray, epoch: int) -> Batch:
        users, items, keep_user = self._draw(examples, epoch)
        items = items.last(self.room) if self.options.order == "time" else items.first(self.room)
        batch = fill_template(self.template, self.tokenizer, users, items, keep_user)
        return batch | as_tensors(rows=np.arange(len(items.values)), targets=items.values) | {"read": batch["pool"] - 1}


class RecommendationCorpus(HistoryCorpus):
    """`user_i has interacted with ..., user_i will interact with`: part of the items is shown, the head answers the rest.

    Further tensors: those of `fill_template`, and `shown` (P,) item numbers, with `shown_rows` (P,) their examples, where
    shown items are left out of the softmax (empty where not).
    """

    name = "recommend"
    salt = 2

    def unweighed(self, examples: np.ndarray, epoch: int) -> Batch:
        users, items, keep_user = self._draw(examples, epoch)
        shown, masked = self._mask(users, items, epoch)
        keep_user |= shown.lengths == 0  # a user with one item learns from the user token alone
        targets = items if self.options.targets == "all" else masked
        excluded = shown if self.options.targets == "unseen" else shown.first(0)  # those that do not fit in, too
        shown = shown.last(self.room) if self.options.order == "time" else shown.first(self.room)
        batch = fill_template(self.template, self.tokenizer, users, shown, keep_user)
        return batch | as_tensors(rows=targets.rows, targets=targets.values, shown=excluded.values, shown_rows=excluded.rows)

    def _mask(self, users: np.ndarray, items: Ragged, epoch: int) -> tuple[Ragged, Ragged]:
        """Shown and masked items. In random order a random share is masked, in time order a suffix of random length."""
        n = items.lengths
        n_masked = np.clip(np.rint(self.options.mask_share * n).astype(np.int64), 1, np.maximum(n - 1, 1))
        if self.options.order == "time":
            draw = uniform(self.options.seed, self.salt, epoch, users, -2)
            n_masked = np.where(n > 1, 1 + (draw * n_masked).astype(np.int64), n_masked)
        hidden = items.places >= (n - n_masked)[items.rows]
        return items.where(~hidden), items.where(hidden)
