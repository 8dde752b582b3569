"""VGG-16, VGG-19: Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015."""

import torch
from torch import Tensor, nn

BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of 64, 128, 256, 512 and 512 channels, by the number of layers."""

CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Blocks of 3 × 3 convolutions, each followed by a ReLU, with max pooling between; no batch norm.

    138,357,544 parameters for 16 layers and 143,667,240 for 19, with 1000 classes.

    Attributes:
        features: the convolutions. `layer_index` says where a layer of the literature stands.
        classifier: the linear layers; None with `classes=0`, when only features are wanted.
    """

    def __init__(self, layers: int = 16, classes: int = 1000) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        before = 3
        for count, channels in zip(BLOCKS[layers], CHANNELS, strict=True):
            for _ in range(count):
                modules += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            modules.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*modules)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = _classifier(classes) if classes else None

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W), sides of 32 or more, to class scores (N, classes), or features (N, 25088)."""
        flat = torch.flatten(self.avgpool(self.features(images)), 1)
        return flat if self.classifier is None else self.classifier(flat)


def layer_index(layers: int, name: str) -> int:
    """Where a layer stands in `VGG(layers).features`: "conv2_2" is block 2's second convolution, "relu2_2" its ReLU.

    Example:
        >>> layer_index(19, "conv2_2"), layer_index(19, "relu2_2")
        (7, 8)
    """
    kind, block, number = name[:4], int(name[4]), int(name[6])
    if kind not in ("conv", "relu") or name[5] != "_" or not 1 <= number <= BLOCKS[layers][block - 1]:
        raise KeyError(name)
    before = sum(2 * count + 1 for count in BLOCKS[layers][: block - 1])
    return before + 2 * (number - 1) + (kind == "relu")


def _classifier(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512 * 49, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, classes),
    )
