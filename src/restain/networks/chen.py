"""The networks of CHEN: gray and a mask of red in, colour out, and a discriminator that looks at the whole image.

Chen et al., "Multi-stage domain adversarial style reconstruction for cytopathological image stain normalization", 2020.
No code was published; where the paper gives no sizes they are those of pix2pix (4 × 4 kernels, stride 2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from restain.errors import InputError
from restain.networks.blocks import check_sides
from restain.networks.unet import forward_unet

ROUNDING = 1e-4
"""Of a grey level: what is no further apart is equal."""


def red_mask(images: Tensor, delta: float = 0.0, median: bool = False) -> Tensor:
    """Where red is the greatest channel: it tells red from blue cytoplasm, which gray does not.

    Neutral pixels, and others in which red has an equal, are not red. Glass is nearly neutral, so that its mask is
    noise; `delta` and `median` are against that.

    Args:
        images: (N, 3, H, W) floats 0..1.
        delta: grey levels, of 255, by which red must be greater than both others; equal to that is not enough.
        median: whether each place takes the majority of the 3 × 3 places around it, the outermost repeated.

    Returns:
        (N, 1, H, W), 1 for red and 0 elsewhere, in the type of the images.
    """
    # The 256 levels in 0..1 are whole numbers again when multiplied, on CPUs. On GPUs, which divide by 255 by
    # multiplying by its rounded reciprocal, they are not, and what leads by `delta` exactly would be red for some.
    levels = images * 255
    mask = (levels[:, :1] > levels[:, 1:].amax(dim=1, keepdim=True) + delta + ROUNDING).to(images.dtype)
    if median:
        mask = (functional.avg_pool2d(functional.pad(mask, (1, 1, 1, 1), mode="replicate"), 3, 1) > 0.5).to(mask.dtype)
    return mask


class ChenGenerator(nn.Module):
    """A U-Net of six halvings: each is a convolution, batch norm and ReLU, and so is each way back but the last.

    Convolutions and transposed ones are 4 × 4 with stride 2 and, but for the last, without a bias. There is no dropout.
    29,244,163 parameters.

    Args:
        channels: after the first convolution; doubled three times, then kept.
    """

    multiple = 64
    """Both sides of the images must be multiples of this."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(6)]
        self.down = nn.ModuleList(
            nn.Sequential(_halving(before, width), nn.BatchNorm2d(width), nn.ReLU())
            for before, width in zip([2, *widths], widths, strict=False)
        )
        up: list[nn.Module] = []
        for level in range(5, 0, -1):
            # All but the innermost level are given twice their width: what came up beside what was handed across.
            before, width = widths[level] if level == 5 else 2 * widths[level], widths[level - 1]
            doubling = nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=False)
            up.append(nn.Sequential(doubling, nn.BatchNorm2d(width), nn.ReLU()))
        up.append(nn.Sequential(nn.ConvTranspose2d(2 * widths[0], 3, 4, stride=2, padding=1), nn.Tanh()))
        self.up = nn.ModuleList(up)

    def forward(self, stainless: Tensor) -> Tensor:
        """Colour images whose stain was removed.

        Args:
            stainless: (N, 2, H, W): gray, −1..1, and the mask of red, 0 or 1; H and W multiples of 64.

        Returns:
            (N, 3, H, W) floats −1..1, RGB.

        Raises:
            InputError: sides that are no multiples of 64.
        """
        check_sides(stainless, self.multiple)
        return forward_unet(stainless, self.down, self.up)


class ChenDiscriminator(nn.Module):
    """Five halvings, each a convolution, batch norm and LeakyReLU 0.2, and a linear layer: one logit an image.

    7,083,905 parameters for images of 512 × 512.

    Args:
        side: of the images, pixels; a multiple of 32. The linear layer has a weight for each place that is left.
        channels: after the first convolution; doubled three times, then kept.
    """

    def __init__(self, side: int = 512, channels: int = 64) -> None:
        super().__init__()
        if side % 32 or side < 32:
            raise InputError(f"got side = {side}; wanted a multiple of 32")
        self.side = side
        widths = [channels * min(2**level, 8) for level in range(5)]
        self.layers = nn.Sequential()
        for before, width in zip([3, *widths], widths, strict=False):
            self.layers.extend([_halving(before, width), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)])
        self.judge = nn.Linear(widths[-1] * (side // 32) ** 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images.

        Args:
            images: (N, 3, side, side) floats −1..1.

        Returns:
            (N, 1) logits, positive for "real"; no sigmoid.

        Raises:
            InputError: images of another size.
        """
        if images.shape[2:] != (self.side, self.side):
            raise InputError(f"got images of shape {tuple(images.shape)}; wanted (N, 3, {self.side}, {self.side})")
        logits: Tensor = self.judge(torch.flatten(self.layers(images), 1))
        return logits


def _halving(before: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(before, width, 4, stride=2, padding=1, bias=False)
