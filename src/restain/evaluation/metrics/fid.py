"""Fréchet Inception distance (FID): Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter, "GANs trained by a two
time-scale update rule converge to a local Nash equilibrium", 2017.

Two cohorts are compared as two Gaussians in the features of a network; no registration is needed.
"""

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError, MetricWarning
from restain.evaluation.metrics.inputs import Floats, checked_rgb
from restain.evaluation.metrics.perceptual import PathLike, require_torch

if TYPE_CHECKING:
    from torch import nn

Extractor = Callable[[list[NDArray[np.uint8]]], Floats]
"""Images (H, W, 3) uint8 to features (n, d)."""


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Count, sum and sum of products of feature vectors; adds with `+`, so a cohort can be gathered in parts.

    Attributes:
        count: images.
        total: (d,) float64.
        products: (d, d) float64, Σ f·fᵀ.
    """

    count: int
    total: Floats
    products: Floats

    @classmethod
    def of(cls, features: Any) -> "FeatureStatistics":
        """Of features (n, d)."""
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise InputError(f"got features of shape {values.shape}; wanted (n, d), finite")
        return cls(len(values), values.sum(axis=0), values.T @ values)

    def __add__(self, other: "FeatureStatistics") -> "FeatureStatistics":
        if not isinstance(other, FeatureStatistics):
            return NotImplemented
        return FeatureStatistics(self.count + other.count, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> Floats:
        """(d,)."""
        return self.total / self.count

    @property
    def covariance(self) -> Floats:
        """(d, d), of a sample: divided by n − 1."""
        covariance: Floats = (self.products - np.outer(self.total, self.mean)) / (self.count - 1)
        return covariance


def fid(
    references: Iterable[Any],
    images: Iterable[Any],
    *,
    weights: PathLike | None = None,
    network: Union[str, "nn.Module"] = "fid_inception",
    batch: int = 16,
    device: str = "cpu",
) -> float:
    """Fréchet distance of two cohorts of images in a network's features; lower is better, 0 for equal statistics.

    ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½). It is too high for few images: wanted are 2048 or more, 10,000 for numbers
    to publish; below the number of features a `MetricWarning` says so. Compare only cohorts of equal size, and figures
    of one implementation: this one resizes as pytorch-fid does (bilinear to 299 × 299, no antialiasing).

    Args:
        references: of (H, W, 3) uint8, the wanted appearance; streamed.
        images: of (H, W, 3) uint8, the outputs; streamed.
        weights: file of the network's weights; None to look in PyTorch's cache. For FID: pytorch-fid's
            "pt_inception-2015-12-05-6726825d.pth".
        network: "fid_inception". With any other, the number is no FID and should be named after its features:
            "alexnet", "vgg16", "vgg19", "squeezenet1_0" or "squeezenet1_1" (means of their last feature maps, images
            of any one size), or a module of your own that maps (N, 3, H, W) floats 0..1 to (N, d);
            it is put into evaluation mode and moved to the device.
        batch: images at a time.
        device: where to compute.

    Raises:
        WeightsUnavailable: the weights are not at hand. It never runs without.
        InputError: an image is not what was wanted, or a cohort has fewer than two.
        ImportError: PyTorch is not installed.
    """
    extract = feature_extractor(network, weights=weights, device=device)
    first, second = (gather_statistics(cohort, extract, batch=batch) for cohort in (references, images))
    return frechet_distance(first, second)


def gather_statistics(images: Iterable[Any], extract: Extractor, *, batch: int = 16) -> FeatureStatistics:
    """Features of images, `batch` at a time, summed up; images of different sizes go through the network apart."""
    statistics: FeatureStatistics | None = None
    for pixels in _batches(images, batch):
        part = FeatureStatistics.of(extract(pixels))
        statistics = part if statistics is None else statistics + part
    if statistics is None:
        raise InputError("got no images; wanted a cohort")
    return statistics


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Fréchet distance of two Gaussians; warns where a cohort is smaller than its features are many."""
    if min(first.count, second.count) < 2:
        raise InputError(f"got cohorts of {first.count} and {second.count} images; wanted two or more in each")
    if first.total.shape != second.total.shape:
        raise InputError(f"got {len(first.total)} and {len(second.total)} features; wanted those of one network")
    if min(first.count, second.count) < len(first.total):
        warnings.warn(
            f"{first.count} and {second.count} images for {len(first.total)} features: the Fréchet distance is too "
            "high, by an amount that depends on these numbers; compare it with cohorts of the same size only",
            MetricWarning,
            stacklevel=2,
        )
    difference = first.mean - second.mean
    # Tr (Σ₁Σ₂)^½ = Σ √λ of the symmetric Σ₁^½ Σ₂ Σ₁^½, whose eigenvalues are those of Σ₁Σ₂ and never complex.
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second.covariance @ root), 0)).sum()
    trace = np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared
    return float(max(difference @ difference + trace, 0.0))


def feature_extractor(
    network: Union[str, "nn.Module"] = "fid_inception", *, weights: PathLike | None = None, device: str = "cpu"
) -> Extractor:
    """What turns images into features; arguments and errors as for `fid`."""
    require_torch("fid")
    import torch

    module = _named_network(network, weights) if isinstance(network, str) else network.eval()
    module = module.to(device)

    def extract(images: list[NDArray[np.uint8]]) -> Floats:
        stack = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
        with torch.inference_mode():
            features = module(torch.from_numpy(stack).to(device).float().div(255))
        return features.flatten(1).double().cpu().numpy()  # type: ignore[no-any-return]

    return extract


def _named_network(name: str, weights: PathLike | None) -> "nn.Module":
    from restain.networks.backbones import weights as files
    from restain.networks.backbones.alexnet import AlexNet
    from restain.networks.backbones.inception import FIDInception
    from restain.networks.backbones.pooled import PooledFeatures
    from restain.networks.backbones.squeezenet import SqueezeNet, from_caffe
    from restain.networks.backbones.vgg import VGG

    makers: dict[str, Callable[[], FIDInception | AlexNet | VGG | SqueezeNet]] = {
        "fid_inception": lambda: FIDInception(0),
        "alexnet": lambda: AlexNet(0),
        "vgg16": lambda: VGG(16, 0),
        "vgg19": lambda: VGG(19, 0),
        "squeezenet1_0": lambda: SqueezeNet("1.0", 0),
        "squeezenet1_1": lambda: SqueezeNet("1.1", 0),
    }
    if name not in makers:
        raise InputError(f"got network={name!r}; wanted one of {', '.join(makers)}, or a module")
    file = files.find_weights(name, None if weights is None else Path(os.fspath(weights)))
    state = files.read_weights(file)
    caffe = "conv_final.weight" in state
    module = files.load_into(makers[name](), from_caffe(state) if caffe else state, file)
    return module if isinstance(module, FIDInception) else PooledFeatures(module.features, caffe=caffe)


def _batches(images: Iterable[Any], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    if size < 1:
        raise InputError(f"got batch={size}; wanted 1 or more")
    checked = (checked_rgb(image) for image in images)
    for _, alike in itertools.groupby(checked, key=lambda pixels: pixels.shape):
        while part := list(itertools.islice(alike, size)):
            yield part
