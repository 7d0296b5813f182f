"""Diverse lists by maximal marginal relevance (Carbonell and Goldstein, 1998)."""

import torch
from torch import Tensor
from torch.nn import functional

POOL = 500  # best items of a user, of which lists are chosen: a shorter list is the beginning of a longer one
NUMBERS_AT_ONCE = 1 << 24  # of the vectors of some users' pools: 64 MiB


def pool_size(k: int, n_items: int) -> int:
    """Number of best items of which lists of k items are chosen."""
    return min(n_items, max(k, POOL))


def diversified(
    items: Tensor, scores: Tensor, vectors: Tensor, k: int, diversity: float
) -> tuple[Tensor, Tensor]:
    """Lists that are chosen from the best items of each user, item by item.

    The next item has the highest (1 - diversity) * relevance - diversity * similarity. Relevance is the score
    of the item, scaled to 0 .. 1 over the user's best items. Similarity is the largest cosine between its
    vector and that of a chosen item; the mean over all items is subtracted from vectors first. The first item
    of a list is the best one. Of equal values the item of the higher score is taken.

    Args:
        items: int64 (B, P), the best items, best first; -1 after the last.
        scores: float32 (B, P) of these items; -inf where there is none.
        vectors: (n_items, d) of all items.
        k: length of the lists, at most P.
        diversity: 0 .. 1; 0 changes nothing.

    Returns:
        Items (B, k) and their scores (B, k).
    """
    centre = vectors.float().mean(0)
    n_users = max(1, NUMBERS_AT_ONCE // max(1, items.shape[1] * vectors.shape[1]))
    columns = []
    for of_items, of_scores in zip(items.split(n_users), scores.split(n_users), strict=True):
        unit = functional.normalize(vectors[of_items.clamp(min=0)].float() - centre, dim=-1)  # (b, P, d)
        columns.append(_chosen(of_scores, unit, k, diversity))
    chosen = torch.cat(columns)  # (B, k)
    return items.gather(1, chosen), scores.gather(1, chosen)


def _chosen(scores: Tensor, vectors: Tensor, k: int, diversity: float) -> Tensor:
    """Columns (b, k) of the chosen ones among items with scores (b, P) and unit vectors (b, P, d)."""
    is_item = scores > -torch.inf  # (b, P)
    after_last = is_item.sum(1).clamp(max=scores.shape[1] - 1)  # (b,), taken where no item is left
    lowest = scores.masked_fill(~is_item, torch.inf).amin(1, keepdim=True)
    span = (scores[:, :1] - lowest).clamp(min=torch.finfo(scores.dtype).tiny)
    relevance = ((scores - lowest) / span).masked_fill(~is_item, 0.0)
    rows = torch.arange(len(scores), device=scores.device)
    columns = torch.empty(len(scores), k, dtype=torch.int64, device=scores.device)
    value, similarity, left = relevance, torch.full_like(relevance, -1.0), is_item
    for place in range(k):
        value = value.masked_fill(~left, -torch.inf)
        column = torch.where(left.any(1), value.argmax(1), after_last)
        columns[:, place], left = column, left.scatter(1, column[:, None], False)
        cosines = (vectors @ vectors[rows, column, :, None])[..., 0]  # (b, P)
        similarity = torch.maximum(similarity, cosines)
        value = (1 - diversity) * relevance - diversity * similarity
    return columns
