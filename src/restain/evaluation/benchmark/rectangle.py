"""The largest rectangle inside a mask: where metrics that take no mask may look."""

import numpy as np
from numpy.typing import NDArray


def largest_rectangle(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the largest rectangle (by area) that lies wholly in a mask (H, W); empty without any.

    Row by row, columns are bars as high as the mask reaches up from there, and the largest rectangle under bars is
    found with a stack in one pass: H·W steps in all.
    """
    best, found = 0, (slice(0, 0), slice(0, 0))
    heights = np.zeros(mask.shape[1], np.int64)
    for row in range(mask.shape[0]):
        heights = np.where(mask[row], heights + 1, 0)
        area, height, left, right = _largest_under(heights.tolist())
        if area > best:
            best, found = area, (slice(row + 1 - height, row + 1), slice(left, right))
    return found


def _largest_under(heights: list[int]) -> tuple[int, int, int, int]:
    """Area, height, left and right of the largest rectangle under bars of these heights."""
    best = (0, 0, 0, 0)
    open_bars: list[tuple[int, int]] = []  # (left edge, height), heights rising
    for column, height in enumerate([*heights, 0]):
        left = column
        while open_bars and open_bars[-1][1] >= height:
            left, tall = open_bars.pop()
            area = tall * (column - left)
            if area > best[0]:
                best = (area, tall, left, column)
        open_bars.append((left, height))
    return best
