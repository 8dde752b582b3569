"""Tiles as they are written: how they are compressed, and the half-size pixels that the next level is made of."""

from dataclasses import dataclass

import imagecodecs
import numpy as np

from restain.color.images import RGB8
from restain.errors import InputError

SUBSAMPLINGS = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}


@dataclass(frozen=True)
class PyramidSettings:
    """How tiles are written.

    Attributes:
        tile: side of a tile in pixels, a multiple of 16 as TIFF demands.
        quality: of JPEG, 1..100.
        subsampling: of chroma, "444" (none, so that colours stay exact), "422" or "420".
    """

    tile: int = 512
    quality: int = 90
    subsampling: str = "444"

    def __post_init__(self) -> None:
        if self.tile < 16 or self.tile % 16:
            raise InputError(f"got tile={self.tile}; wanted a multiple of 16")
        if not 1 <= self.quality <= 100:
            raise InputError(f"got quality={self.quality}; wanted 1 to 100")
        if self.subsampling not in SUBSAMPLINGS:
            raise InputError(f"got subsampling={self.subsampling!r}; wanted one of {', '.join(SUBSAMPLINGS)}")


@dataclass(frozen=True)
class EncodedTile:
    """A tile ready to be written: JPEG bytes, and its half-size pixels for the next level; b"" and None if missing."""

    data: bytes
    half: RGB8 | None


def encode_tile(pixels: RGB8 | None, settings: PyramidSettings) -> EncodedTile:
    """Encode one tile (up to tile×tile; edge pixels are repeated to fill it) and halve it."""
    if pixels is None:
        return EncodedTile(b"", None)
    side = settings.tile
    if pixels.shape[:2] != (side, side):
        pixels = np.pad(pixels, ((0, side - pixels.shape[0]), (0, side - pixels.shape[1]), (0, 0)), mode="edge")
    pixels = np.ascontiguousarray(pixels)
    data: bytes = imagecodecs.jpeg8_encode(  # type: ignore[assignment]  # a bytearray only when `out` is one
        pixels, level=settings.quality, colorspace="rgb", outcolorspace="ycbcr", subsampling=settings.subsampling
    )
    from restain.color import kernels  # Numba takes long to import, and who only looks at a file needs none of it

    half = np.empty((side // 2, side // 2, 3), np.uint8)
    kernels.halve(pixels, half)
    return EncodedTile(data, half)
