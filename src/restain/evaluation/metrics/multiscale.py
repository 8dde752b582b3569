"""Multi-scale structural similarity (MS-SSIM): Wang, Simoncelli & Bovik, "Multi-scale structural similarity for image
quality assessment", 2003.
"""

from typing import Any

import numpy as np

from restain.evaluation.metrics.inputs import Color, Floats, Mask, checked_pair
from restain.evaluation.metrics.structural import similarity_maps
from restain.evaluation.metrics.windows import GAUSSIAN_SIDE, mean_where, whole_windows

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first, as the paper found them in an experiment with people."""

LEAST_SIDE = GAUSSIAN_SIDE * 2 ** (len(SCALE_WEIGHTS) - 1)
"""176: at the fifth scale, one window must still fit."""


def ms_ssim(reference: Any, image: Any, mask: Any = None, *, color: Color = "gray") -> float:
    """Multi-scale structural similarity; higher is better, 1 for equal images, 0 at least.

    Contrast and structure at five scales and luminance at the coarsest, each averaged over whole 11 × 11 Gaussian
    windows, then multiplied with the exponents `SCALE_WEIGHTS`. Each scale is the 2 × 2 mean of the one before. A
    negative mean, which has no real power, counts as 0, as in torchmetrics. Range 0..255; `color="rgb"` takes each
    channel apart and averages the three results.

    Args:
        reference: (H, W, 3) or (H, W) uint8, sides of 176 or more.
        image: the same shape.
        mask: (H, W) bool; at a coarser scale, a pixel counts where all that it is made of do.
        color: as for `restain.evaluation.metrics.ssim`.

    Raises:
        InputError: an image or the mask is not what was wanted; the mask holds no window at the coarsest scale.
    """
    pair = checked_pair(reference, image, mask, color=color, least=LEAST_SIDE)
    first, second, where = pair.reference, pair.image, pair.mask
    score = np.ones(len(first))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            first, second, where = halved(first), halved(second), halved_mask(where)
        luminance, structure = similarity_maps(first, second)
        terms = structure if scale < len(SCALE_WEIGHTS) - 1 else luminance * structure
        score *= np.maximum(mean_where(terms, whole_windows(where, GAUSSIAN_SIDE)), 0.0) ** weight
    return float(score.mean())


def halved(channels: Floats) -> Floats:
    """(C, H, W) at half the size, each pixel the mean of 2 × 2; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in channels.shape[-2:])
    rows = channels[..., :height:2, :width] + channels[..., 1:height:2, :width]
    half: Floats = (rows[..., ::2] + rows[..., 1::2]) / 4
    return half


def halved_mask(mask: Mask | None) -> Mask | None:
    """(H, W) at half the size, True where all 2 × 2 are."""
    if mask is None:
        return None
    height, width = (side // 2 * 2 for side in mask.shape)
    rows = mask[:height:2, :width] & mask[1:height:2, :width]
    half: Mask = rows[:, ::2] & rows[:, 1::2]
    return half
