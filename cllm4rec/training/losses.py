"""Losses as small functions, exact, without dense targets and without all logits at once.

Under autocast, matrices are multiplied in its type, as elsewhere in the network, but those of the sampled softmax and of hard
negatives; sums and softmax stay in float32."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOGITS_AT_ONCE = 1 << 21  # numbers: a block of logits is so large (8 MiB in float32)
FEWEST_ROWS = 64  # of a block that holds all classes: with less, reading the classes takes longer than using them


class _BlockedNLL(torch.autograd.Function):
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
        gradients = [torch.zeros_like(one) if need else None for one, need in zip((states, classes), needs, strict=False)]
        n_rows, n_classes, wanted = len(states), len(classes), any(needs[:2])
        left_out, asked = _Pairs(out_rows, out), _Pairs(rows, targets)
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
                normalisers[some].masked_fill_(weights[some] == 0, torch.inf)  # of no weight: nothing by any class
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
        by_states, by_classes, by_extra = [None if one is None else one.mul_(grad.to(one.dtype)) for one in ctx.saved_tensors]
        return by_states, by_classes, None, by_extra, None, None, None, None, None


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _slope(logits: Tensor, normalisers: Tensor, weights: Tensor, targets: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    """What the loss changes by with each logit (overwritten) of a block; `targets` say where in it targets stand."""
    slope = logits.sub_(normalisers[:, None]).exp_().mul_(weights[:, None])
    return slope.index_put_(targets, slope.new_tensor(-1.0), accumulate=True).to(dtype)


def _add_gradients(
    gradients: list[Tensor | None], slope: Tensor, states: Tensor, classes: Tensor, rows: slice, some: slice
) -> None:
    """Add what a block gives to the gradients of states and classes: the slope of its logits, and its states and classes."""
    for gradient, where, left, right in zip(gradients, (rows, some), (slope, slope.T), (classes, states), strict=True):
        if gradient is not None and gradient.dtype == slope.dtype:
            gradient[where].addmm_(left, right)
        elif gradient is not None:
            gradient[where] += left @ right


def _products_in(states: Tensor) -> torch.dtype:
    """In which type matrices are multiplied: that of autocast where it is on, else that of the states."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


class _Pairs(NamedTuple):
    """Pairs of a row (P,) and a class (P,), in any order."""

    rows: Tensor
    classes: Tensor

    def within(self, logits: Tensor, first_row: int, first_class: int) -> tuple[Tensor, Tensor]:
        """Where those of a block of logits that begins there stand in it."""
        row, column = self.rows - first_row, self.classes - first_class
        here = (row >= 0) & (row < logits.shape[0]) & (column >= 0) & (column < logits.shape[1])
        return row[here], column[here]


