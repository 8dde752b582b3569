"""How classifiers and segmenters are trained: the papers' protocols, and what may be changed in them.

PAPERS §8. STAINNET's classifier is as its code has it. DSTGAN published no settings, so those of its ResNet-50 and its
U-Net are ours. CHEN tells of its ResNet-50 the size of the images, and that classes are even; the rest is as DSTGAN's.
NST's segmenter is a ResNet50-FCN with colour augmentation; the rest of its settings are ours, too.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from restain.color.augment import AUGMENTATIONS
from restain.errors import InputError

Scaling = Literal["imagenet", "128", "unit"]
"""What becomes of levels 0..255: less ImageNet's mean and over its deviation; (x − 128)/128; x/255."""

Settings = TypeVar("Settings", bound="TaskSettings")

IMAGENET, SCRATCH, A_FILE = "imagenet", "scratch", "file"
PLAIN = "none"

MOST_WIDTH, MOST_SIDE = 1024, 16_384
"""What is believed of a file; a hostile one could ask for networks that no memory holds."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What both kinds of network are told; the defaults are DSTGAN's ResNet-50."""

    network: str
    """Which: a name of `NETWORKS`."""

    width: int = 64
    """Channels of its first convolution, 64 in all the published networks; fewer make a small one in its shape."""

    side: int = 256
    """Side of the images it sees, pixels; others are resized."""

    scaling: Scaling = "imagenet"
    """What becomes of their levels."""

    weights: str = IMAGENET
    """Where it starts: "imagenet" (published weights in PyTorch's cache), "scratch", or a file of weights. The scores
    of the classes are always learned anew."""

    learning_rate: float = 1e-4
    """Of Adam, at first."""

    weight_decay: float = 0.0
    """Of Adam: added to the gradient."""

    milestones: tuple[int, ...] = ()
    """Epochs after which the learning rate falls to a tenth."""

    batch_size: int = 32
    """Images an update, at most: an epoch is cut as evenly as can be."""

    epochs: int = 50
    """How often every image is seen."""

    flips: bool = True
    """Whether images are mirrored at random."""

    turns: bool = True
    """Whether they are turned by a random multiple of 90°."""

    augmentation: str = PLAIN
    """Colour augmentation, a name of `restain.color.augment.AUGMENTATIONS`, or "none", which is right where the worth
    of a normalizer is measured. "gray" is done to test images, too."""

    def __post_init__(self) -> None:
        if self.network not in self._networks():
            raise InputError(f"got network={self.network!r}; wanted one of {', '.join(self._networks())}")
        for name, least, most in (
            ("width", 1, MOST_WIDTH),
            ("side", 16, MOST_SIDE),
            ("batch_size", 1, math.inf),
            ("epochs", 0, math.inf),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InputError(f"got {name}={value!r}; wanted a whole number of {least} or more, and at most {most}")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            given = f"learning_rate={self.learning_rate}, weight_decay={self.weight_decay}"
            raise InputError(f"got {given}; wanted a rate above 0, and a decay of 0 or more")
        if self.scaling not in get_args(Scaling):
            raise InputError(f"got scaling={self.scaling!r}; wanted one of {', '.join(get_args(Scaling))}")
        if self.augmentation != PLAIN and self.augmentation not in AUGMENTATIONS:
            known = ", ".join((PLAIN, *AUGMENTATIONS))
            raise InputError(f"got augmentation={self.augmentation!r}; wanted one of {known}")

    @classmethod
    def _networks(cls) -> tuple[str, ...]:
        """Those that this task can be done with."""
        raise NotImplementedError

    @property
    def pretrained(self) -> bool:
        """Whether the network does not start from random weights."""
        return self.weights != SCRATCH

    def plain(self) -> dict[str, Any]:
        """The settings as JSON can hold them; of a file of weights it is said that there was one, and not its name."""
        weights = self.weights if self.weights in (IMAGENET, SCRATCH) else A_FILE
        return {**asdict(self), "milestones": list(self.milestones), "weights": weights}


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(TaskSettings):
    """How a classifier is trained. The defaults are DSTGAN's, for BACH."""

    network: str = "resnet50"

    balanced: bool = False
    """Whether classes weigh alike in the loss, however many images there are of each."""

    @classmethod
    def _networks(cls) -> tuple[str, ...]:
        return "resnet50", "squeezenet1_1"


@dataclass(frozen=True, kw_only=True)
class SegmenterSettings(TaskSettings):
    """How a segmenter is trained, by binary cross-entropy and Dice. The defaults are DSTGAN's U-Net, for GlaS."""

    network: str = "unet"
    scaling: Scaling = "unit"
    weights: str = SCRATCH
    learning_rate: float = 1e-3
    batch_size: int = 8
    epochs: int = 100

    threshold: float = 0.5
    """Probability from which on a pixel is foreground."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise InputError(f"got threshold={self.threshold}; wanted a probability between 0 and 1")
        if self.network == "unet" and self.pretrained:
            raise InputError(f"got weights={self.weights!r}; nobody published any for the U-Net: wanted {SCRATCH!r}")

    @classmethod
    def _networks(cls) -> tuple[str, ...]:
        return "unet", "fcn_resnet50"


PROTOCOLS: Mapping[str, TaskSettings] = MappingProxyType(
    {
        "resnet50": ClassifierSettings(),
        "resnet50_512": ClassifierSettings(side=512, balanced=True),
        "squeezenet": ClassifierSettings(
            network="squeezenet1_1",
            scaling="128",
            learning_rate=2e-4,
            weight_decay=1e-5,
            milestones=(40, 50),
            batch_size=64,
            epochs=60,
            flips=False,
            turns=False,
        ),
        "unet": SegmenterSettings(),
        "fcn": SegmenterSettings(
            network="fcn_resnet50", scaling="imagenet", weights=IMAGENET, learning_rate=1e-4, augmentation="hsv"
        ),
    }
)
"""DSTGAN's classifier (BACH), CHEN's (cytology), STAINNET's (cytology, Camelyon16), DSTGAN's segmenter (GlaS), NST's
(glomeruli)."""


def settings_from(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """What `plain` gave, as settings again.

    Raises:
        InputError: a name is unknown, or a value cannot be.
    """
    try:
        return kind(**{**values, "milestones": tuple(values.get("milestones", ()))})
    except TypeError as error:
        raise InputError(f"these are no {kind.__name__} ({error})") from None
