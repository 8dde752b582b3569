"""The smaller levels of a pyramid, built from level 0 while its tiles pass by.

Tiles come in once, in reading order. Each was halved when it was encoded; its half is handed to the next level, which
does the same as soon as a row of its own tiles is complete. Encoded tiles of the smaller levels wait in a temporary
file.

Memory bound
------------
Each level keeps one row of its tiles: in all twice 3 · width · tile bytes (300 MB for 100,000 pixels and 512), plus
the tiles in flight, which the caller bounds. Nothing grows with the height.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.slides.codecs import EncodedTile, PyramidSettings, encode_tile

Map = Callable[[Callable[[Any], EncodedTile], Iterable[Any]], Iterable[EncodedTile]]
"""An ordered map, such as `map` or a thread pool's."""


def level_sizes(size: tuple[int, int], tile: int) -> list[tuple[int, int]]:
    """(width, height) of each level, halved (rounding down) until one fits into a tile."""
    sizes = [size]
    while max(sizes[-1]) > tile:
        width, height = sizes[-1]
        sizes.append((max(width // 2, 1), max(height // 2, 1)))
    return sizes


def stream_levels(
    size: tuple[int, int], tiles: Iterable[EncodedTile], settings: PyramidSettings, *, spool: IO[bytes], run: Map
) -> Iterator[tuple[int, int, Iterator[bytes]]]:
    """All levels of a pyramid, in order: (width, height, encoded tiles in reading order), b"" for a missing tile.

    Each level's tiles must be consumed before the next level is asked for.

    Args:
        size: (width, height) of level 0.
        tiles: level 0 in reading order, from `encode_tile`.
        settings: what they were encoded with.
        spool: a file for the tiles of smaller levels, open for writing and reading.
        run: the map in which smaller levels are encoded.
    """
    sizes = level_sizes(size, settings.tile)
    smaller = _Levels(sizes[1:], settings, spool, run)

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

    def __init__(self, sizes: list[tuple[int, int]], settings: PyramidSettings, spool: IO[bytes], run: Map) -> None:
        self._sizes = sizes
        self._settings = settings
        self._spool = spool
        self._run = run
        side = settings.tile
        across = [-(-width // side) for width, _ in sizes]
        self._rows: list[RGB8] = [np.empty((side, n * side, 3), np.uint8) for n in across]
        self._present: list[NDArray[np.bool_]] = [np.zeros((2, 2 * n), np.bool_) for n in across]
        self._done = [0] * len(sizes)  # rows of tiles encoded
        self._index: list[list[tuple[int, int]]] = [[] for _ in sizes]

    def add(self, level: int, row: int, column: int, half: RGB8 | None) -> None:
        """Paste the half-size pixels of tile (row, column) of the level above into `level`."""
        if level == len(self._sizes):
            return
        if row // 2 > self._done[level]:
            self._encode_row(level)
        side = self._settings.tile // 2
        y, x = (row % 2) * side, column * side
        if x >= self._rows[level].shape[1]:  # a last column of odd pixels, halved to nothing
            return
        target = self._rows[level][y : y + side, x : x + side]
        if half is None:
            target[...] = 255
        else:
            target[...] = half[:, : target.shape[1]]
            self._present[level][row % 2, column] = True

    def finish(self) -> None:
        """Encode what is still waiting, from the largest level to the smallest."""
        for level, (_, height) in enumerate(self._sizes):
            while self._done[level] * self._settings.tile < height:
                self._encode_row(level)

    def read(self, level: int) -> Iterator[bytes]:
        """The encoded tiles of a level, in reading order."""
        for offset, count in self._index[level]:
            self._spool.seek(offset)
            yield self._spool.read(count)

    def _encode_row(self, level: int) -> None:
        side = self._settings.tile
        width, height = self._sizes[level]
        staging, present, row = self._rows[level], self._present[level], self._done[level]
        real = min(side, height - row * side)
        if real < side:  # repeat the last real row of pixels, as `encode_tile` would
            staging[real:] = staging[real - 1]
        right = (width - 1) % side + 1 + (staging.shape[1] - side)
        staging[:, right:] = staging[:, right - 1 : right]
        columns = range(staging.shape[1] // side)
        some = np.any(present.reshape(2, -1, 2), axis=(0, 2))
        jobs = [staging[:, c * side : (c + 1) * side] if some[c] else None for c in columns]
        encoded = list(self._run(lambda pixels: encode_tile(pixels, self._settings), jobs))
        present[:] = False
        self._done[level] += 1
        self._spool.seek(0, 2)
        for column, tile in enumerate(encoded):
            self._index[level].append((self._spool.tell(), len(tile.data)))
            self._spool.write(tile.data)
            self.add(level + 1, row, column, tile.half)
