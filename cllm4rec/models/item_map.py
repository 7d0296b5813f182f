"""Positions of items in the plane that holds most of the variance of their vectors."""

import scipy.linalg
import torch
from torch import Tensor


def principal_plane(vectors: Tensor) -> tuple[Tensor, float]:
    """The first two principal components of vectors.

    Args:
        vectors: float32 (n, d).

    Returns:
        Coordinates in -1 .. 1, float32 (n, 2), both on one scale; and the share of the variance that the
        plane holds, 0 .. 1. The sign of an axis makes its largest coefficient positive.
    """
    centred = vectors - vectors.mean(0)
    covariance = (centred.T @ centred / len(vectors)).double().cpu().numpy()
    d = len(covariance)
    variances, axes = scipy.linalg.eigh(covariance, subset_by_index=[max(0, d - 2), d - 1])
    plane = torch.zeros(d, 2)
    plane[:, : len(variances)] = torch.from_numpy(axes[:, ::-1].copy())  # the largest variance first
    largest = plane.gather(0, plane.abs().argmax(0, keepdim=True))  # (1, 2)
    plane *= torch.where(largest < 0, -1.0, 1.0)
    positions = centred @ plane.to(centred)  # (n, 2)
    total = max(float(covariance.trace()), torch.finfo(torch.float32).tiny)
    scale = positions.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return (positions / scale).cpu(), min(1.0, max(0.0, float(variances.sum()) / total))
