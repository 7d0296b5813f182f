"""The ID embeddings of users and items, side by side under one numbering."""

import torch
from torch import Tensor, nn

from cllm4rec.training.row_adam import EmbeddingTable


class IDEmbeddings(nn.Module):
    """Embeddings of users 0 .. I-1 and items I .. I+J-1, each (d,); `table[ids]` reads some.

    A step reads few users, whose gradient is sparse. Items have a dense one, as the softmax reads them all, unless it is over a
    sample.
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
        place = torch.where(is_user, is_user.cumsum(0) - 1, len(users) + (~is_user).cumsum(0) - 1)
        return torch.cat([users, items]).index_select(0, place).unflatten(0, ids.shape)

    def __getitem__(self, ids: Tensor) -> Tensor:
        read: Tensor = self(ids)
        return read

    def whole(self) -> Tensor:
        """A copy of all embeddings (I + J, d)."""
        return torch.cat([self.users.weight.detach(), self.items.weight.detach()])

    @torch.no_grad()
    def fill(self, embeddings: Tensor) -> None:
        """Take over embeddings (I + J, d)."""
        self.users.weight.copy_(embeddings[: self.users.num_embeddings])
        self.items.weight.copy_(embeddings[self.users.num_embeddings :])
