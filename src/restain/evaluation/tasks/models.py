"""Classifiers and segmenters: a network with its settings, what it was trained on, and its file."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from restain import files
from restain.color.augment import to_gray
from restain.color.images import RGB8
from restain.errors import FormatError, InputError
from restain.evaluation.tasks.settings import (
    IMAGENET,
    ClassifierSettings,
    Scaling,
    SegmenterSettings,
    TaskSettings,
    settings_from,
)
from restain.networks.backbones.resnet import ResNet50
from restain.networks.backbones.squeezenet import SqueezeNet
from restain.networks.backbones.weights import find_weights, load_into, read_weights
from restain.networks.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN
from restain.networks.segmentation import FCNResNet50, SegmentationUNet

NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {
        "resnet50": lambda width, outputs: ResNet50(outputs, width),
        "squeezenet1_1": lambda width, outputs: SqueezeNet("1.1", outputs, width=width),
        "unet": lambda width, outputs: SegmentationUNet(width, outputs),
        "fcn_resnet50": lambda width, outputs: FCNResNet50(outputs, width),
    }
)
"""Every network by name, of a width and a number of outputs."""

TRUNKS = {"resnet50": "resnet50", "squeezenet1_1": "squeezenet1_1", "fcn_resnet50": "resnet50"}
"""The network whose published weights each can start from."""

SCALINGS: Mapping[Scaling, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "imagenet": (tuple(255 * mean for mean in IMAGENET_MEAN), tuple(255 * each for each in IMAGENET_DEVIATION)),
        "128": ((128.0,) * 3, (128.0,) * 3),
        "unit": ((0.0,) * 3, (255.0,) * 3),
    }
)
"""What is subtracted from levels 0..255, and what they are divided by."""

Settings = TypeVar("Settings", bound=TaskSettings)


@dataclass(frozen=True)
class Training:
    """What must be said of a model beside every number that it gives."""

    data: str
    """On what it was trained, in words."""
    images: int
    groups: tuple[str, ...]
    """Digests of the patients or slides that it has seen; see `restain.evaluation.tasks.training.digest`."""
    seed: int
    pretrained: bool
    """Whether it started from weights that were trained before."""


@dataclass
class Model(Generic[Settings]):
    """A trained network; `Classifier` and `Segmenter` say what it gives.

    Attributes:
        settings: how it was trained.
        classes: names of the classes; empty for a segmenter.
        training: on what.
        network: in evaluation mode.
    """

    kind: ClassVar[str]
    settings_type: ClassVar[type[TaskSettings]]

    settings: Settings
    classes: tuple[str, ...]
    training: Training
    network: nn.Module = field(repr=False)

    def logits(self, images: RGB8) -> Tensor:
        """What the network says of images (n, side, side, 3) uint8, on its device, in batches of those of training."""
        parameter = next(self.network.parameters())
        if images.ndim != 4 or images.shape[1:] != (self.settings.side, self.settings.side, 3):
            wanted = f"(n, {self.settings.side}, {self.settings.side}, 3)"
            raise InputError(f"got images of shape {images.shape}; wanted {wanted}, as it was trained on")
        if self.settings.augmentation == "gray":
            images = np.stack([to_gray(image) for image in images])
        with torch.inference_mode():
            parts = [
                self.network(scaled(images[start : start + self.settings.batch_size], self.settings.scaling, parameter))
                for start in range(0, len(images), self.settings.batch_size)
            ]
        return torch.cat(parts)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write weights, by torchvision's names, and all that is known of them as one safetensors file.

        Read it with `load_model`, or as the weights of any network of this kind: the classifier of CHEN's last stage.
        """
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.network.state_dict().items()}
        training = {**vars(self.training), "groups": list(self.training.groups)}
        facts = {"settings": self.settings.plain(), "classes": list(self.classes), "training": training}
        files.save_arrays(path, self.kind, arrays, facts, overwrite=overwrite)

    @classmethod
    def _read(cls, path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Self:
        try:
            settings: Any = settings_from(cls.settings_type, facts["settings"])
            classes = tuple(str(name) for name in facts["classes"])
            training = Training(**{**facts["training"], "groups": tuple(facts["training"]["groups"])})
            if bool(classes) != (cls is Classifier) or not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("its classes or weights cannot be")
            network = NETWORKS[settings.network](settings.width, len(classes) or 1)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} is a damaged {cls.kind} ({files.reason_of(error)})") from None
        state = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(settings, classes, training, load_into(network, state, path))


@dataclass
class Classifier(Model[ClassifierSettings]):
    """Says of each image to which class it belongs."""

    kind = "classifier"
    settings_type = ClassifierSettings

    def probabilities(self, images: RGB8) -> NDArray[np.float64]:
        """Of each class, (n, k), for images (n, side, side, 3) uint8; rows sum to 1."""
        return self.logits(images).double().softmax(1).cpu().numpy()


@dataclass
class Segmenter(Model[SegmenterSettings]):
    """Says of each pixel whether it is foreground."""

    kind = "segmenter"
    settings_type = SegmenterSettings

    def masks(self, images: RGB8) -> NDArray[np.bool_]:
        """Where foreground is, (n, side, side) bool, in images (n, side, side, 3) uint8."""
        found: NDArray[np.bool_] = (self.logits(images)[:, 0].sigmoid() >= self.settings.threshold).cpu().numpy()
        return found


def load_model(path: str | os.PathLike[str]) -> Classifier | Segmenter:
    """What `Model.save` wrote; no code in the file is run.

    Raises:
        FormatError: it is missing, damaged, or holds something else.
    """
    kind, arrays, facts = files.load_arrays(path)
    for made in (Classifier, Segmenter):
        if kind == made.kind:
            return made._read(Path(path), arrays, facts)
    raise FormatError(f"{path} holds a {kind}; wanted a classifier or a segmenter")


def make_network(settings: TaskSettings, outputs: int) -> nn.Module:
    """The network of the settings with its first weights: random ones by torch's generator, or those they name.

    Raises:
        WeightsUnavailable: the weights are not at hand; random ones are never taken instead.
        FormatError: the file holds those of another network, or of another width.
    """
    network = NETWORKS[settings.network](settings.width, outputs)
    if settings.pretrained:
        name = TRUNKS[settings.network]
        path = find_weights(name, None if settings.weights == IMAGENET else settings.weights)
        trunk = load_into(NETWORKS[name](settings.width, 0), read_weights(path), path)
        wanted = network.backbone if isinstance(network, FCNResNet50) else network
        wanted.load_state_dict(trunk.state_dict(), strict=False)  # the scores of the classes are learned anew
    return network


def scaled(images: RGB8, scaling: Scaling, like: Tensor) -> Tensor:
    """Images (n, H, W, 3) uint8 as the network wants them, (n, 3, H, W), in type and place as `like`."""
    shift, scale = (torch.tensor(each).view(1, 3, 1, 1).to(like) for each in SCALINGS[scaling])
    return (torch.from_numpy(images).permute(0, 3, 1, 2).to(like) - shift) / scale
