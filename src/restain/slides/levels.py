"""The smaller levels of a pyramid, built from level 0 while its tiles pass by.

Tiles come in once, in reading order. Each was halved when it was encoded; its half is handed to the next level, which
encodes a tile of its own as soon as all that it is made of are there, and hands its half on. Encoded tiles of the
smaller levels wait in a temporary file.

Memory bound
------------
Each level keeps the upper halves of one row of its tiles until the lower ones come: in all 1.5 · width · tile bytes
(77 MB for 100,000 pixels and 512), plus the tiles in flight, which the caller bounds. Nothing grows with the height.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np

from restain.color.images import RGB8
from restain.slides.codecs import EncodedTile, PyramidSettings, encode_tile


def level_sizes(size: tuple[int, int], tile: int) -> list[tuple[int, int]]:
    """(width, height) of each level, halved (rounding down) until one fits into a tile."""
    sizes = [size]
    while max(sizes[-1]) > tile:
        width, height = sizes[-1]
        sizes.append((max(width // 2, 1), max(height // 2, 1)))
    return sizes


def stream_levels(
    size: tuple[int, int],
    tiles: Iterable[EncodedTile],
    settings: PyramidSettings,
    *,
    spool: IO[bytes],
    pool: Executor | None = None,
) -> Iterator[tuple[int, int, Iterator[bytes]]]:
    """All levels of a pyramid, in order: (width, height, encoded tiles in reading order), b"" for a missing tile.

    Each level's tiles must be consumed before the next level is asked for.

    Args:
        size: (width, height) of level 0.
        tiles: level 0 in reading order, from `encode_tile`.
        settings: what they were encoded with.
        spool: a file for the tiles of smaller levels, open for writing and reading.
        pool: threads in which smaller levels are encoded; None for this one.
    """
    sizes = level_sizes(size, settings.tile)
    smaller = _Levels(sizes, settings, spool, pool)

    def level_zero() -> Iterator[bytes]:
        across = -(-size[0] // settings.tile)
        for index, tile in enumerate(tiles):
            smaller.add(0, index // across, index % across, tile.half)
            yield tile.data

    for level, (width, height) in enumerate(sizes):
        if level == 1:
            smaller.finish()
        yield width, height, level_zero() if level == 0 else smaller.read(level - 1)


class _Levels:
    """The smaller levels while they are being built: parts of a row of tiles in memory, encoded tiles in the spool."""

    def __init__(
        self, sizes: list[tuple[int, int]], settings: PyramidSettings, spool: IO[bytes], pool: Executor | None
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._pool = pool
        self._levels = [_Level(size, above, settings.tile) for above, size in pairwise(sizes)]

    def add(self, level: int, row: int, column: int, half: RGB8 | None) -> None:
        """Give `level` the half-size pixels of tile (row, column) of the level above."""
        if level == len(self._levels):
            return
        into = self._levels[level]
        parts = into.add(row, column, half)
        if parts is not None:
            into.waiting.append((row // 2, column // 2, self._submit(parts)))
        self._collect(level)

    def finish(self) -> None:
        """Wait for all tiles, from the largest level to the smallest."""
        for level in range(len(self._levels)):
            self._collect(level, wait=True)

    def read(self, level: int) -> Iterator[bytes]:
        """The encoded tiles of a level, in reading order."""
        for offset, count in self._levels[level].index:
            self._spool.seek(offset)
            yield self._spool.read(count)

    def _submit(self, parts: "_Parts") -> "Future[EncodedTile]":
        if self._pool is not None:
            return self._pool.submit(_encode, parts, self._settings)
        done: Future[EncodedTile] = Future()
        done.set_result(_encode(parts, self._settings))
        return done

    def _collect(self, level: int, *, wait: bool = False) -> None:
        """Spool and hand on, in reading order, the tiles that are encoded."""
        waiting = self._levels[level].waiting
        while waiting and (wait or waiting[0][2].done()):
            row, column, future = waiting.popleft()
            tile = future.result()
            self._spool.seek(0, 2)
            self._levels[level].index.append((self._spool.tell(), len(tile.data)))
            self._spool.write(tile.data)
            self.add(level + 1, row, column, tile.half)


@dataclass
class _Parts:
    """What a tile is made of.

    Attributes:
        size: (width, height), without what reaches beyond the level.
        halves: half-size tiles of the level above: left and right, upper before lower; None for a missing one.
    """

    size: tuple[int, int]
    halves: list[RGB8 | None]


class _Level:
    """One smaller level: the parts of its tiles that are there, and the tiles that are being encoded.

    Args:
        size: (width, height).
        above: of the level that it is made of.
        side: of a tile.
    """

    def __init__(self, size: tuple[int, int], above: tuple[int, int], side: int) -> None:
        self._size, self._side = size, side
        self._above = [-(-length // side) for length in above]  # its tiles: across, down
        self._parts: dict[int, _Parts] = {}  # by column
        self.waiting: deque[tuple[int, int, Future[EncodedTile]]] = deque()
        self.index: list[tuple[int, int]] = []  # where in the spool each tile is, and how long

    def add(self, row: int, column: int, half: RGB8 | None) -> _Parts | None:
        """Keep a part, by its place in the level above; all parts of its tile, if it was the last of them."""
        left, top = column // 2 * self._side, row // 2 * self._side
        width, height = min(self._side, self._size[0] - left), min(self._side, self._size[1] - top)
        if width <= 0 or height <= 0:  # a last row or column of odd pixels, halved to nothing
            return None
        parts = self._parts.setdefault(column // 2, _Parts((width, height), [None] * 4))
        if column % 2 * (self._side // 2) < width and row % 2 * (self._side // 2) < height:
            parts.halves[row % 2 * 2 + column % 2] = half
        lowest, rightmost = row % 2 == 1 or row == self._above[1] - 1, column % 2 == 1 or column == self._above[0] - 1
        return self._parts.pop(column // 2) if lowest and rightmost else None


def _encode(parts: _Parts, settings: PyramidSettings) -> EncodedTile:
    """Put a tile together, white where a part is missing, and encode it; a missing tile if all of them are."""
    if all(half is None for half in parts.halves):
        return encode_tile(None, settings)
    (width, height), side = parts.size, settings.tile // 2
    tile = np.empty((height, width, 3), np.uint8)
    for number, half in enumerate(parts.halves):
        target = tile[number // 2 * side :, number % 2 * side :][:side, :side]
        target[...] = 255 if half is None else half[: target.shape[0], : target.shape[1]]
    return encode_tile(tile, settings)
