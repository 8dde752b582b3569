"""Whether a tile cannot be decoded because it is damaged, or because this machine is out of memory.

Both come as `MemoryError`: decoders ask for what a stream claims to hold, and a damaged one may claim anything. They
must not be mixed up. A shortage told as damage would leave out good tiles where damage is skipped, without a word of
memory; damage told as a shortage would end a run that more memory does not help.
"""

from typing import Any

import numpy as np

ROOM = 8
"""Bytes that decoders may take for each byte of a tile: JPEG 2000 keeps every level in four bytes, and needs two
copies of them."""


def is_shortage(error: Exception, tile: int, *, bounded: bool = True) -> bool:
    """Whether an error of a decoder comes from too little memory, rather than from what it was to decode.

    What NumPy could not have is known by its size: more than a tile can take was a false claim. Of other errors of
    memory the size is not known. They are a shortage where nothing else can be, and else if the machine has no room for
    a tile that is whole: then it had none for this one either. That decides, too, on all other errors: several
    libraries in C call a shortage what they call damage.

    Args:
        error: what was raised.
        tile: bytes that the tile has when it is decoded.
        bounded: whether decoders take no size from a stream, unless through NumPy.
    """
    if isinstance(error, MemoryError):
        asked = _asked(error)
        if asked is not None:
            return asked <= ROOM * tile
        if bounded:
            return True
    return not _has_room(ROOM * tile)


def _asked(error: MemoryError) -> int | None:
    """How many bytes NumPy could not have; None for errors of others."""
    shape: Any = getattr(error, "shape", None)
    dtype: Any = getattr(error, "dtype", None)
    if not isinstance(shape, tuple) or not isinstance(dtype, np.dtype):
        return None
    size = dtype.itemsize
    for side in shape:
        size *= int(side)
    return size


def _has_room(size: int) -> bool:
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True
