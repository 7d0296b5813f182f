"""Losses as small functions, exact, without dense targets and without all logits at once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOGITS_AT_ONCE = 1 << 23  # numbers: rows of states are taken so that rows * classes stays below (32 MiB in float32)


class _Normalisers(torch.autograd.Function):
    """sum over r of w_r * logsumexp of the logits states_r classes^T, but those left out, and of extra_r: a float64 scalar.

    Value and gradients in one walk over blocks of rows: the logits of a block are used and thrown away.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, classes: Tensor, weights: Tensor, extra: Tensor, out_rows: Tensor, out: Tensor
    ) -> Tensor:
        need_states, need_classes, _, need_extra = ctx.needs_input_grad[:4]
        grad_states = torch.zeros_like(states) if need_states else None
        grad_classes = torch.zeros_like(classes) if need_classes else None
        grad_extra = torch.zeros_like(extra) if need_extra else None
        total = torch.zeros((), dtype=torch.float64, device=states.device)
        states, classes, extra = states.detach().float(), classes.detach().float(), extra.detach().float()
        step = max(1, LOGITS_AT_ONCE // len(classes))
        bounds = torch.arange(0, len(states) + step, step, device=states.device)
        out_at = torch.searchsorted(out_rows, bounds).tolist()
        for block, start in enumerate(range(0, len(states), step)):
            own, weight = states[start : start + step], weights[start : start + step]
            logits = own @ classes.T  # (rows of the block, n_classes)
            some = slice(out_at[block], out_at[block + 1])
            logits[out_rows[some] - start, out[some]] = -torch.inf
            normaliser = torch.logsumexp(logits, dim=1)  # (rows of the block,)
            further = extra[start : start + step]
            if extra.shape[1]:
                normaliser = torch.logaddexp(normaliser, torch.logsumexp(further, dim=1))
            total += (weight * normaliser).sum(dtype=torch.float64)
            if grad_extra is not None:
                grad_extra[start : start + step] = (further - normaliser[:, None]).exp() * weight[:, None]
            if not (need_states or need_classes):
                continue
            slope = logits.sub_(normaliser[:, None]).exp_().mul_(weight[:, None])  # d total / d logits
            if grad_states is not None:
                grad_states[start : start + step] = slope @ classes
            if grad_classes is not None:
                grad_classes += slope.T @ own
        ctx.save_for_backward(grad_states, grad_classes, grad_extra)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_states, by_classes, by_extra = [None if one is None else one * grad.to(one.dtype) for one in ctx.saved_tensors]
        return by_states, by_classes, None, by_extra, None, None


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
    with torch.autocast(states.device.type, enabled=False):  # exact in mixed precision too
        states, classes = states.float(), classes.float()
        counts = torch.bincount(rows, minlength=len(states)).to(torch.float32)
        normalisers = _Normalisers.apply(states, classes, counts, states.new_zeros(len(states), 0), shown_rows, shown)
        return (normalisers - _dots(states[rows], classes[targets])).float()


def _dots(rows: Tensor, others: Tensor) -> Tensor:
    """Sum of the inner products of rows (T, d) with others (T, d), in float64."""
    return (rows * others).sum(-1).sum(dtype=torch.float64)


def pull(table: Tensor, centre: Tensor | None, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared distance of ID embeddings to their centre, summed: the Gaussian terms of CLLM4Rec's objective.

    Args:
        table: (I + J, d), receives the gradient.
        centre: (I + J, d), does not; zero if None (the prior).
        ids: (M,) ID numbers as they occur, with repeats.
        weights: (M,) 1 / occurrences in the epoch, so that an epoch sums to one term for each ID that occurs.
    """
    at = table[ids]
    distance = at if centre is None else at - centre.detach()[ids]
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
    with torch.autocast(states.device.type, enabled=False):  # exact in mixed precision too
        states, projected = states.float(), projected.float()
        positive = (states * projected[targets]).sum(-1)
        extra = positive[:, None]
        if hard is not None:
            own = torch.einsum("rd,rhd->rh", states, projected[hard])
            extra = torch.cat([extra, own.masked_fill(groups[hard] == groups[targets][:, None], -torch.inf)], dim=1)
        weights = torch.ones_like(positive)
        left_out = _equal_pairs(groups[targets], groups[sample])
        normalisers = _Normalisers.apply(states, projected[sample], weights, extra, *left_out)
        return (normalisers - positive.sum(dtype=torch.float64)).float()


def _equal_pairs(own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """All (r, s) with own[r] == others[s], r ascending."""
    order = torch.argsort(others, stable=True)
    first, end = (torch.searchsorted(others[order], own, right=right) for right in (False, True))
    counts = end - first
    rows = torch.repeat_interleave(torch.arange(len(own), device=own.device), counts)
    within = torch.arange(len(rows), device=own.device) - (counts.cumsum(0) - counts)[rows]
    return rows, order[first[rows] + within]


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
