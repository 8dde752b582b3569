"""Slides that OpenSlide reads: SVS, NDPI, SCN, MRXS, BIF, DICOM, generic tiled TIFF, …"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from PIL import ImageCms

from restain.color.images import RGB8, as_rgb8
from restain.errors import SlideError
from restain.slides.reader import Mask, Slide


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
        self.level_dimensions = handle.level_dimensions
        self.level_downsamples = handle.level_downsamples
        self.properties = properties
        self._believe_mpp(
            _number(properties.get(openslide.PROPERTY_NAME_MPP_X)),
            _number(properties.get(openslide.PROPERTY_NAME_MPP_Y)),
        )
        power = _number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
        self.objective_power = power or written_objective_power(properties.get("tiff.ImageDescription", ""))
        try:
            profile = handle.color_profile
            self.icc_profile = profile.tobytes() if profile is not None else None
        except (ImageCms.PyCMSError, OSError) as error:
            self.notes.append(f"the ICC profile of {path.name} is damaged and taken as sRGB ({error})")
        images = handle.associated_images
        self.associated_images = {name: partial(self._associated, name) for name in images}

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        try:
            rgba = np.asarray(self._handle.read_region(location, level, size))
        except openslide.OpenSlideError as error:
            raise SlideError(f"{self.path.name} is damaged near {location}: {error}") from None
        known = rgba[..., 3] == 255
        if known.all():
            return np.ascontiguousarray(rgba[..., :3]), None
        return as_rgb8(rgba), known

    def close(self) -> None:
        self._handle.close()

    def _associated(self, name: str) -> RGB8:
        try:
            return as_rgb8(np.asarray(self._handle.associated_images[name]))
        except openslide.OpenSlideError as error:
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


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