def multinomial_nll(
    states: Tensor,
    classes: Tensor,
    rows: Tensor,
    targets: Tensor,
    shown_rows: Tensor | None = None,
    shown: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of sparse multinomial targets, summed, exact.

    sum over r of n_r * logsumexp(states_r classes^T) - sum over targets t of r of states_r . classes_t
    (CLLM4Rec, the multinomial item prediction; with one target a row it is the cross-entropy of a language model).

    Args:
        states: (R, d).
        classes: (C, d), the rows of the softmax: items, or words.
        rows: (T,) ascending, which state each target belongs to.
        targets: (T,) which class.
        shown_rows, shown: (P,) classes left out of a state's softmax, rows ascending; none if not given.

    Returns:
        A float32 scalar. Not a mean: divide by the number of targets of the whole (global) batch.
    """
    if shown is None or shown_rows is None:
        shown = shown_rows = targets[:0]
    dtype = _products_in(states)
    with torch.autocast(states.device.type, enabled=False):
        states, classes = states.float(), classes.float()
        counts = torch.bincount(rows, minlength=len(states)).to(torch.float32)
        none = states.new_zeros(len(states), 0)
        return _BlockedNLL.apply(states, classes, counts, none, shown_rows, shown, rows, targets, dtype).float()


class DrawnClasses(NamedTuple):
    """The classes that a softmax is estimated by: their numbers (S,), ascending; their rows (S, d); and the log of the
    probability with which each one is among them (S,)."""

    numbers: Tensor
    rows: Tensor
    log_p: Tensor

    def places(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Where some numbers (N,) stand among them, and whether they do."""
        place = torch.searchsorted(self.numbers, numbers).clamp(max=len(self.numbers) - 1)
        return place, self.numbers[place] == numbers


def sampled_nll(
    states: Tensor,
    sample: DrawnClasses,
    positives: Tensor,
    rows: Tensor,
    targets: Tensor,
    log_p: Tensor,
    shown_rows: Tensor | None = None,
    shown: Tensor | None = None,
) -> Tensor:
    """`multinomial_nll` with the softmax over a sample of the classes, summed over targets, each of them among the sample.

    Each logit is lessened by the log of the probability that a sample holds its class (Jean et al., 2015), so that classes
    drawn often count no more than others. Of a state's other targets those that were drawn count, like any class: all of them,
    always, would count too much if rare. With a sample of all classes, which has probability 1, it is the exact one.

    Args:
        states: (R, d).
        sample: the classes drawn.
        positives: (T, d), the rows of the targets.
        rows, targets: (T,) as `multinomial_nll` takes them.
        log_p: (T,) of the targets, as the sample has it.
        shown_rows, shown: as `multinomial_nll` takes them.
    """
    if shown is None or shown_rows is None:
        shown = shown_rows = targets[:0]
    with torch.autocast(states.device.type, enabled=False):  # log p is among the products: never rounded
        own, classes = states.float()[rows], sample.rows.float()  # (T, d), (S, d)
        right = (own * positives.float()).sum(-1) - log_p  # (T,)
        beside = right.masked_fill(sample.places(targets)[1], -torch.inf)  # those drawn are in the sample already
        place, there = sample.places(shown)
        counts = torch.bincount(rows, minlength=len(states))
        of, out = shown_rows[there], place[there]  # left out of the softmax of each of these states' targets
        out_rows = (counts.cumsum(0) - counts)[of].repeat_interleave(counts[of]) + _within(counts[of])
        own = torch.cat([own, torch.ones_like(own[:, :1])], dim=1)
        classes = torch.cat([classes, -sample.log_p[:, None]], dim=1)
        left_out, none = (out_rows, out.repeat_interleave(counts[of])), targets[:0]
        normalisers = _BlockedNLL.apply(own, classes, torch.ones_like(right), beside[:, None], *left_out, none, none, own.dtype)
        return (normalisers - right.sum(dtype=torch.float64)).float()


def _within(counts: Tensor) -> Tensor:
    """0 .. n-1 for each n of some counts, one after the other."""
    ends = counts.cumsum(0)
    return torch.arange(int(counts.sum()), device=counts.device) - (ends - counts).repeat_interleave(counts)


def pull(embeddings: Tensor, centres: Tensor | None, weights: Tensor) -> Tensor:
    """Weighted squared distance of ID embeddings to their centre, summed: the Gaussian terms of CLLM4Rec's objective.

    Args:
        embeddings: (M, d) of the IDs as they occur, with repeats; receives the gradient.
        centres: (M, d), do not; zero if None (the prior).
        weights: (M,) 1 / occurrences in the epoch, so that an epoch sums to one term for each ID that occurs.
    """
    distance = embeddings if centres is None else embeddings - centres.detach()
    return (distance.float().square().sum(-1) * weights).sum()


def user_contrast(
    states: Tensor, projected: Tensor, targets: Tensor, sample: Tensor, groups: Tensor, hard: Tensor | None = None
) -> Tensor:
    """C_user of RSLLM: the state of a history against P(e_j) of the item that came next, by inner product, summed.

    - log of the share of the right one among itself and its negatives, by the exponential of these products.

    Args:
        states: (R, d).
        projected: (M, d), P(e_j) of the items at hand.
        targets: (R,) which of them came next.
        sample: (S,) which of them all rows are contrasted with.
        groups: (M,) equal for items that share a title: these are never each other's negatives.
        hard: (R, H) further ones of each row's own.
    """
    dtype = _products_in(states)
    with torch.autocast(states.device.type, enabled=False):
        states, projected = states.float(), projected.float()
        positive = (states * projected[targets]).sum(-1)
        extra = positive[:, None]
        if hard is not None:
            own = torch.einsum("rd,rhd->rh", states, projected[hard])
            extra = torch.cat([extra, own.masked_fill(groups[hard] == groups[targets][:, None], -torch.inf)], dim=1)
        weights = torch.ones_like(positive)
        left_out = _equal_pairs(groups[targets], groups[sample])
        none = targets[:0]
        normalisers = _BlockedNLL.apply(states, projected[sample], weights, extra, *left_out, none, none, dtype)
        return (normalisers - positive.sum(dtype=torch.float64)).float()


def _equal_pairs(own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """All (r, s) with own[r] == others[s], r ascending."""
    order = torch.argsort(others, stable=True)
    first, end = (torch.searchsorted(others[order], own, right=right) for right in (False, True))
    counts = end - first
    rows = torch.repeat_interleave(torch.arange(len(own), device=own.device), counts)
    return rows, order[first[rows] + _within(counts)]


def item_contrast(
    titles: Tensor, projected: Tensor, items: Tensor, sample: Tensor, groups: Tensor, temperature: float
) -> Tensor:
    """C_item of RSLLM: the mean state over an item's title against P(e_j) of the same item, by cosine, summed.

    Args:
        titles: (R, d) mean states.
        projected: (M, d), P(e_j) of the items at hand.
        items: (R,) which of them each title names.
        sample, groups: as `user_contrast` takes them.
        temperature: cosines are divided by it.
    """
    titles, projected = functional.normalize(titles.float(), dim=-1), functional.normalize(projected.float(), dim=-1)
    return user_contrast(titles / temperature, projected, items, sample, groups)
