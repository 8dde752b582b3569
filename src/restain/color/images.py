"""The one place where what users hand over becomes an (H, W, 3) uint8 sRGB image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError

RGB8 = NDArray[np.uint8]


def as_rgb8(image: Any) -> RGB8:
    """Return `image` as an (H, W, 3) uint8 array, without copying when it already is one.

    Accepted, with these meanings:

    * uint8 (H, W, 3): as it is. (H, W) and (H, W, 1): gray, repeated.
    * (H, W, 4): RGB with alpha; opaque pixels are taken, transparency is composited on white.
    * uint16: 0..65535 is the full range, rounded to 8 bits.
    * bool: False is black, True is white.
    * floats: 0..1 is the full range; if the largest value is above 1, then 0..255 is.
    * PIL images: converted to RGB (CMYK and palettes too), transparency composited on white; 16 and 32 bits a pixel
      are taken as 0..65535, floats as above.

    Raises:
        InputError: another shape or type, an empty image, values that are not finite, negative, or above 255.
    """
    array = _as_array(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        hint = "; move the channel axis last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise InputError(
            f"got an array of shape {np.shape(image)}; wanted (H, W, 3), (H, W, 4) or (H, W): one image{hint}"
        )
    if array.size == 0:
        raise InputError(f"got an empty image of shape {np.shape(image)}; wanted at least one pixel")
    array = _to_8_bits(array)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] == 4:
        return _composite_on_white(array)
    return array


def opaque(image: Any) -> NDArray[np.bool_] | None:
    """Where an RGBA image is opaque, (H, W) bool; None when it has no alpha or is opaque everywhere."""
    array = _as_array(image)
    if array.ndim != 3 or array.shape[2] != 4:
        return None
    mask: NDArray[np.bool_] = _to_8_bits(array)[..., 3] == 255
    return None if mask.all() else mask


def _as_array(image: Any) -> NDArray[Any]:
    """Any image as an array in this machine's byte order; a PIL image as RGB or RGBA, or unconverted if it is deep."""
    if hasattr(image, "getbands") and hasattr(image, "convert"):  # a PIL image, told without importing PIL
        if image.mode.startswith(("I", "F")):
            array = np.asarray(image)
            if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:  # how 16-bit gray is held, too
                return array.astype(np.uint16)
            return array.astype(array.dtype.newbyteorder("="))
        transparent = {"A", "a"} & set(image.getbands()) or "transparency" in image.info
        return np.asarray(image.convert("RGBA" if transparent else "RGB"))
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise InputError(f"got a sequence that is no array ({error}); wanted one image, (H, W, 3) uint8") from None
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _to_8_bits(array: NDArray[Any]) -> RGB8:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"got {array.dtype} values; wanted uint8, uint16, or floats in 0..1 or 0..255")
    if not np.isfinite(array).all():
        raise InputError("got NaN or infinite values; wanted finite floats in 0..1 or 0..255")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255:
        raise InputError(f"got floats in {low:g}..{high:g}; wanted 0..1 or 0..255")
    scale = 255.0 if high <= 1 else 1.0
    return np.rint(array * scale).astype(np.uint8)


def _composite_on_white(rgba: RGB8) -> RGB8:
    alpha = rgba[..., 3:]
    if (alpha == 255).all():
        return rgba[..., :3]
    share = alpha.astype(np.float32) / 255
    return np.rint(rgba[..., :3] * share + 255 * (1 - share)).astype(np.uint8)
