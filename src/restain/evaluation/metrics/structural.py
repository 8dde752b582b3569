"""Structural similarity (SSIM): Wang, Bovik, Sheikh & Simoncelli, "Image quality assessment: from error visibility to
structural similarity", 2004.

SSIM = (2·μx·μy + C1)(2·σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)), with C = (K·L)², K = 0.01 and 0.03, L = 255.
"""

from typing import Any

import numpy as np

from restain.errors import InputError
from restain.evaluation.metrics.inputs import DATA_RANGE, Color, Floats, checked_pair
from restain.evaluation.metrics.windows import GAUSSIAN_SIDE, gaussian_means, mean_where, whole_windows

C1 = (0.01 * DATA_RANGE) ** 2
C2 = (0.03 * DATA_RANGE) ** 2

SAMPLE = GAUSSIAN_SIDE**2 / (GAUSSIAN_SIDE**2 - 1)
"""What scikit-image multiplies variances by: n/(n − 1), as if the 121 pixels of a window had equal weights."""


def ssim(reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb", sample: bool = True) -> float:
    """Mean structural similarity; higher is better, 1 for equal images, never above 1, seldom below 0.

    Window: 11 × 11, Gaussian of σ = 1.5, whole windows only. Averaged over windows, then over channels. Range 0..255.
    The colour image against a registered target is the field's "SSIM Target"; `color="gray"` against the source is
    "SSIM Source". It falls steeply when two images are a pixel apart.

    Args:
        reference: (H, W, 3) or (H, W) uint8, sides of 11 or more.
        image: the same shape.
        mask: (H, W) bool; windows that leave it do not count.
        color: "rgb" for the mean of three channels, "gray" for the luma, "gray8" for the luma rounded to 8 bits.
        sample: variances as scikit-image has them, times 121/120; False for plain ones, as piq. (piq also shrinks
            images from 384 pixels on, and torchmetrics counts windows mirrored at the border; this does neither.)

    Raises:
        InputError: an image, mask or option is not what was wanted.
    """
    pair = checked_pair(reference, image, mask, color=color, least=GAUSSIAN_SIDE)
    inside = whole_windows(pair.mask, GAUSSIAN_SIDE)
    luminance, structure = similarity_maps(pair.reference, pair.image, SAMPLE if sample else 1.0)
    return float(mean_where(luminance * structure, inside).mean())


def ssim_stretched(reference: Any, image: Any, mask: Any = None) -> float:
    """SSIM of gray images stretched to 0..255 each, StainNet's "SSIM Source"; higher is better, 1 at most.

    It cannot see a change of brightness or contrast: g → 0.6·g + 80 scores 1.00 where `ssim` gives 0.92, on phantom
    tissue (`benchmarks/metrics.py`). Report `ssim(…, color="gray8")` beside it. Gray is rounded to 8 bits, the
    stretched values are not. Otherwise as `ssim`; the least and largest values are those of the whole image.

    Raises:
        InputError: an image or the mask is not what was wanted, or an image has one gray level only.
    """
    pair = checked_pair(reference, image, mask, color="gray8", least=GAUSSIAN_SIDE)
    inside = whole_windows(pair.mask, GAUSSIAN_SIDE)
    luminance, structure = similarity_maps(_stretched(pair.reference), _stretched(pair.image), SAMPLE)
    return float(mean_where(luminance * structure, inside).mean())


def similarity_maps(first: Floats, second: Floats, sample: float = 1.0) -> tuple[Floats, Floats]:
    """The two factors of SSIM at every whole window: luminance, and contrast with structure.

    Args:
        first: (C, H, W) float64, 0..255.
        second: the same.
        sample: what variances are multiplied by.

    Returns:
        Two arrays (C, H − 10, W − 10).
    """
    maps = np.stack([first, second, first * first + second * second, first * second])
    first_mean, second_mean, squares, product = gaussian_means(maps)
    mean_product = first_mean * second_mean
    mean_squares = first_mean * first_mean + second_mean * second_mean
    luminance: Floats = (2 * mean_product + C1) / (mean_squares + C1)
    covariance = sample * (product - mean_product)
    variances = sample * (squares - mean_squares)
    structure: Floats = (2 * covariance + C2) / (variances + C2)
    return luminance, structure


def _stretched(channels: Floats) -> Floats:
    low, high = channels.min(), channels.max()
    if low == high:
        raise InputError(f"got an image that is {low:g} everywhere; wanted one that can be stretched to 0..255")
    stretched: Floats = (channels - low) / (high - low) * DATA_RANGE
    return stretched
