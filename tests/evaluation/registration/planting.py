"""Pairs whose displacement is known: a real or synthetic picture, moved, bent, recoloured and made noisy."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from restain import Scanner, make_phantom

Field = NDArray[np.float64]


def planted(
    picture: NDArray[np.uint8],
    seed: int,
    *,
    size: int = 256,
    shift: tuple[float, float] = (0.0, 0.0),
    bend: float = 0.0,
    bend_length: float = 32.0,
    turn: float = 0.0,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Field]:
    """A pair cut from the middle of `picture`, and where in the target each pixel of the source is shown.

    Args:
        picture: (H, W, 3), larger than `size` by what is moved.
        seed: of the bend and the noise.
        size: side of both pictures.
        shift: (x, y) pixels.
        bend: largest displacement of a smooth random warp, pixels.
        bend_length: its sigma, pixels.
        turn: degrees about the middle.

    Returns:
        Source, target in other colours, and (H, W, 2) x and y positions.
    """
    generator = np.random.default_rng(seed)
    top, left = ((side - size) // 2 for side in picture.shape[:2])
    field = ndimage.gaussian_filter(generator.standard_normal((2, size, size)), (0, bend_length, bend_length))
    field *= bend / np.abs(field).max()
    y, x = np.mgrid[:size, :size].astype(np.float64)
    middle, angle = (size - 1) / 2, np.deg2rad(turn)
    u, v = x - middle, y - middle
    positions = np.stack(
        [
            np.cos(angle) * u - np.sin(angle) * v + middle + shift[0] + field[0],
            np.sin(angle) * u + np.cos(angle) * v + middle + shift[1] + field[1],
        ],
        axis=-1,
    )
    where = [positions[..., 1] + top, positions[..., 0] + left]
    channels = [ndimage.map_coordinates(picture[..., k].astype(np.float64), where, order=3) for k in range(3)]
    source = np.stack(channels, axis=-1) + generator.normal(0, 2, (size, size, 3))
    target = other_scanner(picture[top : top + size, left : left + size], generator)
    return np.clip(np.rint(source), 0, 255).astype(np.uint8), target, positions


def other_scanner(pixels: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """The same picture with another contrast, other colours, less focus and more noise."""
    colors = np.array([[0.85, 0.05, 0.05], [0.1, 0.9, 0.1], [0.02, 0.03, 0.8]])
    changed = 255 * (pixels / 255.0) ** 1.3 @ colors
    changed = ndimage.gaussian_filter(changed, (0.7, 0.7, 0)) + generator.normal(0, 3, changed.shape)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def phantom_picture(seed: int, side: int = 400) -> NDArray[np.uint8]:
    """Synthetic tissue as a scanner sees it."""
    return make_phantom(side, side, seed=seed, scanner=Scanner(noise=1.0, blur=0.6), glass_fraction=0.1).image


def read(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def errors(registration: Any, positions: Field) -> NDArray[np.float64]:
    """Distance, pixels, between found and planted positions of the mask's pixels."""
    apart = registration.positions() - positions
    return np.hypot(apart[..., 0], apart[..., 1])[registration.mask]
