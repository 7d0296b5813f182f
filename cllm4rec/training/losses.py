"""Losses as functions: exact, without dense targets and without all logits at once.

Under autocast, matrix products run in the autocast dtype, except in the sampled softmax and for hard
negatives. Sums and the softmax stay in float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cllm4rec.training.blocked_nll import BlockedNLL


def _product_dtype(states: Tensor) -> torch.dtype:
    """Dtype of matrix products: that of autocast if it is on, else that of the states."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def multinomial_nll(
    states: Tensor,
    classes: Tensor,
    rows: Tensor,
    targets: Tensor,
    excluded_rows: Tensor | None = None,
    excluded: Tensor | None = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Negative log-likelihood of sparse multinomial targets, summed, exact.

    sum over r of n_r * logsumexp(states_r classes^T) - sum over targets t of r of states_r . classes_t
    (CLLM4Rec, the multinomial item prediction). With one target a row it is the cross-entropy of a language
    model.

    Args:
        states: (R, d).
        classes: (C, d), the classes of the softmax: items, or tokens. Without a gradient they are read in
            their own dtype, block by block.
        rows: (T,) ascending, the state of each target.
        targets: (T,), the class of each target.
        excluded_rows, excluded: (P,), pairs of a state, ascending, and a class left out of its softmax; none
            by default.
        bias: (C,) of the classes, none by default.
        softcap: bound c of the logits, by c tanh(logits / c); none by default.

    Returns:
        A float32 scalar. Not a mean: divide by the number of targets of the global batch.
    """
    if excluded is None or excluded_rows is None:
        excluded = excluded_rows = targets[:0]
    dtype = _product_dtype(states)
    with torch.autocast(states.device.type, enabled=False):
        states, classes = states.float(), classes.float() if classes.requires_grad else classes
        bias = None if bias is None else bias.float()
        counts = torch.bincount(rows, minlength=len(states)).to(torch.float32)  # (R,), targets of each state
        no_extra = states.new_zeros(len(states), 0)
        excluded_pairs, target_pairs = (excluded_rows, excluded), (rows, targets)
        return BlockedNLL.apply(
            states, classes, counts, no_extra, *excluded_pairs, *target_pairs, dtype, bias, softcap
        ).float()


class SampledClasses(NamedTuple):
    """A sample of the classes.

    Attributes:
        numbers: (S,) ascending, the classes.
        rows: (S, d), their embeddings.
        log_p: (S,), log of the probability that a sample holds the class.
    """

    numbers: Tensor
    rows: Tensor
    log_p: Tensor

    def positions(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Index in the sample of each class (N,), and whether the sample holds it (N,)."""
        index = torch.searchsorted(self.numbers, numbers).clamp(max=len(self.numbers) - 1)
        return index, self.numbers[index] == numbers


def sampled_nll(
    states: Tensor,
    sample: SampledClasses,
    positives: Tensor,
    rows: Tensor,
    targets: Tensor,
    log_p: Tensor,
    excluded_rows: Tensor | None = None,
    excluded: Tensor | None = None,
) -> Tensor:
    """`multinomial_nll` with each target's softmax over a sample of the classes and the target itself.

    The logit of a class is corrected by the log of the probability that a sample holds it (Jean et al.,
    2015): it is subtracted. So frequently sampled classes count no more than others. A state's other targets
    enter the normaliser only if they were sampled; always including them would overweight rare items. A
    sample of all classes has probability 1 and gives the exact loss.

    Args:
        states: (R, d).
        sample: the sampled classes.
        positives: (T, d), embeddings of the targets.
        rows, targets: (T,), as `multinomial_nll` takes them.
        log_p: (T,), log of the probability that a sample holds the target.
        excluded_rows, excluded: as `multinomial_nll` takes them.
    """
    if excluded is None or excluded_rows is None:
        excluded = excluded_rows = targets[:0]
    with torch.autocast(states.device.type, enabled=False):  # log_p is a factor, and must not be rounded
        # one softmax a target: its state, and the logit of the target
        target_states, classes = states.float()[rows], sample.rows.float()  # (T, d), (S, d)
        positive = (target_states * positives.float()).sum(-1) - log_p  # (T,)
        sampled = sample.positions(targets)[1]  # (T,)
        extra = positive.masked_fill(sampled, -torch.inf)  # a sampled target is counted once
        # logit - log_p as one product: a column of 1 for the states, of -log_p for the classes
        target_states = torch.cat([target_states, torch.ones_like(target_states[:, :1])], dim=1)  # (T, d + 1)
        classes = torch.cat([classes, -sample.log_p[:, None]], dim=1)  # (S, d + 1)
        # excluded classes of a state are those of each of its targets
        counts = torch.bincount(rows, minlength=len(states))  # (R,)
        column, held = sample.positions(excluded)
        state, column = excluded_rows[held], column[held]  # (P',), pairs of a state and a sampled class
        first_target = (counts.cumsum(0) - counts)[state]
        n = counts[state]
        pairs = (first_target.repeat_interleave(n) + _arange(n), column.repeat_interleave(n))
        weights, none = torch.ones_like(positive), targets[:0]
        normalisers = BlockedNLL.apply(
            target_states, classes, weights, extra[:, None], *pairs, none, none, target_states.dtype
        )
        return (normalisers - positive.sum(dtype=torch.float64)).float()


