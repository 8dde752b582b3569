"""Applying a method that looks at neighbourhoods: overlapping windows on one grid, blended, in bounded memory.

The grid is the image's own: window (row, column) begins at (column · step − overlap/2, row · step − overlap/2) with
step = side − overlap, whatever part of the image is asked for. Beyond the image, windows see it reflected. Where two
windows overlap, their results are blended by a raised cosine (PAPERS §9), so that a window's own border, where a padded
network errs, weighs nothing. Columns are blended before rows, always: a pixel's value does not depend on who asks.

Memory bound
------------
Of an image `width` pixels wide, the floats of one overlap are kept, 12 · width · overlap bytes (77 MB for 100,000
pixels and an overlap of 64), and three calls' windows, 45 · batch · side² bytes (94 MB for 8 of 512) at most, beside
what the network itself takes. Nothing grows with the height.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.errors import InputError
from restain.methods.window_grid import Grid, Read, Window, WindowCache, map_cached, map_in_order

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]


class WindowMap(ABC):
    """What a method that looks at neighbourhoods does to square windows of one slide: its counterpart of `ColorMap`.

    It is called by one thread at a time, not always the same one. What it makes of a window must depend on that window
    alone: not on the others of the call, nor on their number.

    Attributes:
        side: of its windows, pixels.
        overlap: pixels that neighbouring windows share, even, at most half of `side`; blended by a raised cosine.
        batch: windows wanted for a call; it may get fewer.
    """

    side: int
    overlap: int
    batch: int = 1

    @abstractmethod
    def __call__(self, windows: RGB8) -> Float32:
        """Map windows (N, side, side, 3) uint8 to float32 levels 0..255 of the same shape, neither clipped nor rounded.

        The glass rule is applied inside (`restain.methods.glass.GlassRule`), so windows of glass alone may be spared
        the network.
        """

    def whole(self, image: RGB8) -> RGB8 | None:
        """Map an image (H, W, 3) uint8 at once, as papers evaluate their tiles; None to have it done in windows."""
        return None


@dataclass(frozen=True)
class Block:
    """Finished pixels: their place (x, y) in the image, (h, w, 3) uint8, and where they are real; None for all."""

    x: int
    y: int
    pixels: RGB8
    known: Mask | None


# ---- the ways to apply it -----------------------------------------------------------------------------------------


def apply_windows(image: RGB8, window_map: WindowMap) -> RGB8:
    """Map an image (H, W, 3) uint8 that is in memory; returns a new array."""
    height, width = image.shape[:2]
    out = np.empty_like(image)
    for block in stream_blocks(_reader(image), width, height, window_map):
        out[block.y : block.y + block.pixels.shape[0], block.x : block.x + block.pixels.shape[1]] = block.pixels
    return out


def apply_region(
    read: Read,
    size: tuple[int, int],
    rectangle: Rectangle,
    window_map: WindowMap,
    *,
    cache: WindowCache | None = None,
    key: int = 0,
) -> RGB8:
    """Map a rectangle of a larger image: the same pixels as when all of it is mapped.

    Args:
        read: see `Read`.
        size: (width, height) of the image.
        rectangle: (x, y, w, h), inside the image.
        window_map: the map.
        cache: keeps results for regions beside this one; then this may be called from many threads.
        key: which of several images (a slide's levels) `cache` is to keep this one's windows under.

    Returns:
        (h, w, 3) uint8.
    """
    x, y, width, height = rectangle
    if not (min(x, y) >= 0 and min(width, height) > 0 and x + width <= size[0] and y + height <= size[1]):
        raise InputError(f"got the rectangle x={x}, y={y}, {width}x{height}; wanted one inside {size[0]}x{size[1]}")
    grid = Grid(*size, window_map)
    out = np.empty((height, width, 3), np.uint8)
    rows, columns = grid.touching(y, height, size[1]), grid.touching(x, width, size[0])
    results = map_cached(read, grid, rows, columns, window_map, cache, key) if cache else None
    for block in _blocks(read, grid, rows, columns, window_map, 0, results):
        top, left = max(block.y, y), max(block.x, x)
        bottom = min(block.y + block.pixels.shape[0], y + height)
        right = min(block.x + block.pixels.shape[1], x + width)
        if top < bottom and left < right:
            inside = block.pixels[top - block.y : bottom - block.y, left - block.x : right - block.x]
            out[top - y : bottom - y, left - x : right - x] = inside
    return out


def stream_blocks(read: Read, width: int, height: int, window_map: WindowMap, *, workers: int = 0) -> Iterator[Block]:
    """Map an image of any height, in the pieces that come of one window each; in reading order, they fill the image.

    Args:
        read: see `Read`.
        width, height: of the image.
        window_map: the map.
        workers: threads that read ahead while one maps; 0 to do all in the caller's. The result is the same.
    """
    grid = Grid(width, height, window_map)
    return _blocks(read, grid, range(grid.rows), range(grid.columns), window_map, workers)


# ---- blending -----------------------------------------------------------------------------------------------------


def _ramp(overlap: int) -> Float32:
    """The weight of the later of two windows across their overlap: a raised cosine from 0 to 1, symmetric."""
    rising: Float32 = (0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / max(overlap, 1))).astype(np.float32)
    return rising


def _blocks(
    read: Read,
    grid: Grid,
    rows: range,
    columns: range,
    window_map: WindowMap,
    workers: int,
    windows: Iterable[Window] | None = None,
) -> Iterator[Block]:
    """Finished pixels of the windows in these rows and columns, in reading order.

    Where the range ends inside the image, what its outermost windows share with others is left out or unfinished.
    """
    side, overlap = grid.side, grid.overlap
    if windows is None:
        places = ((row, column) for row in rows for column in columns)
        windows = map_in_order(read, grid, places, window_map, workers)
    ramp = _ramp(overlap)
    left_edge = max(grid.begin(columns[0]), 0)
    right_edge = min(grid.begin(columns[-1]) + side, grid.width)
    below = np.empty((overlap, right_edge - left_edge, 3), np.float32)  # the lower overlap of the row of windows above
    beside = np.empty((side, overlap, 3), np.float32)  # the right overlap of the window before
    for window in windows:
        # The part of this window, in its own pixels, that is inside the image and that no later one in the row changes.
        y, x = grid.begin(window.row), grid.begin(window.column)
        top, left = max(-y, 0), max(-x, 0)
        first_row, last_row = window.row == rows[0], window.row == rows[-1]
        first, last = window.column == columns[0], window.column == columns[-1]
        right = min(side, grid.width - x) if last else side - overlap
        bottom = min(side, grid.height - y) if last_row else side - overlap
        levels = window.pixels.astype(np.float32) if window.levels is None else window.levels
        piece = levels[:, left:right]
        if not first and overlap:
            piece = piece.copy()
            shared = piece[:, :overlap]
            _blend(beside[:, : shared.shape[1]], shared, ramp[: shared.shape[1], None])
        if not last:
            beside[...] = levels[:, side - overlap :]
        span = slice(x + left - left_edge, x + right - left_edge)
        if not first_row and overlap:
            piece = piece if piece.base is None else piece.copy()
            _blend(below[:, span], piece[:overlap], ramp[:, None, None])
        if not last_row:
            below[:, span] = piece[side - overlap :]
        part = (slice(top, bottom), slice(left, right))
        pixels = np.rint(np.clip(piece[top:bottom], 0.0, 255.0)).astype(np.uint8)
        known = None if window.known is None or window.known[part].all() else window.known[part]
        if known is not None:  # padding stays padding
            pixels[~known] = window.pixels[part][~known]
        yield Block(x + left, y + top, pixels, known)


def _blend(earlier: Float32, later: Float32, weight: Float32) -> None:
    """earlier + weight · (later − earlier), into `later`; equal values stay as they are, exactly."""
    later -= earlier
    later *= weight
    later += earlier


def _reader(image: RGB8) -> Read:
    return lambda x, y, width, height: image[y : y + height, x : x + width]
