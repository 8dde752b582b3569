"""OME-Zarr 0.4 and 0.5 (Zarr version 2 and 3), through the zarr package: one RGB or gray image of one plane.

Specification: https://ngff.openmicroscopy.org.
"""

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8, as_rgb8, opaque
from restain.errors import MissingExtraError, SlideError
from restain.slides.claims import LARGEST_TILE, check_associated, check_size
from restain.slides.openslide_reader import written_objective_power
from restain.slides.reader import Mask, Piece, Slide, damaged, pieces
from restain.slides.shortage import is_shortage
from restain.slides.zarr_chunks import Chunks

LARGEST_INDEX = 2**20
"""Chunks in one shard: its index, 16 bytes a chunk, is read again and again."""

METADATA = 1_000_000
"""Bytes that metadata take, and somewhat more than most do."""

_MICROMETRES = {
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6,
    "inch": 25_400.0,
}  # fmt: skip


def open_zarr(path: Path) -> Slide:
    """Open a folder with Zarr's metadata.

    Raises:
        SlideError: it is no OME-Zarr image, or one that is not RGB or gray in one plane.
        MissingExtraError: the zarr package is not installed.
    """
    try:
        import zarr
    except ImportError:
        raise MissingExtraError(
            f"reading {path.name} needs zarr, which is not installed: pip install 'restain[zarr]'"
        ) from None
    try:
        group: Any = zarr.open_group(path, mode="r")
        attributes = dict(group.attrs)
        converted = "bioformats2raw.layout" in {**attributes, **dict(attributes.get("ome", {}))}  # 0.4, 0.5
        if converted and "0" in group:  # a folder of images, as that converter writes
            group = group["0"]
            attributes = dict(group.attrs)
        return ZarrSlide(path, group, attributes)
    except SlideError:
        raise
    except Exception as error:  # zarr raises many types on damaged metadata
        _check_memory(error, path, METADATA)
        raise SlideError(f"{path} cannot be read: zarr: {error or type(error).__name__}") from None


