"""Distances in the features of networks: LPIPS, and two that go by other names because they are something else."""

import importlib.util
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from restain.errors import InputError, WeightsUnavailable
from restain.evaluation.metrics.inputs import checked_mask, checked_pair, checked_rgb

if TYPE_CHECKING:
    from torch import Tensor

    from restain.networks.perceptual import FeatureDistance

LPIPSNetwork = Literal["alex", "vgg", "squeeze"]

LEAST_SIDE = 64

TRUNKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
CHANNELS = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}

CAFFE_MEAN = (104 / 255, 117 / 255, 123 / 255)  # of blue, green, red: what Caffe's networks are given 0 for

PathLike = str | os.PathLike[str]


def lpips(
    reference: Any,
    image: Any,
    mask: Any = None,
    *,
    network: LPIPSNetwork = "alex",
    weights: PathLike | None = None,
    heads: PathLike | None = None,
    device: str = "cpu",
) -> float:
    """LPIPS v0.1, a distance of images in the features of a network, as people judged it; lower is better.

    RGB; values are taken to −1..1 and then to LPIPS's own normalisation here. It depends on the network and on the
    size of the image: state both, and keep to 256 or 512 pixels. People judged photographs, not tissue.

    Args:
        reference: (H, W, 3) uint8, sides of 64 or more.
        image: the same shape.
        mask: (H, W) bool; see `restain.networks.perceptual.FeatureDistance`.
        network: "alex" as most papers, "vgg", or "squeeze" (SqueezeNet 1.1).
        weights: file of the network's ImageNet weights, as torchvision publishes them; None to look in PyTorch's cache.
        heads: file of LPIPS's linear weights ("alex.pth" of the lpips package); None to take the copy that comes with
            torchmetrics.
        device: where to compute.

    Raises:
        WeightsUnavailable: the weights or heads are not at hand. It never runs without.
        InputError: an image, the mask or the network is not what was wanted.
        ImportError: PyTorch is not installed.
    """
    if network not in get_args(LPIPSNetwork):
        raise InputError(f"got network={network!r}; wanted one of {', '.join(get_args(LPIPSNetwork))}")
    require_torch("lpips")
    return _distance(lambda: _lpips(network, _key(weights), _key(heads), device), reference, image, mask, device)


def squeeze_feature_distance(
    reference: Any, image: Any, mask: Any = None, *, weights: PathLike | None = None, device: str = "cpu"
) -> float:
    """Distance of images in the features of SqueezeNet 1.0 (Caffe's, trained on ImageNet); lower is better. Not LPIPS.

    Unit feature vectors after the first ReLU and fire modules 3, 5, 6, 7, 8 and 9 are compared place by place: the
    squared difference, which is 2 − 2·cosine, averaged over places, then over the seven layers. 0 for equal images,
    at most 2. LPIPS's learned weights are not used: they belong to the features of SqueezeNet 1.1, another network.
    Input: B, G, R in 0..255 less 104, 117, 123.

    Args:
        reference: (H, W, 3) uint8, sides of 64 or more.
        image: the same shape.
        mask: (H, W) bool; see `restain.networks.perceptual.FeatureDistance`.
        weights: .npz file of the Caffe weights by layer ("fire2/conv1x1_1.weight"…), as of the deep-compression model
            decoded to floats; or torchvision's SqueezeNet 1.0 (.pth), which then gets R, G, B as it wants them. None
            to look for the latter in PyTorch's cache.
        device: where to compute.

    Raises:
        WeightsUnavailable: the weights are not at hand.
        InputError: an image or the mask is not what was wanted.
        ImportError: PyTorch is not installed.
    """
    require_torch("squeeze_feature_distance")
    return _distance(lambda: _squeeze(_key(weights), device), reference, image, mask, device)


def random_feature_distance(
    reference: Any, image: Any, mask: Any = None, *, seed: int = 0, device: str = "cpu"
) -> float:
    """As `squeeze_feature_distance`, with a SqueezeNet 1.1 of random weights (Kaiming normal); lower is better.

    Needs no weights, compares textures crudely, and is no measure of perception: its numbers mean something only
    beside others of the same seed and size. R, G, B in ImageNet's normalisation.
    """
    require_torch("random_feature_distance")
    return _distance(lambda: _random(seed, device), reference, image, mask, device)


