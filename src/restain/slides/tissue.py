"""Where a slide shows tissue, found on a thumbnail.

In NumPy alone: a slide is read while Numba is still being imported.
"""

import numpy as np
from numpy.typing import NDArray

from restain.color.glass import white_of_flat
from restain.color.histogram import FLAT_BLOCK, FLAT_DEVIATION, ColorHistogram
from restain.color.images import RGB8
from restain.slides.reader import Mask, Slide

TISSUE_DENSITY = 0.12
"""Optical density, in any channel and against the white point, from which a thumbnail pixel shows tissue."""

LEAST_VIEW, LARGEST_VIEW = 1000, 2048
"""Pixels of a thumbnail's longer side, for tissue to be found on it."""


def find_tissue(slide: Slide, tile: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tiles of a slide show tissue, and which only glass.

    Args:
        slide: the slide.
        tile: side of the tiles, level-0 pixels.

    Returns:
        Two (rows, columns) bool grids; tiles that are padding alone are in neither.
    """
    stained, real = stained_pixels(slide)
    width, height = slide.dimensions
    rows, columns = -(-height // tile), -(-width // tile)
    shown = _any_in_tiles(stained, rows, columns, height / tile, width / tile)
    seen = _any_in_tiles(real, rows, columns, height / tile, width / tile)
    return shown, seen & ~shown


def stained_pixels(slide: Slide) -> tuple[Mask, Mask]:
    """Which pixels of a slide's thumbnail are stained, and which are no padding."""
    # A level of the slide that is about as large as a thumbnail need not be made from a larger one.
    small = (max(size) for size in slide.level_dimensions if LEAST_VIEW <= max(size) <= LARGEST_VIEW)
    thumbnail, known = slide.thumbnail(next(small, LARGEST_VIEW))
    real = np.ones(thumbnail.shape[:2], np.bool_) if known is None else known
    white = white_of_flat(_flat_colors(thumbnail, real), float(real.sum())).level
    # (level + 1) / (white + 1) below exp(−density), for levels that are whole numbers.
    limits = np.clip(np.ceil((white + 1.0) * np.exp(-TISSUE_DENSITY) - 1.0), 0, 255).astype(np.uint8)
    stained = np.zeros(thumbnail.shape[:2], np.bool_)
    for channel, limit in enumerate(limits):
        stained |= thumbnail[..., channel] < limit
    return stained & real, real


def _flat_colors(image: RGB8, real: Mask) -> ColorHistogram:
    """The mean colours of an image's flat blocks that are wholly real; each counts as the pixels that it has."""
    side = FLAT_BLOCK
    rows, columns = image.shape[0] // side, image.shape[1] // side
    bands = image[: rows * side, : columns * side].reshape(rows, side, columns * side * 3)
    total, squares = np.zeros((2, rows, columns * side * 3), np.float32)
    for line in range(side):
        levels = bands[:, line].astype(np.float32)
        total += levels
        squares += levels * levels
    mean, square = (each.reshape(rows, columns, side, 3).sum(axis=2) / side**2 for each in (total, squares))
    flat = (square - mean * mean <= FLAT_DEVIATION**2).all(axis=2)
    flat &= real[: rows * side, : columns * side].reshape(rows, side, columns, side).all(axis=(1, 3))
    colors = mean[flat]
    # One pixel that is not white is noise, which padding has not; rounded, it would be none.
    colors = np.where(colors > 254.0, np.floor(colors), colors)
    return ColorHistogram.from_colors(colors, np.full(int(flat.sum()), float(side**2)))


def _any_in_tiles(mask: NDArray[np.bool_], rows: int, columns: int, tall: float, wide: float) -> NDArray[np.bool_]:
    """Whether any thumbnail pixel that touches a tile is set; `tall`, `wide` are the slide's sides in tiles."""
    found = np.zeros((rows, columns), np.bool_)
    left, right = _touching(mask.shape[1], columns, wide)
    for row, (top, bottom) in enumerate(zip(*_touching(mask.shape[0], rows, tall), strict=True)):
        band = np.flatnonzero(mask[top:bottom].any(axis=0))
        found[row] = np.searchsorted(band, right) > np.searchsorted(band, left)
    return found


def _touching(pixels: int, tiles: int, span: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each tile along an axis, the first thumbnail pixel that touches it and the one after the last.

    A thumbnail pixel may span several tiles: both of its ends count.
    """
    edges = np.arange(pixels + 1) * (span / pixels)
    first = np.minimum(edges[:-1].astype(np.int64), tiles - 1)
    last = np.minimum((edges[1:] - 1e-9).astype(np.int64), tiles - 1)
    numbers = np.arange(tiles)
    return np.searchsorted(last, numbers, side="left"), np.searchsorted(first, numbers, side="right")
