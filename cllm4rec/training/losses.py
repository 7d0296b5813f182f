"""Losses as small functions, exact, without dense targets and without all logits at once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

LOGITS_AT_ONCE = 1 << 23  # numbers: rows of states are taken so that rows * classes stays below (32 MiB in float32)


class _MultinomialNLL(torch.autograd.Function):
    """Loss and gradients in one walk over blocks of rows: the logits of a block are used and thrown away."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, classes: Tensor, rows: Tensor, targets: Tensor, shown_rows: Tensor, shown: Tensor
    ) -> Tensor:
        need_states, need_classes = ctx.needs_input_grad[:2]
        grad_states = torch.zeros_like(states) if need_states else None
        grad_classes = torch.zeros_like(classes) if need_classes else None
        counts = torch.bincount(rows, minlength=len(states)).to(torch.float32)
        loss = torch.zeros((), dtype=torch.float64, device=states.device)
        states, classes = states.detach().float(), classes.detach().float()
        step = max(1, LOGITS_AT_ONCE // len(classes))
        bounds = torch.arange(0, len(states) + step, step, device=states.device)
        at, shown_at = torch.searchsorted(rows, bounds).tolist(), torch.searchsorted(shown_rows, bounds).tolist()
        for block, start in enumerate(range(0, len(states), step)):
            own = states[start : start + step]
            logits = own @ classes.T  # (rows of the block, n_classes)
            some = slice(shown_at[block], shown_at[block + 1])
            logits[shown_rows[some] - start, shown[some]] = -torch.inf
            some = slice(at[block], at[block + 1])
            row, target = rows[some] - start, targets[some]
            normaliser = torch.logsumexp(logits, dim=1)  # (rows of the block,)
            count = counts[start : start + step]
            loss += (count * normaliser).sum(dtype=torch.float64) - logits[row, target].sum(dtype=torch.float64)
            if not (need_states or need_classes):
                continue
            slope = logits.sub_(normaliser[:, None]).exp_().mul_(count[:, None])  # d loss / d logits, but for targets
            slope.index_put_((row, target), slope.new_full((1,), -1.0), accumulate=True)
            if grad_states is not None:
                grad_states[start : start + step] = slope @ classes
            if grad_classes is not None:
                grad_classes += slope.T @ own
        ctx.save_for_backward(grad_states, grad_classes)
        return loss.to(torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_classes = ctx.saved_tensors
        return (
            None if grad_states is None else grad_states * grad.to(grad_states.dtype),
            None if grad_classes is None else grad_classes * grad.to(grad_classes.dtype),
            None,
            None,
            None,
            None,
        )


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
        return _MultinomialNLL.apply(states, classes, rows, targets, shown_rows, shown)


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


def info_nce(positive: Tensor, negative: Tensor, excluded: Tensor) -> Tensor:
    """Contrastive loss, summed over rows: - log of the share of the right one, e^positive / (e^positive + sum of e^negative).

    Args:
        positive: (R,) logit of what belongs to the row.
        negative: (R, S) logits of what it is contrasted with; overwritten.
        excluded: (R, S), True where that is no negative: the right one itself, or one that cannot be told from it.
    """
    logits = torch.cat([positive[:, None], negative.masked_fill_(excluded, -torch.inf)], dim=1)
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).sum()


def user_contrast(
    states: Tensor, projected: Tensor, targets: Tensor, sample: Tensor, groups: Tensor, hard: Tensor | None = None
) -> Tensor:
    """C_user of RSLLM: the state of a history against P(e_j) of the item that came next, by inner product, summed.

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
        own = groups[targets][:, None]
        positive = (states * projected[targets]).sum(-1)
        negative, excluded = states @ projected[sample].T, own == groups[sample]
        if hard is not None:
            negative = torch.cat([negative, torch.einsum("rd,rhd->rh", states, projected[hard])], dim=1)
            excluded = torch.cat([excluded, own == groups[hard]], dim=1)
        return info_nce(positive, negative, excluded)


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
