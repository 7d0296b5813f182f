"""Tables of which a step reads few rows: a step costs as much as these rows, however many others there are."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW, as PyTorch has them
SPANS = (
    (1, 1),
    (2, 2),
    (3, 4),
    (5, 8),
    (9, 16),
    (17, 32),
    (33, 300),
)  # missed steps; 0.9^300 is 2e-14
ROWS_AT_ONCE = 1 << 14


class EmbeddingTable(nn.Embedding):
    """Rows (n, d) to be read by number. Where `sparse` is True their gradient holds the rows that were read and no others."""

    before_lookup: Callable[[Tensor], None] | None = None  # told which rows are read next

    def __init__(self, n: int, width: int) -> None:
        super().__init__(n, width, _weight=torch.empty(n, width))  # filled by whoever makes it

    def forward(self, rows: Tensor) -> Tensor:
        if self.before_lookup is not None:
            self.before_lookup(rows)
        return super().forward(rows)


class RowAdam:
    """Adam for a `EmbeddingTable` with sparse gradients, equal to the dense one to rounding (Kingma and Ba, 2015).

    Dense Adam moves every row in every step: a row without gradient by what is left of its momentum. Here a row is left alone
    until it is read next, or until `apply_missed_steps` of all; then what it missed is made up for at once. Missed steps k+1 .. t take
    from the row m * sum_j a_j / (sqrt(v) q_j + eps), a_j = rate_j b1^(j-k) / (1 - b1^j), q_j = sqrt(b2^(j-k) / (1 - b2^j)).
    Steps of a span, in which q_j hardly changes, are taken together as m A / (sqrt(v) Q + eps) with A = sum a_j and
    Q = A / sum (a_j / q_j): the same wherever eps is small against the root, or the root against eps.
    """

    def __init__(self, table: EmbeddingTable) -> None:
        self.table = table
        self.n_steps = 0
        self.rates = torch.zeros(
            1024, dtype=torch.float64, device=table.weight.device
        )  # of all steps so far, and room for more
        table.before_lookup = self.apply_missed_steps

    def _begin(self) -> None:
        """Moments are made in the first step: a table that is never trained has none."""
        self.mean, self.square = (
            torch.zeros_like(self.table.weight),
            torch.zeros_like(self.table.weight),
        )  # m, v
        self.done = torch.zeros(
            len(self.mean), dtype=torch.int64, device=self.mean.device
        )  # steps each row has made

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step with the gradient at hand, which is coalesced; its rows were read, so that they are up to date."""
        gradient = self.table.weight.grad
        assert gradient is not None
        rows, values = gradient.indices()[0], gradient.values()
        if not self.n_steps:
            self._begin()
        if self.n_steps == len(self.rates):
            self.rates = torch.cat([self.rates, torch.zeros_like(self.rates)])
        self.rates[self.n_steps] = rate
        self.n_steps += 1
        n, (b1, b2) = self.n_steps, BETAS
        mean = self.mean[rows].lerp_(values, 1 - b1)
        square = self.square[rows].mul_(b2).addcmul_(values, values, value=1 - b2)
        root = square.sqrt().div_((1 - b2**n) ** 0.5).add_(EPSILON)
        self.table.weight.index_put_(
            (rows,), self.table.weight[rows].addcdiv_(mean, root, value=-rate / (1 - b1**n))
        )
        self.mean[rows], self.square[rows], self.done[rows] = mean, square, n

    @torch.no_grad()
    def apply_missed_steps(self, rows: Tensor | None = None) -> None:
        """Let some rows, with repeats, or all make the steps that they missed: none, before their first gradient."""
        if not self.n_steps:
            return
        rows = (self.done > 0).nonzero()[:, 0] if rows is None else rows.unique()
        done = self.done[rows]
        behind = rows[(done > 0) & (done < self.n_steps)]
        if len(behind):
            for some in behind.split(ROWS_AT_ONCE):
                self._make_up(some)

    def _make_up(self, rows: Tensor) -> None:
        moments, which = self.done[rows].unique(return_inverse=True)
        mean, square, (b1, b2) = self.mean[rows], self.square[rows], BETAS
        root, moved = square.sqrt(), torch.zeros_like(mean)
        for span in SPANS:
            amount, scale = (one[which, None].to(mean.dtype) for one in self._missed(moments, *span))
            moved.addcdiv_(amount, root * scale + EPSILON)
        self.table.weight.index_put_((rows,), self.table.weight[rows] - moved * mean)
        missed = (self.n_steps - self.done[rows])[:, None].to(self.mean.dtype)
        self.mean[rows], self.square[rows], self.done[rows] = (
            mean * b1**missed,
            square * b2**missed,
            self.n_steps,
        )

    def _missed(self, done: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """A and Q, float64 (U,), of the missed steps `first` to `last` of rows that made `done` steps (U,) before."""
        after = torch.arange(first, last + 1, device=done.device)[None, :]
        step, (b1, b2) = done[:, None] + after, BETAS
        missed = step <= self.n_steps
        a = (
            self.rates[step.clamp(max=self.n_steps) - 1]
            * missed
            * b1 ** after.double()
            / (1 - b1 ** step.double())
        )
        q = (b2 ** after.double() / (1 - b2 ** step.double())).sqrt()
        amount = a.sum(1)
        return amount, torch.where(amount > 0, amount / (a / q).sum(1), 1.0)

    def state(self) -> dict[str, Tensor]:
        """All that a later `load` needs."""
        if not self.n_steps:
            return {}
        return {
            "mean": self.mean,
            "square": self.square,
            "done": self.done,
            "rates": self.rates[: self.n_steps],
        }

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        if state:
            self._begin()
            for name in ("mean", "square", "done"):
                getattr(self, name).copy_(state[name])
            self.n_steps, self.rates = len(state["rates"]), state["rates"].to(self.rates)


def coalesced(parts: Sequence[Tensor]) -> Tensor:
    """The sum of sparse gradients, each row once; of two parts it does not depend on their order."""
    indices, values = (
        torch.cat([one._indices() for one in parts], dim=1),
        torch.cat([one._values() for one in parts]),
    )
    return torch.sparse_coo_tensor(indices, values, parts[0].shape, check_invariants=False).coalesce()
