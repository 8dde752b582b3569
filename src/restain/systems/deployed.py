"""A generator with what comes before and after it, as one module: what normalizes, and what is exported."""

import torch
from torch import Tensor, nn
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray (PAPERS §1.2)."""


def to_gray(images: Tensor) -> Tensor:
    """Gray (N, 1, H, W) of RGB (N, 3, H, W), in the same range, not rounded."""
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


class Deployed(nn.Module):
    """Images (N, 3, H, W) in 0..1 to the same, through a generator that works in −1..1.

    Args:
        generator: the network.
        gray: whether it sees gray, in this many channels; 0 for RGB.
        signed: False for a generator that works in 0..1 itself.
        margin: pixels that are added all around by reflection, and dropped again: zeros that a network pads with show
            at its borders (PAPERS §9).
    """

    def __init__(self, generator: nn.Module, gray: int = 0, *, signed: bool = True, margin: int = 0) -> None:
        super().__init__()
        self.generator = generator
        self.gray = gray
        self.signed = signed
        self.margin = margin

    def forward(self, images: Tensor) -> Tensor:
        """Images in 0..1, sides multiples of the generator's `multiple`."""
        if self.gray:
            images = to_gray(images).expand(-1, self.gray, -1, -1)
        if self.margin:
            images = functional.pad(images, (self.margin,) * 4, mode="reflect")
        out: Tensor = self.generator(images * 2 - 1 if self.signed else images)
        if self.margin:
            out = out[..., self.margin : -self.margin, self.margin : -self.margin]
        return (out * 0.5 + 0.5 if self.signed else out).clamp(0, 1)
