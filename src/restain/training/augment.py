"""What is done to a crop before a network sees it: where it is cut, flips, quarter turns.

Pure functions of (H, W, C) uint8 arrays; whatever is left to chance comes from the generator that is handed in.
StainGAN crops at random and flips horizontally (PAPERS.md §7.11), as STST does (§5.2); CAGAN flips both ways (§2.5),
DCGMM turns too (§7.8); StainNet takes the tiles as they are (§4.2).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError

Pixels = NDArray[np.uint8]
CropMode = Literal["random", "center", "top-left"]


def crop_position(
    size: tuple[int, int], crop: int, mode: CropMode, generator: np.random.Generator | None = None
) -> tuple[int, int]:
    """Where a square crop begins.

    Args:
        size: (width, height) of the picture.
        crop: side of the crop.
        mode: "random" (every position is as likely), "center" (rounded up and left) or "top-left".
        generator: used for "random" alone, which always takes two numbers from it.

    Returns:
        (x, y) of the top left corner; 0 along a side that is no longer than the crop.
    """
    room = [max(side - crop, 0) for side in size]
    if mode == "top-left":
        return 0, 0
    if mode == "center":
        return room[0] // 2, room[1] // 2
    if generator is None:
        raise InputError("a random crop needs a generator")
    return int(generator.integers(room[0] + 1)), int(generator.integers(room[1] + 1))


def reflect_to(image: Pixels, side: int) -> Pixels:
    """Widen what is smaller than `side` pixels by mirroring it, alike on both ends; other sides stay."""
    short = [max(side - length, 0) for length in image.shape[:2]]
    if not any(short):
        return image
    return np.pad(image, [(n // 2, n - n // 2) for n in short] + [(0, 0)] * (image.ndim - 2), mode="reflect")


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways in which a square can lie: quarter turns first, then flips."""

    turns: int = 0
    """Quarter turns counterclockwise, 0..3."""
    flipped: bool = False
    """Left and right exchanged."""
    flipped_vertically: bool = False
    """Top and bottom exchanged."""

    def __call__(self, image: Pixels) -> Pixels:
        """The image (H, W, C) so laid; itself where nothing is to be done, else a copy."""
        if self == Orientation():
            return image
        # Whole pixels are moved, not their channels: half the time.
        pixels = np.ascontiguousarray(image).view(f"V{image.shape[2]}")[..., 0]
        pixels = np.rot90(pixels, self.turns)
        pixels = pixels[:, ::-1] if self.flipped else pixels
        pixels = pixels[::-1] if self.flipped_vertically else pixels
        return np.ascontiguousarray(pixels)[..., None].view(np.uint8)


def draw_orientation(
    generator: np.random.Generator, *, flip: bool = True, flip_vertical: bool = False, rotate: bool = False
) -> Orientation:
    """An orientation by chance: each flip that is allowed with probability ½, each quarter turn with ¼.

    Three numbers are taken from the generator whatever is allowed, so that allowing one does not change the others.
    """
    turns, horizontal, vertical = (int(generator.integers(n)) for n in (4, 2, 2))
    return Orientation(turns if rotate else 0, bool(horizontal and flip), bool(vertical and flip_vertical))
