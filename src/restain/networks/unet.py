"""The U-Net generator of pix2pix, "UNet256".

Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", 2017. MultiStain-CycleGAN
(Hetz, Bucher & Brinker, 2024) uses it with instance norm.
"""

import torch
from torch import Tensor, nn

from restain.networks.blocks import Norm, check_sides, make_norm


class UNetGenerator(nn.Module):
    """Halve an image `depth` times, double it back, and hand each size across.

    Convolutions are 4 × 4 with stride 2. On the way down LeakyReLU 0.2 stands before each but the first; on the way up
    ReLU stands before each. All maps are normalized but the outermost two and the innermost one, whose 1 × 1 values
    (at the smallest image) a norm would set to zero.

    Args:
        depth: halvings, at least 5.
        channels: after the first convolution; doubled three times, then kept.
        norm: "batch" or "instance". As in the papers' code, a convolution has a bias only where no batch norm follows
            it, and the first convolution and the innermost one have theirs only with "instance".
        dropout: Dropout 0.5 on the way up, after the norms of the `depth` − 5 levels next to the innermost.
        in_channels: of the images that come in.
        out_channels: of the images that go out.
    """

    multiple: int
    """Both sides of the images must be multiples of this: 2 to the power of `depth`."""

    def __init__(
        self,
        depth: int = 8,
        channels: int = 64,
        norm: Norm = "batch",
        dropout: bool = False,
        in_channels: int = 3,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        self.multiple = 2**depth
        bias = norm == "instance"
        widths = [channels * min(2**level, 8) for level in range(depth)]

        down: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 4, stride=2, padding=1, bias=bias)]
        for level in range(1, depth):
            layers = [
                nn.LeakyReLU(0.2),
                nn.Conv2d(widths[level - 1], widths[level], 4, stride=2, padding=1, bias=bias),
            ]
            if level < depth - 1:
                layers.append(make_norm(norm, widths[level]))
            down.append(nn.Sequential(*layers))
        self.down = nn.ModuleList(down)

        up: list[nn.Module] = []
        for level in range(depth - 1, 0, -1):
            # All but the innermost level are given twice their width: what came up beside what was handed across.
            width = widths[level] if level == depth - 1 else 2 * widths[level]
            layers = [
                nn.ReLU(),
                nn.ConvTranspose2d(width, widths[level - 1], 4, stride=2, padding=1, bias=bias),
                make_norm(norm, widths[level - 1]),
            ]
            if dropout and 4 <= level < depth - 1:
                layers.append(nn.Dropout(0.5))
            up.append(nn.Sequential(*layers))
        last = nn.ConvTranspose2d(2 * widths[0], out_channels, 4, stride=2, padding=1)
        up.append(nn.Sequential(nn.ReLU(), last, nn.Tanh()))
        self.up = nn.ModuleList(up)

    def forward(self, images: Tensor) -> Tensor:
        """Restyle images.

        Args:
            images: (N, in_channels, H, W) floats −1..1; H and W multiples of `multiple`.

        Returns:
            (N, out_channels, H, W) floats −1..1.

        Raises:
            InputError: sides that are no multiples of `multiple`.
        """
        check_sides(images, self.multiple)
        return forward_unet(images, self.down, self.up)


def forward_unet(images: Tensor, down: nn.ModuleList, up: nn.ModuleList) -> Tensor:
    """Down through all levels and up again; a level's maps are handed across to where their size comes back."""
    across = []
    maps = images
    for level in down:
        maps = level(maps)
        across.append(maps)
    across.pop()
    for level in up:
        maps = level(maps)
        if across:
            maps = torch.cat([across.pop(), maps], dim=1)
    return maps
