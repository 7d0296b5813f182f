"""The projector P of RSLLM, and its values for the items of a step in a factored form."""

import torch
from torch import Tensor, nn

SHORTEST_SQUARED = 1e-12  # squared length of P(e_j), if it is shorter


class Projector(nn.Sequential):
    """P: d_s -> d, two linear layers with a ReLU between them: P(e) = W relu(V e + c) + b.

    It starts as an isometry: x = relu(x) - relu(-x), rotated into d dimensions. So soft tokens start with the
    geometry of the sequential recommender's embeddings.
    """

    def __init__(self, n: int, width: int) -> None:
        """A projector of embeddings with n numbers into `width` dimensions."""
        inner, outer = nn.Linear(n, 2 * n), nn.Linear(2 * n, width)
        rotation = nn.init.orthogonal_(torch.empty(width, n))
        with torch.no_grad():
            inner.weight.copy_(torch.cat([torch.eye(n), -torch.eye(n)]))
            outer.weight.copy_(torch.cat([rotation, -rotation], dim=1))
            inner.bias.zero_()
            outer.bias.zero_()
        super().__init__(inner, nn.ReLU(), outer)

    def factored(self, embeddings: Tensor) -> "ProjectedItems":
        """P(e_j) of embeddings (M, d_s)."""
        inner, relu, outer = self
        assert isinstance(outer, nn.Linear)
        return ProjectedItems(relu(inner(embeddings)), outer)


class ProjectedItems:
    """P(e_j) = W h_j + b of M items, without the vectors (M, d) themselves.

    h_j has 2 d_s numbers, fewer than a pretrained language model is wide. A loss over the catalogue needs
    inner products: s . P(e_j) = (W^T s, s . b) . (h_j, 1), for a state s.
    """

    def __init__(self, hidden: Tensor, outer: nn.Linear) -> None:
        """Items by their h_j (M, 2 d_s), and the last layer of the projector."""
        self.hidden, self.outer = hidden, outer

    def __getitem__(self, items: Tensor) -> Tensor:
        """P(e_j), (N, d), of items (N,)."""
        projected: Tensor = self.outer(self.hidden[items])
        return projected

    def of_states(self, states: Tensor) -> Tensor:
        """(W^T s, s . b), float32 (R, 2 d_s + 1), of states (R, d)."""
        with torch.autocast(states.device.type, enabled=False):
            return states.float() @ self._last_layer()

    def directions(self) -> Tensor:
        """(h_j, 1) over the length of P(e_j), float32 (M, 2 d_s + 1): factors of vectors of length 1."""
        hidden = self.hidden.float()
        factors = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
        with torch.autocast(factors.device.type, enabled=False):
            last = self._last_layer()
            squared = ((factors @ (last.T @ last)) * factors).sum(1, keepdim=True)
            return factors / squared.clamp_min(SHORTEST_SQUARED).sqrt()

    def _last_layer(self) -> Tensor:
        """(W, b), float32 (d, 2 d_s + 1)."""
        return torch.cat([self.outer.weight, self.outer.bias[:, None]], dim=1).float()
