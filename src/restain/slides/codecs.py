"""Tiles as they are written: how they are compressed, and the half-size pixels that the next level is made of."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import imagecodecs
import numpy as np

from restain.color.images import RGB8
from restain.errors import InputError
from restain.slides.formats import FORMATS, check_compression, check_format

SUBSAMPLINGS = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}

PREDICTED = ("deflate", "zstd")
"""Compressions before which TIFF stores differences of neighbours (predictor 2): a sixth smaller."""


@dataclass(frozen=True)
class PyramidSettings:
    """How tiles are written.

    Attributes:
        tile: side of a tile in pixels, a multiple of 16 as TIFF demands.
        quality: of JPEG, JPEG 2000, JPEG XL and WebP, 1..100; the last three lose nothing at 100. For JPEG 2000 it is
            turned into a peak signal-to-noise ratio of 17.5 + quality / 4 dB, 40 at 90.
        subsampling: of JPEG's chroma, "444" (none, so that colours stay exact), "422" or "420".
        compression: "jpeg", "jpeg2000", "jpegxl", "webp", "deflate", "zstd" or "none"; None for what is usual in the
            format: JPEG, in OME-Zarr zstd.
        format: "tiff", "ome-tiff", "ome-zarr" or "dicom"; set from the output's name by whoever writes.
    """

    tile: int = 512
    quality: int = 90
    subsampling: str = "444"
    compression: str | None = None
    format: str = "tiff"

    def __post_init__(self) -> None:
        if self.tile < 16 or self.tile % 16:
            raise InputError(f"got tile={self.tile}; wanted a multiple of 16")
        if not 1 <= self.quality <= 100:
            raise InputError(f"got quality={self.quality}; wanted 1 to 100")
        if self.subsampling not in SUBSAMPLINGS:
            raise InputError(f"got subsampling={self.subsampling!r}; wanted one of {', '.join(SUBSAMPLINGS)}")
        check_format(self.format)
        if self.compression is not None:
            check_compression(self.format, self.compression)
        if self.codec != "jpeg" and self.subsampling != "444":
            raise InputError(f"got subsampling={self.subsampling!r} for {self.codec}; only JPEG can be told that")

    @property
    def codec(self) -> str:
        """The compression, the format's usual one where none was chosen."""
        return self.compression or FORMATS[self.format].compressions[0]

    @property
    def ycbcr(self) -> bool:
        """Whether JPEG holds colours as luma and chroma, which is smaller, or as RGB.

        Bio-Formats, for whose sake one writes OME-TIFF, converts YCbCr that is not subsampled to RGB twice, and shows
        it pink.
        """
        return self.format != "ome-tiff" or self.subsampling != "444"

    def in_format(self, format: str) -> "PyramidSettings":
        """The same for another format.

        Raises:
            InputError: it cannot hold tiles of this compression.
        """
        return replace(self, format=format)


@dataclass(frozen=True)
class EncodedTile:
    """A tile ready to be written: its bytes, and half-size pixels for the next level; b"" and None if it is missing."""

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
    data = compress(pixels, settings)
    from restain.color import kernels  # Numba takes long to import, and who only looks at a file needs none of it

    half = np.empty((side // 2, side // 2, 3), np.uint8)
    kernels.halve(pixels, half)
    return EncodedTile(data, half)


def compress(pixels: RGB8, settings: PyramidSettings) -> bytes:
    """The bytes of one full tile, contiguous (side, side, 3), in the compression and the layout of its format."""
    if settings.format == "ome-zarr":  # whose chunks are (c, y, x)
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    elif settings.codec in PREDICTED:
        pixels = np.diff(pixels, axis=1, prepend=np.uint8(0))
    data: bytes = _ENCODERS[settings.codec](pixels, settings)
    return data


def _jpeg(pixels: RGB8, settings: PyramidSettings) -> bytes:
    colors = "ycbcr" if settings.ycbcr else "rgb"
    return imagecodecs.jpeg8_encode(  # type: ignore[return-value]  # a bytearray only when `out` is one
        pixels, level=settings.quality, colorspace="rgb", outcolorspace=colors, subsampling=settings.subsampling
    )


def _jpeg2000(pixels: RGB8, settings: PyramidSettings) -> bytes:
    if settings.quality == 100:
        return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True))
    level = round(17.5 + settings.quality / 4)
    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=level))


def _jpegxl(pixels: RGB8, settings: PyramidSettings) -> bytes:
    if settings.quality == 100:
        return bytes(imagecodecs.jpegxl_encode(pixels, lossless=True, effort=3))
    # libjxl's own translation of JPEG's quality into its distance, 1 at 90.
    quality = settings.quality
    distance = 0.1 + 0.09 * (100 - quality) if quality >= 30 else 53 / 3000 * quality**2 - 23 / 20 * quality + 25
    return bytes(imagecodecs.jpegxl_encode(pixels, distance=distance, lossless=False, effort=3))


def _webp(pixels: RGB8, settings: PyramidSettings) -> bytes:
    return bytes(imagecodecs.webp_encode(pixels, level=settings.quality, lossless=settings.quality == 100))


def _deflate(pixels: RGB8, settings: PyramidSettings) -> bytes:
    # The same stream in two wrappers: Zarr's codec is gzip, TIFF's is zlib.
    encode = imagecodecs.gzip_encode if settings.format == "ome-zarr" else imagecodecs.zlib_encode
    return bytes(encode(pixels.tobytes(), level=6))


_ENCODERS: dict[str, Callable[[RGB8, PyramidSettings], bytes]] = {
    "jpeg": _jpeg,
    "jpeg2000": _jpeg2000,
    "jpegxl": _jpegxl,
    "webp": _webp,
    "deflate": _deflate,
    "zstd": lambda pixels, _: bytes(imagecodecs.zstd_encode(pixels.tobytes(), level=3)),
    "none": lambda pixels, _: pixels.tobytes(),
}
