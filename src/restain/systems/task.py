"""A classifier that watches, in the training of another network, that what it must recognise stays recognisable."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, Self

import torch
from torch import Tensor, nn

from restain.networks.backbones.resnet import ResNet50
from restain.networks.backbones.squeezenet import SqueezeNet
from restain.networks.backbones.weights import find_weights, load_into, read_weights
from restain.networks.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN

Architecture = Literal["resnet50", "squeezenet1_1"]

Normalization = Literal["imagenet", "signed"]

NORMALIZATIONS: Mapping[Normalization, tuple[Sequence[float], Sequence[float]]] = MappingProxyType(
    {"imagenet": (IMAGENET_MEAN, IMAGENET_DEVIATION), "signed": ((0.5,) * 3, (0.5,) * 3)}
)
"""What is taken from images in 0..1, and what they are then divided by; "signed" gives −1..1."""


class TaskNetwork(nn.Module):
    """A classifier of RGB images in 0..1. It is in evaluation mode, whatever mode is asked for, but while it is taught.

    Args:
        network: images (N, 3, H, W), less `mean` and divided by `deviation`, to logits (N, classes).
        mean: of each channel; 0 for images as they are.
        deviation: of each channel; 1 for images as they are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float] = (0.0,) * 3, deviation: Sequence[float] = (1.0,) * 3
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1))
        self.teach(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in 0..1 to logits (N, classes)."""
        logits: Tensor = self.network((images - self.mean) / self.deviation)
        return logits

    def teach(self, taught: bool) -> None:
        """Say whether it is being taught, so that its norms and dropout are in training mode."""
        self.taught = taught
        self.train(taught)

    def train(self, mode: bool = True) -> Self:
        """Training mode while it is taught; else it stays in evaluation mode."""
        return super().train(mode and self.taught)


def make_task(
    architecture: Architecture, *, classes: int, width: int, normalization: Normalization, weights: str
) -> TaskNetwork:
    """A classifier, with random weights, or with those of a file, and then frozen.

    Args:
        architecture: of the network.
        classes: logits.
        width: 64 for the published network; other numbers make it narrower or wider.
        normalization: of its input.
        weights: a .pth, .safetensors or .npz file of a state dict with torchvision's names; empty for random weights.

    Raises:
        WeightsUnavailable: there is no such file. FormatError: it does not hold the weights of this network.
    """
    network: nn.Module = (
        ResNet50(classes, width) if architecture == "resnet50" else SqueezeNet("1.1", classes, width=width)
    )
    if weights:
        path = find_weights(architecture, weights)
        load_into(network, read_weights(path), path)
    return TaskNetwork(network, *NORMALIZATIONS[normalization])