def _arange(counts: Tensor) -> Tensor:
    """0 .. n-1 for each n of the counts, concatenated."""
    ends = counts.cumsum(0)
    return torch.arange(int(counts.sum()), device=counts.device) - (ends - counts).repeat_interleave(counts)


def squared_distance(embeddings: Tensor, centres: Tensor | None, weights: Tensor) -> Tensor:
    """Weighted squared distance of ID embeddings to their centres, summed: CLLM4Rec's Gaussian terms.

    Args:
        embeddings: (M, d) of the IDs that occur, with repeats; they receive the gradient.
        centres: (M, d), which receive none; zero if None (the prior).
        weights: (M,), 1 / occurrences in the epoch, so that an epoch adds one term for each ID that occurs.
    """
    distance = embeddings if centres is None else embeddings - centres.detach()
    return (distance.float().square().sum(-1) * weights).sum()


def contrast(
    states: Tensor,
    vectors: Tensor,
    targets: Tensor,
    sample: Tensor,
    groups: Tensor,
    hard: Tensor | None = None,
) -> Tensor:
    """A contrastive loss of RSLLM: states against the vectors of their items, by inner product, summed.

    The loss of a row is -log softmax of the inner product with its item, over itself and its negatives. A
    negative that is named more than once counts once.

    Args:
        states: (R, d).
        vectors: (M, d), of the items of the batch.
        targets: (R,), index of the item of each row in `vectors`.
        sample: (S,), indices of the negatives that all rows share.
        groups: (M,), equal for items that share a title: these are never each other's negatives.
        hard: (R, H), indices of further negatives of each row.
    """
    dtype = _product_dtype(states)
    with torch.autocast(states.device.type, enabled=False):
        states, vectors = states.float(), vectors.float()
        positive = (states * vectors[targets]).sum(-1)  # (R,)
        extra = positive[:, None]
        if hard is not None:
            logits = torch.einsum("rd,rhd->rh", states, vectors[hard])  # (R, H)
            same_title = groups[hard] == groups[targets][:, None]
            repeated = (hard[:, :, None] == hard[:, None]).tril(-1).any(2) | torch.isin(hard, sample)
            left_out = same_title | repeated  # (R, H)
            extra = torch.cat([extra, logits.masked_fill(left_out, -torch.inf)], dim=1)  # (R, 1 + H)
        weights, none = torch.ones_like(positive), targets[:0]
        excluded = _equal_pairs(groups[targets], groups[sample])
        normalisers = BlockedNLL.apply(states, vectors[sample], weights, extra, *excluded, none, none, dtype)
        return (normalisers - positive.sum(dtype=torch.float64)).float()


def info_nce(
    states: Tensor,
    positives: Tensor,
    rows: Tensor,
    negatives: Tensor,
    log_p: Tensor,
    excluded: tuple[Tensor, Tensor],
) -> Tensor:
    """InfoNCE of targets, summed: each against itself and the negatives of its state, but no other target.

    The loss of a target t is -log(exp(s_t) / (exp(s_t) + sum over negatives j of exp(s_j) / p_j)), where s
    are inner products with the state. This sum over a sample estimates that of exp(s_j) over all negatives.

    Args:
        states: (R, d).
        positives: (T, d), embeddings of the targets.
        rows: (T,), the state of each target.
        negatives: (S, d), a sample that all states share.
        log_p: (S,), log of the probability p that a sample holds each of them.
        excluded: states (P,), and indices in the sample (P,): pairs that are left out.
    """
    with torch.autocast(states.device.type, enabled=False):
        states, positives = states.float(), positives.float()
        logits = states @ negatives.float().T - log_p  # (R, S)
        is_excluded = torch.zeros_like(logits, dtype=torch.bool)
        is_excluded[excluded] = True
        against = logits.masked_fill(is_excluded, -torch.inf).logsumexp(1)  # (R,)
        return functional.softplus(against[rows] - (states[rows] * positives).sum(-1)).sum()


def _equal_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """All (r, s) with left[r] == right[s], r ascending."""
    order = torch.argsort(right, stable=True)
    start, end = (torch.searchsorted(right[order], left, right=after) for after in (False, True))
    counts = end - start  # of equal values in `right`, for each of `left`
    rows = torch.repeat_interleave(torch.arange(len(left), device=left.device), counts)
    return rows, order[start[rows] + _arange(counts)]
