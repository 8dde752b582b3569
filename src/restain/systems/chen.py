"""Chen et al., 2020: CHEN, gray and a mask of red coloured by a U-Net in stages, for cytology.

The paper is "Multi-stage domain adversarial style reconstruction for cytopathological image stain normalization". Its
words are the other way round: its target domain is our source, which is normalized, and its source domain our target,
whose look is wanted and whose classes may be known. No code was published (PAPERS §3).
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from restain.errors import InputError
from restain.losses.adversarial import bce
from restain.losses.task import known_cross_entropy
from restain.networks.chen import ChenDiscriminator, ChenGenerator, red_mask
from restain.networks.initialization import initialize
from restain.networks.norm_statistics import frozen as frozen_norms
from restain.networks.norm_statistics import running
from restain.systems.base import System
from restain.systems.chen_config import ChenConfig
from restain.systems.config import SystemConfig
from restain.systems.deployed import to_gray
from restain.systems.engine import Engine
from restain.systems.frozen import frozen, unwrapped
from restain.systems.task import TaskNetwork, make_task


@dataclass(eq=False, kw_only=True)
class Chen(System):
    """A U-Net that colours what is left without stain, two discriminators, and a classifier that must not be misled.

    Attributes:
        generator: gray and mask to colour; it normalizes.
        discriminator: tells tiles of the target from those that were taken apart and coloured again (the paper's D1).
        discriminator_source: tells tiles of the target from coloured tiles of the source (the paper's D2).
        task: the classifier (the paper's T), where stage 3 is run.
        stage: which of `ChenConfig.stages` is run now.
    """

    name: ClassVar[str] = "chen"
    config_type: ClassVar[type[SystemConfig]] = ChenConfig

    def make_networks(self) -> None:
        """Make the generator and the discriminators, N(0, 0.02), and the task network where it is one of ours."""
        config = self.config
        self.generator = initialize(ChenGenerator(channels=config.channels))
        if not self.trainable:
            return

        def discriminator() -> nn.Module:
            return initialize(ChenDiscriminator(side=config.crop, channels=config.discriminator_channels))

        self.discriminator: nn.Module = discriminator()
        self.discriminator_source: nn.Module = discriminator()
        self.task: nn.Module | None = None
        if self.labelled and config.task != "own":
            self.task = make_task(
                config.task,
                classes=config.task_classes,
                width=config.task_width,
                normalization=config.task_normalization,
                weights=config.task_weights,
            )
        self.begin_epoch(0)

    def use_task(self, classifier: nn.Module) -> None:
        """Take one's own classifier as the task network, for `task = "own"`; before optimizers are made.

        Args:
            classifier: any module: RGB images (N, 3, crop, crop), floats in 0..1, to logits (N, `task_classes`). What
                else its input needs, such as the normalisation that it was trained with, it does itself. It is frozen
                and put into evaluation mode.

        Raises:
            InputError: the settings ask for another task network.
        """
        if self.config.task != "own":
            raise InputError(f'got a task network, but the setting task is "{self.config.task}"; wanted "own"')
        self.task = TaskNetwork(classifier.requires_grad_(False))

    def networks(self) -> dict[str, nn.Module]:
        """The generator, the discriminators and the task network, where there is one, by name."""
        if not self.trainable:
            return {"generator": self.generator}
        names = ("generator", "discriminator", "discriminator_source")
        networks = {name: getattr(self, name) for name in names}
        return networks if self.task is None else {**networks, "task": self.task}

    def make_optimizers(self) -> dict[str, Optimizer]:
        """One Adam for each network that learns.

        Raises:
            InputError: the task network is missing.
        """
        config = self.config
        if self.labelled and self.task is None:
            raise InputError('task is "own", but there is no task network; give it with use_task')
        optimizers: dict[str, Optimizer] = {
            name: Adam(network.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2))
            for name, network in self.networks().items()
            if name != "task"
        }
        if config.stages[0]:
            assert self.task is not None
            optimizers["task"] = Adam(self.task.parameters(), lr=config.task_learning_rate)
        return optimizers

    @property
    def labelled(self) -> bool:
        """Whether a stage needs the labels of the target's tiles."""
        return bool(self.config.stages[3])

    @property
    def learned_statistics(self) -> bool:
        """Its batch norms keep the statistics of training."""
        return True

    @property
    def caveats(self) -> tuple[str, ...]:
        """That the task network was not trained before, where it was not."""
        if not self.config.stages[0]:
            return ()
        return (f"the task network, a {self.config.task}, begins with random weights (pretrained=False)",)

    def begin_epoch(self, epoch: int) -> None:
        """Go on to the stage of this epoch. Weights and optimizers stay as they are."""
        self.stage = self.config.stage(epoch)
        if self.task is not None:
            task = unwrapped(self.task)
            assert isinstance(task, TaskNetwork)
            task.teach(self.stage == 0)

    # ---- updates --------------------------------------------------------------------------------------------------

    def update(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """In stage 0 the task network; then the first discriminator, from stage 2 on the second, and the generator.

        Args:
            batch: `source` and `target`, and where stages need them `target_label`, int64 (N,), −1 for unknown.
            engine: see `System.update`.
        """
        if self.stage == 0:
            return self._teach(batch, engine)
        config, target = self.config, batch["target"] * 2 - 1
        with_source = self.stage >= 2 and config.lambda_gan2 > 0
        # Both domains go through the generator together, so that its batch norms cannot tell them apart.
        images = torch.cat([batch["target"], batch["source"]]) if with_source else batch["target"]
        with engine.autocast():
            colored = self.generator(remove_stain(images, config.mask_delta, config.mask_median))
        again = colored[: len(target)]
        judged = {"": (again, config.lambda_gan1)}
        if with_source:
            judged["_source"] = (colored[len(target) :], config.lambda_gan2)

        losses: dict[str, Tensor] = {}
        for side, (fake, _) in judged.items():
            name = f"discriminator{side}"
            network = getattr(self, name)
            with engine.autocast():
                # Real and fake in two passes: its batch norms must see one kind at a time.
                losses[name] = (bce(network(target), True) + bce(network(fake.detach()), False)) / 2
            engine.backward(losses[name])
            engine.clip(network)
            self._step(name)

        with ExitStack() as stack:
            stack.enter_context(engine.autocast())
            losses["l1"] = functional.l1_loss(again, target)
            total = config.lambda_l1 * losses["l1"]
            for side, (fake, weight) in judged.items():
                judge = stack.enter_context(frozen(getattr(self, f"discriminator{side}")))
                losses[f"adversarial{side}"] = bce(judge(fake), True)
                total = total + weight * losses[f"adversarial{side}"]
            if self.stage == 3:
                assert self.task is not None
                task = stack.enter_context(frozen(self.task))
                losses["task"] = known_cross_entropy(task(again * 0.5 + 0.5), _labels(batch))
                total = total + config.lambda_task * losses["task"]
            losses["output_std"] = colored.std() / 2  # of 0..1: no loss, but what collapse is seen by
        engine.backward(total)
        engine.clip(self.generator)
        self._step("generator")
        return {name: loss.detach() for name, loss in losses.items()}

    def _teach(self, batch: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """The task network learns the labels of the target."""
        assert self.task is not None
        with engine.autocast():
            loss = known_cross_entropy(self.task(batch["target"]), _labels(batch))
        engine.backward(loss)
        engine.clip(self.task)
        self._step("task")
        return {"classifier": loss.detach()}

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Mean absolute error, in −1..1, of tiles of the target that are taken apart and coloured again.

        None before the last stage: a later stage may err more, since more is asked of it, and its weights are wanted.
        """
        if self.stage != self.config.stage(self.config.epochs):
            return None
        network = self.deployed()
        network = frozen_norms(network, running(network))
        return 2 * functional.l1_loss(network(batch["target"]), batch["target"])

    # ---- what normalizes ------------------------------------------------------------------------------------------

    def deployed(self) -> nn.Module:
        """The removal of stain, and the generator."""
        return ChenDeployed(unwrapped(self.generator), self.config.mask_delta, self.config.mask_median)


def remove_stain(images: Tensor, delta: float = 0.0, median: bool = False) -> Tensor:
    """What is left of images without their stain: gray in −1..1, and the mask of red, 0 or 1.

    Args:
        images: (N, 3, H, W) floats 0..1.
        delta, median: see `red_mask`.

    Returns:
        (N, 2, H, W).
    """
    return torch.cat([to_gray(images) * 2 - 1, red_mask(images, delta, median)], dim=1)


class ChenDeployed(nn.Module):
    """Images (N, 3, H, W) in 0..1 to the same, through the removal of stain and a generator.

    Args:
        generator: (N, 2, H, W) to (N, 3, H, W), −1..1.
        delta, median: see `red_mask`.
    """

    def __init__(self, generator: nn.Module, delta: float = 0.0, median: bool = False) -> None:
        super().__init__()
        self.generator = generator
        self.delta, self.median = delta, median

    def forward(self, images: Tensor) -> Tensor:
        """Images in 0..1, sides multiples of the generator's `multiple`."""
        out: Tensor = self.generator(remove_stain(images, self.delta, self.median))
        return (out * 0.5 + 0.5).clamp(0, 1)


def _labels(batch: Mapping[str, Tensor]) -> Tensor:
    if "target_label" not in batch:
        raise InputError("chen's task network needs the classes of the target's tiles; give their labels")
    return batch["target_label"]
