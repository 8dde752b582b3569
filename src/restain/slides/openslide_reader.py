"""Slides that OpenSlide reads: SVS, NDPI, SCN, MRXS, BIF, DICOM, generic tiled TIFF, …"""

import ctypes
import json
import math
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray
from PIL import ImageCms

from restain.color.images import RGB8, as_rgb8
from restain.errors import SlideError
from restain.slides.claims import check_associated, check_size, check_tile
from restain.slides.jpeg_tiles import JpegTiles, open_jpeg_tiles
from restain.slides.reader import JpegPiece, Mask, Slide, damaged, pieces

PLAIN_TIFF = ("generic-tiff", "aperio")
"""Vendors whose levels are pages of tiles without gaps, overlaps or offsets."""


def open_openslide(path: Path) -> Slide | None:
    """Open with OpenSlide; None if it does not know the format, `SlideError` if it does but cannot open it.

    Some plain TIFF is left to tifffile: of OME-TIFF OpenSlide sees neither the resolution nor levels that are
    SubIFDs, and 16 bits it reduces in its own way.
    """
    try:
        vendor = openslide.OpenSlide.detect_format(str(path))
        if vendor is None or (vendor == "generic-tiff" and _for_tifffile(path)):
            return None
        return OpenSlideSlide(path, openslide.OpenSlide(str(path)))
    except openslide.OpenSlideError as error:
        raise SlideError(f"OpenSlide: {error}") from None


class OpenSlideSlide(Slide):
    """A slide read through OpenSlide."""

    def __init__(self, path: Path, handle: openslide.OpenSlide) -> None:
        properties = dict(handle.properties)
        super().__init__(path, f"openslide: {properties.get(openslide.PROPERTY_NAME_VENDOR, 'unknown')}")
        self._handle = handle
        self._mending = threading.Lock()
        self.level_dimensions = handle.level_dimensions
        self.level_downsamples = handle.level_downsamples
        self.tile_sizes = tuple(_tile_size(properties, level) for level in range(handle.level_count))
        for size, tile in zip(self.level_dimensions, self.tile_sizes, strict=True):
            check_size(path, *size, one_file=False)  # some formats keep their pixels in other files
            check_tile(*tile or (0, 0))
        self.properties = properties
        self._believe_mpp(
            _number(properties.get(openslide.PROPERTY_NAME_MPP_X)),
            _number(properties.get(openslide.PROPERTY_NAME_MPP_Y)),
        )
        power = _number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
        self._believe_power(power or written_objective_power(properties.get("tiff.ImageDescription", "")))
        try:
            profile = handle.color_profile
        except (ImageCms.PyCMSError, OSError):
            self._believe_profile(b"damaged")
        else:
            self._believe_profile(profile.tobytes() if profile is not None else None)
        images = handle.associated_images
        self.associated_images = {name: partial(self._associated, name) for name in images}
        self._tiles: JpegTiles | None = None
        if properties.get(openslide.PROPERTY_NAME_VENDOR) in PLAIN_TIFF:
            self._tiles = open_jpeg_tiles(path, self.level_dimensions)

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        pixels = self.read_opaque(location, level, size)
        return self._through_openslide(location, level, size) if pixels is None else (pixels, None)

    def read_tile(self, location: tuple[int, int], size: tuple[int, int], out: RGB8) -> tuple[RGB8, Mask | None]:
        if self._tiles is not None:
            pixels = self._tiles.read(0, *location, *size, out)
            if pixels is not None:
                return pixels, None
        return self._through_openslide(location, 0, size)

    def jpeg_pieces(
        self, location: tuple[int, int], size: tuple[int, int], longest: float = math.inf
    ) -> list[JpegPiece] | None:
        return None if self._tiles is None else self._tiles.pieces(0, *location, *size, longest)

    def _through_openslide(
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> tuple[RGB8, Mask | None]:
        rgba = self._rgba_through_openslide(location, level, size)
        known = rgba[..., 3] == 255
        if known.all():
            return np.ascontiguousarray(rgba[..., :3]), None
        return as_rgb8(rgba), known

    def read_rgba(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """As `read_region`, with transparency as it is: (height, width, 4), not premultiplied, the caller's own."""
        pixels = self.read_opaque(location, level, size)
        if pixels is not None:
            rgba = np.empty((*pixels.shape[:2], 4), np.uint8)
            rgba[..., :3], rgba[..., 3] = pixels, 255
            return rgba
        return self._rgba_through_openslide(location, level, size)

    def read_opaque(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> RGB8 | None:
        """A rectangle from the tiles themselves; None where OpenSlide is needed, because it resamples or pads."""
        if self._tiles is None:
            return None
        left, top = (position / self.level_downsamples[level] for position in location)
        if not (left.is_integer() and top.is_integer()):
            return None
        return self._tiles.read(level, int(left), int(top), *size)

    def _rgba_through_openslide(
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        handle = self._handle
        try:
            return np.array(handle.read_region(location, level, size))
        except openslide.OpenSlideError:
            return self._read_anew(location, level, size)
        except ctypes.ArgumentError:  # a handle that its owner closed
            raise SlideError(f"{self.path.name} was closed") from None

    def _read_anew(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read with a new handle: after one error OpenSlide refuses everything, whichever thread met it, wherever.

        No other thread has the new one while it is tried. The old one is closed when the last has let go of it.
        """
        with self._mending:
            handle = self._opened_again()
            try:
                rgba = np.array(handle.read_region(location, level, size))
                self._handle = handle
                return rgba
            except openslide.OpenSlideError as error:
                self._handle = self._opened_again()
                reason = error
            handle = self._opened_again()
            for piece in pieces(self, location, level, size):
                try:
                    handle.read_region(piece.location, level, piece.size)
                except openslide.OpenSlideError as error:
                    raise SlideError(damaged(self.path.name, piece, level, error)) from None
        raise SlideError(f"{self.path.name} is damaged near {location}: {reason}")

    def _opened_again(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(str(self.path))
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(f"{self.path} cannot be opened again after a tile could not be read: {error}") from None

    def close(self) -> None:
        self._handle.close()
        if self._tiles is not None:
            self._tiles.close()

    def _associated(self, name: str) -> RGB8:
        sides = (_number(self.properties.get(f"openslide.associated.{name}.{side}")) for side in ("width", "height"))
        check_associated(name, self.path, *(int(side or 0) for side in sides))
        try:
            return as_rgb8(np.asarray(self._handle.associated_images[name]))
        except openslide.OpenSlideError:  # of this image, or of whatever was read before
            pass
        with self._mending:
            self._handle = self._opened_again()
            try:
                return as_rgb8(np.asarray(self._handle.associated_images[name]))
            except openslide.OpenSlideError as error:
                self._handle = self._opened_again()
                raise SlideError(f"the {name} image of {self.path.name} is damaged: {error}") from None


def _for_tifffile(path: Path) -> bool:
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages.first
            return bool(tiff.is_ome or page.bitspersample != 8)
    except Exception:  # damaged: OpenSlide says what it thinks of it, and tifffile is asked again after it
        return False


def written_objective_power(description: str) -> float | None:
    """The objective power that restain notes in the ImageDescription of its own output."""
    try:
        return float(json.loads(description)["slide"]["objective_power"])
    except (ValueError, KeyError, TypeError):
        return None


def _tile_size(properties: Mapping[str, str], level: int) -> tuple[int, int] | None:
    sides = [_number(properties.get(f"openslide.level[{level}].tile-{side}")) for side in ("width", "height")]
    return None if None in sides else (int(sides[0] or 1), int(sides[1] or 1))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