def require_torch(what: str) -> None:
    """Raise an ImportError with the install line where PyTorch is missing."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        message = f"{what} needs PyTorch ({error}); install it with: pip install 'restain[evaluation]'"
        raise ImportError(message) from error


def _distance(build: Any, reference: Any, image: Any, mask: Any, device: str) -> float:
    import torch

    checked_pair(reference, image, least=LEAST_SIDE, need_rgb=True)
    where = checked_mask(mask, np.shape(image)[:2])
    distance: FeatureDistance = build()
    with torch.inference_mode():
        inside = None if where is None else torch.from_numpy(where.copy()).to(device)
        pair = [_tensor(pixels).to(device) for pixels in (checked_rgb(reference), checked_rgb(image))]
        return float(distance(pair[0], pair[1], inside)[0])


def _tensor(pixels: Any) -> "Tensor":
    """(H, W, 3) uint8 to (1, 3, H, W) float32 in 0..1."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, 2, 0))).float().div(255)[None]


def _key(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(Path(path).absolute())


@lru_cache(maxsize=4)
def _lpips(network: LPIPSNetwork, weights: str | None, heads: str | None, device: str) -> "FeatureDistance":
    from restain.networks.backbones.alexnet import AlexNet
    from restain.networks.backbones.squeezenet import SqueezeNet
    from restain.networks.backbones.vgg import VGG
    from restain.networks.backbones.weights import find_weights, load_into, read_weights
    from restain.networks.perceptual import LPIPS_SCALE, LPIPS_SHIFT, LPIPS_TAPS, FeatureDistance, lpips_heads

    name = TRUNKS[network]
    file, heads_file = find_weights(name, weights), _heads_file(network, heads)
    makers: dict[str, Callable[[], AlexNet | VGG | SqueezeNet]]
    makers = {"alex": lambda: AlexNet(0), "vgg": lambda: VGG(16, 0), "squeeze": lambda: SqueezeNet("1.1", 0)}
    trunk = load_into(makers[network](), read_weights(file), file)
    return FeatureDistance(
        trunk.features,
        LPIPS_TAPS[name],
        lpips_heads(read_weights(heads_file), CHANNELS[network]),
        # From values in 0..1: (2v − 1 − shift) / scale.
        shift=[(1 + shift) / 2 for shift in LPIPS_SHIFT],
        scale=[scale / 2 for scale in LPIPS_SCALE],
    ).to(device)


def _heads_file(network: LPIPSNetwork, given: str | None) -> Path:
    if given is not None:
        if Path(given).is_file():
            return Path(given)
        raise WeightsUnavailable(f"there is no file {given} with the linear weights of LPIPS")
    package = importlib.util.find_spec("torchmetrics")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "functional" / "image" / "lpips_models" / f"{network}.pth"
        if file.is_file():
            return file
    raise WeightsUnavailable(
        f"the linear weights of LPIPS are not at hand: give the file {network}.pth of the lpips package (weights/v0.1) "
        "as heads=…, or install torchmetrics, which holds a copy: pip install 'restain[evaluation]'"
    )


@lru_cache(maxsize=2)
def _squeeze(weights: str | None, device: str) -> "FeatureDistance":
    from restain.networks.backbones.squeezenet import SqueezeNet, from_caffe
    from restain.networks.backbones.weights import find_weights, load_into, read_weights
    from restain.networks.perceptual import LPIPS_TAPS, FeatureDistance

    file = find_weights("squeezenet1_0", weights)
    state = read_weights(file)
    caffe = "conv_final.weight" in state
    network = load_into(SqueezeNet("1.0", 0), from_caffe(state) if caffe else state, file)
    normalisation: dict[str, Any] = {"shift": CAFFE_MEAN, "scale": (1 / 255,) * 3, "bgr": True} if caffe else {}
    return FeatureDistance(network.features, LPIPS_TAPS["squeezenet1_0"], **normalisation).to(device)


@lru_cache(maxsize=2)
def _random(seed: int, device: str) -> "FeatureDistance":
    from restain.networks.backbones.squeezenet import SqueezeNet
    from restain.networks.perceptual import LPIPS_TAPS, FeatureDistance, randomised

    features = randomised(SqueezeNet("1.1", 0), seed).features
    return FeatureDistance(features, LPIPS_TAPS["squeezenet1_1"]).to(device)
