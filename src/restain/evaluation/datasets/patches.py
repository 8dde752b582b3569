"""Patches as plain positions, chosen before a pixel is read, and the reading of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from restain.color.images import RGB8
from restain.errors import InputError, SlideError
from restain.evaluation.datasets.item import Item
from restain.slides.reader import open_slide

PATCH = 256
"""Side, pixels: what all the papers use for MITOS."""


@dataclass(frozen=True)
class Patch:
    """A square of a picture."""

    item: Item
    location: tuple[int, int]
    """(x, y) of its top left corner, level-0 pixels."""
    size: int = PATCH
    """Side in pixels of its level."""
    level: int = 0
    label: str | None = None

    @property
    def name(self) -> str:
        """What a file of it would be called."""
        return f"{self.item.path.stem}_{self.location[0]}_{self.location[1]}"


def spread_grid(
    size: tuple[int, int], rows: int, columns: int, *, patch: int = PATCH, margin: int = 0
) -> list[tuple[int, int]]:
    """Corners (x, y) of `rows` times `columns` patches, evenly spread over a picture, in reading order.

    They do not overlap, and keep `margin` pixels from the picture's edges.

    Raises:
        InputError: so many patches do not fit.
    """
    inner = [side - 2 * margin for side in size]
    if min(rows, columns) < 1 or margin < 0 or inner[0] < columns * patch or inner[1] < rows * patch:
        raise InputError(
            f"{rows}x{columns} patches of {patch} pixels do not fit into {size[0]}x{size[1]} with a margin of {margin}"
        )
    across = _evenly(inner[0] - patch, columns, margin)
    down = _evenly(inner[1] - patch, rows, margin)
    return [(x, y) for y in down for x in across]


def corner_grid(size: tuple[int, int], width: int, height: int, *, patch: int = PATCH) -> list[tuple[int, int]]:
    """Corners (x, y) of the patches that tile the top left `width` x `height` pixels of a picture, in reading order.

    Raises:
        InputError: the picture is smaller than that, or patches do not tile it.
    """
    if width > size[0] or height > size[1] or width % patch or height % patch or min(width, height) < patch:
        raise InputError(f"the top left {width}x{height} of {size[0]}x{size[1]} is not tiled by patches of {patch}")
    return [(x, y) for y in range(0, height, patch) for x in range(0, width, patch)]


def _evenly(room: int, count: int, start: int) -> list[int]:
    """`count` positions over `room` pixels from `start`, the first and last at its ends; a single one in its middle."""
    return [start + room // 2] if count == 1 else [start + room * i // (count - 1) for i in range(count)]


def choose(patches: Sequence[Patch], count: int, seed: int = 0) -> list[Patch]:
    """A seeded random choice of `count` patches, or all where there are fewer, in their order."""
    if count < 0:
        raise InputError(f"got {count}; wanted a number of patches")
    if len(patches) <= count:
        return list(patches)
    chosen = np.random.default_rng(seed).choice(len(patches), count, replace=False)
    return [patches[i] for i in sorted(chosen)]


def picture_size(item: Item) -> tuple[int, int]:
    """(width, height) of a plain picture, from its header alone where Pillow knows the format.

    Raises:
        SlideError: it cannot be read.
    """
    try:
        with Image.open(item.path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        with open_slide(item.path) as slide:
            return slide.dimensions


def read_patches(patches: Iterable[Patch]) -> Iterator[tuple[Patch, RGB8]]:
    """Each patch with its pixels (size, size, 3); a picture is opened once for those that follow each other.

    What lies outside the picture is white.

    Raises:
        SlideError: a picture cannot be read.
    """
    for path, of_path in groupby(patches, key=lambda patch: patch.item.path):
        with open_slide(path) as slide:
            for patch in of_path:
                if patch.level >= len(slide.level_dimensions):
                    raise SlideError(f"{path} has {len(slide.level_dimensions)} levels; wanted level {patch.level}")
                pixels, _ = slide.read_region(patch.location, patch.level, (patch.size, patch.size))
                yield patch, pixels
