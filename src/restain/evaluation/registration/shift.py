"""First stage: how far, and in which scale, the target lies from the source, by phase correlation.

Kuglin and Hines, The phase correlation image alignment method, 1975.
"""

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.registration.contrast import Float32, correlation
from restain.evaluation.registration.opencv import opencv

Matrix = NDArray[np.float64]
"""(2, 3): takes the (x, y) of a source pixel to the (x, y) of the target that shows the same tissue."""

SIMILAR_ASPECT = 0.02
"""Relative difference up to which two aspect ratios are that of one field, scanned at two resolutions."""

LEAST_OVERLAP = 0.1
"""Share of the source that must still lie over the target for a shift to be believed."""


def possible_scales(source: tuple[int, int], target: tuple[int, int]) -> list[float]:
    """Target pixels per source pixel that the two sizes allow: 1, and for one aspect ratio that of the sizes too.

    Two scanners that frame one field with different pixels (MITOS-ATYPIA-14: 1539x1376 and 1663x1485) give pictures
    of one aspect ratio; crops of one scale need not.

    Args:
        source: (width, height) of the source.
        target: (width, height) of the target.
    """
    wide, tall = target[0] / source[0], target[1] / source[1]
    scale = float(np.sqrt(wide * tall))
    alike = abs(wide / tall - 1) <= SIMILAR_ASPECT
    return [1.0, scale] if source != target and alike else [1.0]


def find_shift(source: Float32, target: Float32) -> tuple[float, float]:
    """Where the target shows what the source shows at (0, 0): (x, y) in pixels, to a fraction of one.

    Args:
        source: (H, W) local contrast, padding 0.
        target: (h, w) local contrast in the source's scale; its size may differ.
    """
    cv2 = opencv()
    height, width = (max(a, b) for a, b in zip(source.shape, target.shape, strict=True))
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(_padded(source, height, width), _padded(target, height, width), window)
    return (float(dx), float(dy)) if np.isfinite([dx, dy]).all() else (0.0, 0.0)


def agreement(source: Float32, target: Float32, shift: tuple[float, float]) -> float:
    """Correlation of the two where they overlap after a shift in whole pixels; -1 where they hardly do."""
    dx, dy = round(shift[0]), round(shift[1])
    height, width = source.shape
    top, left = max(0, -dy), max(0, -dx)
    bottom, right = min(height, target.shape[0] - dy), min(width, target.shape[1] - dx)
    if (bottom - top) * (right - left) < LEAST_OVERLAP * height * width or bottom <= top or right <= left:
        return -1.0
    a = source[top:bottom, left:right]
    return correlation(a, target[top + dy : bottom + dy, left + dx : right + dx], np.ones(a.shape, np.bool_))


def _padded(picture: Float32, height: int, width: int) -> Float32:
    out = np.zeros((height, width), np.float32)
    out[: picture.shape[0], : picture.shape[1]] = picture
    return out
