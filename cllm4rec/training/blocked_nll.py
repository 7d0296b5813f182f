"""Blocked negative log-likelihood: value and gradients without all logits at once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 1 << 21  # numbers: a block of logits is so large (8 MiB in float32)


FEWEST_ROWS = (
    64  # of a block that holds all classes: with less, reading the classes takes longer than using them
)


class BlockedNLL(torch.autograd.Function):
    """sum over r of w_r * logsumexp of the logits states_r classes^T, but those left out, and of extra_r; minus the sum over
    (r, c) of targets of states_r . classes_c: a float64 scalar.

    Value and gradients together, block by block: the logits of a block are used and thrown away. A block holds all classes of
    some rows; where there are too many classes, all rows of some classes, and their logits are computed twice, first for the
    normalisers, then for the gradients. Matrices are multiplied in `dtype`, all else is in float32; a target's logit is that of
    the block, and its slope is p - 1 before it is rounded, so that a state that is sure of its target has neither a negative
    loss nor a gradient of rounding errors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        classes: Tensor,
        weights: Tensor,
        extra: Tensor,
        out_rows: Tensor,
        out: Tensor,
        rows: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        needs = ctx.needs_input_grad
        gradients = [
            torch.zeros_like(one) if need else None
            for one, need in zip((states, classes), needs, strict=False)
        ]
        n_rows, n_classes, wanted = len(states), len(classes), any(needs[:2])
        left_out, asked = ClassIndices(out_rows, out), ClassIndices(rows, targets)
        further = torch.logsumexp(extra, dim=1) if extra.shape[1] else states.new_full((n_rows,), -torch.inf)
        left, of_targets = states.to(dtype), states.new_zeros((), dtype=torch.float64)
        if LOGITS_AT_ONCE // n_classes >= min(n_rows, FEWEST_ROWS):
            normalisers, right = torch.empty_like(further), classes.to(dtype)
            for some in _parts(n_rows, max(1, LOGITS_AT_ONCE // n_classes)):
                logits = (left[some] @ right.T).float()
                own = asked.within(logits, some.start, 0)
                of_targets += logits[own].sum(dtype=torch.float64)
                logits[left_out.within(logits, some.start, 0)] = -torch.inf
                normalisers[some] = torch.logaddexp(torch.logsumexp(logits, dim=1), further[some])
                normalisers[some].masked_fill_(
                    weights[some] == 0, torch.inf
                )  # of no weight: nothing by any class
                if wanted:
                    slope = _slope(logits, normalisers[some], weights[some], own, dtype)
                    _add_gradients(gradients, slope, left[some], right, some, slice(0, n_classes))
        else:
            normalisers = further
            parts = _parts(n_classes, max(1, LOGITS_AT_ONCE // n_rows))
            for some in parts:
                logits = (left @ classes[some].to(dtype).T).float()
                of_targets += logits[asked.within(logits, 0, some.start)].sum(dtype=torch.float64)
                logits[left_out.within(logits, 0, some.start)] = -torch.inf
                normalisers = torch.logaddexp(normalisers, torch.logsumexp(logits, dim=1))
            normalisers = normalisers.masked_fill(weights == 0, torch.inf)
            for some in parts if wanted else []:
                right = classes[some].to(dtype)
                logits = (left @ right.T).float()
                logits[left_out.within(logits, 0, some.start)] = -torch.inf
                slope = _slope(logits, normalisers, weights, asked.within(logits, 0, some.start), dtype)
                _add_gradients(gradients, slope, left, right, slice(0, n_rows), some)
        by_extra = (extra - normalisers[:, None]).exp() * weights[:, None] if needs[3] else None
        ctx.save_for_backward(*gradients, by_extra)
        return (weights * normalisers).masked_fill(weights == 0, 0.0).sum(dtype=torch.float64) - of_targets

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # in place, as they may be the largest tensors of all; autograd notices if somebody asks twice
        by_states, by_classes, by_extra = [
            None if one is None else one.mul_(grad.to(one.dtype)) for one in ctx.saved_tensors
        ]
        return by_states, by_classes, None, by_extra, None, None, None, None, None


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _slope(
    logits: Tensor, normalisers: Tensor, weights: Tensor, targets: tuple[Tensor, Tensor], dtype: torch.dtype
) -> Tensor:
    """What the loss changes by with each logit (overwritten) of a block; `targets` say where in it targets stand."""
    slope = logits.sub_(normalisers[:, None]).exp_().mul_(weights[:, None])
    return slope.index_put_(targets, slope.new_tensor(-1.0), accumulate=True).to(dtype)


def _add_gradients(
    gradients: list[Tensor | None], slope: Tensor, states: Tensor, classes: Tensor, rows: slice, some: slice
) -> None:
    """Add what a block gives to the gradients of states and classes: the slope of its logits, and its states and classes."""
    for gradient, where, left, right in zip(
        gradients, (rows, some), (slope, slope.T), (classes, states), strict=True
    ):
        if gradient is not None and gradient.dtype == slope.dtype:
            gradient[where].addmm_(left, right)
        elif gradient is not None:
            gradient[where] += left @ right


class ClassIndices(NamedTuple):
    """Pairs of a row (P,) and a class (P,), in any order."""

    rows: Tensor
    classes: Tensor

    def within(self, logits: Tensor, first_row: int, first_class: int) -> tuple[Tensor, Tensor]:
        """Where those of a block of logits that begins there stand in it."""
        row, column = self.rows - first_row, self.classes - first_class
        here = (row >= 0) & (row < logits.shape[0]) & (column >= 0) & (column < logits.shape[1])
        return row[here], column[here]
