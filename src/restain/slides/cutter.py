"""Tiles cut out of blocks that come in reading order and do not lie on the grid of tiles.

Memory bound
------------
What is kept are tiles that are not complete: about a row of them, 3 · width · tile bytes.
"""

from collections.abc import Iterator

import numpy as np

from restain.color.images import RGB8
from restain.methods.windows import Block


class Cutter:
    """Cuts an image (width, height) into tiles of `side` pixels; those of its right and lower edge are smaller."""

    def __init__(self, width: int, height: int, side: int) -> None:
        self._width, self._height, self._side = width, height, side
        self._across = -(-width // side)
        self._begun: dict[int, tuple[RGB8, int, bool]] = {}  # pixels, how many are still missing, whether any is real

    def add(self, block: Block) -> Iterator[tuple[int, RGB8 | None]]:
        """The tiles that a block completes, by number; None for a tile of padding alone."""
        side = self._side
        bottom, right = block.y + block.pixels.shape[0], block.x + block.pixels.shape[1]
        for row in range(block.y // side, -(-bottom // side)):
            for column in range(block.x // side, -(-right // side)):
                number = row * self._across + column
                y, x = row * side, column * side
                if number not in self._begun:
                    shape = (min(side, self._height - y), min(side, self._width - x), 3)
                    self._begun[number] = (np.empty(shape, np.uint8), shape[0] * shape[1], False)
                pixels, missing, real = self._begun[number]
                y0, y1, x0, x1 = max(y, block.y), min(y + side, bottom), max(x, block.x), min(x + side, right)
                part = (slice(y0 - block.y, y1 - block.y), slice(x0 - block.x, x1 - block.x))
                pixels[y0 - y : y1 - y, x0 - x : x1 - x] = block.pixels[part]
                missing -= (y1 - y0) * (x1 - x0)
                real = real or block.known is None or bool(block.known[part].any())
                self._begun[number] = (pixels, missing, real)
                if not missing:
                    del self._begun[number]
                    yield number, pixels if real else None
