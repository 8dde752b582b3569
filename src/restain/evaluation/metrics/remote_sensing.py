"""Scores that came from remote sensing: ERGAS, RASE, UQI, SCC; as their papers define them.

sewar, which papers on stain normalization used, computes three of them otherwise; for its numbers see `sewar`.
"""

from typing import Any

import numpy as np
from scipy import ndimage

from restain.errors import InputError
from restain.evaluation.metrics.inputs import Color, Floats, Pair, checked_pair, values_of
from restain.evaluation.metrics.windows import box_sums, mean_where, whole_windows

SIDE = 8
"""Side of the sliding windows of UQI and SCC, pixels."""

RESOLUTION_RATIO = 0.25
"""h/l of ERGAS: pixel size of the sharpened over that of the original image. It has no meaning for stain
normalization; a quarter is what the literature of pan-sharpening mostly has."""

_ROUNDING = 1e-3
"""Of the 8 × 8 windows' variances times 64²: what lies below is rounding of the luma, whose least step gives 0.8."""

LAPLACIAN = np.array([[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]])


def ergas(reference: Any, image: Any, mask: Any = None, *, ratio: float = RESOLUTION_RATIO) -> float:
    """ERGAS, 100·(h/l)·√(mean over channels of RMSE²/μ²), with μ the reference's mean; lower is better, 0 if equal.

    Over the whole image (not windows), RGB, range 0..255 (any range gives the same). Wald, "Data Fusion: Definitions
    and Architectures", 2002.

    Args:
        reference: (H, W, 3) or (H, W) uint8.
        image: the same shape.
        mask: (H, W) bool, the pixels to compare.
        ratio: h/l; say it with the number, which is proportional to it.

    Raises:
        InputError: an image or the mask is not what was wanted, or a channel of the reference is 0 everywhere.
    """
    if not 0 < ratio < float("inf"):
        raise InputError(f"got ratio={ratio}; wanted a number above 0")
    means, squares = _means_and_errors(checked_pair(reference, image, mask))
    return float(100 * ratio * np.sqrt((squares / means**2).mean()))


def rase(reference: Any, image: Any, mask: Any = None) -> float:
    """RASE, (100/μ)·√(mean over channels of RMSE²), μ the reference's mean over channels, in %; lower is better.

    Over the whole image, RGB. Ranchin & Wald, "Fusion of high spatial and spectral resolution images", 2000.

    Raises:
        InputError: an image or the mask is not what was wanted, or a channel of the reference is 0 everywhere.
    """
    means, squares = _means_and_errors(checked_pair(reference, image, mask))
    return float(100 / means.mean() * np.sqrt(squares.mean()))


def uqi(reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb") -> float:
    """Universal image quality index: SSIM with both constants 0; higher is better, 1 for equal images, −1 at least.

    Uniform 8 × 8 windows, whole ones only; mean over windows, then channels. Without constants it is unstable where a
    window is flat, as on glass. Where both windows are flat, structure counts as equal, and 2·μx·μy/(μx² + μy²) is
    left; where both are black, 1. Wang & Bovik, "A universal image quality index", 2002.

    Raises:
        InputError: an image or the mask is not what was wanted; a side is below 8.
    """
    pair = checked_pair(reference, image, mask, color=color, least=SIDE)
    first, second, n = pair.reference, pair.image, SIDE * SIDE
    sums = box_sums(np.stack([first, second, first * first + second * second, first * second]), SIDE)
    product, squares = sums[0] * sums[1], sums[0] * sums[0] + sums[1] * sums[1]
    covariance, variances = n * sums[3] - product, n * sums[2] - squares
    variances[variances < _ROUNDING] = 0
    luminance = np.divide(2 * product, squares, out=np.ones_like(squares), where=squares > 0)
    structure = np.divide(2 * covariance, variances, out=np.ones_like(squares), where=variances > 0)
    return float(mean_where(luminance * structure, whole_windows(pair.mask, SIDE)).mean())


def scc(reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb") -> float:
    """Spatial correlation coefficient: local correlation of the edges of two images; higher is better, 1 at most.

    Each channel is filtered with the 3 × 3 Laplacian of centre 8; the Pearson correlation is taken in all whole 8 × 8
    windows (0 where one of the two has no edges), and averaged over windows, then channels. A pixel of misregistration
    makes it collapse. Zhou, Civco & Silander, "A wavelet transform method to merge Landsat TM and SPOT panchromatic
    data", 1998, for the filter. sewar and torchmetrics also count windows that hang over the border.

    Raises:
        InputError: an image or the mask is not what was wanted; a side is below 10.
    """
    pair = checked_pair(reference, image, mask, color=color, least=SIDE + 2)
    first, second = (ndimage.correlate(x, LAPLACIAN[None])[:, 1:-1, 1:-1] for x in pair[:2])
    n = SIDE * SIDE
    sums = box_sums(np.stack([first, second, first * first, second * second, first * second]), SIDE)
    spreads = n * sums[2:4] - sums[:2] ** 2
    covariance = n * sums[4] - sums[0] * sums[1]
    local = np.zeros_like(covariance)
    np.divide(
        covariance, np.sqrt(np.maximum(spreads[0] * spreads[1], 0)), out=local, where=(spreads > _ROUNDING).all(axis=0)
    )
    return float(mean_where(local, whole_windows(pair.mask, SIDE + 2)).mean())


def _means_and_errors(pair: Pair) -> tuple[Floats, Floats]:
    """Of each channel, the reference's mean and the mean squared error."""
    first, second = values_of(pair)
    means = first.mean(axis=1)
    if (means == 0).any():
        raise InputError("a channel of the reference is 0 everywhere; this metric divides by its mean")
    return means, ((first - second) ** 2).mean(axis=1)
