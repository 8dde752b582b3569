"""Write a generic tiled pyramidal BigTIFF, streaming: levels as pages, JPEG tiles, resolution, ICC profile.

Tiles come in once, in reading order. Each is encoded, halved, and handed to the next level, which does the same as
soon as a row of its own tiles is complete; encoded tiles of the smaller levels wait in a temporary file.

Memory bound
------------
Each level keeps one row of its tiles: in all twice 3 · width · tile bytes (300 MB for 100,000 pixels and 512), plus
the tiles in flight, which the caller bounds. Nothing grows with the height.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.errors import InputError
from restain.files import atomic_output

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


Map = Callable[[Callable[[Any], EncodedTile], Iterable[Any]], Iterable[EncodedTile]]


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


def level_sizes(size: tuple[int, int], tile: int) -> list[tuple[int, int]]:
    """(width, height) of each level, halved (rounding down) until one fits into a tile."""
    sizes = [size]
    while max(sizes[-1]) > tile:
        width, height = sizes[-1]
        sizes.append((max(width // 2, 1), max(height // 2, 1)))
    return sizes


def write_pyramid(
    path: Path,
    size: tuple[int, int],
    tiles: Iterator[EncodedTile],
    *,
    settings: PyramidSettings,
    mpp: tuple[float, float] | None,
    icc_profile: bytes | None,
    description: str,
    software: str,
    associated: Mapping[str, RGB8],
    run: Map,
    overwrite: bool = False,
) -> None:
    """Write a whole slide, or nothing: `path` appears under its name only when it is complete and on disk.

    Args:
        path: the output.
        size: (width, height) of level 0.
        tiles: level 0 in reading order, from `encode_tile`.
        settings: tile size and JPEG options.
        mpp: (x, y) micrometres per pixel, None if unknown.
        icc_profile: embedded in every level; None for none.
        description: ImageDescription, ASCII.
        software: the Software tag.
        associated: further images by name ("label", "macro"), written behind the levels.
        run: an ordered parallel map, in which the smaller levels are encoded.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists, its folder cannot be written, or the disk is full.
    """
    sizes = level_sizes(size, settings.tile)
    options: dict[str, Any] = {
        "photometric": "ycbcr",
        "compression": "jpeg",
        "subsampling": SUBSAMPLINGS[settings.subsampling],
        "tile": (settings.tile, settings.tile),
        "dtype": np.uint8,
        "metadata": None,
        "software": software,
        "iccprofile": icc_profile,
    }
    with (
        atomic_output(path, overwrite=overwrite) as temporary,
        tempfile.TemporaryFile(dir=path.parent) as spool,
        tifffile.TiffWriter(temporary, bigtiff=True) as tiff,
    ):
        smaller = _Levels(sizes[1:], settings, spool, run)

        def level_zero() -> Iterator[bytes]:
            across = -(-size[0] // settings.tile)
            for index, tile in enumerate(tiles):
                smaller.add(0, index // across, index % across, tile.half)
                yield tile.data

        for level, (width, height) in enumerate(sizes):
            if level == 1:
                smaller.finish()
            scale = (size[0] / width, size[1] / height)
            tiff.write(
                level_zero() if level == 0 else smaller.read(level - 1),
                shape=(height, width, 3),
                subfiletype=0 if level == 0 else 1,
                description=description if level == 0 else None,
                **_resolution(mpp, scale),
                **options,
            )
        for name, pixels in associated.items():
            # Strips, so that no reader takes them for a level of the pyramid.
            tiff.write(pixels, photometric="rgb", compression="deflate", description=name, metadata=None)


def _resolution(mpp: tuple[float, float] | None, scale: tuple[float, float]) -> dict[str, Any]:
    if mpp is None:
        return {}
    return {
        "resolution": (10_000 / (mpp[0] * scale[0]), 10_000 / (mpp[1] * scale[1])),
        "resolutionunit": "CENTIMETER",
    }


def write_array(
    path: Path,
    pixels: RGB8,
    *,
    settings: PyramidSettings | None = None,
    mpp: tuple[float, float] | None = None,
    icc_profile: bytes | None = None,
    description: str = "",
    software: str = "restain",
    overwrite: bool = False,
) -> None:
    """Write an image (H, W, 3) uint8 that is in memory as a pyramid; arguments as `write_pyramid`."""
    settings = settings or PyramidSettings()
    height, width = pixels.shape[:2]
    side = settings.tile
    tiles = (
        encode_tile(pixels[y : y + side, x : x + side], settings)
        for y in range(0, height, side)
        for x in range(0, width, side)
    )
    write_pyramid(
        path,
        (width, height),
        tiles,
        settings=settings,
        mpp=mpp,
        icc_profile=icc_profile,
        description=description,
        software=software,
        associated={},
        run=map,
        overwrite=overwrite,
    )


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
