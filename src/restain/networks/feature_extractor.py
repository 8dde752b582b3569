"""What a network trained by others sees in images, layer by layer: for losses on features.

VGG-19 is what the literature takes, by the names of its layers there ("relu2_2", "conv5_1"). Of SqueezeNet there are
"relu1" and its fire modules ("fire2" to "fire9"), of ResNet-50 "relu1" and "layer1" to "layer4".
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from restain.errors import InputError, WeightsUnavailable
from restain.networks.backbones.resnet import ResNet50
from restain.networks.backbones.squeezenet import PLANS, SqueezeNet, from_caffe
from restain.networks.backbones.vgg import VGG, layer_index
from restain.networks.backbones.weights import find_weights, load_into, read_weights
from restain.networks.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN, randomised

FeatureNetwork = Literal["vgg19", "squeezenet1_0", "squeezenet1_1", "resnet50"]

FeatureWeights = Literal["pretrained", "random", "encoder"]
"""`pretrained`: of ImageNet. `random`: Kaiming's, by a seed. `encoder`: of a network of one's own."""

CAFFE_MEAN = (123 / 255, 117 / 255, 104 / 255)
"""What Caffe's networks want to be taken from red, green and blue; they want blue first, in 0..255."""


class StyleLayers(NamedTuple):
    """Where a network is asked for content and for style."""

    content: str
    style: tuple[str, ...]


