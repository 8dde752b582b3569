"""Small slides and images as tests write them, and what lies in them."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.slides.codecs import PyramidSettings, encode_tile
from restain.slides.formats import format_of
from restain.slides.writer import write_array, write_pyramid

SMALL = PyramidSettings(tile=64)

BARE: dict[str, Any] = {
    "mpp": None, "icc_profile": None, "description": "", "software": "test", "associated": {}, "pool": None
}  # fmt: skip
"""What `write_pyramid` is to be told beside tiles, where nothing of it matters."""

Write = Callable[[Path, RGB8], None]


def write_with_holes(
    path: Path,
    image: RGB8,
    missing: Collection[tuple[int, int]],
    *,
    settings: PyramidSettings = SMALL,
    **facts: Any,
) -> None:
    """Write an image without the tiles (row, column) in `missing`; facts as in `write_pyramid`."""
    settings, side = settings.in_format(format_of(path)), settings.tile
    height, width = image.shape[:2]
    tiles = (
        encode_tile(None if (y // side, x // side) in missing else image[y : y + side, x : x + side], settings)
        for y in range(0, height, side)
        for x in range(0, width, side)
    )
    write_pyramid(path, (width, height), tiles, settings=settings, **BARE | facts)


def raw_tiles(path: Path) -> list[bytes]:
    """The encoded tiles of level 0 of a TIFF, in reading order, as they lie in the file."""
    data = path.read_bytes()
    with tifffile.TiffFile(path) as handle:
        page = handle.pages.first
        return [data[at : at + count] for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]


# ---- one kind of file each --------------------------------------------------------------------------------------


def small_pyramid(path: Path, image: RGB8) -> None:
    write_array(path, image, settings=SMALL, mpp=(0.5, 0.5))


def tiff(**options: Any) -> Write:
    return lambda path, image: tifffile.imwrite(path, image, photometric="rgb", **options)


def tiff_with_subifds(path: Path, image: RGB8) -> None:
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(image, photometric="rgb", tile=(64, 64), compression="deflate", subifds=1)
        writer.write(image[::2, ::2].copy(), photometric="rgb", tile=(64, 64), compression="deflate", subfiletype=1)


def picture(**options: Any) -> Write:
    return lambda path, image: Image.fromarray(image).save(path, **options)


# ---- colours that a wrong colour space gives away ---------------------------------------------------------------

SATURATED = np.array(
    [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 0],
        [0, 255, 255],
        [255, 0, 255],
        [128, 0, 64],
        [90, 40, 140],
        [220, 120, 170],
        [0, 0, 0],
        [255, 255, 255],
    ],
    np.uint8,
)
SATURATED_IMAGE: RGB8 = np.repeat(np.repeat(SATURATED[None], 64, axis=0), 64, axis=1)
"""A tile of 64 x 64 pixels of each, side by side."""


def saturated_error(level: RGB8) -> Any:
    """How far each colour is off, in levels, away from borders, where chroma is shared: (64, colours, 32, 3)."""
    inside = level.reshape(64, len(SATURATED), 64, 3)[:, :, 16:48]
    return np.abs(inside.astype(int) - SATURATED[None, :, None].astype(int))
