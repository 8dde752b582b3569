"""Histograms of colours that gradients pass through, and how far apart two are: which colours, never where.

Afifi, Brubaker & Brown, "HistoGAN: controlling colors of GAN-generated and real images via color histograms", 2021.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from restain.errors import InputError

EPSILON = 1e-6
"""Added to values 0..1 before their logarithm is taken, and the least weight of a pixel."""


def color_histogram(
    images: Tensor, *, bins: int = 64, bound: float = 3.0, tau: float = 0.02, size: int = 150
) -> Tensor:
    """The RGB-uv histogram of each image: how often each channel stands in which proportion to the other two.

    For each channel, u and v are the logarithms of its quotients by the other two, in their order. A pixel counts in
    the bin at (u, v), and, less and less, in those around it, by 1 / (1 + (distance / τ)²) in either direction, times
    its brightness √(R² + G² + B²).

    Args:
        images: (N, 3, H, W) RGB floats; clamped to 0..1.
        bins: on each axis.
        bound: the bins' centres reach from −bound to bound.
        tau: where a pixel's share of a bin falls to a half, in units of u and v.
        size: images are resized to size × size first, bilinearly; 0 for not at all.

    Returns:
        (N, 3, bins, bins) not negative, each image's sum 1; the axes are image, channel, u, v. Not below float32.

    Raises:
        InputError: no RGB images.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"got a tensor of shape {tuple(images.shape)}; wanted RGB images (N, 3, H, W)")
    # Autocast would multiply bf16, whose three digits are too few for sums over all pixels.
    with torch.autocast(images.device.type, enabled=False):
        images = images.to(torch.promote_types(images.dtype, torch.float32)).clamp(0, 1)
        if size:
            images = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        pixels = images.flatten(2)
        # The floor gives an image that is black all over a histogram, too; the norm has a gradient at black, 0.
        brightness = torch.linalg.vector_norm(pixels, dim=1).clamp_min(EPSILON)
        red, green, blue = (pixels + EPSILON).log().unbind(dim=1)
        centres = torch.linspace(-bound, bound, bins, dtype=pixels.dtype, device=pixels.device)
        # The channels share three quotients: those of green by red are those of red by green, mirrored.
        rg, rb, gb = (
            _shares(quotient, centres, tau) * brightness.sqrt()[..., None]
            for quotient in (red - green, red - blue, green - blue)
        )
        counts = torch.stack(
            [
                rg.mT @ rb,
                (rg.mT @ gb).flip(-2),
                (rb.mT @ gb).flip(-2, -1),
            ],
            dim=1,
        )
        return counts / counts.sum(dim=(1, 2, 3), keepdim=True)


def _shares(quotients: Tensor, centres: Tensor, tau: float) -> Tensor:
    """How much of each pixel each bin of one axis gets: (N, pixels) and (bins,) to (N, pixels, bins)."""
    distances = (quotients[..., None] - centres) / tau
    return 1 / (1 + distances**2)


def hellinger(first: Tensor, second: Tensor) -> Tensor:
    """The Hellinger distance of histograms, (1/√2)·‖√first − √second‖: 0 for equal ones, 1 where they share nothing.

    Args:
        first: (N, …) not negative, each image's sum 1.
        second: the same.

    Returns:
        (N,) in 0..1. Its gradient at equality is 0.
    """
    difference = first.sqrt() - second.sqrt()
    distances: Tensor = torch.linalg.vector_norm(difference.flatten(1), dim=1) / math.sqrt(2)
    return distances
