"""Write a pyramid of any size, streaming, whole or not at all."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path

from restain.color.images import RGB8
from restain.errors import InputError
from restain.files import atomic_output
from restain.slides.codecs import EncodedTile, PyramidSettings, encode_tile
from restain.slides.folders import atomic_folder
from restain.slides.formats import FORMATS, Travelling, format_of
from restain.slides.levels import level_sizes, stream_levels
from restain.slides.tiff_writer import write_tiff

__all__ = ["EncodedTile", "PyramidSettings", "encode_tile", "settings_for", "write_array", "write_pyramid"]


def settings_for(
    path: Path, settings: PyramidSettings | None, *, size: tuple[int, int], mpp: tuple[float, float] | None
) -> PyramidSettings:
    """Settings (None for the defaults) in the format that a name chooses, checked before hours are spent.

    Raises:
        OutputError: the name chooses no format, or the format cannot hold such a slide.
        InputError: it cannot hold tiles of this compression.
        MissingExtraError: writing it needs a package that is not installed.
    """
    settings = (settings or PyramidSettings()).in_format(format_of(path))
    if settings.format == "dicom":
        from restain.slides.dicom_writer import check_dicom

        check_dicom(settings, size, mpp)
    return settings


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
    pool: Executor | None,
    overwrite: bool = False,
    objective_power: float | None = None,
) -> None:
    """Write a whole slide, or nothing: `path` appears under its name only when it is complete and on disk.

    Args:
        path: the output; how it ends chooses the format (`restain.slides.formats`).
        size: (width, height) of level 0.
        tiles: level 0 in reading order, from `encode_tile`.
        settings: what tiles were encoded with, for that format.
        mpp: (x, y) micrometres per pixel, None if unknown.
        icc_profile: embedded in every level; None for none.
        description: what was done, ASCII.
        software: name and version of the writer.
        associated: further images by name ("label", "macro"), written beside the levels.
        pool: threads in which the smaller levels are encoded; None for this one.
        overwrite: replace an existing output.
        objective_power: magnification, None if unknown.

    Raises:
        OutputError: the output exists, its name has no known ending, its folder cannot be written, or the disk is full.
        InputError: tiles were encoded for another format, or resolution or magnification is no positive number.
        MissingExtraError: the format needs a package that is not installed.
    """
    format = format_of(path)
    if settings.format != format:
        raise InputError(f"tiles were encoded for {settings.format!r}, and {path.name} is {format!r}; use `in_format`")
    facts = (*(mpp or ()), *(() if objective_power is None else (objective_power,)))
    if not all(0 < value < math.inf for value in facts):  # NaN fails too
        raise InputError(f"got mpp={mpp}, objective_power={objective_power}; wanted positive numbers, or None")
    travelling = Travelling(size, mpp, objective_power, icc_profile, description, software, associated)
    count = len(level_sizes(size, settings.tile))
    atomic = atomic_folder if FORMATS[format].folder else atomic_output
    with atomic(path, overwrite=overwrite) as temporary, tempfile.TemporaryFile(dir=path.parent) as spool:
        levels = stream_levels(size, tiles, settings, spool=spool, pool=pool)
        if format == "ome-zarr":
            from restain.slides.zarr_writer import write_zarr

            write_zarr(temporary, levels, settings, travelling)
        elif format == "dicom":
            from restain.slides.dicom_writer import write_dicom

            write_dicom(temporary, levels, settings, travelling)
        else:
            write_tiff(temporary, levels, count, settings, travelling)


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
    objective_power: float | None = None,
) -> None:
    """Write an image (H, W, 3) uint8 that is in memory as a pyramid; arguments as `write_pyramid`."""
    height, width = pixels.shape[:2]
    settings = settings_for(path, settings, size=(width, height), mpp=mpp)
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
        pool=None,
        overwrite=overwrite,
        objective_power=objective_power,
    )
