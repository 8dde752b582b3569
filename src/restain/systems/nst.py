"""Nishar et al., MICCAI 2020: NST, a style transfer network with adversarial loss, in its four variants.

The paper is "Histopathological stain transfer using style transfer network with adversarial loss". A generator is
trained to keep what a perceptual network sees of the source's content and to give it the style, in Gram matrices, of a
reference that shows similar tissue; a discriminator of small patches may judge it, too. One generator an input lab. No
code was published (PAPERS §6).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from restain.losses.adversarial import bce
from restain.losses.perceptual import content_loss, style_loss
from restain.networks.feature_extractor import FeatureExtractor, make_extractor
from restain.networks.hrnet import HRNetGenerator
from restain.networks.initialization import initialize
from restain.networks.johnson import JohnsonGenerator
from restain.networks.patchgan import PatchDiscriminator
from restain.systems.base import System
from restain.systems.config import SystemConfig, plain
from restain.systems.deployed import Deployed
from restain.systems.engine import Engine
from restain.systems.frozen import frozen, unwrapped
from restain.systems.nst_config import LEAST_SIDE_JOHNSON, NSTConfig
from restain.systems.task import NORMALIZATIONS

MARGIN = 16
"""Pixels around an image that HRNet is given and that are dropped; twice as many are a multiple of its number."""


@dataclass(eq=False, kw_only=True)
class NST(System):
    """A generator that a perceptual network teaches, and in the variants with "ad" a discriminator.

    Attributes:
        generator: source to target; it normalizes.
        discriminator: tells patches of the references from the generator's; in the variants with "ad".
        perceptual: what content and style are seen with. It learns nothing, is not saved, and not made where nothing
            is to be trained.
    """

    name: ClassVar[str] = "nst"
    config_type: ClassVar[type[SystemConfig]] = NSTConfig

    def make_networks(self) -> None:
        """Make the networks, N(0, 0.02), an HRNet as the identity; and find the perceptual network's weights."""
        config = self.config
        if config.hrnet:
            hrnet = initialize(HRNetGenerator(config.channels, config.stem_stride, config.body))
            hrnet.start_as_identity()
            self.generator = hrnet
        else:
            self.generator = initialize(JohnsonGenerator(config.johnson_channels, config.johnson_blocks))
        if not self.trainable:
            return
        if config.adversarial:
            self.discriminator: nn.Module = initialize(
                PatchDiscriminator(config.discriminator_layers, config.discriminator_channels)
            )
        mean, deviation = NORMALIZATIONS[config.feature_normalization]
        self.perceptual: FeatureExtractor = make_extractor(
            config.feature_network,
            list(dict.fromkeys([config.content, *config.style])),
            config.feature_weights,
            path=config.feature_path,
            seed=config.feature_seed,
            mean=mean,
            deviation=deviation,
        )

    def networks(self) -> dict[str, nn.Module]:
        """The generator and the discriminator, where there is one, by name."""
        names = ("generator", "discriminator")
        return {
            name: getattr(self, name) for name in (names if self.trainable and self.config.adversarial else names[:1])
        }

    def make_optimizers(self) -> dict[str, Optimizer]:
        """One Adam for each, the discriminator's at a rate and with decay rates of its own."""
        config = self.config
        optimizers: dict[str, Optimizer] = {
            "generator": Adam(self.generator.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2))
        }
        if config.adversarial:
            optimizers["discriminator"] = Adam(
                self.discriminator.parameters(),
                lr=config.discriminator_learning_rate,
                betas=(config.discriminator_beta1, config.discriminator_beta2),
            )
        return optimizers

    # ---- updates --------------------------------------------------------------------------------------------------

    def update(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """The discriminator, where there is one, then the generator.

        Args:
            batch: see `System.update`. The target's images are references: they give style, and need not be registered.
            engine: see `System.update`.
        """
        source, target = batch["source"], batch["target"]
        with engine.autocast():
            restyled = self.generator(source).to(source.dtype)
        losses: dict[str, Tensor] = {}
        if self.config.adversarial:
            losses["discriminator"] = self._teach_discriminator(target, restyled.detach(), engine)
        # Gradients of the terms are taken at the restyled images, one by one, so that their sizes can be told, which is
        # what the weights are chosen by; their sum is then handed on through the generator.
        made = restyled.detach().requires_grad_()
        terms = self._terms(made, source, target, engine)
        gradient = torch.zeros_like(made)
        for name, (weight, term) in terms.items():
            # As a sum over pixels, not a mean: float16 could not hold the gradients of single pixels.
            (pull,) = torch.autograd.grad(term * made.numel(), made, retain_graph=True)
            gradient += weight * pull / made.numel()
            losses[name] = term
            losses[f"{name}_gradient"] = torch.linalg.vector_norm(pull) / made.numel()
        losses["output_std"] = made.std()  # no loss, but what collapse is seen by
        engine.backward((restyled * gradient).sum())
        engine.clip(self.generator)
        self._step("generator")
        return {name: loss.detach() for name, loss in losses.items()}

    def _terms(self, made: Tensor, source: Tensor, target: Tensor, engine: Engine) -> dict[str, tuple[float, Tensor]]:
        """Each term of the generator's loss with its weight."""
        config, look = self.config, self.perceptual.to(made.device)
        with engine.autocast():
            with torch.no_grad():
                content = look(source, [config.content])[config.content]
                style = look(target, config.style)
            seen = look(made)
        found, wanted = ([maps[layer] for layer in config.style] for maps in (seen, style))
        terms = {
            "content": (config.lambda_content, content_loss(seen[config.content], content, config.loss_form)),
            "style": (config.lambda_style, style_loss(found, wanted, config.loss_form)),
        }
        if config.adversarial:
            with frozen(self.discriminator) as discriminator, engine.autocast():
                logits = discriminator(made * 2 - 1)
            fooled = bce(logits, True) if config.loss_form == "scale_free" else printed_generator_loss(logits)
            terms["adversarial"] = config.lambda_adversarial, fooled
        return terms

    def _teach_discriminator(self, real: Tensor, fake: Tensor, engine: Engine) -> Tensor:
        """One step of the discriminator; its loss."""
        with engine.autocast():
            # In two passes, as instance norms make no difference.
            on_real, on_fake = self.discriminator(real * 2 - 1), self.discriminator(fake * 2 - 1)
            if self.config.loss_form == "scale_free":
                loss = bce(on_real, True) + bce(on_fake, False)
            else:
                loss = printed_discriminator_loss(on_real, on_fake)
        engine.backward(loss)
        engine.clip(self.discriminator)
        self._step("discriminator")
        return loss

    # ---- what it says of itself -----------------------------------------------------------------------------------

    def deployed(self) -> nn.Module:
        """The generator; it works in 0..1, and is clamped here. HRNet pads with zeros, so it is given a margin."""
        return Deployed(unwrapped(self.generator), signed=False, margin=MARGIN if self.config.hrnet else 0)

    @property
    def learned_statistics(self) -> bool:
        """Batch norms of an HRNet keep the statistics of training; Johnson's instance norms have none."""
        return bool(self.config.hrnet)

    @property
    def least_side(self) -> int:
        """The margin, and what is left at the coarsest size, must be less than what is reflected."""
        return 2 * MARGIN if self.config.hrnet else LEAST_SIDE_JOHNSON

    def content_descriptor(self) -> Callable[[Tensor], Tensor] | None:
        """Means over all places of the perceptual network's last layer of style, with `pair_by = "features"`."""
        if self.config.pair_by == "histogram":
            return None
        layer = self.config.style[-1]

        def describe(images: Tensor) -> Tensor:
            with torch.inference_mode():
                maps: Tensor = self.perceptual(images.to(self.perceptual.mean), [layer])[layer]
                return maps.float().mean(dim=(2, 3)).to(images.device)

        return describe

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the losses see with, where it is not the paper's VGG-19."""
        config = self.config
        if config.feature_weights == "random":
            return (
                f"the losses see through a {config.feature_network} of random weights (seed {config.feature_seed}): "
                "this training reproduces no paper's",
            )
        if config.feature_weights == "encoder":
            return (f"the losses see through a {config.feature_network} of one's own, not through ImageNet's VGG-19",)
        if config.feature_network != "vgg19":
            return (f"the losses see through {config.feature_network}, not through the paper's VGG-19",)
        return ()

    def _settings(self) -> dict[str, Any]:
        # Where the perceptual network's weights lay is nobody's business who is given this file.
        return {**super()._settings(), "config": plain(replace(self.config, feature_path=""))}


def printed_discriminator_loss(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """The paper's (5), log(1 − D(r)) + log D(t), of logits: it falls where real is told from fake, without a bound."""
    return functional.logsigmoid(-on_real.float()).mean() + functional.logsigmoid(on_fake.float()).mean()


def printed_generator_loss(on_fake: Tensor) -> Tensor:
    """The paper's (6), log(1 − D(t)), of logits: its gradient vanishes while the discriminator wins."""
    return functional.logsigmoid(-on_fake.float()).mean()
