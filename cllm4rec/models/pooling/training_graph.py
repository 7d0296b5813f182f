"""The graph of users and items whose edges are the training events, and sums over neighbours in it."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from cllm4rec.data.audit import learns_from
from cllm4rec.data.interactions import Interactions


class Neighbours(nn.Module):
    """The neighbours of n nodes on one side of the graph.

    Attributes:
        numbers: int64 (E,), of the neighbours, node after node.
        starts: int64 (n + 1,), where those of each node begin.
        degrees: float32 (n, 1), number of neighbours; 1 for a node without any.
    """

    numbers: Tensor
    starts: Tensor
    degrees: Tensor

    def __init__(self, rows: sp.csr_matrix) -> None:
        super().__init__()
        degrees = np.maximum(np.diff(rows.indptr), 1).astype(np.float32)[:, None]
        self.register_buffer("numbers", torch.from_numpy(rows.indices.astype(np.int64)))
        self.register_buffer("starts", torch.from_numpy(rows.indptr.astype(np.int64)))
        self.register_buffer("degrees", torch.from_numpy(degrees))

    def summed(self, values: Tensor) -> Tensor:
        """Sums (n, d) over the neighbours, of values (m, d) of the other side."""
        return functional.embedding_bag(
            self.numbers, values.contiguous(), self.starts, mode="sum", include_last_offset=True
        )


class TrainingGraph(nn.Module):
    """Light graph convolution: a layer is D^-1/2 A D^-1/2 times the layer before.

    A is the adjacency matrix of users and items, D its row sums. A repeated event is one edge.

    Source: He, Deng, Wang, Li, Zhang and Wang, "LightGCN: Simplifying and Powering Graph Convolution Network
        for Recommendation", 2020.

    Attributes:
        items: the items of each user.
        users: the users of each item.
    """

    def __init__(self, train: Interactions) -> None:
        super().__init__()
        learns_from("the graph", train)
        self.items, self.users = Neighbours(train.matrix), Neighbours(train.matrix.T.tocsr())

    def user_means(self, of_items: Tensor) -> Tensor:
        """Means over the items of each user (n_users, d), of numbers of the items (n_items, d)."""
        return _summed(of_items, self.items, self.users) / self.items.degrees

    def of_users(self, of_items: Tensor) -> Tensor:
        """The next layer of the users (n_users, d), from a layer of the items (n_items, d)."""
        scaled = of_items * self.users.degrees.rsqrt()
        return _summed(scaled, self.items, self.users) * self.items.degrees.rsqrt()

    def of_items(self, of_users: Tensor) -> Tensor:
        """The next layer of the items (n_items, d), from a layer of the users (n_users, d)."""
        scaled = of_users * self.items.degrees.rsqrt()
        return _summed(scaled, self.users, self.items) * self.users.degrees.rsqrt()


class _Summed(torch.autograd.Function):
    """Sums over neighbours. Their gradient is a sum over neighbours too, and needs no scatter."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbours: Neighbours, backwards: Neighbours) -> Tensor:
        ctx.backwards = backwards
        return neighbours.summed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.backwards.summed(gradients[0]), None, None


def _summed(values: Tensor, neighbours: Neighbours, backwards: Neighbours) -> Tensor:
    """`neighbours.summed(values)` with a gradient; `backwards` has the same edges from the other side."""
    summed: Tensor = _Summed.apply(values, neighbours, backwards)
    return summed
