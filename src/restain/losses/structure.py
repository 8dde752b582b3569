"""SSIM as a loss: do two images have the same structure, whatever is made of their colours?

Wang, Bovik, Sheikh & Simoncelli, "Image quality assessment: from error visibility to structural similarity", 2004.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from restain.errors import InputError

SsimMode = Literal["windowed", "global", "cs"]
"""`windowed`: statistics in a Gaussian window around each pixel, as the paper of 2004 has it. `global`: of the image as
a whole, which hardly sees texture. `cs`: windowed, contrast and structure alone: a change of brightness costs nothing.
"""

SIDE, SIGMA = 11, 1.5
"""Of the Gaussian window, pixels."""

K1, K2 = 0.01, 0.03
"""Of the range: below about this, differences of brightness and of contrast do not count."""


def ssim(x: Tensor, y: Tensor, mode: SsimMode = "windowed", data_range: float = 1.0) -> Tensor:
    """Structural similarity of each pair of images.

    Args:
        x: (N, C, H, W) floats 0..`data_range`; both sides 11 at least, but for `global`.
        y: the same shape.
        mode: see `SsimMode`.
        data_range: greatest value that a pixel can have; K1 and K2 presuppose that it is right.

    Returns:
        (N,) at most 1, which is reached where the images are equal; the mean over channels and over those pixels whose
        window lies wholly within the image. Not below float32.

    Raises:
        InputError: images of different shapes, smaller than the window, or another mode.
    """
    if mode not in ("windowed", "global", "cs"):
        raise InputError(f"got mode={mode!r}; wanted 'windowed', 'global' or 'cs'")
    if x.shape != y.shape or x.ndim != 4:
        raise InputError(f"got images of shape {tuple(x.shape)} and {tuple(y.shape)}; wanted (N, C, H, W), both alike")
    if mode != "global" and min(x.shape[2:]) < SIDE:
        raise InputError(f"got images of {x.shape[2]} × {x.shape[3]}; SSIM's window has {SIDE} × {SIDE} pixels")
    kind = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(kind), y.to(kind)
    # Variances are differences of squares, and keep more digits about each image's own mean than about 0.
    level_x, level_y = (image.detach().mean(dim=(2, 3), keepdim=True) for image in (x, y))
    x, y = x - level_x, y - level_y
    mean_x, mean_y, square_x, square_y, product = _means(torch.stack([x, y, x * x, y * y, x * y]), mode)
    variances = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    mean_x, mean_y = mean_x + level_x, mean_y + level_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    similarity = (2 * covariance + c2) / (variances + c2)
    if mode != "cs":
        similarity = similarity * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    per_image: Tensor = similarity.mean(dim=(1, 2, 3))
    return per_image


def _means(maps: Tensor, mode: SsimMode) -> Tensor:
    """Means of maps (…, H, W) around each pixel: (…, H − 10, W − 10); of all pixels for `global`: (…, 1, 1).

    Shifted maps are added up, where a convolution would do the same: on GPUs it would multiply TF32, whose three digits
    are too few for a variance as the difference of squares.
    """
    if mode == "global":
        return maps.mean(dim=(-2, -1), keepdim=True)
    weights = [math.exp(-((place - SIDE // 2) ** 2) / (2 * SIGMA**2)) for place in range(SIDE)]
    for dim in (-2, -1):
        length = maps.shape[dim] - SIDE + 1
        shifted = [weight / sum(weights) * maps.narrow(dim, place, length) for place, weight in enumerate(weights)]
        maps = torch.stack(shifted).sum(dim=0)
    return maps
