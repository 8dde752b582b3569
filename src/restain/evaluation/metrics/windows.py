"""Means over sliding windows, at those places only where the whole window lies within the image (and the mask)."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.errors import InputError
from restain.evaluation.metrics.inputs import Floats, Mask

GAUSSIAN_SIDE = 11
"""The window of Wang et al. 2004: 11 × 11, a Gaussian of σ = 1.5, of sum 1."""

GAUSSIAN_SIGMA = 1.5


@lru_cache
def gaussian_weights(side: int = GAUSSIAN_SIDE, sigma: float = GAUSSIAN_SIGMA) -> Floats:
    """The weights along one axis, (side,), of sum 1; the window is their outer product."""
    offset = np.arange(side) - (side - 1) / 2
    weights: Floats = np.exp(-0.5 * (offset / sigma) ** 2)
    weights /= weights.sum()
    weights.flags.writeable = False
    return weights


def gaussian_means(maps: Floats) -> Floats:
    """Gaussian means of maps (..., H, W) at all whole windows: (..., H − 10, W − 10)."""
    half = GAUSSIAN_SIDE // 2
    weights = gaussian_weights()
    rows = ndimage.correlate1d(maps, weights, axis=-2)[..., half:-half, :]
    means: Floats = ndimage.correlate1d(rows, weights, axis=-1)[..., half:-half]
    return means


def box_sums(maps: Floats, side: int) -> Floats:
    """Sums over all whole `side` × `side` windows of maps (..., H, W): (..., H − side + 1, W − side + 1).

    Each window is added up by itself, without running totals: sums of whole numbers are exact, so that a flat window
    has a variance of 0, and others do not lose digits in large images.
    """
    rows: Floats = maps[..., : maps.shape[-2] - side + 1, :].copy()
    for offset in range(1, side):
        rows += maps[..., offset : offset + rows.shape[-2], :]
    sums: Floats = rows[..., : maps.shape[-1] - side + 1].copy()
    for offset in range(1, side):
        sums += rows[..., offset : offset + sums.shape[-1]]
    return sums


def whole_windows(mask: Mask | None, side: int) -> Mask | None:
    """Which of the `side` × `side` windows lie wholly in the mask, (H − side + 1, W − side + 1); None for all.

    Raises:
        InputError: none does.
    """
    if mask is None:
        return None
    inside: Mask = box_sums(mask.astype(np.float64), side) == side * side
    if not inside.any():
        raise InputError(
            f"the mask holds no square of {side} × {side} pixels, which is the window of this metric; wanted a larger "
            "mask, or a metric of single pixels"
        )
    return inside


def mean_where(maps: NDArray[np.float64], inside: Mask | None) -> Floats:
    """Mean of maps (..., h, w) over their last two axes, where `inside`: (...)."""
    mean: Floats = maps.mean(axis=(-2, -1)) if inside is None else maps[..., inside].mean(axis=-1)
    return mean
