"""What every metric on images is given, checked in one place: 8-bit images of one size, and where to compare them.

Only uint8 is taken. A float image does not say whether white is 1 or 255, and a metric that guesses wrong still
returns a plausible number.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Color = Literal["rgb", "gray", "gray8"]
"""How an image is looked at: its channels as they are; its luma, a float; or its luma rounded to whole levels."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B in gray (ITU-R BT.601)."""

DATA_RANGE = 255.0


class Pair(NamedTuple):
    """Two checked images to compare.

    Attributes:
        reference: (C, H, W) float64 in 0..255; C is 3, or 1 for gray. Channels lead, so that each is contiguous.
        image: the same.
        mask: (H, W) bool, the pixels to compare; None for all.
    """

    reference: Floats
    image: Floats
    mask: Mask | None


def checked_image(image: Any, what: str = "image") -> NDArray[np.uint8]:
    """Return `image` as an (H, W, 3) or (H, W) uint8 array.

    Raises:
        InputError: another shape or type, or no pixels.
    """
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise InputError(
            f"got the {what} as {array.dtype}; wanted uint8, 0..255 "
            "(restain.color.images.as_rgb8 converts other types, and says how it takes their range)"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        hint = "; move the channel axis last" if array.ndim == 3 and array.shape[0] == 3 else ""
        raise InputError(f"got the {what} in shape {array.shape}; wanted one image, (H, W, 3) or (H, W){hint}")
    if array.size == 0:
        raise InputError(f"got the {what} in shape {array.shape}; wanted at least one pixel")
    return array


def checked_rgb(image: Any, what: str = "image") -> NDArray[np.uint8]:
    """As `checked_image`, for metrics that need colour: (H, W, 3) only."""
    array = checked_image(image, what)
    if array.ndim != 3:
        raise InputError(f"got the {what} in gray, {array.shape}; wanted colour, (H, W, 3)")
    return array


def checked_mask(mask: Any, size: tuple[int, ...]) -> Mask | None:
    """Return `mask` as (H, W) bool, or None where it is None.

    Raises:
        InputError: it is not bool, has another size than the image, or leaves no pixel.
    """
    if mask is None:
        return None
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != size:
        raise InputError(f"got a mask of {array.dtype} {array.shape}; wanted bool {size}, True where to compare")
    if not array.any():
        raise InputError("got a mask that is False everywhere; wanted at least one pixel to compare")
    return array


def checked_pair(
    reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb", least: int = 1, need_rgb: bool = False
) -> Pair:
    """Check two images and a mask, and look at them as `color` says.

    Args:
        reference: (H, W, 3) or (H, W) uint8.
        image: uint8 of the same shape.
        mask: (H, W) bool or None.
        color: see `Color`; gray images stay gray.
        least: the smallest side that will do, pixels.
        need_rgb: refuse gray.

    Raises:
        InputError: an image or the mask is not what was wanted, or their sizes differ.
    """
    check = checked_rgb if need_rgb else checked_image
    first, second = check(reference, "reference"), check(image)
    if first.shape != second.shape:
        raise InputError(
            f"got a reference of {first.shape} and an image of {second.shape}; wanted one size: crop both to what they "
            "share, or register them"
        )
    if min(first.shape[:2]) < least:
        raise InputError(f"got images of {first.shape[:2]}; wanted sides of {least} pixels or more")
    return Pair(channels_first(first, color), channels_first(second, color), checked_mask(mask, first.shape[:2]))


def channels_first(image: NDArray[np.uint8], color: Color = "rgb") -> Floats:
    """(H, W, 3) or (H, W) uint8 as (C, H, W) float64, 0..255."""
    if color not in ("rgb", "gray", "gray8"):
        raise InputError(f"got color={color!r}; wanted rgb, gray or gray8")
    if image.ndim == 2:
        return image[None].astype(np.float64)
    if color == "rgb":
        return np.ascontiguousarray(np.moveaxis(image, 2, 0), dtype=np.float64)
    return (gray(image) if color == "gray" else gray8(image).astype(np.float64))[None]


def gray(image: NDArray[np.uint8]) -> Floats:
    """Luma Y = 0.299 R + 0.587 G + 0.114 B, (H, W) float64 in 0..255, not rounded."""
    if image.ndim == 2:
        return image.astype(np.float64)
    luma: Floats = LUMA[0] * image[..., 0].astype(np.float64)
    luma += LUMA[1] * image[..., 1]
    luma += LUMA[2] * image[..., 2]
    return luma


def gray8(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma rounded to whole levels, (H, W) uint8, in the 15-bit integers that OpenCV uses for 8-bit images."""
    if image.ndim == 2:
        return image
    wide = image.astype(np.uint32)
    total = 9798 * wide[..., 0] + 19235 * wide[..., 1] + 3735 * wide[..., 2]  # the weights times 2^15
    return ((total + (1 << 14)) >> 15).astype(np.uint8)


def values_of(pair: Pair) -> tuple[Floats, Floats]:
    """The values to compare, (C, n) each: all pixels, or those of the mask."""
    if pair.mask is None:
        channels = len(pair.reference)
        return pair.reference.reshape(channels, -1), pair.image.reshape(channels, -1)
    return pair.reference[:, pair.mask], pair.image[:, pair.mask]
