"""The ID embeddings of users and items, under a common numbering."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.models.item_vectors.text_embeddings import TextEmbeddings
from cllm4rec.training.row_adam import EmbeddingTable


class IDEmbeddings(nn.Module):
    """Embeddings (d,) of users 0 .. I-1 and items I .. I+J-1. `table[ids]` returns those of the IDs.

    The gradient of users is sparse, as a step reads few of them. That of items is dense, as the softmax reads
    them all, unless the softmax is sampled.

    Args:
        n_users, n_items: I and J.
        width: d.
        sampled: whether the softmax over items is sampled.
    """

    def __init__(self, n_users: int, n_items: int, width: int, sampled: bool = False) -> None:
        super().__init__()
        self.users, self.items = EmbeddingTable(n_users, width), EmbeddingTable(n_items, width)
        self.users.sparse, self.items.sparse = True, sampled

    def __getitem__(self, ids: Tensor) -> Tensor:
        """Embeddings (..., d) of IDs (...)."""
        return looked_up(ids, self.users.num_embeddings, self.users, self.items)

    def whole(self) -> Tensor:
        """A copy of all embeddings (I + J, d)."""
        return torch.cat([self.users.weight.detach(), self.items.weight.detach()])

    @torch.no_grad()
    def fill(self, embeddings: Tensor) -> None:
        """Set all embeddings to the given ones (I + J, d)."""
        self.users.weight.copy_(embeddings[: self.users.num_embeddings])
        self.items.weight.copy_(embeddings[self.users.num_embeddings :])


class IDVectors:
    """z = e + t of a forward pass: ID embeddings, and what texts add to them. `vectors[ids]` gives some.

    Unless the softmax is sampled, those of all items are computed once.

    Attributes:
        table: e.
        item_text, user_text: t of items and of users; None for none.
    """

    def __init__(
        self, table: IDEmbeddings, item_text: TextEmbeddings | None, user_text: TextEmbeddings | None
    ) -> None:
        self.table, self.item_text, self.user_text = table, item_text, user_text
        self._all = None if item_text is None or table.items.sparse else self.all_items()

    def all_items(self) -> Tensor:
        """The vectors of all items (J, d)."""
        weight = self.table.items.weight
        return weight if self.item_text is None else self.item_text.added_to(weight)

    @property
    def items(self) -> Tensor:
        """The vectors of all items (J, d), computed once."""
        return self.all_items() if self._all is None else self._all

    def of_items(self, numbers: Tensor) -> Tensor:
        """Vectors (N, d) of items (N,)."""
        if self._all is not None:
            return functional.embedding(numbers, self._all)  # its gradient is faster than that of an index
        embeddings: Tensor = self.table.items(numbers)
        return embeddings if self.item_text is None else self.item_text.added_to_rows(embeddings, numbers)

    def of_users(self, numbers: Tensor) -> Tensor:
        """Vectors (N, d) of users (N,)."""
        embeddings: Tensor = self.table.users(numbers)
        return embeddings if self.user_text is None else self.user_text.added_to_rows(embeddings, numbers)

    def __getitem__(self, ids: Tensor) -> Tensor:
        """Vectors (..., d) of IDs (...)."""
        return looked_up(ids, self.table.users.num_embeddings, self.of_users, self.of_items)


Lookup = Callable[[Tensor], Tensor]  # numbers (N,) -> (N, d)


def looked_up(ids: Tensor, n_users: int, users: Lookup, items: Lookup) -> Tensor:
    """Vectors (..., d) of IDs (...), where ID t < n_users is user t, and other IDs are item t - n_users."""
    flat = ids.flatten()
    is_user = flat < n_users
    of_users, of_items = users(flat[is_user]), items(flat[~is_user] - n_users)
    # index of each ID in the concatenation of users and items: its rank among its kind
    index = torch.where(is_user, is_user.cumsum(0) - 1, len(of_users) + (~is_user).cumsum(0) - 1)
    return torch.cat([of_users, of_items]).index_select(0, index).unflatten(0, ids.shape)
