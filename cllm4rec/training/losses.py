"""Losses as small functions, exact, without dense targets and without all logits at once.

Under autocast, matrices are multiplied in its type, as elsewhere in the network, but those of the sampled softmax and of hard
negatives; sums and softmax stay in float32."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.training.blocked_nll import BlockedNLL


def _products_in(states: Tensor) -> torch.dtype:
    """In which type matrices are multiplied: that of autocast where it is on, else that of the states."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


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
        return BlockedNLL.apply(
            states, classes, counts, none, shown_rows, shown, rows, targets, dtype
        ).float()


class DrawnClasses(NamedTuple):
    """The classes that a softmax is estimated by: their numbers (S,), ascending; their rows (S, d); and the log of the
    probability with which each one is among them (S,)."""

    numbers: Tensor
    rows: Tensor
    log_p: Tensor

    def positions(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
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
        beside = right.masked_fill(
            sample.positions(targets)[1], -torch.inf
        )  # those drawn are in the sample already
        place, there = sample.positions(shown)
        counts = torch.bincount(rows, minlength=len(states))
        of, out = shown_rows[there], place[there]  # left out of the softmax of each of these states' targets
        out_rows = (counts.cumsum(0) - counts)[of].repeat_interleave(counts[of]) + _within(counts[of])
        own = torch.cat([own, torch.ones_like(own[:, :1])], dim=1)
        classes = torch.cat([classes, -sample.log_p[:, None]], dim=1)
        left_out, none = (out_rows, out.repeat_interleave(counts[of])), targets[:0]
        normalisers = BlockedNLL.apply(
            own, classes, torch.ones_like(right), beside[:, None], *left_out, none, none, own.dtype
        )
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
    states: Tensor,
    projected: Tensor,
    targets: Tensor,
    sample: Tensor,
    groups: Tensor,
    hard: Tensor | None = None,
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
            extra = torch.cat(
                [extra, own.masked_fill(groups[hard] == groups[targets][:, None], -torch.inf)], dim=1
            )
        weights = torch.ones_like(positive)
        left_out = _equal_pairs(groups[targets], groups[sample])
        none = targets[:0]
        normalisers = BlockedNLL.apply(
            states, projected[sample], weights, extra, *left_out, none, none, dtype
        )
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
    titles, projected = (
        functional.normalize(titles.float(), dim=-1),
        functional.normalize(projected.float(), dim=-1),
    )
    return user_contrast(titles / temperature, projected, items, sample, groups)