class ZarrSlide(Slide):
    """An OME-Zarr image. A chunk that is not there is padding."""

    def __init__(self, path: Path, group: Any, attributes: Mapping[str, Any]) -> None:
        image = _multiscale(path, attributes)
        version = _text(attributes.get("ome", {}).get("version") or image.get("version"))
        super().__init__(path, f"ome-zarr {version}")
        self._arrays = [group[str(item["path"])] for item in image["datasets"]]
        self._axes = _axes(path, image, self._arrays[0])
        for array in self._arrays:
            _check(path, array, self._axes)
        y, x = self._axes.index("y"), self._axes.index("x")
        self.level_dimensions = tuple((array.shape[x], array.shape[y]) for array in self._arrays)
        width, height = self.level_dimensions[0]
        self.level_downsamples = tuple((width / w + height / h) / 2 for w, h in self.level_dimensions)
        self._chunks = [Chunks(path / array.path, array, self._axes) for array in self._arrays]
        self.tile_sizes = tuple((array.chunks[x], array.chunks[y]) for array in self._arrays)
        self.properties = {"ome-zarr.name": _text(image.get("name")), "ome-zarr.version": version}
        ours = attributes.get("restain")
        if isinstance(ours, Mapping):
            self._read_ours(group, ours)
        self._believe_mpp(*_resolution(image, self._axes))

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        scale = self.level_downsamples[level]
        left, top = round(location[0] / scale), round(location[1] / scale)
        width, height = size
        out = np.full((height, width, 3), 255, np.uint8)
        known = np.zeros((height, width), np.bool_)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = (min(a + b, c) for a, b, c in zip((left, top), size, self.level_dimensions[level], strict=True))
        if x1 > x0 and y1 > y0:
            inside = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            if self._chunks[level].decodable:
                self._decode(level, x0, y0, out[inside], known[inside])
                return out, None if known.all() else known
            there = self._there(level, x0, y0, x1, y1)
            if there.any():
                pixels = self._read(level, x0, y0, x1, y1, location, size)
                seen = opaque(pixels)
                out[inside] = as_rgb8(pixels)
                out[inside][~there] = 255
                known[inside] = there if seen is None else there & seen
        return out, None if known.all() else known

    def _decode(self, level: int, x0: int, y0: int, out: RGB8, known: Mask) -> None:
        """Put the chunks that touch a rectangle into it, where they are stored; (x0, y0) is its corner in the level."""
        for row, column, rows, columns in self._touching(level, x0, y0, x0 + out.shape[1], y0 + out.shape[0]):
            wide, tall = self.tile_sizes[level] or (1, 1)
            try:
                pixels = self._chunks[level].read(row, column)
            except (OSError, MemoryError):  # of this machine: into arrays of their own size chunks claim nothing
                raise
            except Exception as error:  # codecs raise many types
                _check_memory(error, self.path, self._needed(level))
                scale = self.level_downsamples[level]
                place = round(column * wide * scale), round(row * tall * scale)
                raise SlideError(damaged(self.path.name, Piece(place, (wide, tall), place), level, error)) from None
            if pixels is None:
                continue
            top, left = y0 + rows.start - row * tall, x0 + columns.start - column * wide
            part = pixels[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
            for channel in range(3):
                out[rows, columns, channel] = part[channel]
            known[rows, columns] = True

    def _touching(self, level: int, x0: int, y0: int, x1: int, y1: int) -> Iterator[tuple[int, int, slice, slice]]:
        """The chunks that touch a rectangle, by row and column, and where in the rectangle they lie."""
        wide, tall = self.tile_sizes[level] or (1, 1)
        for row in range(y0 // tall, -(-y1 // tall)):
            for column in range(x0 // wide, -(-x1 // wide)):
                rows = slice(max(row * tall - y0, 0), min((row + 1) * tall, y1) - y0)
                columns = slice(max(column * wide - x0, 0), min((column + 1) * wide, x1) - x0)
                yield row, column, rows, columns

    def _read(
        self, level: int, x0: int, y0: int, x1: int, y1: int, location: tuple[int, int], size: tuple[int, int]
    ) -> NDArray[Any]:
        """(H, W, C) or (H, W) of the stored type; the first of every axis that is neither space nor colour."""
        ranges = {"y": slice(y0, y1), "x": slice(x0, x1), "c": slice(None)}
        try:
            array = np.asarray(self._arrays[level][tuple(ranges.get(axis, 0) for axis in self._axes)])
        except Exception as error:  # codecs raise many types
            _check_memory(error, self.path, self._needed(level, (x1 - x0) * (y1 - y0)))
            piece = next(iter(pieces(self, location, level, size)))
            raise SlideError(damaged(self.path.name, piece, level, error or type(error).__name__)) from None
        order = [axis for axis in self._axes if axis in ranges]
        array = array.transpose([order.index(axis) for axis in "yxc" if axis in order])
        return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))

    def _needed(self, level: int, region: int = 0) -> int:
        """Bytes of a chunk when it is decoded, or of a region of so many pixels if that is larger."""
        array = self._arrays[level]
        channels = array.shape[self._axes.index("c")] if "c" in self._axes else 1
        levels: int = max(math.prod(array.chunks), region * channels)
        return levels * int(array.dtype.itemsize)

    def _there(self, level: int, x0: int, y0: int, x1: int, y1: int) -> Mask:
        """Where a rectangle, in pixels of the level, is covered by chunks that are stored."""
        there = np.zeros((y1 - y0, x1 - x0), np.bool_)
        for row, column, rows, columns in self._touching(level, x0, y0, x1, y1):
            there[rows, columns] = self._chunks[level].has(row, column)
        return there

    def _read_ours(self, group: Any, ours: Mapping[str, Any]) -> None:
        """What restain notes in its own output."""
        description = _text(ours.get("description"))
        self.properties = {**self.properties, "restain.description": description}
        power = ours.get("objective_power")
        self._believe_power(float(power) if isinstance(power, (int, float)) else written_objective_power(description))
        profile = ours.get("icc_profile")
        if profile is not None:
            try:
                self._believe_profile(base64.b64decode(profile, validate=True))
            except (binascii.Error, TypeError, ValueError):
                self._believe_profile(b"no base64")
        names = ours.get("associated", [])
        self.associated_images = {str(name): partial(self._associated, group, str(name)) for name in names}

    def _associated(self, group: Any, name: str) -> RGB8:
        try:
            array = group[f"associated/{name}/0"]
            channels, height, width = array.shape
            chunk = (array.shards or array.chunks)[1:]
        except Exception as error:  # as in `_read`
            _check_memory(error, self.path, METADATA)
            raise SlideError(f"the {name} image of {self.path.name} is damaged: {error}") from None
        check_associated(name, self.path, width, height)
        check_associated(name, self.path, *reversed(chunk))  # which are decoded whole
        if channels != 3 or array.dtype != np.uint8:
            raise SlideError(
                f"the {name} image of {self.path.name} has {channels} channels of {array.dtype}; wanted 3 of 8 bits"
            )
        try:
            return np.ascontiguousarray(np.asarray(array[:]).transpose(1, 2, 0))
        except Exception as error:
            _check_memory(error, self.path, max(width * height, chunk[0] * chunk[1]) * channels)
            raise SlideError(f"the {name} image of {self.path.name} is damaged: {error}") from None


def _check_memory(error: Exception, path: Path, size: int) -> None:
    """Raise `MemoryError` if what went wrong is no damage; `size` as for `is_shortage`.

    The zarr package's codecs ask for what a chunk claims (zstd up to 2^64 bytes), and not through NumPy.
    """
    if is_shortage(error, size, bounded=False):
        raise MemoryError(f"out of memory while {path.name} was read") from None


def _multiscale(path: Path, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first image of a group: 0.5 keeps them under "ome", 0.4 at the top."""
    images = attributes.get("ome", attributes).get("multiscales")
    if not images or not images[0].get("datasets"):
        raise SlideError(f"{path} is Zarr, but no OME-Zarr image: there are no multiscales in its metadata")
    found: Mapping[str, Any] = images[0]
    return found


def _axes(path: Path, image: Mapping[str, Any], array: Any) -> list[str]:
    """The names of the axes in order; before 0.4 they were always t, c, z, y, x."""
    axes = [axis["name"] if isinstance(axis, Mapping) else str(axis) for axis in image.get("axes", "tczyx")]
    if len(axes) != array.ndim or "y" not in axes or "x" not in axes or len(set(axes)) != len(axes):
        raise SlideError(f"{path} has axes {', '.join(axes)} for {array.ndim} dimensions; wanted c, y, x")
    return axes


def _check(path: Path, array: Any, axes: list[str]) -> None:
    """Raise `SlideError` for what is no 8- or 16-bit RGB or gray image of one plane, or claims what cannot be true."""
    sizes = dict(zip(axes, array.shape, strict=True))
    for axis, size in sizes.items():
        if axis not in "yxc" and size != 1:
            raise SlideError(f"{path} has {size} planes along {axis}; restain reads images of one plane")
    if sizes.get("c", 1) not in (1, 3, 4):
        raise SlideError(f"{path} has {sizes['c']} channels; wanted RGB (3) or gray (1), 8 or 16 bits")
    if array.dtype not in (np.uint8, np.uint16):
        raise SlideError(f"{path} holds {array.dtype}; wanted 8 or 16 bits without sign, gray or RGB")
    if min(sizes["x"], sizes["y"]) < 1:
        raise SlideError(f"{path} has {sizes['x']}x{sizes['y']} pixels")
    check_size(path, sizes["x"], sizes["y"], one_file=False)
    if math.prod(array.chunks) > 3 * LARGEST_TILE:
        raise SlideError(f"{path} claims chunks of {array.chunks}; save it in smaller chunks")
    if array.shards is not None and math.prod(array.shards) > LARGEST_INDEX * math.prod(array.chunks):
        raise SlideError(
            f"{path} claims shards of {array.shards} for chunks of {array.chunks}; save it in smaller shards"
        )


def _resolution(image: Mapping[str, Any], axes: list[str]) -> tuple[float | None, float | None]:
    """Micrometres per pixel of the first dataset along x and y; None where the unit or the scale is unknown."""
    scale = np.ones(len(axes))
    changes = [*image["datasets"][0].get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    found = False
    for change in changes:
        if change.get("type") == "scale" and len(change.get("scale", [])) == len(axes):
            scale = scale * np.asarray(change["scale"], np.float64)
            found = True
    values: list[float | None] = []
    for axis in "xy":
        described = image.get("axes", [])
        unit = next((a.get("unit") for a in described if isinstance(a, Mapping) and a.get("name") == axis), None)
        factor = _MICROMETRES.get(_text(unit))
        values.append(float(scale[axes.index(axis)]) * factor if found and factor is not None else None)
    return values[0], values[1]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
