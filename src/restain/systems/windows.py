"""A trained network as slides see it: a function of windows, in levels, with the one rule for glass applied."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from restain.color.glass import GLASS_DENSITY
from restain.color.images import RGB8
from restain.errors import InputError
from restain.methods.base import Appearance, Floats
from restain.methods.window_grid import reflected
from restain.methods.windows import Float32, WindowMap
from restain.networks.inference import FastNetwork, Precision, fast
from restain.networks.norm_statistics import folded

if TYPE_CHECKING:
    from restain.systems.base import System


_LOCK = threading.RLock()


class NetworkWindows(WindowMap):
    """What one trained system does to windows of one slide."""

    def __init__(self, system: "System", appearance: Appearance) -> None:
        self.side, self.overlap = system.window, system.overlap
        self._rule = system.glass_rule(appearance)
        self._multiple, self._least = system.multiple, system.least_side
        self._device = choose_device(system.device)
        self._network = system.inference_network(appearance).to(self._device)
        self._precision: Precision = "bfloat16" if getattr(appearance, "precision", "") == "bfloat16" else "float32"
        self._fast: FastNetwork | None = None
        # Enough pixels a call that the weights are worth fetching: small windows go together.
        self.batch = max(1, 512**2 // self.side**2) if self._device.type == "cpu" else 8

    def __call__(self, windows: RGB8) -> Float32:
        """Map windows (N, side, side, 3); those of glass alone are spared the network."""
        glass = np.array([self._rule.is_glass(window) for window in windows])
        levels = np.empty(windows.shape, np.float32)
        for index in np.flatnonzero(glass):
            levels[index] = self._rule.glass(windows[index])
        if not glass.all():
            tissue = np.ascontiguousarray(windows[~glass])
            levels[~glass] = self._rule(tissue, self._restyle(tissue, self._ready()))
        return levels

    def whole(self, image: RGB8) -> RGB8 | None:
        """An image that fits into a window at once, reflected to the size that the network wants."""
        if max(image.shape[:2]) > self.side:
            return None
        levels = self._rule(image, self._restyle(np.ascontiguousarray(image)[None], self._network)[0])
        return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)

    def _ready(self) -> FastNetwork:
        """The network made ready for windows, when the first comes."""
        with _LOCK:
            if self._fast is None:
                side = -(-max(self.side, self._least) // self._multiple) * self._multiple
                shape = (self.batch, 3, side, side)
                # Fixed norms are folded here, not for every image by itself: that takes longer than a forward pass.
                self._fast = fast(folded(self._network), shape, device=self._device, precision=self._precision)
            return self._fast

    def _restyle(self, images: RGB8, network: Callable[[Tensor], Tensor]) -> Float32:
        height, width = images.shape[1:3]
        # One forward pass at a time: it uses all cores, and the memory of one is enough.
        with _LOCK, torch.inference_mode():
            batch = pad_to_multiple(to_tensor(images).to(self._device), self._multiple, self._least)
            out = network(batch)[..., :height, :width].float() * 255
            if torch.isnan(out.sum()):
                raise InputError("the network gave values that are no numbers; its weights are damaged")
        restyled: Float32 = np.ascontiguousarray(out.permute(0, 2, 3, 1).cpu().numpy())
        return restyled


def to_tensor(images: RGB8) -> Tensor:
    """(N, H, W, 3) uint8 as (N, 3, H, W) floats in 0..1, in channels-last memory."""
    # PyTorch warns of arrays that it may not write.
    pixels = torch.from_numpy(images if images.flags.writeable else images.copy())
    return pixels.permute(0, 3, 1, 2).float() / 255


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" for a GPU where there is one."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pad_to_multiple(images: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Images (N, C, H, W), reflected at the right and lower edge until both sides are multiples, `least` or more."""
    height, width = images.shape[-2:]
    rows, columns = (reflected(0, -(-max(side, least) // multiple) * multiple, side) for side in (height, width))
    if len(rows) == height and len(columns) == width:
        return images
    return images[..., torch.from_numpy(rows).to(images.device), :][..., torch.from_numpy(columns).to(images.device)]


def image_tiles(pixels: RGB8, white: Floats, most: int, side: int) -> list[RGB8]:
    """Tiles of an image's tissue, to measure norm statistics on: on nearly blank ones norms amplify the noise.

    Args:
        pixels: (H, W, 3) uint8.
        white: (3,) the image's white point.
        most: tiles wanted. Those that show tissue in half of their area are all alike to the choice, which is spread
            evenly; where they are too few, the richest of the others follow.
        side: of the tiles, pixels; the image's own where that is less.

    Returns:
        Tiles (h, w, 3) of one size, in reading order; none where there is no tissue.
    """
    high, wide = min(side, pixels.shape[0]), min(side, pixels.shape[1])
    places = [
        (y, x) for y in range(0, pixels.shape[0] - high + 1, high) for x in range(0, pixels.shape[1] - wide + 1, wide)
    ]
    stained = (pixels[::4, ::4] < (white + 1) * np.exp(-np.mean(GLASS_DENSITY)) - 1).any(axis=-1)
    shares = np.array([stained[y // 4 : (y + high + 3) // 4, x // 4 : (x + wide + 3) // 4].mean() for y, x in places])
    full = np.flatnonzero(shares >= 0.5)
    if len(full) >= most:
        chosen = full[np.linspace(0, len(full) - 1, most).astype(int)]
    else:
        chosen = np.sort(np.argsort(-shares, kind="stable")[:most])
        chosen = chosen[shares[chosen] > 0]
    return [pixels[y : y + high, x : x + wide] for y, x in (places[index] for index in chosen)]
