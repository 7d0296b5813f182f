"""Blocked negative log-likelihood: value and gradients without all logits at once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 1 << 21  # of a block: 8 MiB in float32
LOGITS_AT_ONCE_ON_GPU = 1 << 26  # 256 MiB: a GPU waits for the next small block
FEWEST_ROWS = 64  # of a block of rows: with fewer, reading all classes takes longer than using them

Gradients = list[Tensor | None]  # of the states (R, d), classes (C, d) and bias (C,); None if not needed


class ClassIndices(NamedTuple):
    """Pairs of a row (P,) and a class (P,), in any order."""

    rows: Tensor
    classes: Tensor

    def within(self, logits: Tensor, first_row: int, first_class: int) -> tuple[Tensor, Tensor]:
        """Indices of the pairs in a block of logits that begins at a row and a class; others are left out."""
        row, column = self.rows - first_row, self.classes - first_class
        here = (row >= 0) & (row < logits.shape[0]) & (column >= 0) & (column < logits.shape[1])
        return row[here], column[here]


class _Inputs(NamedTuple):
    """Inputs of the loss, for R states and C classes.

    Attributes:
        states: (R, d), in the dtype of the matrix products.
        classes: (C, d).
        weights: (R,).
        extra: (R,), logsumexp of the further logits; -inf without any.
        excluded: classes that are left out of a state's softmax.
        targets: target classes of each state.
        bias: (C,), or None.
        softcap: bound of the logits, or None.
    """

    states: Tensor
    classes: Tensor
    weights: Tensor
    extra: Tensor
    excluded: ClassIndices
    targets: ClassIndices
    bias: Tensor | None
    softcap: float | None

    @property
    def has_single_targets(self) -> bool:
        """Whether each state has one target, in order, and its softmax is over all classes and no more."""
        rows = torch.arange(len(self.states), device=self.states.device)
        all_classes = not len(self.excluded.rows) and bool(self.extra.isneginf().all())
        return all_classes and torch.equal(self.targets.rows, rows)

    def logits(self, states: Tensor, classes: Tensor, columns: slice) -> Tensor:
        """Float32 logits (rows, columns) of some states and classes, whose numbers are `columns`."""
        logits = (states @ classes.T).float()
        if self.bias is not None:
            logits += self.bias[columns]
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)


class BlockedNLL(torch.autograd.Function):
    """Weighted normalisers of softmaxes minus the logits of their targets, a float64 scalar.

    sum over states r of w_r * logsumexp(logits of r) - sum over targets (r, c) of states_r . classes_c,
    where the logits of r are states_r classes^T without the excluded classes, and extra_r. A bias of the
    classes is added to the products, and a soft cap c bounds the sums: c tanh(sum / c) (Gemma 2).

    Value and gradients are computed together, block by block: the logits of a block are used and discarded.
    A block has all classes of some rows. With very many classes it has all rows of some classes. Their
    logits are then computed twice, first for the normalisers, then for the gradients; but once where the
    states alone need a gradient, as under a frozen language model.

    Matrix products run in `dtype`, all else in float32. A target's logit is that of the block, and its slope
    is p - 1 before rounding. So a state that is sure of its target has neither a negative loss nor a gradient
    of rounding errors.

    Args:
        states: float32 (R, d).
        classes: (C, d), float32; or, without a gradient, in any dtype: there is no copy in float32.
        weights: (R,); a state of weight 0 adds nothing, even if all classes are excluded.
        extra: (R, E), further logits of each state.
        excluded_rows, excluded: (P,), pairs of a state and a class.
        target_rows, targets: (T,), pairs of a state and a class.
        dtype: of the matrix products.
        bias: float32 (C,) of the classes, or None.
        softcap: bound c of the logits, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        classes: Tensor,
        weights: Tensor,
        extra: Tensor,
        excluded_rows: Tensor,
        excluded: Tensor,
        target_rows: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        bias: Tensor | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        needs_states, needs_classes, _, needs_extra = ctx.needs_input_grad[:4]
        gradients: Gradients = [
            torch.zeros_like(states) if needs_states else None,
            torch.zeros_like(classes) if needs_classes else None,
            torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[9] else None,
        ]
        n_rows, n_classes = len(states), len(classes)
        no_extra = states.new_full((n_rows,), -torch.inf)
        inputs = _Inputs(
            states.to(dtype),
            classes,
            weights,
            torch.logsumexp(extra, dim=1) if extra.shape[1] else no_extra,
            ClassIndices(excluded_rows, excluded),
            ClassIndices(target_rows, targets),
            bias,
            softcap,
        )
        rows_fit = _logits_at_once(states) // n_classes >= min(n_rows, FEWEST_ROWS)
        states_alone = needs_states and not any(ctx.needs_input_grad[1:])
        if not rows_fit and states_alone and inputs.has_single_targets:
            form = _over_frozen_classes
        else:
            form = _over_rows if rows_fit else _over_classes
        normalisers, target_logits = form(inputs, gradients)
        extra_gradient = (extra - normalisers[:, None]).exp() * weights[:, None] if needs_extra else None
        ctx.save_for_backward(*gradients, extra_gradient)
        weighted = (weights * normalisers).masked_fill(weights == 0, 0.0)  # not 0 * inf
        return weighted.sum(dtype=torch.float64) - target_logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients, in place: they may be the largest tensors. Autograd refuses a second call."""
        of_states, of_classes, of_bias, of_extra = [
            None if gradient is None else gradient.mul_(grad.to(gradient.dtype))
            for gradient in ctx.saved_tensors
        ]
        return of_states, of_classes, None, of_extra, None, None, None, None, None, of_bias, None


def _over_rows(inputs: _Inputs, gradients: Gradients) -> tuple[Tensor, Tensor]:
    """Normalisers (R,) and the sum of the targets' logits, by blocks of rows. Gradients are added."""
    states, classes = inputs.states, inputs.classes.to(inputs.states.dtype)
    normalisers, target_logits = torch.empty_like(inputs.extra), states.new_zeros((), dtype=torch.float64)
    for rows in _slices(len(states), max(1, _logits_at_once(states) // len(classes))):
        logits = inputs.logits(states[rows], classes, slice(None))  # (rows, C)
        targets = inputs.targets.within(logits, rows.start, 0)
        target_logits += logits[targets].sum(dtype=torch.float64)
        logits[inputs.excluded.within(logits, rows.start, 0)] = -torch.inf
        normalisers[rows] = torch.logaddexp(torch.logsumexp(logits, dim=1), inputs.extra[rows])
        normalisers[rows].masked_fill_(inputs.weights[rows] == 0, torch.inf)  # then p = 0 for all classes
        if _any_needed(gradients):
            slope = _slope(
                logits, normalisers[rows], inputs.weights[rows], targets, states.dtype, inputs.softcap
            )
            _add_gradients(gradients, slope, states[rows], classes, rows, slice(0, len(classes)))
    return normalisers, target_logits


def _over_classes(inputs: _Inputs, gradients: Gradients) -> tuple[Tensor, Tensor]:
    """The same by blocks of classes, in two passes: a gradient needs the normaliser over all classes."""
    states, weights, dtype = inputs.states, inputs.weights, inputs.states.dtype
    normalisers, target_logits = inputs.extra, states.new_zeros((), dtype=torch.float64)
    blocks = _slices(len(inputs.classes), max(1, _logits_at_once(states) // len(states)))
    for block in blocks:
        logits = inputs.logits(states, inputs.classes[block].to(dtype), block)  # (R, block)
        target_logits += logits[inputs.targets.within(logits, 0, block.start)].sum(dtype=torch.float64)
        logits[inputs.excluded.within(logits, 0, block.start)] = -torch.inf
        normalisers = torch.logaddexp(normalisers, torch.logsumexp(logits, dim=1))
    normalisers = normalisers.masked_fill(weights == 0, torch.inf)  # then p = 0 for all classes
    for block in blocks if _any_needed(gradients) else []:
        classes = inputs.classes[block].to(dtype)
        logits = inputs.logits(states, classes, block)  # (R, block)
        logits[inputs.excluded.within(logits, 0, block.start)] = -torch.inf
        targets = inputs.targets.within(logits, 0, block.start)
        slope = _slope(logits, normalisers, weights, targets, dtype, inputs.softcap)
        _add_gradients(gradients, slope, states, classes, slice(0, len(states)), block)
    return normalisers, target_logits


def _over_frozen_classes(inputs: _Inputs, gradients: Gradients) -> tuple[Tensor, Tensor]:
    """The same in one pass, for the gradient of the states alone, where `has_single_targets` is True.

    The gradient of a state is the mean of the classes by their probabilities, minus its target. The mean is
    taken by exp(logit - largest logit so far), and scaled down where a larger one comes (Milakov and
    Gimelshein, "Online normalizer calculation for softmax", 2018). The target is left out and added last.
    """
    states, cap, of_states = inputs.states, inputs.softcap, gradients[0]
    assert of_states is not None
    largest, total = torch.full_like(inputs.extra, -torch.inf), torch.zeros_like(inputs.extra)  # (R,)
    target_logits = torch.empty_like(total)
    for block in _slices(len(inputs.classes), max(1, _logits_at_once(states) // len(states))):
        classes = inputs.classes[block].to(states.dtype)
        logits = inputs.logits(states, classes, block)  # (R, block)
        targets = inputs.targets.within(logits, 0, block.start)
        target_logits[targets[0]] = logits[targets]
        before, largest = largest, torch.maximum(largest, logits.amax(1))
        raised = (largest > before).nonzero()[:, 0]
        factor = (before - largest)[raised].exp_()
        total[raised] *= factor
        of_states[raised] *= factor[:, None]
        of_cap = None if cap is None else 1 - (logits / cap).square_()
        shares = logits.sub_(largest[:, None]).exp_()
        total += shares.sum(1)
        shares = shares if of_cap is None else shares.mul_(of_cap)
        shares[targets] = 0
        of_states += shares.to(states.dtype) @ classes
    normalisers = largest + total.log()
    slope = (target_logits - normalisers).exp_() - 1
    slope = slope if cap is None else slope * (1 - (target_logits / cap).square_())
    of_targets = inputs.classes[inputs.targets.classes].to(of_states.dtype)
    of_states.div_(total[:, None]).addcmul_(slope[:, None], of_targets)
    return normalisers, target_logits.sum(dtype=torch.float64)


def _logits_at_once(states: Tensor) -> int:
    """Logits of a block on the device of the states."""
    return LOGITS_AT_ONCE_ON_GPU if states.is_cuda else LOGITS_AT_ONCE


def _any_needed(gradients: Gradients) -> bool:
    return any(gradient is not None for gradient in gradients)


def _slices(n: int, size: int) -> list[slice]:
    """0 .. n-1 in slices of `size`, the last one shorter."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _slope(
    logits: Tensor,
    normalisers: Tensor,
    weights: Tensor,
    targets: tuple[Tensor, Tensor],
    dtype: torch.dtype,
    softcap: float | None,
) -> Tensor:
    """Derivative of the loss by the logits of a block before the soft cap: w_r * p, minus 1 for each target.

    Args:
        logits: (B, C); overwritten.
        normalisers, weights: (B,).
        targets: indices (row, class) of targets in the block.
        dtype: of the result.
        softcap: c; the derivative of c tanh(x / c) is 1 - (logit / c)^2. None: 1.
    """
    of_cap = None if softcap is None else 1 - (logits / softcap).square_()
    slope = logits.sub_(normalisers[:, None]).exp_().mul_(weights[:, None])
    slope.index_put_(targets, slope.new_tensor(-1.0), accumulate=True)
    if of_cap is not None:  # an excluded class has the logit -inf and the slope 0
        slope.mul_(of_cap.masked_fill_(of_cap.isinf(), 0.0))
    return slope.to(dtype)


def _add_gradients(
    gradients: Gradients, slope: Tensor, states: Tensor, classes: Tensor, rows: slice, columns: slice
) -> None:
    """Add the gradients of a block.

    Args:
        gradients: of all states, all classes and their bias.
        slope: (B, C), derivative by the logits of the block.
        states: (B, d) of the block.
        classes: (C, d) of the block.
        rows, columns: of the block, among all states and all classes.
    """
    of_states, of_classes, of_bias = gradients
    if of_bias is not None:
        of_bias[columns] += slope.sum(0, dtype=of_bias.dtype)
    for gradient, block, left, right in (
        (of_states, rows, slope, classes),
        (of_classes, columns, slope.T, states),
    ):
        if gradient is not None and gradient.dtype == slope.dtype:
            gradient[block].addmm_(left, right)
        elif gradient is not None:
            gradient[block] += left @ right
