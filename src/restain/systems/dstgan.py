"""Du et al., Scientific Reports 2025: DSTGAN, a deeply supervised GAN in two stages that colours gray tiles.

The paper is "Deeply supervised two stage generative adversarial network for stain normalization". The generator learns
the target's colours from grayed tiles of the target. Grayed tiles of the source have no colours that it could learn:
they must keep their structure and meet the target's histogram, and a second stage grays what became of them, to be
coloured again as before. The authors released no code; what the paper leaves open is a setting (PAPERS §2.3, §2.4).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from restain.losses.adversarial import bce
from restain.losses.color_histogram import color_histogram, hellinger
from restain.losses.features import feature_distance
from restain.losses.precision import precise
from restain.losses.structure import ssim
from restain.networks.dstgan import DstganContentDiscriminator, DstganGenerator
from restain.networks.initialization import initialize
from restain.networks.patchgan import PatchDiscriminator
from restain.systems.base import System
from restain.systems.config import SystemConfig
from restain.systems.deployed import Deployed, to_gray
from restain.systems.dstgan_config import DSTGANConfig
from restain.systems.engine import Engine
from restain.systems.frozen import frozen, unwrapped

Images = tuple[Tensor, ...]
"""What one pass of the generator makes, (N, 3, H, W) in −1..1 each: the final image last."""


@dataclass(eq=False, kw_only=True)
class DSTGAN(System):
    """A generator from gray to colour, and two discriminators, trained on unpaired tiles of the source and the target.

    Attributes:
        generator: gray to colour; it normalizes.
        color_discriminator: the paper's D_C: tells the target's tiles from coloured ones, patch by patch.
        content_discriminator: the paper's D_T: tells tiles of either domain from coloured ones, as a whole.
    """

    name: ClassVar[str] = "dstgan"
    config_type: ClassVar[type[SystemConfig]] = DSTGANConfig
    window: ClassVar[int] = 256

    def make_networks(self) -> None:
        """Make the three networks: the generator with Swin's weights, the discriminators N(0, 0.02)."""
        config = self.config
        generator = DstganGenerator(
            channels=config.channels,
            merges=config.merges,
            window=config.attention_window,
            depths=config.depths,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            first_merge=config.first_merge,
            ds_keep_width=config.ds_keep_width,
            output_skip=config.output_skip,
            checkpoint=config.checkpoint,
        )
        if not config.deep_supervision:
            # Nothing is learned by the heads of the side images, and several processes would wait for their gradients.
            generator.sides.requires_grad_(False)
        self.generator = generator
        if self.trainable:
            channels = config.discriminator_channels
            color = PatchDiscriminator(layers=3, channels=channels, norm="batch")
            self.color_discriminator: nn.Module = initialize(color)
            self.content_discriminator: nn.Module = initialize(DstganContentDiscriminator(channels=channels))

    def networks(self) -> dict[str, nn.Module]:
        """The generator and the discriminators by name."""
        names = ("generator", "color_discriminator", "content_discriminator")
        return {name: getattr(self, name) for name in (names if self.trainable else names[:1])}

    def make_optimizers(self) -> dict[str, Optimizer]:
        """One Adam for each."""
        config = self.config
        return {
            name: Adam(network.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2))
            for name, network in self.networks().items()
        }

    def deployed(self) -> nn.Module:
        """The generator's final image, between 0..1 and −1..1, given gray."""
        return Deployed(unwrapped(self.generator), gray=1)

    # ---- an update ------------------------------------------------------------------------------------------------

    def update(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Colour both domains; a step of each discriminator; then the second stage, and the generator's step."""
        source, target = batch["source"], batch["target"]
        with engine.autocast():
            # Only what the generator is given is augmented: it is compared with the tiles themselves.
            from_target = self._colored(2 * to_gray(batch.get("target_input", target)) - 1)
            from_source = self._colored(2 * to_gray(batch.get("source_input", source)) - 1)
        losses = self._update_discriminators(source, target, from_source, from_target, engine)
        with (
            frozen(self.color_discriminator) as color,
            frozen(self.content_discriminator) as content,
            engine.autocast(),
        ):
            judges = _Judges(color, content, self.config)
            total = self._target_branch(target, from_target, judges, losses)
            total = total + self._source_branch(source, target, from_source, judges, losses)
            if self.config.two_stage:
                total = total + losses["anneal"] * self._second_stage(from_source, judges, losses)
            losses["output_std"] = from_source[-1].std() / 2  # of 0..1: no loss, but what collapse is seen by
        engine.backward(total)
        engine.clip(self.generator)
        self._step("generator")
        return {name: loss.detach() for name, loss in losses.items()}

    def _colored(self, gray: Tensor) -> Images:
        """What the generator makes of gray (N, 1, H, W) in −1..1: its three images, or the final one alone."""
        deep = self.config.deep_supervision
        made: Images = self.generator(gray, outputs="all") if deep else (self.generator(gray, outputs="final"),)
        # What autocast made of it has too few digits for the losses.
        return tuple(precise(image) for image in made)

    def _update_discriminators(
        self, source: Tensor, target: Tensor, from_source: Images, from_target: Images, engine: Engine
    ) -> dict[str, Tensor]:
        """Equations (2) and (3), and a step for each."""
        weights = self.config.output_weights
        passes = (from_target,) if self.config.d_fakes == "target" else (from_target, from_source)
        fakes = [tuple(image.detach() for image in images) for images in passes]
        source, target = 2 * source - 1, 2 * target - 1
        losses: dict[str, Tensor] = {}
        # One pass for each kind of image, as batch norms must see one kind.
        color, content = self.color_discriminator, self.content_discriminator
        with engine.autocast():
            on_real = bce(color(target), True)
            on_fakes = [_weighted(weights, (bce(color(image), False) for image in images)) for images in fakes]
            losses["discriminator_color"] = on_real + torch.stack(on_fakes).mean()
            on_real = bce(content(source)[0], True) + bce(content(target)[0], True)
            on_fakes = [bce(content(images[-1])[0], False) for images in fakes]
            losses["discriminator_content"] = on_real + torch.stack(on_fakes).mean()
        for name, network in (("color", color), ("content", content)):
            engine.backward(losses[f"discriminator_{name}"])
            engine.clip(network)
            self._step(f"{name}_discriminator")
        return losses

    def _target_branch(self, target: Tensor, made: Images, judges: "_Judges", losses: dict[str, Tensor]) -> Tensor:
        """L_target of equation (5): here the colours are known."""
        config, wanted = self.config, 2 * target - 1
        errors = (functional.l1_loss(image, wanted) for image in made)
        losses["supervised"] = _weighted(config.output_weights, errors)
        losses["adversarial_target"], features = judges.adversarial(made)
        total: Tensor = config.lambda_sup * losses["supervised"] + config.alpha * losses["adversarial_target"]
        if config.use_content:
            losses["content"] = judges.content_distance(features, wanted)
            total = total + losses["content"]
        return total

    def _source_branch(
        self, source: Tensor, target: Tensor, made: Images, judges: "_Judges", losses: dict[str, Tensor]
    ) -> Tensor:
        """L¹_source of equation (10): the source's structure, the target's colours. The annealing follows from it."""
        config, colors = self.config, [image * 0.5 + 0.5 for image in made]
        quality = made[-1].new_zeros(())
        if config.use_ssim:
            gray = to_gray(source)
            likeness = (ssim(gray, to_gray(image), config.ssim_mode).mean() for image in colors)
            losses["ssim"] = _weighted(config.output_weights, (1 - value for value in likeness))
            quality = quality + losses["ssim"]
        if config.use_hist:
            wanted = self._histogram(target)
            if config.hist_reference == "batch-mean":
                wanted = wanted.mean(dim=0, keepdim=True)
            distances = (hellinger(wanted, self._histogram(image)).mean() for image in colors)
            losses["histogram"] = _weighted(config.output_weights, distances)
            quality = quality + losses["histogram"]
        losses["adversarial_source"], _ = judges.adversarial(made)
        total: Tensor = quality + config.alpha * losses["adversarial_source"]
        # Detached: its gradient would reward a first stage that does worse.
        fallen_short = (quality if config.anneal_on == "quality" else total).detach()
        losses["anneal"] = torch.exp(-config.beta * fallen_short)
        return total

    def _histogram(self, images: Tensor) -> Tensor:
        """Of the colours of each image in 0..1."""
        config = self.config
        return color_histogram(
            images, bins=config.hist_bins, bound=config.hist_bound, tau=config.hist_tau, size=config.hist_size
        )

    def _second_stage(self, first: Images, judges: "_Judges", losses: dict[str, Tensor]) -> Tensor:
        """L²_source of equation (12), before it is annealed: each image of the first stage, grayed, is coloured again.

        They stand for labels here, and no gradient passes to them: the generator could make its labels easy.
        """
        config = self.config
        again, adversarial, content = [], [], []
        for number, image in enumerate(first):
            proxy = image.detach()
            made = self._colored(to_gray(proxy))
            errors = (functional.l1_loss(other, proxy) for other in made)
            again.append(_weighted(config.second_stage_weights(number), errors))
            judged, features = judges.adversarial(made)
            adversarial.append(judged)
            if config.use_content:
                content.append(judges.content_distance(features, proxy))
        losses["second_stage"] = torch.stack(again).sum()
        losses["second_adversarial"] = _weighted(config.output_weights, adversarial)
        total: Tensor = losses["second_stage"] + config.alpha * losses["second_adversarial"]
        if config.use_content:
            losses["second_content"] = _weighted(config.output_weights, content)
            total = total + losses["second_content"]
        return total


@dataclass(frozen=True)
class _Judges:
    """Both discriminators, frozen, as the generator learns from them."""

    color: nn.Module
    content: nn.Module
    config: DSTGANConfig

    def adversarial(self, images: Images) -> tuple[Tensor, Sequence[Tensor]]:
        """L_GAN of the images of one pass, and the content discriminator's maps of the final one."""
        on_color = _weighted(self.config.output_weights, (bce(self.color(image), True) for image in images))
        logits, features = self.content(images[-1])
        return on_color + bce(logits, True), features

    def content_distance(self, features: Sequence[Tensor], wanted: Tensor) -> Tensor:
        """L_cont, equation (4): how far maps are from those of the images wanted."""
        with torch.no_grad():
            _, others = self.content(wanted)
        return feature_distance(features, others, self.config.content_weights, self.config.content_norm)


def _weighted(weights: Iterable[float], losses: Iterable[Tensor]) -> Tensor:
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
