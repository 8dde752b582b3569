"""Rectangles of a slide as a network is to see them: on white, with their transparency as it is."""

import numpy as np

from restain.color.images import RGB8
from restain.slides.reader import Mask, Slide


def read_on_white(
    slide: Slide, location: tuple[int, int], level: int, size: tuple[int, int]
) -> tuple[RGB8, Mask | None]:
    """A rectangle as a network is to see it, and where it is real; None for everywhere.

    Padding is white; what is partly transparent has its own colour.
    """
    rgba = slide.read_rgba(location, level, size)
    known = rgba[..., 3] > 0
    if known.all():
        return np.ascontiguousarray(rgba[..., :3]), None
    return np.where(known[..., None], rgba[..., :3], np.uint8(255)), known
