"""Quaternion structural similarity (QSSIM): Kolaman & Yadid-Pecht, "Quaternion structural similarity: a new quality
index for color images", 2012.

A colour is the pure quaternion R·i + G·j + B·k, so that SSIM's products compare colours whole and not channel by
channel: the product of two has a scalar part, −(x·y), and a vector part, x × y, which is 0 only for equal hues.
"""

from typing import Any

import numpy as np

from restain.evaluation.metrics.inputs import Floats, checked_pair
from restain.evaluation.metrics.windows import GAUSSIAN_SIDE, gaussian_means, mean_where, whole_windows

C1, C2 = 0.01**2, 0.03**2
"""(K·L)² with K as for SSIM and L = 1: values are taken in 0..1."""


def qssim(reference: Any, image: Any, mask: Any = None, *, per_root_three: bool = False, white: float = 255.0) -> float:
    """SSIM of colours as quaternions, the modulus of it; higher is better, 1 for equal images, 0 at least.

    RGB in 0..1, 11 × 11 Gaussian windows of σ = 1.5, whole windows only, plain variances, averaged over windows. A
    modulus has no sign: an inverted image can score as high as a copy.

    Args:
        reference: (H, W, 3) uint8, sides of 11 or more.
        image: the same shape.
        mask: (H, W) bool; windows that leave it do not count.
        per_root_three: divide colours by √3, so that white has length 1; for gray images the result is then SSIM's.
        white: the level that is taken for 1; 256 in the authors' code.

    Raises:
        InputError: an image or the mask is not what was wanted.
    """
    pair = checked_pair(reference, image, mask, least=GAUSSIAN_SIDE, need_rgb=True)
    scale = white * (np.sqrt(3) if per_root_three else 1.0)
    x, y = pair.reference / scale, pair.image / scale
    squares, dot = (x * x + y * y).sum(axis=0), (x * y).sum(axis=0)
    means = gaussian_means(np.concatenate([x, y, squares[None], dot[None], _cross(x, y)]))
    mean_x, mean_y, squares, dot, cross = means[:3], means[3:6], means[6], means[7], means[8:]
    mean_squares = (mean_x**2 + mean_y**2).sum(axis=0)
    mean_dot, mean_cross = (mean_x * mean_y).sum(axis=0), _cross(mean_x, mean_y)
    # |x·conj(y) + c|: conj turns the sign of the scalar part; the vector part's does not matter to a modulus.
    luminance = np.sqrt((2 * mean_dot + C1) ** 2 + 4 * (mean_cross**2).sum(axis=0)) / (mean_squares + C1)
    structure = np.sqrt((2 * (dot - mean_dot) + C2) ** 2 + 4 * ((cross - mean_cross) ** 2).sum(axis=0))
    similarity = luminance * structure / (squares - mean_squares + C2)
    return float(mean_where(similarity, whole_windows(pair.mask, GAUSSIAN_SIDE)))


def _cross(first: Floats, second: Floats) -> Floats:
    """The cross product of vectors (3, H, W)."""
    product: Floats = np.stack(
        [
            first[1] * second[2] - first[2] * second[1],
            first[2] * second[0] - first[0] * second[2],
            first[0] * second[1] - first[1] * second[0],
        ]
    )
    return product
