"""Whether edges stayed where they were: the correlation of gradients."""

from typing import Any

import numpy as np
from scipy import ndimage

from restain.evaluation.metrics.inputs import Floats, checked_pair
from restain.evaluation.metrics.pixel_errors import correlation
from restain.evaluation.metrics.windows import whole_windows


def gradient_correlation(reference: Any, image: Any, mask: Any = None) -> float:
    """Pearson correlation of the gradient magnitudes of two images' luma; higher is better, 1 at most.

    Sobel 3 × 3 on the unrounded luma, 0..255, inner pixels only. Taken against the *source*, it falls where a network
    invents or erases texture, and not for a change of brightness or contrast. Two flat images have no edges to
    compare, and two noisy ones have different noise: read it on tissue, with a mask.

    Args:
        reference: (H, W, 3) or (H, W) uint8, sides of 3 or more.
        image: the same shape.
        mask: (H, W) bool; a pixel counts where its 3 × 3 neighbourhood lies in it.

    Returns:
        The correlation; NaN where an image has one gradient everywhere.

    Raises:
        InputError: an image or the mask is not what was wanted.
    """
    pair = checked_pair(reference, image, mask, color="gray", least=3)
    inside = whole_windows(pair.mask, 3)
    first, second = (gradient_magnitude(channels[0])[1:-1, 1:-1] for channels in pair[:2])
    if inside is not None:
        first, second = first[inside], second[inside]
    return correlation(first.ravel(), second.ravel())


def gradient_magnitude(luma: Floats) -> Floats:
    """Length of the Sobel gradient of (H, W), levels a pixel."""
    magnitude: Floats = np.hypot(ndimage.sobel(luma, axis=0), ndimage.sobel(luma, axis=1)) / 8
    return magnitude
