"""Gray-value profiles: the levels along a line, which show at a glance what a normalizer does to edges and contrast."""

from typing import Any

import numpy as np
from scipy import ndimage

from restain.errors import InputError
from restain.evaluation.metrics.inputs import Floats, checked_image, checked_pair, gray

Point = tuple[float, float]


def gray_profile(image: Any, start: Point | None = None, end: Point | None = None, *, width: int = 1) -> Floats:
    """Luma along a straight line, one value a pixel of its length, ends included, bilinear between pixels.

    Args:
        image: (H, W, 3) or (H, W) uint8.
        start: (x, y) in pixels, (0, 0) the middle of the first pixel. Left of the middle row by default.
        end: (x, y); right of the middle row by default.
        width: of a band around the line, pixels, that is averaged across.

    Returns:
        (n,) float64, 0..255, not rounded.

    Raises:
        InputError: the image is not what was wanted, a point lies outside, or the width is below 1.
    """
    pixels = checked_image(image)
    height, columns = pixels.shape[:2]
    middle = float(height // 2)
    first, last = (0.0, middle) if start is None else start, (columns - 1.0, middle) if end is None else end
    for point in (first, last):
        if not (0 <= point[0] <= columns - 1 and 0 <= point[1] <= height - 1):
            raise InputError(f"got the point {point}; wanted (x, y) within 0..{columns - 1}, 0..{height - 1}")
    if width < 1:
        raise InputError(f"got width={width}; wanted 1 or more")
    length = float(np.hypot(last[0] - first[0], last[1] - first[1]))
    along = np.linspace(0, 1, round(length) + 1)
    across = np.arange(width) - (width - 1) / 2
    normal = (-(last[1] - first[1]) / length, (last[0] - first[0]) / length) if length else (0.0, 0.0)
    x = first[0] + (last[0] - first[0]) * along + across[:, None] * normal[0]
    y = first[1] + (last[1] - first[1]) * along + across[:, None] * normal[1]
    profile: Floats = ndimage.map_coordinates(gray(pixels), [y, x], order=1, mode="nearest").mean(axis=0)
    return profile


def profile_difference(
    reference: Any, image: Any, start: Point | None = None, end: Point | None = None, *, width: int = 1
) -> float:
    """Mean absolute difference of two gray profiles along one line, levels of 0..255; lower is better.

    Against the source it counts a wanted change of brightness as an error; against a registered target, a shift of
    half a nucleus. It is one line of the picture: draw the profiles (`gray_profile`) rather than compare numbers.
    Arguments as for `gray_profile`; both images of one size.
    """
    checked_pair(reference, image)
    profiles = [gray_profile(pixels, start, end, width=width) for pixels in (reference, image)]
    return float(np.abs(profiles[0] - profiles[1]).mean())
