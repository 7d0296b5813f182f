"""The ID embeddings of users and items, under a common numbering."""

import torch
from torch import Tensor, nn

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

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., d) of IDs (...)."""
        flat, n_users = ids.flatten(), self.users.num_embeddings
        is_user = flat < n_users
        users, items = self.users(flat[is_user]), self.items(flat[~is_user] - n_users)
        # index of each ID in the concatenation of users and items: its rank among its kind
        index = torch.where(is_user, is_user.cumsum(0) - 1, len(users) + (~is_user).cumsum(0) - 1)
        return torch.cat([users, items]).index_select(0, index).unflatten(0, ids.shape)

    def __getitem__(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self(ids)
        return embeddings

    def whole(self) -> Tensor:
        """A copy of all embeddings (I + J, d)."""
        return torch.cat([self.users.weight.detach(), self.items.weight.detach()])

    @torch.no_grad()
    def fill(self, embeddings: Tensor) -> None:
        """Set all embeddings to the given ones (I + J, d)."""
        self.users.weight.copy_(embeddings[: self.users.num_embeddings])
        self.items.weight.copy_(embeddings[self.users.num_embeddings :])
