"""The smaller levels of a pyramid, built from level 0 while its tiles pass by.

Tiles come in once, in reading order. Each was halved when it was encoded; its half is handed to the next level, which
encodes a tile of its own as soon as all that it is made of are there, and hands its half on. Encoded tiles of the
smaller levels wait in a temporary file.

Memory bound
------------
Each level keeps one row of its tiles: in all twice 3 · width · tile bytes (300 MB for 100,000 pixels and 512), plus
the tiles in flight, which the caller bounds. Nothing grows with the height.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
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
    """The smaller levels while they are being built: a row of tiles each in memory, encoded tiles in the spool."""

    def __init__(
        self, sizes: list[tuple[int, int]], settings: PyramidSettings, spool: IO[bytes], pool: Executor | None
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._pool = pool
        self._levels = [_Level(size, above, settings.tile) for above, size in pairwise(sizes)]

    def add(self, level: int, row: int, column: int, half: RGB8 | None) -> None:
        """Paste the half-size pixels of tile (row, column) of the level above into `level`."""
        if level == len(self._levels):
            return
        into = self._levels[level]
        if row // 2 < into.down and column // 2 < into.across:  # else a last row or column of odd pixels
            self._collect(level, before=(row // 2, column // 2))
            into.paste(row, column, half)
            if into.is_last_part(row, column):
                pixels = into.tile(row // 2, column // 2)
                into.waiting.append((row // 2, column // 2, self._submit(pixels)))
        self._collect(level)

    def finish(self) -> None:
        """Wait for all tiles, from the largest level to the smallest."""
        for level, into in enumerate(self._levels):
            self._collect(level, before=(into.down + 1, 0))

    def read(self, level: int) -> Iterator[bytes]:
        """The encoded tiles of a level, in reading order."""
        for offset, count in self._levels[level].index:
            self._spool.seek(offset)
            yield self._spool.read(count)

    def _submit(self, pixels: RGB8 | None) -> "Future[EncodedTile]":
        if self._pool is not None:
            return self._pool.submit(encode_tile, pixels, self._settings)
        done: Future[EncodedTile] = Future()
        done.set_result(encode_tile(pixels, self._settings))
        return done

    def _collect(self, level: int, before: tuple[int, int] = (0, 0)) -> None:
        """Spool and hand on the tiles that are encoded; wait for those whose place is needed for tile `before`."""
        waiting = self._levels[level].waiting
        while waiting:
            row, column, future = waiting[0]
            if not future.done() and (row >= before[0] or (row == before[0] - 1 and column > before[1])):
                return
            waiting.popleft()
            tile = future.result()
            self._spool.seek(0, 2)
            self._levels[level].index.append((self._spool.tell(), len(tile.data)))
            self._spool.write(tile.data)
            self.add(level + 1, row, column, tile.half)


class _Level:
    """One smaller level: the row of its tiles that is being put together, and those that are being encoded.

    Args:
        size: (width, height).
        above: of the level that it is made of.
        side: of a tile.
    """

    def __init__(self, size: tuple[int, int], above: tuple[int, int], side: int) -> None:
        self._size, self._side = size, side
        self.across, self.down = (-(-length // side) for length in size)
        self._parts = [-(-length // side) for length in above]  # tiles of the level above: across, down
        self._staging: RGB8 = np.empty((side, self.across * side, 3), np.uint8)
        self._some = np.zeros(self.across, np.bool_)  # which tiles of the row are not missing
        self.waiting: deque[tuple[int, int, Future[EncodedTile]]] = deque()
        self.index: list[tuple[int, int]] = []  # where in the spool each tile is, and how long

    def paste(self, row: int, column: int, half: RGB8 | None) -> None:
        """Put in the half-size tile (row, column) of the level above; None if it is missing."""
        side = self._side // 2
        y, x = row % 2 * side, column * side
        target = self._staging[y : y + side, x : x + side]
        if row % 2 == 0 and column % 2 == 0:
            self._some[column // 2] = False
        if half is None:
            target[...] = 255
        else:
            target[...] = half[:, : target.shape[1]]
            self._some[column // 2] = True

    def is_last_part(self, row: int, column: int) -> bool:
        """Whether with tile (row, column) of the level above a tile of this one is complete."""
        return (row % 2 == 1 or row == self._parts[1] - 1) and (column % 2 == 1 or column == self._parts[0] - 1)

    def tile(self, row: int, column: int) -> RGB8 | None:
        """The pixels of a tile that is complete, without what reaches beyond the level; None if it is missing."""
        if not self._some[column]:
            return None
        left, width, height = column * self._side, *self._size
        return self._staging[: min(self._side, height - row * self._side), left : min(left + self._side, width)]