STYLE_LAYERS: dict[FeatureNetwork, StyleLayers] = {
    "vgg19": StyleLayers("relu2_2", ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")),
    "squeezenet1_0": StyleLayers("fire2", ("relu1", "fire2", "fire5", "fire9")),
    "squeezenet1_1": StyleLayers("fire2", ("relu1", "fire2", "fire4", "fire6")),
    "resnet50": StyleLayers("layer1", ("relu1", "layer1", "layer2", "layer3")),
}
"""Of VGG-19 as the papers have it: style at the first convolution of each size. Of the others ours, in its likeness:
style at the first maps of each size, content at a quarter of the image's."""


class FeatureExtractor(nn.Module):
    """The first layers of a network, as far as they are asked for; frozen, in evaluation mode.

    Attributes:
        features: the layers, the names of whose weights are torchvision's (of ResNet-50, after "features.").

    Args:
        network: see `FeatureNetwork`.
        layers: which will be asked for.
        mean: taken from red, green and blue, 0..1.
        deviation: that they are then divided by.
        bgr: whether the network wants blue first.
        width: of SqueezeNet or ResNet-50; 64 for the published networks.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: FeatureNetwork,
        layers: Sequence[str],
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
        bgr: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.taps = {layer: tap(network, layer) for layer in layers}
        named = _modules(network, width).named_children()
        count = max(self.taps.values()) + 1
        self.features = nn.Sequential(OrderedDict(pair for pair, _ in zip(named, range(count), strict=False)))
        self.bgr = bgr
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Look at images.

        Args:
            images: (N, 3, H, W) RGB floats 0..1; sides of 32 or more.
            layers: which of the extractor's are wanted; None for all. It looks no deeper than the deepest of them.

        Returns:
            Maps (N, C, h, w) by layer. Gradients pass through to the images.
        """
        wanted = self.taps if layers is None else {layer: self.taps[layer] for layer in layers}
        maps = (images - self.mean) / self.deviation
        maps = maps.flip(1) if self.bgr else maps
        seen: dict[int, Tensor] = {}
        for index, module in enumerate(self.features):
            maps = module(maps)
            seen[index] = maps
            if index == max(wanted.values()):
                break
        return {layer: seen[index] for layer, index in wanted.items()}


def tap(network: FeatureNetwork, layer: str) -> int:
    """The place of a layer in the network's sequence of modules.

    Raises:
        InputError: there is no such layer.

    Example:
        >>> tap("vgg19", "relu2_2"), tap("squeezenet1_0", "fire5"), tap("resnet50", "layer1")
        (8, 7, 4)
    """
    if network not in get_args(FeatureNetwork):
        raise InputError(f"got the network {network!r}; wanted one of {', '.join(get_args(FeatureNetwork))}")
    if network == "vgg19":
        try:
            return layer_index(19, layer)
        except (KeyError, IndexError, ValueError):
            raise InputError(f"vgg19 has no layer {layer!r}; it has conv1_1, relu1_1 and so on to relu5_4") from None
    if network == "resnet50":
        places = {"relu1": 2, **{f"layer{number}": 3 + number for number in range(1, 5)}}
    else:
        plan = PLANS["1.0" if network == "squeezenet1_0" else "1.1"][2]
        fires = [index for index, squeezed in enumerate(plan, start=2) if squeezed]
        places = {"relu1": 1, **{f"fire{number}": index for number, index in enumerate(fires, start=2)}}
    if layer not in places:
        raise InputError(f"{network} has no layer {layer!r}; it has {', '.join(places)}")
    return places[layer]


def make_extractor(
    network: FeatureNetwork,
    layers: Sequence[str],
    weights: FeatureWeights = "pretrained",
    *,
    path: str = "",
    seed: int = 0,
    mean: Sequence[float] = IMAGENET_MEAN,
    deviation: Sequence[float] = IMAGENET_DEVIATION,
) -> FeatureExtractor:
    """An extractor with its weights; torch's own random numbers are left alone.

    Args:
        network: see `FeatureNetwork`.
        layers: which will be asked for.
        weights: see `FeatureWeights`; nothing is downloaded, and random weights are taken only where they are asked
            for.
        path: the file, .pth, .safetensors or .npz, of "encoder", and of "pretrained" where it is not in PyTorch's
            cache. It must hold the layers that are asked for, by torchvision's names; others are not looked at. Caffe's
            SqueezeNet 1.0 is known by its names, and given what it wants: blue first, less 104, 117, 123.
        seed: of "random".
        mean: see `FeatureExtractor`.
        deviation: see `FeatureExtractor`.

    Raises:
        WeightsUnavailable: there is no such file; the message has the choices. FormatError: it holds something else.
        InputError: there is no such network or layer.
    """
    for layer in layers:
        tap(network, layer)
    with torch.random.fork_rng(devices=[]):
        if weights == "random":
            extractor = FeatureExtractor(network, layers, mean=mean, deviation=deviation)
            return randomised(extractor, seed)
        file = _find(network, weights, path)
        state = read_weights(file)
        caffe = network == "squeezenet1_0" and "conv_final.weight" in state
        if caffe:
            state, mean, deviation = from_caffe(state), CAFFE_MEAN, (1 / 255,) * 3
        if network == "resnet50":
            state = {f"features.{name}": value for name, value in state.items()}
        width = _width(network, state)
        extractor = FeatureExtractor(network, layers, mean=mean, deviation=deviation, bgr=caffe, width=width)
    wanted = extractor.state_dict()
    return load_into(extractor, {name: value for name, value in state.items() if name in wanted}, file)


def _find(network: FeatureNetwork, weights: FeatureWeights, path: str) -> Path:
    if weights == "encoder" and not path:
        raise WeightsUnavailable("feature_weights is encoder; give the file with its weights as feature_path")
    try:
        return find_weights(network, path or None, option="feature_path")
    except WeightsUnavailable as error:
        raise WeightsUnavailable(
            f"{error}. For losses there are other choices: feature_network = squeezenet1_0 with its weights, "
            "feature_weights = encoder with those of a classifier of your own as feature_path, or feature_weights = "
            "random, whose results nobody's paper has"
        ) from None


def _width(network: FeatureNetwork, state: dict[str, Tensor]) -> int:
    """The width of the network that these are the weights of, by its first convolution; 64 where that is not there."""
    first = state.get("features.conv1.weight" if network == "resnet50" else "features.0.weight")
    if first is None or first.ndim != 4 or network == "vgg19":
        return 64
    published = 64 if network == "resnet50" else PLANS["1.0" if network == "squeezenet1_0" else "1.1"][0]
    return max(len(first) * 64 // published, 4) // 4 * 4


def _modules(network: FeatureNetwork, width: int) -> nn.Sequential:
    """The whole network but for its classifier, as one sequence."""
    if network == "vgg19":
        return VGG(19, 0).features
    if network == "resnet50":
        trunk = ResNet50(0, width)
        layers = {f"layer{number}": layer for number, layer in enumerate(trunk.layers(), start=1)}
        first = {"conv1": trunk.conv1, "bn1": trunk.bn1, "relu": nn.ReLU(), "maxpool": trunk.maxpool}
        return nn.Sequential(OrderedDict({**first, **layers}))
    return SqueezeNet("1.0" if network == "squeezenet1_0" else "1.1", 0, width=width).features
