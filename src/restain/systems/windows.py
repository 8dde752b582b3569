"""A trained network as slides see it: a function of windows, in levels, with the one rule for glass applied."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restain.color.images import RGB8
from restain.methods.base import Appearance
from restain.methods.windows import Float32, WindowMap

if TYPE_CHECKING:
    from restain.systems.base import System


class NetworkWindows(WindowMap):
    """What one trained system does to windows of one slide."""

    def __init__(self, system: "System", appearance: Appearance) -> None:
        self.side, self.overlap = system.window, system.overlap
        self._rule = system.glass_rule(appearance)
        self._multiple = system.multiple
        self._device = choose_device(system.device)
        self._forward = system.inference_network(appearance).to(self._device)
        self.batch = 1 if self._device.type == "cpu" else 8

    def __call__(self, windows: RGB8) -> Float32:
        """Map windows (N, side, side, 3); those of glass alone are spared the network."""
        glass = np.array([self._rule.is_glass(window) for window in windows])
        levels = np.empty(windows.shape, np.float32)
        for index in np.flatnonzero(glass):
            levels[index] = self._rule.glass(windows[index])
        if not glass.all():
            tissue = np.ascontiguousarray(windows[~glass])
            levels[~glass] = self._rule(tissue, self._restyle(tissue))
        return levels

    def whole(self, image: RGB8) -> RGB8 | None:
        """An image that fits into a window at once, reflected to the size that the network wants."""
        if max(image.shape[:2]) > self.side:
            return None
        levels = self._rule(image, self._restyle(np.ascontiguousarray(image)[None])[0])
        return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)

    def _restyle(self, images: RGB8) -> Float32:
        height, width = images.shape[1:3]
        with torch.inference_mode():
            batch = pad_to_multiple(to_tensor(images).to(self._device), self._multiple)
            out = self._forward(batch)[..., :height, :width].float() * 255
        restyled: Float32 = np.ascontiguousarray(out.permute(0, 2, 3, 1).cpu().numpy())
        return restyled


def to_tensor(images: RGB8) -> Tensor:
    """(N, H, W, 3) uint8 as (N, 3, H, W) floats in 0..1, in channels-last memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" for a GPU where there is one."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images (N, C, H, W), reflected at the right and lower edge until both sides are multiples."""
    height, width = images.shape[-2:]
    rows, columns = (
        reflected(height, -(-height // multiple) * multiple),
        reflected(width, -(-width // multiple) * multiple),
    )
    if len(rows) == height and len(columns) == width:
        return images
    return images[..., torch.from_numpy(rows).to(images.device), :][..., torch.from_numpy(columns).to(images.device)]


def reflected(length: int, wanted: int) -> NDArray[np.int64]:
    """Positions 0..length−1 continued to `wanted` by reflection, the edge not repeated: as often as needed."""
    if length == 1:
        return np.zeros(wanted, np.int64)
    phase = np.arange(wanted) % (2 * length - 2)
    return np.where(phase < length, phase, 2 * length - 2 - phase)


def image_tiles(pixels: RGB8, most: int, side: int) -> list[RGB8]:
    """At most `most` square tiles of an image, evenly spread over it, whole ones where it is large enough."""
    height, width = pixels.shape[:2]
    side = min(side, height, width)
    rows, columns = max(height // side, 1), max(width // side, 1)
    chosen = np.unique(np.linspace(0, rows * columns - 1, min(most, rows * columns)).astype(int))
    tiles = []
    for index in chosen:
        y, x = (int(index) // columns) * side, (int(index) % columns) * side
        tiles.append(pixels[y : y + side, x : x + side])
    return tiles
