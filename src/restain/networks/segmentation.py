"""Networks that say what each pixel is: the U-Net.

Ronneberger, Fischer & Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015.
"""

import torch
from torch import Tensor, nn

from restain.networks.blocks import check_sides, make_norm

HALVINGS = 4


class SegmentationUNet(nn.Module):
    """Two convolutions at each of five sizes, down and up again; each size is handed across.

    As it is built today: 3 × 3 convolutions that keep the size, batch norm after each, so that they have no bias, max
    pooling down and 2 × 2 transposed convolutions up. The paper has neither padding nor norm. 31,037,633 parameters.

    Args:
        channels: at the full size; doubled at each halving.
        classes: maps that come out, one logit each.
        in_channels: of the images that come in.
    """

    multiple = 2**HALVINGS
    """Both sides of the images must be multiples of this."""

    def __init__(self, channels: int = 64, classes: int = 1, in_channels: int = 3) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(HALVINGS + 1)]
        self.first = _two_convolutions(in_channels, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _two_convolutions(widths[level], widths[level + 1]))
            for level in range(HALVINGS)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2) for level in reversed(range(HALVINGS))
        )
        self.merge = nn.ModuleList(
            _two_convolutions(2 * widths[level], widths[level]) for level in reversed(range(HALVINGS))
        )
        self.last = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, in_channels, H, W), H and W multiples of 16, to logits (N, classes, H, W).

        Raises:
            InputError: sides that are no multiples of 16.
        """
        check_sides(images, self.multiple)
        maps: Tensor = self.first(images)
        across = []
        for down in self.down:
            across.append(maps)
            maps = down(maps)
        for up, merge in zip(self.up, self.merge, strict=True):
            maps = merge(torch.cat([across.pop(), up(maps)], 1))
        logits: Tensor = self.last(maps)
        return logits


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [
            nn.Conv2d(width, after, 3, padding=1, bias=False),
            make_norm("batch", after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
