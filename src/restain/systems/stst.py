"""Salehi & Chalechale, MVIP 2020: STST, stain-to-stain translation: gray tiles coloured by a pix2pix of one lab.

The paper is "Pix2Pix-based Stain-to-Stain Translation: a solution for robust stain normalization in histopathology
images analysis". It is trained on tiles of the target alone: gray in, colour out. Whatever is grayed then comes out in
the target's colours. Networks and order of updates are those of the authors' code (PAPERS §5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from restain.color.images import RGB8
from restain.errors import InputError
from restain.losses.adversarial import bce
from restain.methods.base import Appearance
from restain.networks.initialization import initialize
from restain.networks.norm_statistics import per_image
from restain.networks.stst import StstDiscriminator, StstGenerator
from restain.systems.base import System
from restain.systems.config import BETAS, MOST_CHANNELS, WEIGHTS, SystemConfig, check_ranges
from restain.systems.deployed import Deployed, to_gray
from restain.systems.engine import Engine
from restain.systems.frozen import frozen, unwrapped


@dataclass(frozen=True, kw_only=True)
class STSTConfig(SystemConfig):
    """STST's settings; the defaults are the paper's, and where it is silent its code's."""

    epochs: int = 30
    """The paper's; the script runs 15."""

    batch_size: int = 1
    """One, which makes of every batch norm an instance norm."""

    channels: int = 64
    """Channels of the first layer of both networks; up to eight times as many follow."""

    lambda_l1: float = 100.0
    """Weight of the mean absolute error beside the adversarial loss."""

    beta1: float = 0.5
    """First decay rate of Adam."""

    beta2: float = 0.999
    """Second decay rate of Adam."""

    inference: Literal["instance", "stochastic", "eval"] = "instance"
    """How a trained generator normalizes: "instance", with statistics of each image (of a slide: frozen ones) and
    without dropout; "stochastic", as the code does, with dropout too; "eval", with the statistics of training."""

    inference_seed: int = 0
    """Of the dropout of "stochastic": the same for every image, so that results can be had again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, channels=(1, MOST_CHANNELS), lambda_l1=WEIGHTS, beta1=BETAS, beta2=BETAS)
        check_ranges(self, inference_seed=(0, 2**62))
        if self.crop % 256:
            raise InputError(f"got crop = {self.crop}; wanted a multiple of 256 for stst")


@dataclass(eq=False, kw_only=True)
class STST(System):
    """A U-Net that colours gray tiles, and a discriminator that sees the gray beside the colours.

    Attributes:
        generator: gray to colour; it normalizes.
        discriminator: tells a tile's own colours from the generator's.
    """

    name: ClassVar[str] = "stst"
    config_type: ClassVar[type[SystemConfig]] = STSTConfig
    domains: ClassVar[tuple[str, ...]] = ("target",)
    accumulates: ClassVar[bool] = False  # its discriminator steps twice an update
    window: ClassVar[int] = 256

    def make_networks(self) -> None:
        """Make both networks, N(0, 0.02)."""
        self.generator = initialize(StstGenerator(channels=self.config.channels))
        if self.trainable:
            self.discriminator: nn.Module = initialize(StstDiscriminator(channels=self.config.channels))

    def networks(self) -> dict[str, nn.Module]:
        """The generator and the discriminator by name."""
        names = ("generator", "discriminator")
        return {name: getattr(self, name) for name in (names if self.trainable else names[:1])}

    def make_optimizers(self) -> dict[str, Optimizer]:
        """One Adam for each."""
        config = self.config
        return {
            name: Adam(network.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2))
            for name, network in self.networks().items()
        }

    def update(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """The discriminator on real, the discriminator on fake, each with a step of its own, then the generator."""
        target = batch["target"] * 2 - 1
        gray = to_gray(target)
        with engine.autocast():
            fake = self.generator(gray.expand(-1, 3, -1, -1))
        losses: dict[str, Tensor] = {}
        for name, colors, real in (
            ("discriminator_real", target, True),
            ("discriminator_fake", fake.detach(), False),
        ):
            with engine.autocast():
                losses[name] = 0.5 * bce(self.discriminator(torch.cat([gray.expand_as(colors), colors], dim=1)), real)
            engine.backward(losses[name])
            engine.clip(self.discriminator)
            self._step("discriminator")
        with frozen(self.discriminator) as discriminator, engine.autocast():
            losses["adversarial"] = bce(discriminator(torch.cat([gray.expand_as(fake), fake], dim=1)), True)
            losses["l1"] = functional.l1_loss(fake, target)
            losses["output_std"] = fake.std() / 2  # of 0..1: no loss, but what collapse is seen by
            total = losses["adversarial"] + self.config.lambda_l1 * losses["l1"]
        engine.backward(total)
        engine.clip(self.generator)
        self._step("generator")
        return {name: loss.detach() for name, loss in losses.items()}

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean absolute error of colouring target tiles, as the networks' range −1..1 has it (PAPERS §5.2)."""
        network = per_image(Deployed(unwrapped(self.generator), gray=3))
        return 2 * functional.l1_loss(network(batch["target"]), batch["target"])

    def deployed(self) -> nn.Module:
        """The generator between 0..1 and −1..1, given gray."""
        return Deployed(unwrapped(self.generator), gray=3)

    @property
    def learned_statistics(self) -> bool:
        """Those of training in the mode "eval"."""
        return bool(self.config.inference == "eval")

    def with_statistics(self, appearance: Appearance, tiles: Sequence[RGB8]) -> Appearance:
        """Frozen statistics for the mode "instance"; the others have none of a slide's."""
        return appearance if self.config.inference == "stochastic" else super().with_statistics(appearance, tiles)

    def inference_network(self, appearance: Appearance) -> nn.Module:
        """The generator in its mode of inference."""
        if self.config.inference == "stochastic":
            return seed_dropout(per_image(self.deployed()), self.config.inference_seed)
        return super().inference_network(appearance)


class SeededDropout(nn.Module):
    """Dropout that drops the same of every image, with random numbers of its own: no other draws change its choice,
    nor does it change theirs, and it is the same on every device.

    Args:
        share: of the values that are dropped.
        seed: of its numbers.
    """

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self.share, self.seed = share, seed

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; what is kept is scaled up, as `nn.Dropout` does."""
        numbers = torch.rand(maps.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return maps * (numbers >= self.share).to(maps) / (1.0 - self.share)


def seed_dropout(network: nn.Module, seed: int) -> nn.Module:
    """Put a `SeededDropout` into each place where `network`, which is changed and returned, has an `nn.Dropout`."""
    places = [
        (module, name, child)
        for module in network.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.Dropout)
    ]
    seeds = torch.randint(2**62, (len(places),), generator=torch.Generator().manual_seed(seed)).tolist()
    for (module, name, child), own in zip(places, seeds, strict=True):
        setattr(module, name, SeededDropout(child.p, own))
    return network
