"""Write a pyramid of any size, streaming, whole or not at all."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from restain.color.images import RGB8
from restain.files import atomic_output
from restain.slides.codecs import EncodedTile, PyramidSettings, encode_tile
from restain.slides.levels import Map, stream_levels
from restain.slides.tiff_writer import write_tiff

__all__ = ["EncodedTile", "Map", "PyramidSettings", "encode_tile", "write_array", "write_pyramid"]


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
    with (
        atomic_output(path, overwrite=overwrite) as temporary,
        tempfile.TemporaryFile(dir=path.parent) as spool,
    ):
        write_tiff(
            temporary,
            stream_levels(size, tiles, settings, spool=spool, run=run),
            settings=settings,
            mpp=mpp,
            icc_profile=icc_profile,
            description=description,
            software=software,
            associated=associated,
        )


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
