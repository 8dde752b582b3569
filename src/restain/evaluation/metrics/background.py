"""What became of the glass: how far its colour moved, or lies from the glass that was wanted."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from restain.errors import InputError
from restain.evaluation.metrics.inputs import Floats, Mask, checked_mask, checked_pair, checked_rgb

BRIGHT, NEUTRAL = 0.86, 0.06
"""Glass has all channels above 0.86 of the white point and no two channels further apart than 0.06 of it."""

OPENING = 3  # pixels: what is thinner is a gap between cells, not glass


def background_shift(
    reference: Any, image: Any, mask: Any = None, *, white: ArrayLike | None = None, source_white: ArrayLike = 255.0
) -> float:
    """Change of the glass's mean colour, mean absolute over R, G and B, in levels of 0..255; lower is better.

    Glass is found in the reference, which should be the *source*, so that a tinted output cannot hide its glass.
    Without `white`, it is compared with the source's own glass: what a method that keeps glass should leave at 0. A
    method that matches glass moves it on purpose; give the reference slide's white point then.

    Args:
        reference: (H, W, 3) uint8, the source.
        image: the same shape, the output.
        mask: (H, W) bool, the pixels to look at.
        white: the colour that glass should have in the output, a level or three.
        source_white: the source's white point, a level or three, that "bright" and "neutral" are relative to.

    Returns:
        Levels; NaN where the source shows no glass.

    Raises:
        InputError: an image, mask or level is not what was wanted.
    """
    wanted = None if white is None else _level(white, "white")
    checked_pair(reference, image, mask, need_rgb=True)
    source, output = checked_rgb(reference), checked_rgb(image)
    glass = background_mask(source, source_white)
    where = checked_mask(mask, glass.shape)
    if where is not None:
        glass &= where
    if not glass.any():
        return float("nan")
    before = source[glass].mean(axis=0) if wanted is None else wanted
    return float(np.abs(output[glass].mean(axis=0) - before).mean())


def background_mask(image: Any, white: ArrayLike = 255.0) -> Mask:
    """Where an image shows glass, (H, W) bool: bright and neutral relative to the white point, opened by 3 pixels."""
    share = checked_rgb(image) / _level(white, "source_white")
    high, low = share.max(axis=2), share.min(axis=2)
    opened: Mask = ndimage.binary_opening((low > BRIGHT) & (high - low < NEUTRAL), np.ones((OPENING, OPENING), bool))
    return opened


def _level(value: ArrayLike, what: str) -> Floats:
    level = np.asarray(value, np.float64)
    if level.shape not in ((), (3,)) or not ((level > 0) & (level <= 255)).all():  # NaN fails too
        raise InputError(f"got {what}={value!r}; wanted a level above 0 and up to 255, or three: R, G, B")
    return np.broadcast_to(level, (3,))
