"""Kang et al., Frontiers in Medicine 2021: training StainNet, a small network that imitates a teacher's outputs.

Step 3 of the paper (PAPERS §4.2): pairs of source tiles and what a teacher (the paper's is StainGAN) made of them, the
mean absolute error, SGD. With 1×1 convolutions alone the trained network is the colour map `restain.StainNet`; the
students of the paper's Table 4 with 3×3 layers are networks, and applied as such.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer

from restain.errors import InputError
from restain.methods.base import Normalizer
from restain.methods.stainnet import MOST_LAYERS, MOST_WEIGHTS, GlassAppearance, StainNet
from restain.networks.stainnet import PixelNetwork
from restain.systems.base import System
from restain.systems.config import MOST_CHANNELS, SystemConfig, check_ranges
from restain.systems.deployed import Deployed
from restain.systems.engine import Engine
from restain.systems.frozen import unwrapped
from restain.systems.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class StainNetConfig(SystemConfig):
    """StainNet's settings; the defaults are the paper's and its code's."""

    epochs: int = 300
    """Passes over all pairs."""

    schedule: Schedule = "cosine"
    """To 0, stepped each epoch."""

    learning_rate: float = 0.01
    """Of SGD; Adam wants less."""

    batch_size: int = 10
    """Pairs an update."""

    crop_position: Literal["random", "center", "top-left"] = "center"
    """The paper's tiles have the size of the crop."""

    horizontal_flips: bool = False
    """No augmentation."""

    channels: int = 32
    """Channels between the layers."""

    kernels: tuple[int, ...] = (1, 1, 1)
    """Sides of the convolutions, in order: (1, 1, 1) is StainNet; Table 4 has (3, 1, 1), (3, 3, 1) and (3, 3, 3)."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """The paper's SGD has no momentum and needs its many epochs; Adam gets there in minutes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, channels=(1, MOST_CHANNELS))
        if not 1 <= len(self.kernels) <= MOST_LAYERS or any(kernel not in range(1, 16, 2) for kernel in self.kernels):
            raise InputError(f"got kernels = {self.kernels}; wanted 1 to {MOST_LAYERS} odd sides of at most 15")
        widths = [3, *[self.channels] * (len(self.kernels) - 1), 3]
        weights = sum((before + 1) * after for before, after in pairwise(widths))
        if max(self.kernels) == 1 and weights > MOST_WEIGHTS:  # else it would be trained and then refused
            raise InputError(
                f"got channels = {self.channels}, which makes {weights:,} weights; wanted {MOST_WEIGHTS:,} at most, "
                "for every colour goes through all of them"
            )


@dataclass(eq=False, kw_only=True)
class StainNetStudent(System):
    """A `PixelNetwork` that is shown a teacher's work.

    Attributes:
        generator: the network; it normalizes.
    """

    name: ClassVar[str] = "stainnet"
    config_type: ClassVar[type[SystemConfig]] = StainNetConfig
    paired: ClassVar[bool] = True

    def make_networks(self) -> None:
        """Make the network, with PyTorch's own initial weights."""
        self.generator = PixelNetwork(channels=self.config.channels, kernels=self.config.kernels)

    def networks(self) -> dict[str, nn.Module]:
        """The one network."""
        return {"generator": self.generator}

    def make_optimizers(self) -> dict[str, Optimizer]:
        """SGD without momentum, or Adam."""
        kind = {"sgd": SGD, "adam": Adam}[self.config.optimizer]
        return {"generator": kind(self.generator.parameters(), lr=self.config.learning_rate)}

    def update(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """One step down the mean absolute error, on −1..1 (a pair's source and target show the same tissue)."""
        with engine.autocast():
            loss = functional.l1_loss(self.generator(batch["source"] * 2 - 1), batch["target"] * 2 - 1)
        engine.backward(loss)
        engine.clip(self.generator)
        self._step("generator")
        return {"l1": loss.detach()}

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The same error."""
        network = unwrapped(self.generator)
        return functional.l1_loss(network(batch["source"] * 2 - 1), batch["target"] * 2 - 1)

    def deployed(self) -> nn.Module:
        """The network between 0..1 and −1..1."""
        return Deployed(unwrapped(self.generator))

    @property
    def least_side(self) -> int:
        """As many as the widest kernel's reflection takes from."""
        return int(max(self.config.kernels)) // 2 + 1

    def normalizer(self) -> Normalizer:
        """The colour map, where the network is one; else itself."""
        if any(kernel != 1 for kernel in self.config.kernels):
            return self
        reference = self._fitted()
        student = StainNet(weights=pixel_weights(unwrapped(self.generator)), background=self.background)
        if self.background != "none":
            student.reference_ = GlassAppearance(reference.white_point, reference.white_origin, 0.0)
        student.provenance_ = dict(self.provenance_)
        return student


def pixel_weights(network: nn.Module) -> dict[str, Any]:
    """The weights of a `PixelNetwork` of 1×1 convolutions as `restain.StainNet` wants them, float64."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    weights: dict[str, Any] = {}
    for number, layer in enumerate(layers, 1):
        assert layer.bias is not None
        assert layer.kernel_size == (1, 1)
        weights[f"weight{number}"] = layer.weight.detach()[:, :, 0, 0].cpu().numpy().astype(np.float64)
        weights[f"bias{number}"] = layer.bias.detach().cpu().numpy().astype(np.float64)
    return weights
