"""One way to read any slide or image: `open_slide`, and what it returns.

Positions are (x, y) in level-0 pixels; sizes are (width, height); pixels are (height, width, 3) uint8 arrays.
"""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.errors import SlideError, SlideWarning

Mask = NDArray[np.bool_]

PLAUSIBLE_MPP = (0.02, 100.0)
"""Micrometres per pixel that a microscope or an overview camera can have; other values count as unknown."""


class Slide:
    """A slide or image, opened for reading. Safe to read from many threads. Closes as a context manager.

    Attributes:
        path: the file.
        format: "openslide: aperio", "tiff", "image: PNG", …
        pyramidal: whether it is a slide (tiled or with levels) rather than a plain image.
        level_dimensions: (width, height) of each level, the full one first.
        level_downsamples: how many level-0 pixels one pixel of each level spans.
        mpp: (x, y) micrometres per level-0 pixel, None where unknown or implausible.
        objective_power: magnification of the objective, None where unknown.
        icc_profile: None for sRGB.
        properties: everything else the file says, as text.
        associated_images: label, macro, thumbnail by name; each is read when asked for.
        notes: what of the file's own claims was not believed; each was also issued as a `SlideWarning`.
    """

    def __init__(self, path: Path, format: str) -> None:
        self.path = path
        self.format = format
        self.pyramidal = True
        self.level_dimensions: tuple[tuple[int, int], ...] = ()
        self.level_downsamples: tuple[float, ...] = ()
        self.mpp: tuple[float, float] | None = None
        self.objective_power: float | None = None
        self.icc_profile: bytes | None = None
        self.properties: Mapping[str, str] = {}
        self.associated_images: Mapping[str, Callable[[], RGB8]] = {}
        self.notes: list[str] = []

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        return self.level_dimensions[0]

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        """Read a rectangle.

        Args:
            location: (x, y) of its top left corner in level-0 pixels.
            level: the level to read.
            size: (width, height) in pixels of that level.

        Returns:
            Pixels (height, width, 3) uint8, and where they are real, (height, width) bool; None when all are.
            Padding (missing tiles, transparent pixels, outside the slide) is white.

        Raises:
            SlideError: the file is damaged there.
        """
        raise NotImplementedError

    def thumbnail(self, longest: int = 2048) -> tuple[RGB8, Mask | None]:
        """The whole slide, at most `longest` pixels a side, by averaging; pixels and mask as `read_region`."""
        width, height = self.dimensions
        wanted = max(1.0, max(width, height) / longest)
        level = max(i for i, d in enumerate(self.level_downsamples) if d <= wanted * 1.001)
        width, height = self.level_dimensions[level]
        step = max(1, int(np.ceil(max(width, height) / longest)))
        out = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
        known = np.ones(out.shape[:2], np.bool_)
        # In bands, so that a slide without small levels is never in memory whole.
        band = max(step, 4_000_000 // width // step * step)
        scale = self.level_downsamples[level]
        for top in range(0, height, band):
            rows = min(band, height - top)
            pixels, mask = self.read_region((0, round(top * scale)), level, (width, rows))
            first, last = top // step, -(-(top + rows) // step)
            out[first:last] = _shrunk(pixels, step)
            if mask is not None:
                known[first:last] = _shrunk(mask[..., None].astype(np.uint8) * 255, step)[..., 0] == 255
        return out, None if known.all() else known

    def _believe_mpp(self, x: float | None, y: float | None) -> None:
        """Set `mpp` if both values are plausible; note it where something implausible was claimed."""
        if x is None or y is None:
            return
        low, high = PLAUSIBLE_MPP
        if low <= x <= high and low <= y <= high:
            self.mpp = (x, y)
            return
        wrong = y if low <= x <= high else x
        self.notes.append(f"{self.path.name} claims {wrong:g} micrometres per pixel; taken as unknown")
        warnings.warn(self.notes[-1], SlideWarning, stacklevel=2)

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def open_slide(path: str | os.PathLike[str] | Slide) -> Slide:
    """Open a slide or image: OpenSlide's formats, other tiled or pyramidal TIFF, plain images, tried in this order.

    Raises:
        SlideError: there is no such file, or none of the readers knows it; the message says what to do.
    """
    from restain.slides import image_reader, openslide_reader, tiff_reader

    if isinstance(path, Slide):
        return path
    path = Path(path)
    if path.is_dir() and not (path / "DICOMDIR").exists():
        raise SlideError(f"{path} is a folder; wanted a slide or image file")
    if not path.exists():
        raise SlideError(f"{path} does not exist")
    if path.is_file() and path.stat().st_size == 0:
        raise SlideError(f"{path} is empty (0 bytes); it was probably not copied completely")
    reasons = []
    readers = (openslide_reader.open_openslide, tiff_reader.open_tiff, image_reader.open_image)
    for reader in readers[:1] if path.is_dir() else readers:
        try:
            slide = reader(path)
        except SlideError as error:
            reasons.append(str(error))
            if reader is tiff_reader.open_tiff:
                break  # Pillow would open what tifffile refuses, and get its numbers wrong
        else:
            if slide is not None:
                return slide
    if reasons:
        raise SlideError(f"{path} cannot be read: {'; '.join(dict.fromkeys(reasons))}")
    raise SlideError(f"{path} is not a slide or image of a known format (OpenSlide's formats, TIFF, PNG, JPEG, …)")


def _shrunk(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Box average by `step`; the last box of a side may be smaller."""
    if step == 1:
        return pixels
    rows, columns = (np.arange(0, n, step) for n in pixels.shape[:2])
    total = np.add.reduceat(np.add.reduceat(pixels.astype(np.uint32), rows, axis=0), columns, axis=1)
    height = np.minimum(step, pixels.shape[0] - rows)
    width = np.minimum(step, pixels.shape[1] - columns)
    area = (height[:, None] * width)[..., None]
    mean: NDArray[np.uint8] = ((total + area // 2) // area).astype(np.uint8)
    return mean
