"""Networks that say what each pixel is: the U-Net, and ResNet-50 made fully convolutional.

Ronneberger, Fischer & Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015; Long, Shelhamer &
Darrell, "Fully convolutional networks for semantic segmentation", 2015, on ResNet-50 as torchvision has it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from restain.networks.backbones.resnet import EXPANSION, ResNet50
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


class FCNResNet50(nn.Module):
    """Scores from the maps of a dilated ResNet-50, an eighth of the image's sides, widened bilinearly to its size.

    torchvision's `fcn_resnet50`, by its names: 35,322,218 parameters with 21 classes and the second head.

    Args:
        classes: maps that come out, one logit each.
        width: of the `ResNet50`; 64 is the published one.
        auxiliary: whether there is a second head, on the maps of layer 3, whose loss helps training.

    Attributes:
        backbone: the `ResNet50`, without its classifier.
        classifier, aux_classifier: the heads.
    """

    multiple = 1
    """Images may have any sides."""

    def __init__(self, classes: int = 1, width: int = 64, *, auxiliary: bool = False) -> None:
        super().__init__()
        self.backbone = ResNet50(0, width, dilated=True)
        deep = EXPANSION * 8 * width
        self.classifier = _head(deep, classes)
        self.aux_classifier = _head(deep // 2, classes) if auxiliary else None

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, classes, H, W)."""
        return self.both(images)[0]

    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits of the two heads; None for the second where there is none."""
        trunk, size = self.backbone, images.shape[2:]
        maps = trunk.maxpool(torch.relu(trunk.bn1(trunk.conv1(images))))
        *first, last = trunk.layers()
        for layer in first:
            maps = layer(maps)
        other = None if self.aux_classifier is None else _widened(self.aux_classifier(maps), size)
        return _widened(self.classifier(last(maps)), size), other


def _head(before: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, before // 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(before // 4),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(before // 4, classes, 1),
    )


def _widened(maps: Tensor, size: torch.Size) -> Tensor:
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [
            nn.Conv2d(width, after, 3, padding=1, bias=False),
            make_norm("batch", after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
