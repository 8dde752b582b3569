"""Blank crops: what counts as one, and where in a picture they are.

Networks colour empty glass unless they have seen some (PAPERS.md §9), and learn little from crops that hold nothing
else; so how many of the crops are blank can be controlled.

A picture is averaged over blocks of 8×8 pixels, which takes the noise out. A block is stained where its optical
density against the white point reaches `TISSUE_DENSITY` in any channel: the rule by which `slides.tissue` finds tissue.
A crop is blank if less than `STAINED_SHARE` of the blocks whose centres lie in it are stained.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.images import RGB8
from restain.slides.tissue import TISSUE_DENSITY

BLOCK = 8
STAINED_SHARE = 0.05
"""From this share of stained blocks a crop shows tissue; below, it may hold dust, or the rim of a piece."""

Blocks = NDArray[np.bool_]
_TRIES = 64  # random places looked at before all of them are


def stained_blocks(image: RGB8, white: ArrayLike) -> Blocks:
    """Which 8×8 blocks of an image (H, W, 3) are stained, (⌈H/8⌉, ⌈W/8⌉) bool; those at its end may be smaller."""
    rows, columns = (np.arange(0, n, BLOCK) for n in image.shape[:2])
    total = np.add.reduceat(np.add.reduceat(image, rows, axis=0, dtype=np.uint32), columns, axis=1)
    tall, wide = (np.minimum(BLOCK, n - starts) for n, starts in zip(image.shape[:2], (rows, columns), strict=True))
    mean = total / (tall[:, None] * wide)[..., None]
    stained: Blocks = ((mean + 1.0) / (np.asarray(white, np.float64) + 1.0)).min(axis=2) < np.exp(-TISSUE_DENSITY)
    return stained


def stained_share(blocks: Blocks, x: ArrayLike, y: ArrayLike, side: int) -> NDArray[np.float64]:
    """Share of stained blocks in square crops at positions `x` and `y`, which broadcast; parts outside do not count."""
    sums = np.zeros((blocks.shape[0] + 1, blocks.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(blocks, axis=0), axis=1, out=sums[1:, 1:])
    left, right = _between(np.asarray(x), side, blocks.shape[1])
    top, bottom = _between(np.asarray(y), side, blocks.shape[0])
    stained = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    share: NDArray[np.float64] = stained / np.maximum((bottom - top) * (right - left), 1)
    return share


def kinds(blocks: Blocks, size: tuple[int, int], side: int) -> tuple[bool, bool]:
    """Whether some crop of a picture of `size` (width, height) shows tissue, and whether some crop is blank."""
    _, _, blank = _all_places(blocks, size, side)
    return not blank.all(), bool(blank.any())


def place_crop(
    blocks: Blocks, size: tuple[int, int], side: int, blank: bool, generator: np.random.Generator
) -> tuple[int, int]:
    """A random position (x, y) at which a crop is blank, or else is not.

    Where there is no such position it is any position: `kinds` tells beforehand.
    """
    x, y = (generator.integers(max(length - side, 0) + 1, size=_TRIES) for length in size)
    good = np.flatnonzero((stained_share(blocks, x, y, side) < STAINED_SHARE) == blank)
    if len(good):
        return int(x[good[0]]), int(y[good[0]])
    across, down, is_blank = _all_places(blocks, size, side)
    rows, columns = np.nonzero(is_blank == blank)
    if not len(rows):
        return int(x[0]), int(y[0])
    k = int(generator.integers(len(rows)))
    return int(across[columns[k]]), int(down[rows[k]])


def _between(start: NDArray[np.int64], side: int, blocks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First block, and the one after the last, whose centres lie in `start` to `start + side`; at least one."""
    first = np.clip((start - BLOCK // 2 + BLOCK - 1) // BLOCK, 0, blocks - 1)
    last = np.clip((start + side - BLOCK // 2 + BLOCK - 1) // BLOCK, first + 1, blocks)
    return first, last


def _all_places(
    blocks: Blocks, size: tuple[int, int], side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Positions x and y that stand for all others (others hold the same blocks), and where crops are blank, (y, x)."""
    axes = []
    for length, count in zip(size, blocks.shape[::-1], strict=True):
        starts = np.arange(max(length - side, 0) + 1)
        pairs = np.stack(_between(starts, side, count))
        new = np.ones(len(starts), np.bool_)
        new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
        axes.append(starts[new])
    x, y = axes
    return x, y, stained_share(blocks, x[None, :], y[:, None], side) < STAINED_SHARE
