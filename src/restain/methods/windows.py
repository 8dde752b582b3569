"""Applying a method that looks at neighbourhoods: overlapping windows on one grid, blended, in bounded memory."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8

Float32 = NDArray[np.float32]


class WindowMap(ABC):
    """What a method that looks at neighbourhoods does to square windows of one slide: its counterpart of `ColorMap`.

    It is called by one thread at a time, not always the same one. What it makes of a window must depend on that window
    alone: not on the others of the call, nor on their number.

    Attributes:
        side: of its windows, pixels.
        overlap: pixels that neighbouring windows share, even, at most half of `side`; blended by a raised cosine.
        batch: windows wanted for a call; it may get fewer.
    """

    side: int
    overlap: int
    batch: int = 1

    @abstractmethod
    def __call__(self, windows: RGB8) -> Float32:
        """Map windows (N, side, side, 3) uint8 to float32 levels 0..255 of the same shape, neither clipped nor rounded.

        The glass rule is applied inside (`restain.methods.glass.GlassRule`), so windows of glass alone may be spared
        the network.
        """

    def whole(self, image: RGB8) -> RGB8 | None:
        """Map an image (H, W, 3) uint8 at once, as papers evaluate their tiles; None to have it done in windows."""
        return None


def apply_windows(image: RGB8, window_map: WindowMap) -> RGB8:
    """Map an image (H, W, 3) uint8 that is in memory."""
    raise NotImplementedError
