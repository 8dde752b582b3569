"""Shaban et al., ISBI 2019: StainGAN, a CycleGAN between two labs or scanners, from unpaired tiles.

The paper is "StainGAN: stain style transfer for digital histological images". Its networks, losses and order of
updates are those of CycleGAN (Zhu et al., ICCV 2017), as the authors' code runs them (PAPERS §7.11).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from restain.errors import InputError
from restain.losses.adversarial import ADVERSARIAL
from restain.networks.initialization import initialize
from restain.networks.patchgan import PatchDiscriminator
from restain.networks.resnet import ResnetGenerator
from restain.systems.base import System
from restain.systems.config import BETAS, MOST_CHANNELS, MOST_LAYERS, WEIGHTS, SystemConfig, check_ranges
from restain.systems.deployed import Deployed
from restain.systems.engine import Engine
from restain.systems.frozen import frozen, unwrapped
from restain.systems.pool import ImagePool
from restain.systems.schedule import Schedule

LEAST_SIDE = 8
"""Pixels that the generator needs: a quarter of them must be enough for a norm, and to be reflected."""


@dataclass(frozen=True, kw_only=True)
class StainGANConfig(SystemConfig):
    """StainGAN's settings; the defaults are those of its code, and of StainNet's commands for Aperio to Hamamatsu."""

    epochs: int = 25
    """Epochs at the full learning rate: 25 + 25 for Aperio to Hamamatsu, 100 + 100 for Camelyon16."""

    decay_epochs: int = 25
    """Epochs over which the learning rate falls."""

    schedule: Schedule = "linear"
    """The learning rate stays, then falls linearly."""

    channels: int = 64
    """Channels of the generators' first layer; twice and four times as many follow."""

    blocks: int = 9
    """Residual blocks of the generators."""

    discriminator_channels: int = 64
    """Channels of the discriminators' first layer."""

    discriminator_layers: int = 3
    """Strided convolutions of the discriminators: 3 judges patches of 70×70 pixels."""

    adversarial: Literal["lsgan", "bce"] = "lsgan"
    """The adversarial loss."""

    lambda_source: float = 10.0
    """Weight of the cycle source → target → source."""

    lambda_target: float = 10.0
    """Weight of the cycle target → source → target."""

    lambda_identity: float = 0.5
    """Weight of the identity loss (a tile of the target's look stays as it is), times the cycle's. The code's default;
    StainNet's paper names only adversarial and cycle losses, which is 0."""

    pool_size: int = 50
    """Past fakes that each discriminator may be shown again."""

    beta1: float = 0.5
    """First decay rate of Adam."""

    beta2: float = 0.999
    """Second decay rate of Adam."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, channels=(1, MOST_CHANNELS), blocks=(0, MOST_LAYERS), pool_size=(0, math.inf))
        check_ranges(self, discriminator_channels=(1, MOST_CHANNELS), discriminator_layers=(1, 8))
        check_ranges(self, lambda_source=WEIGHTS, lambda_target=WEIGHTS, lambda_identity=WEIGHTS)
        check_ranges(self, beta1=BETAS, beta2=BETAS)
        # The discriminator's last norm must be given more than one place.
        least = max(LEAST_SIDE, 3 * 2**self.discriminator_layers)
        if self.crop % 4 or self.crop < least:
            raise InputError(f"got crop = {self.crop}; wanted a multiple of 4, {least} or more, for staingan")


@dataclass(eq=False, kw_only=True)
class StainGAN(System):
    """A generator each way and a discriminator for each look, trained on tiles that need not show the same tissue.

    Attributes:
        generator: source to target; it normalizes.
        generator_back: target to source.
        discriminator: tells real tiles of the target from the generator's.
        discriminator_back: the same for the source.
    """

    name: ClassVar[str] = "staingan"
    config_type: ClassVar[type[SystemConfig]] = StainGANConfig

    def make_networks(self) -> None:
        """Make the four networks, N(0, 0.02)."""
        config = self.config

        def generator() -> nn.Module:
            return initialize(ResnetGenerator(channels=config.channels, blocks=config.blocks))

        def discriminator() -> nn.Module:
            return initialize(
                PatchDiscriminator(layers=config.discriminator_layers, channels=config.discriminator_channels)
            )

        self.generator = generator()
        if self.trainable:
            self.generator_back: nn.Module = generator()
            self.discriminator: nn.Module = discriminator()
            self.discriminator_back: nn.Module = discriminator()
            # Drawn as the weights are, so that the seed of a training decides over the pools, too.
            seed, seed_back = torch.randint(2**62, (2,)).tolist()
            self._pool = ImagePool(config.pool_size, seed)
            self._pool_back = ImagePool(config.pool_size, seed_back)

    def networks(self) -> dict[str, nn.Module]:
        """The generators and discriminators by name."""
        names = ("generator", "generator_back", "discriminator", "discriminator_back")
        return {name: getattr(self, name) for name in (names if self.trainable else names[:1])}

    def make_optimizers(self) -> dict[str, Optimizer]:
        """One Adam for both generators, one for each discriminator."""
        config = self.config

        def adam(*networks: nn.Module) -> Optimizer:
            weights = [weight for network in networks for weight in network.parameters()]
            return Adam(weights, lr=config.learning_rate, betas=(config.beta1, config.beta2))

        return {
            "generators": adam(self.generator, self.generator_back),
            "discriminator": adam(self.discriminator),
            "discriminator_back": adam(self.discriminator_back),
        }

    def update(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Both generators, then the discriminator of the target's look, then that of the source's."""
        config, adversarial = self.config, ADVERSARIAL[self.config.adversarial]
        source, target = batch["source"] * 2 - 1, batch["target"] * 2 - 1
        losses: dict[str, Tensor] = {}

        with (
            frozen(self.discriminator) as discriminator,
            frozen(self.discriminator_back) as discriminator_back,
            engine.autocast(),
        ):
            fake_target = self.generator(source)
            fake_source = self.generator_back(target)
            losses["adversarial"] = adversarial(discriminator(fake_target), True)
            losses["adversarial_back"] = adversarial(discriminator_back(fake_source), True)
            losses["cycle"] = functional.l1_loss(self.generator_back(fake_target), source)
            losses["cycle_back"] = functional.l1_loss(self.generator(fake_source), target)
            total = (
                losses["adversarial"]
                + losses["adversarial_back"]
                + config.lambda_source * losses["cycle"]
                + config.lambda_target * losses["cycle_back"]
            )
            if config.lambda_identity:
                losses["identity"] = functional.l1_loss(self.generator(target), target)
                losses["identity_back"] = functional.l1_loss(self.generator_back(source), source)
                total = total + config.lambda_identity * (
                    config.lambda_target * losses["identity"] + config.lambda_source * losses["identity_back"]
                )
            losses["output_std"] = fake_target.std() / 2  # of 0..1: no loss, but what collapse is seen by
        engine.backward(total)
        for generator in (self.generator, self.generator_back):
            engine.clip(generator)
        self._step("generators")

        for side, real, fake, pool in (
            ("discriminator", target, fake_target, self._pool),
            ("discriminator_back", source, fake_source, self._pool_back),
        ):
            network = getattr(self, side)
            with engine.autocast():
                # Real and fake in two passes, as instance norms make no difference, and batch norms must see one kind.
                on_real = adversarial(network(real), True)
                on_fake = adversarial(network(pool.query(fake)), False)
                losses[side] = (on_real + on_fake) / 2  # halved, so that it learns at half the generators' pace
            engine.backward(losses[side])
            engine.clip(network)
            self._step(side)
        return {name: loss.detach() for name, loss in losses.items()}

    def deployed(self) -> nn.Module:
        """The generator from source to target, between 0..1 and −1..1."""
        return Deployed(unwrapped(self.generator))

    @property
    def least_side(self) -> int:
        """See `LEAST_SIDE`."""
        return LEAST_SIDE

    def training_state(self) -> dict[str, Any]:
        """The image pools."""
        return {"pool": self._pool.state_dict(), "pool_back": self._pool_back.state_dict()}

    def load_training_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """The image pools as they were."""
        self._pool.load_state_dict(state["pool"], device)
        self._pool_back.load_state_dict(state["pool_back"], device)
