"""SqueezeNet 1.0 and 1.1: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016."""

from typing import Literal

import torch
from torch import Tensor, nn

from restain.errors import InputError

Version = Literal["1.0", "1.1"]

_POOL = 0  # a max pooling, among the squeeze widths
PLANS: dict[Version, tuple[int, int, tuple[int, ...]]] = {
    "1.0": (96, 7, (_POOL, 16, 16, 32, _POOL, 32, 48, 48, 64, _POOL, 64)),
    "1.1": (64, 3, (_POOL, 16, 16, _POOL, 32, 32, _POOL, 48, 48, 64, 64)),
}
"""Channels and kernel of the first convolution; then the squeeze widths of the fire modules, in order."""


class Fire(nn.Module):
    """Squeeze to few channels by 1 × 1, expand by 1 × 1 and 3 × 3 to four times as many each, and concatenate."""

    def __init__(self, before: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, 4 * squeezed, 1)
        self.expand3x3 = nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        squeezed = torch.relu(self.squeeze(maps))
        return torch.cat([torch.relu(self.expand1x1(squeezed)), torch.relu(self.expand3x3(squeezed))], 1)


class SqueezeNet(nn.Module):
    """Fire modules; 1,248,424 parameters in version 1.0 and 1,235,496 in 1.1, with 1000 classes.

    Args:
        version: "1.0" or "1.1".
        classes: scores that come out; 0 for the maps before the classifier.
        width: all channels are `width` / 64 of the published ones; a multiple of 4.

    Attributes:
        features: the first convolution and the fire modules.
        classifier: dropout, a 1 × 1 convolution to the classes, ReLU, mean; None with `classes=0`.
    """

    def __init__(self, version: Version = "1.1", classes: int = 1000, *, width: int = 64) -> None:
        super().__init__()
        if width < 4 or width % 4:  # the narrowest layer, of 16 channels, must keep whole ones
            raise InputError(f"got width={width}; wanted a multiple of 4")
        before, kernel, plan = PLANS[version]
        before = before * width // 64
        modules: list[nn.Module] = [nn.Conv2d(3, before, kernel, stride=2), nn.ReLU()]
        for squeezed in plan:
            if squeezed == _POOL:
                modules.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                squeezed = squeezed * width // 64
                modules.append(Fire(before, squeezed))
                before = 8 * squeezed
        self.features = nn.Sequential(*modules)
        self.classifier = (
            nn.Sequential(nn.Dropout(), nn.Conv2d(before, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            if classes
            else None
        )
        # Without norms, weights as torch draws them let signals fade from layer to layer; these are torchvision's.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if self.classifier is not None:
            nn.init.normal_(self.classifier.get_parameter("1.weight"), std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W), sides of 32 or more, to class scores (N, classes), or maps
        (N, 8 · width, h, w)."""
        maps: Tensor = self.features(images)
        return maps if self.classifier is None else torch.flatten(self.classifier(maps), 1)


def from_caffe(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of SqueezeNet 1.0 by their Caffe names ("fire2/conv1x1_1.weight") as a state dict of `SqueezeNet("1.0")`.

    Those networks want B, G, R in 0..255 less (104, 117, 123); `weight` of the first convolution stays as it is.
    """
    fires = [index for index, squeezed in enumerate(PLANS["1.0"][2], start=2) if squeezed != _POOL]
    parts = {"conv1x1_1": "squeeze", "conv1x1_2": "expand1x1", "conv3x3_2": "expand3x3"}
    state = {}
    for name, values in arrays.items():
        layer, kind = name.rsplit(".", 1)
        if layer == "conv1":
            ours = "features.0"
        elif layer == "conv_final":
            ours = "classifier.1"
        else:
            fire, part = layer.split("/")
            ours = f"features.{fires[int(fire.removeprefix('fire')) - 2]}.{parts[part]}"
        state[f"{ours}.{kind}"] = values
    return state
