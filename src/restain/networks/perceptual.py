"""Distances of images in the features of a network, layer by layer: LPIPS and its unweighted kin.

Zhang, Isola, Efros, Shechtman & Wang, "The unreasonable effectiveness of deep features as a perceptual metric", 2018.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restain.errors import FormatError, InputError

Network = TypeVar("Network", bound=nn.Module)

LPIPS_TAPS: dict[str, tuple[int, ...]] = {
    "alexnet": (1, 4, 7, 9, 11),
    "vgg16": (3, 8, 15, 22, 29),
    "squeezenet1_1": (1, 4, 7, 9, 10, 11, 12),
    "squeezenet1_0": (1, 4, 7, 8, 9, 10, 12),
}
"""Modules of `features` after which LPIPS compares. Those of SqueezeNet 1.0, which LPIPS does not know, are the same
layers as of 1.1: the first ReLU and fire 3, 5, 6, 7, 8 and 9."""

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What LPIPS subtracts from values in −1..1 and then divides by: ImageNet's normalisation, rounded to three digits."""

_EPSILON = 1e-10  # LPIPS's own, added to the length of a feature vector


class FeatureDistance(nn.Module):
    """Squared differences of unit feature vectors at several layers, weighted, averaged over places, summed.

    Attributes:
        features: the trunk, a sequence of modules.
        taps: after which of them to compare.
        heads: a weight for each channel of each tapped layer, (C,) tensors, as LPIPS learned them. None for 1 each,
            and the *mean* over layers: 0 for equal features, at most 2 where they have nothing in common.
        shift: (3,) taken from the channels of values 0..1.
        scale: (3,) that they are then divided by.
        bgr: whether the trunk wants blue first.
    """

    def __init__(
        self,
        features: nn.Sequential,
        taps: Sequence[int],
        heads: Sequence[Tensor] | None = None,
        *,
        shift: Sequence[float] = IMAGENET_MEAN,
        scale: Sequence[float] = IMAGENET_DEVIATION,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(features)[: max(taps) + 1])
        self.taps = tuple(taps)
        self.bgr = bgr
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))
        self.weighted = heads is not None
        for number, weights in enumerate(heads or ()):
            self.register_buffer(f"head{number}", weights.reshape(1, -1, 1, 1))

    def forward(self, first: Tensor, second: Tensor, mask: Tensor | None = None) -> Tensor:
        """The distance of each pair, (N,).

        Args:
            first: (N, 3, H, W) floats 0..1, RGB.
            second: the same.
            mask: (H, W) bool: places of a layer count whose share of the image lies wholly in it. What they see
                reaches beyond.
        """
        layers = zip(self._layers(first), self._layers(second), strict=True)
        distances = []
        for number, (a, b) in enumerate(layers):
            squares = (_unit(a) - _unit(b)) ** 2
            if self.weighted:
                squares = squares * self.get_buffer(f"head{number}")
            distances.append(_mean_over_places(squares.sum(dim=1), mask))
        total = torch.stack(distances)
        return total.sum(dim=0) if self.weighted else total.mean(dim=0)

    def _layers(self, images: Tensor) -> list[Tensor]:
        maps = (images.flip(1) if self.bgr else images).sub(self.get_buffer("shift")).div(self.get_buffer("scale"))
        tapped = []
        for index, module in enumerate(self.features.children()):
            maps = module(maps)
            if index in self.taps:
                tapped.append(maps)
        return tapped


def lpips_heads(state: Mapping[str, Tensor], channels: Sequence[int]) -> list[Tensor]:
    """The channel weights of a file of the lpips package ("lin0.model.1.weight"…), one (C,) a layer.

    Raises:
        FormatError: it is no such file, or belongs to another trunk.
    """
    names = [f"lin{number}.model.1.weight" for number in range(len(channels))]
    if set(state) != set(names) or any(state[n].numel() != c for n, c in zip(names, channels, strict=False)):
        raise FormatError(f"these are no LPIPS v0.1 heads for layers of {', '.join(map(str, channels))} channels")
    return [state[name].flatten() for name in names]


def randomised(network: Network, seed: int = 0) -> Network:
    """The network with random weights (Kaiming normal, biases 0) that depend on the seed alone; frozen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    return network.eval().requires_grad_(False)


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON)


def _mean_over_places(maps: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return maps.mean(dim=(1, 2))
    share = F.adaptive_avg_pool2d(mask[None, None].to(maps.dtype), (maps.shape[1], maps.shape[2]))[0, 0]
    inside = share > 1 - 1e-6
    if not inside.any():
        raise InputError("the mask is too small or too narrow: at the coarsest layer no place lies in it")
    return maps[:, inside].mean(dim=1)
