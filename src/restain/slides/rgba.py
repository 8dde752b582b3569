"""Rectangles of a slide with their transparency as it is, not reduced to real or not."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.slides.image_reader import ImageSlide
from restain.slides.openslide_reader import OpenSlideSlide
from restain.slides.reader import Mask, Slide


def read_rgba(slide: Slide, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A rectangle of the source with its alpha, (H, W, 4), not premultiplied; an array of the caller's own.

    `Slide.read_region` knows only opaque or not. That is too little here: where a level's pixels do not begin at a
    whole level-0 pixel, OpenSlide resamples, and leaves an alpha of 254 here and there where its tiles meet; they
    would become holes.
    """
    if isinstance(slide, OpenSlideSlide):
        try:
            return slide.read_rgba(location, level, size)
        except ctypes.ArgumentError as error:  # its owner closed it
            raise SlideError(f"{slide.path.name} cannot be read near {location}: {error}") from None
    if isinstance(slide, ImageSlide) and slide.rgba is not None:
        return _window(slide.rgba, location, size)
    pixels, known = slide.read_region(location, level, size)
    alpha = np.full(pixels.shape[:2], 255, np.uint8) if known is None else known.astype(np.uint8) * np.uint8(255)
    return np.dstack([pixels, alpha])


def read_on_white(
    slide: Slide, location: tuple[int, int], level: int, size: tuple[int, int]
) -> tuple[RGB8, Mask | None]:
    """A rectangle as a network is to see it, and where it is real; None for everywhere.

    Padding is white; what is partly transparent has its own colour.
    """
    rgba = read_rgba(slide, location, level, size)
    known = rgba[..., 3] > 0
    if known.all():
        return np.ascontiguousarray(rgba[..., :3]), None
    return np.where(known[..., None], rgba[..., :3], np.uint8(255)), known


def _window(rgba: NDArray[np.uint8], location: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A rectangle of (H, W, 4) that may reach beyond it, where it is transparent."""
    (x, y), (width, height) = location, size
    out = np.zeros((height, width, 4), np.uint8)
    inside = rgba[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
    top, left = max(-y, 0), max(-x, 0)
    out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return out
