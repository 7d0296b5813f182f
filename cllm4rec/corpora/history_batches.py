"""Prompts with a history (CLLM4Rec), and the batches that are made of them."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cllm4rec.corpora.base import Batch, ExcludedItems, Tensors
from cllm4rec.corpora.item_sampler import ItemSample
from cllm4rec.corpora.padding import BatchGroup, pad
from cllm4rec.corpora.prompts import Template
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.ragged import Ragged, concatenate_rows, ranges


@dataclass(frozen=True, kw_only=True)
class HistoryPrompts(Tensors):
    """Prompts, padded on the right.

    Attributes:
        tokens: int64 (B, L): text token w -> w, user i -> n_text_tokens + i,
            item j -> n_text_tokens + n_users + j.
        mask: bool (B, L), True at tokens.
        ids: int64 (M,), IDs in the prompts, with repeats, in order: user i -> i, item j -> n_users + j.
        item_index: int64 (P,), flat index of each history item.
        item_rows: int64 (P,), example of each history item, ascending.
        query_index: int64 (B,), flat index of each prompt's last token.
    """

    tokens: Tensor
    mask: Tensor
    ids: Tensor
    item_index: Tensor
    item_rows: Tensor
    query_index: Tensor


@dataclass(frozen=True, kw_only=True)
class CollaborativeBatch(Batch):
    """Histories in which each item is predicted from the tokens before it.

    Attributes:
        tokens, mask: (B, L) as in `HistoryPrompts`.
        ids: int64 (M,) as in `HistoryPrompts`.
        id_weights: float32 (M,), 1 / occurrences of the ID in this epoch.
        state_index: int64 (T,), flat index of the token before each item, whose state predicts it.
        target_items: int64 (T,), the items.
        sample: items of the softmax; None: all items.

    Example: two users with the items {5, 3} and {7}, a prompt of the tokens 900 901 902, I users:

        tokens       [[u0, 900, 901, 902, i3, i5], [u1, 900, 901, 902, i7, 0]]
        mask         [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
        ids          [0, I + 3, I + 5, 1, I + 7]
        id_weights   [1, 1, 1, 1, 1]
        state_index  [3, 4, 9]
        target_items [3, 5, 7]
    """

    tokens: Tensor
    ids: Tensor
    id_weights: Tensor
    state_index: Tensor
    target_items: Tensor
    sample: ItemSample | None = None

    @property
    def n_targets(self) -> int:
        return len(self.target_items)


@dataclass(frozen=True, kw_only=True)
class RecommendationBatch(HistoryPrompts, Batch):
    """Prompts with the kept items of a history; the state of a prompt predicts the masked ones.

    Attributes:
        tokens, mask, ids, item_index, item_rows, query_index: as in `HistoryPrompts`.
        id_weights: float32 (M,), 1 / occurrences of the ID in this epoch.
        target_rows: int64 (T,), example of each target, ascending.
        target_items: int64 (T,), item numbers.
        excluded: items left out of the softmax; None: none.
        sample: items of the softmax; None: all items.

    Example: two users with the items {5, 3} and {7, 2}, of which 3 and 2 are masked, and I users. With three
    tokens for `has interacted with`, one for the comma and three for `will interact with`:

        tokens       [[u0, 900, 901, 902, i5, 910, u0, 920, 921, 902], [u1, ..., i7, 910, u1, ..., 902]]
        ids          [0, I + 5, 0, 1, I + 7, 1]
        item_index   [4, 14]
        item_rows    [0, 1]
        query_index  [9, 19]
        target_rows  [0, 1]
        target_items [3, 2]
        excluded     rows [0, 1], items [5, 7]
    """

    id_weights: Tensor
    target_rows: Tensor
    target_items: Tensor
    excluded: ExcludedItems | None = None
    sample: ItemSample | None = None

    @property
    def n_targets(self) -> int:
        return len(self.target_items)


def fill(
    template: Template, tokenizer: ExtendedTokenizer, users: np.ndarray, items: Ragged, keep_user: np.ndarray
) -> tuple[Ragged, Ragged]:
    """Fill a template in with users and their items.

    Args:
        template: it has a history.
        tokenizer: numbers the ID tokens.
        users: int64 (B,).
        items: item numbers (B rows).
        keep_user: bool (B,), whether the prompt has its user token.

    Returns:
        The tokens (B rows), and the positions of the items among them (B rows).
    """
    placeholders = {
        "user": Ragged.singles(tokenizer.n_text_tokens + users, keep_user),
        "history": Ragged(tokenizer.n_text_tokens + tokenizer.n_users + items.values, items.lengths),
    }
    tokens, begins = concatenate_rows(
        [
            placeholders[piece] if isinstance(piece, str) else Ragged.repeated(piece, len(users))
            for piece in template.pieces
        ]
    )
    positions = ranges(begins[template.history], items.lengths)
    return tokens, Ragged(positions, items.lengths)


def pad_prompts(
    tokenizer: ExtendedTokenizer, tokens: Ragged, item_positions: Ragged, group: BatchGroup
) -> list[HistoryPrompts]:
    """Pad prompts (B rows) as `fill` gives them, those of several batches at once."""
    padded, masks, row_begins = pad(tokens, group)
    is_id = tokens.values >= tokenizer.n_text_tokens
    n_ids = np.add.reduceat(is_id, tokens.starts[group.first_rows], dtype=np.int64)  # (G,)
    n_items = group.counts(item_positions)  # (G,)
    item_index = np.repeat(row_begins, item_positions.lengths) + item_positions.values
    columns = {
        "tokens": padded,
        "mask": masks,
        "ids": group.split(tokens.values[is_id] - tokenizer.n_text_tokens, n_ids),
        "item_index": group.split(item_index, n_items),
        "item_rows": group.split(group.value_rows(item_positions), n_items),
        "query_index": group.split(row_begins + tokens.lengths - 1, group.sizes),
    }
    names = tuple(columns)
    batches = zip(*columns.values(), strict=True)
    return [HistoryPrompts(**dict(zip(names, tensors, strict=True))) for tensors in batches]


def prompt_batch(tokenizer: ExtendedTokenizer, tokens: Ragged, item_positions: Ragged) -> HistoryPrompts:
    """`pad_prompts` of a single batch."""
    return pad_prompts(tokenizer, tokens, item_positions, BatchGroup(np.array([len(tokens.lengths)])))[0]
