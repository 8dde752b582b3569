"""What two scanners' pictures have in common: gray levels relative to their neighbourhood."""

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.evaluation.registration.opencv import opencv

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

GRAIN = 4.0
"""Grey levels of deviation that count as noise: added to the local deviation, so that glass stays flat."""


def gray_levels(image: RGB8) -> Float32:
    """Gray, 0.299 R + 0.587 G + 0.114 B, as (H, W) float32 in 0..255, not rounded."""
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def local_contrast(gray: Float32, known: Mask | None, radius: float) -> Float32:
    """Gray relative to the mean and deviation of its neighbourhood.

    Args:
        gray: (H, W) grey levels.
        known: (H, W) which pixels are real; the others become 0 and do not touch their neighbours. None for all.
        radius: sigma of the neighbourhood, pixels.

    Returns:
        (H, W) float32, mostly within -3..3; 0 where nothing is known.
    """
    weight = np.ones(gray.shape, np.float32) if known is None else known.astype(np.float32)
    total: Float32 = np.maximum(_blurred(weight, radius), np.float32(1e-3))
    apart: Float32 = (gray - _blurred(gray * weight, radius) / total) * weight
    contrast: Float32 = apart / np.sqrt(_blurred(apart * apart, radius) / total + np.float32(GRAIN**2))
    return contrast


def as_8_bits(contrast: Float32) -> NDArray[np.uint8]:
    """Contrast as the 8-bit levels that optical flow takes: 0 at 128, a deviation of 1 as 40 levels."""
    return np.clip(np.rint(contrast * 40 + 128), 0, 255).astype(np.uint8)


def correlation(a: Float32, b: Float32, mask: Mask) -> float:
    """Pearson's correlation of two pictures where `mask` is set; 0 where either is flat there or nothing is set."""
    if not mask.any():
        return 0.0
    x, y = a[mask].astype(np.float64), b[mask].astype(np.float64)
    x -= x.mean()
    y -= y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 1e-9 else 0.0


def _blurred(picture: Float32, radius: float) -> Float32:
    cv2 = opencv()
    out: Float32 = cv2.GaussianBlur(picture, (0, 0), radius, borderType=cv2.BORDER_REFLECT_101)
    return out
