"""Exact Adam for embedding tables of which a step reads few rows: unread rows cost nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8  # PyTorch's defaults for AdamW
MISSED_STEP_SPANS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 300))  # 0.9^300 is 2e-14
ROWS_AT_ONCE = 1 << 14  # rows whose missed steps are applied together
RATES_ALLOCATED = 1024  # learning rates at first


class EmbeddingTable(nn.Embedding):
    """Embeddings (n, width), not initialised. If `sparse`, gradients hold only the rows that were read."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__(n, width, _weight=torch.empty(n, width))


class RowAdam:
    """Adam for an `EmbeddingTable` with sparse gradients, equal to dense Adam up to rounding.

    Dense Adam (Kingma and Ba, 2015) moves every row in every step: a row without gradient by the rest of its
    momentum. Here a row that is not read misses these steps. They are applied together when the row is read
    next, or by `apply_missed_steps`. A hook before the table's forward pass sees to the former; `close`
    removes it.

    Let a row have made k steps, and let m and v be its moments. Missed steps j = k+1 .. t subtract
    m * sum_j a_j / (sqrt(v) q_j + eps), where a_j = rate_j b1^(j-k) / (1 - b1^j) and
    q_j = sqrt(b2^(j-k) / (1 - b2^j)). Within a span of steps q_j hardly changes. So a span subtracts
    m A / (sqrt(v) Q + eps), where A = sum_j a_j and Q = A / sum_j (a_j / q_j). This is exact where eps is
    negligible against the root, or the root against eps.

    Attributes:
        table: the embedding table.
        n_steps: steps so far.
        rates: float64, learning rates of the steps so far, with space for more.
        mean, square: Adam's moments m and v, (n, width); made in the first step.
        done: int64 (n,), number of the last step applied to each row; made in the first step.
    """

    def __init__(self, table: EmbeddingTable) -> None:
        self.table = table
        self.n_steps = 0
        self.rates = torch.zeros(RATES_ALLOCATED, dtype=torch.float64, device=table.weight.device)
        self._hook = table.register_forward_pre_hook(self._before_lookup)

    def _before_lookup(self, table: nn.Module, inputs: tuple[Tensor]) -> None:
        self.apply_missed_steps(inputs[0])

    def close(self) -> None:
        """Apply the missed steps of all rows, and leave the table alone from now on."""
        self.apply_missed_steps()
        self._hook.remove()

    def _make_moments(self) -> None:
        weight = self.table.weight
        self.mean, self.square = torch.zeros_like(weight), torch.zeros_like(weight)
        self.done = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step at a learning rate.

        The gradient is coalesced. No step is missing on its rows, as they were read before.
        """
        gradient = self.table.weight.grad
        assert gradient is not None
        rows, values = gradient.indices()[0], gradient.values()  # (R,), (R, width)
        if not self.n_steps:
            self._make_moments()
        if self.n_steps == len(self.rates):
            self.rates = torch.cat([self.rates, torch.zeros_like(self.rates)])
        self.rates[self.n_steps] = rate
        self.n_steps += 1
        n, (b1, b2) = self.n_steps, BETAS
        mean = self.mean[rows].lerp_(values, 1 - b1)
        square = self.square[rows].mul_(b2).addcmul_(values, values, value=1 - b2)
        root = square.sqrt().div_((1 - b2**n) ** 0.5).add_(EPSILON)
        moved = self.table.weight[rows].addcdiv_(mean, root, value=-rate / (1 - b1**n))
        self.table.weight.index_put_((rows,), moved)
        self.mean[rows], self.square[rows], self.done[rows] = mean, square, n

    @torch.no_grad()
    def apply_missed_steps(self, rows: Tensor | None = None) -> None:
        """Apply the missed steps of rows, which may repeat; of all rows if None.

        A row has missed no step before its first gradient.
        """
        if not self.n_steps:
            return
        rows = (self.done > 0).nonzero()[:, 0] if rows is None else rows.unique()
        done = self.done[rows]
        behind = rows[(done > 0) & (done < self.n_steps)]
        if len(behind):
            for block in behind.split(ROWS_AT_ONCE):
                self._apply_missed_steps(block)

    def _apply_missed_steps(self, rows: Tensor) -> None:
        """The same for a block of distinct rows (R,), each of which has missed a step."""
        done, group = self.done[rows].unique(return_inverse=True)  # (U,), (R,): rows of equal age
        mean, square, (b1, b2) = self.mean[rows], self.square[rows], BETAS  # (R, width)
        root, change = square.sqrt(), torch.zeros_like(mean)
        for first, last in MISSED_STEP_SPANS:
            rate_sums, scales = self._span(done, first, last)
            rate_sum, scale = (values[group, None].to(mean.dtype) for values in (rate_sums, scales))  # (R, 1)
            change.addcdiv_(rate_sum, root * scale + EPSILON)
        self.table.weight.index_put_((rows,), self.table.weight[rows] - change * mean)
        n_missed = (self.n_steps - self.done[rows])[:, None].to(mean.dtype)
        self.mean[rows], self.square[rows] = mean * b1**n_missed, square * b2**n_missed
        self.done[rows] = self.n_steps

    def _span(self, done: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """A and Q, float64 (U,), of the missed steps `first` to `last` after `done` (U,) steps."""
        since = torch.arange(first, last + 1, device=done.device)[None, :]  # j - k, (1, S)
        step, (b1, b2) = done[:, None] + since, BETAS  # j, (U, S)
        missed = step <= self.n_steps
        rates = self.rates[step.clamp(max=self.n_steps) - 1] * missed
        a = rates * b1 ** since.double() / (1 - b1 ** step.double())
        q = (b2 ** since.double() / (1 - b2 ** step.double())).sqrt()
        rate_sum = a.sum(1)
        return rate_sum, torch.where(rate_sum > 0, rate_sum / (a / q).sum(1), 1.0)

    def moments(self) -> dict[str, Tensor]:
        """All that `load_moments` needs; nothing before the first step."""
        if not self.n_steps:
            return {}
        rates = self.rates[: self.n_steps]
        return {"mean": self.mean, "square": self.square, "done": self.done, "rates": rates}

    @torch.no_grad()
    def load_moments(self, moments: dict[str, Tensor]) -> None:
        """Restore what `moments` gave."""
        if not moments:
            return
        self._make_moments()
        self.mean.copy_(moments["mean"])
        self.square.copy_(moments["square"])
        self.done.copy_(moments["done"])
        self.n_steps, self.rates = len(moments["rates"]), moments["rates"].to(self.rates)


def coalesced(gradients: Sequence[Tensor]) -> Tensor:
    """The sum of sparse gradients with each row once; of two gradients, it does not depend on their order."""
    indices = torch.cat([gradient._indices() for gradient in gradients], dim=1)
    values = torch.cat([gradient._values() for gradient in gradients])
    return torch.sparse_coo_tensor(indices, values, gradients[0].shape, check_invariants=False).coalesce()
