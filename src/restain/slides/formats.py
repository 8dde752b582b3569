"""The formats that slides are written in: chosen by the output's name, each with the compressions that it can hold."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from restain.color.images import RGB8
from restain.errors import InputError, OutputError

COMPRESSIONS = ("jpeg", "jpeg2000", "jpegxl", "webp", "deflate", "zstd", "none")


@dataclass(frozen=True)
class Format:
    """What a format is called, which names choose it, and which compressions it holds, the usual one first."""

    title: str
    suffixes: tuple[str, ...]
    compressions: tuple[str, ...]
    folder: bool = False


@dataclass(frozen=True)
class Travelling:
    """What is written beside the pixels of a slide.

    Attributes:
        size: (width, height) of level 0.
        mpp: (x, y) micrometres per level-0 pixel, None if unknown.
        objective_power: magnification, None if unknown.
        icc_profile: of the pixels; None for none.
        description: what was done, JSON in ASCII.
        software: name and version of the writer.
        associated: further images by name ("label", "macro").
    """

    size: tuple[int, int]
    mpp: tuple[float, float] | None
    objective_power: float | None
    icc_profile: bytes | None
    description: str
    software: str
    associated: Mapping[str, RGB8]


FORMATS = {
    "tiff": Format("BigTIFF", (".tif", ".tiff"), COMPRESSIONS),
    "ome-tiff": Format("OME-TIFF", (".ome.tif", ".ome.tiff"), COMPRESSIONS),
    "ome-zarr": Format("OME-Zarr", (".ome.zarr", ".zarr"), ("zstd", "deflate", "none"), folder=True),
    "dicom": Format("DICOM", (".dcm", ".dicom"), ("jpeg", "jpeg2000", "none"), folder=True),
}

_BY_SUFFIX = sorted(
    ((suffix, name) for name, format in FORMATS.items() for suffix in format.suffixes),
    key=lambda item: len(item[0]),
    reverse=True,  # .ome.tif before .tif
)


def pyramid_format(path: str | os.PathLike[str]) -> str | None:
    """The key in `FORMATS` that a name chooses by how it ends, None if it ends otherwise."""
    name = Path(path).name.lower()
    return next((format for suffix, format in _BY_SUFFIX if name.endswith(suffix) and name != suffix), None)


def format_of(path: str | os.PathLike[str]) -> str:
    """The key in `FORMATS` that a name chooses by how it ends.

    Raises:
        OutputError: it ends otherwise.
    """
    format = pyramid_format(path)
    if format is None:
        usual = ", ".join(format.suffixes[0] for format in FORMATS.values())
        name = Path(path).name
        raise OutputError(f"slides are written as pyramids; name an output that ends in {usual}, not {name}")
    return format


def stem_of(path: str | os.PathLike[str]) -> str:
    """The last part of a path without the ending that chose its format."""
    name = Path(path).name
    ending = next((suffix for suffix, _ in _BY_SUFFIX if name.lower().endswith(suffix) and name.lower() != suffix), "")
    return name[: len(name) - len(ending)]


def check_format(format: str) -> None:
    """Raise `InputError` unless slides are written in a format."""
    if format not in FORMATS:
        raise InputError(f"got format={format!r}; wanted one of {', '.join(FORMATS)}")


def check_compression(format: str, compression: str) -> None:
    """Raise `InputError` unless files of a format can hold tiles of a compression."""
    check_format(format)
    title, held = FORMATS[format].title, FORMATS[format].compressions
    if compression not in held:
        raise InputError(f"got compression {compression!r} for {title}; wanted one of {', '.join(held)}")
