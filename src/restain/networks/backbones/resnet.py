"""ResNet-50: He, Zhang, Ren & Sun, "Deep residual learning for image recognition", 2016, as torchvision has it."""

import torch
from torch import Tensor, nn

BLOCKS = (3, 4, 6, 3)
"""Bottlenecks of each layer."""

EXPANSION = 4
"""Channels that a bottleneck gives for each channel inside it."""


class Bottleneck(nn.Module):
    """Narrow by 1 × 1, see 3 × 3, widen by 1 × 1, and add what came in. It is the 3 × 3 that strides (ResNet 1.5)."""

    def __init__(self, before: int, width: int, stride: int = 1, dilation: int = 1, *, project: bool = False) -> None:
        super().__init__()
        after = EXPANSION * width
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 4 · width, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(maps)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (maps if self.downsample is None else self.downsample(maps)))


class ResNet50(nn.Module):
    """Sixteen bottlenecks in four layers; 25,557,032 parameters with 1000 classes, 23,512,130 with two.

    Attributes:
        layer1: maps of a quarter of the image's sides; `layer2`, `layer3` and `layer4` halve them further.
        fc: the classifier, on the mean of the maps over all places; None with `classes=0`.

    Args:
        classes: 0 for maps instead of class scores.
        width: channels of the first convolution; 64 is the paper's.
        dilated: whether layers 3 and 4 keep the size of layer 2's maps, an eighth of the image's sides, and look at
            places further apart instead, as fully convolutional networks have it. The weights are the same; at every
            fourth place so are the maps.
    """

    def __init__(self, classes: int = 1000, width: int = 64, *, dilated: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before, dilation = width, 1
        for number, count in enumerate(BLOCKS):
            inside, stride, first = width * 2**number, 1 if number == 0 else 2, dilation
            if dilated and number >= 2:
                # The first bottleneck still sees neighbours as they were: it is where the stride was left out.
                stride, dilation = 1, 2 * dilation
            blocks = [Bottleneck(before, inside, stride, first, project=True)]
            before = EXPANSION * inside
            blocks += [Bottleneck(before, inside, dilation=dilation) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, classes) if classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to class scores (N, classes), or maps (N, 32 · width, h, w).

        h and w are a thirty-second of H and W, rounded up; an eighth where `dilated`.
        """
        maps: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for layer in self.layers():
            maps = layer(maps)
        if self.fc is not None:
            maps = self.fc(maps.mean(dim=(2, 3)))
        return maps

    def layers(self) -> list[nn.Module]:
        """The four layers in order."""
        return [self.get_submodule(f"layer{number + 1}") for number in range(len(BLOCKS))]
