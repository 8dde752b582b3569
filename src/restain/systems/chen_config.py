"""The settings of CHEN, and which stage of its training each epoch belongs to (PAPERS §3)."""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from restain.errors import InputError
from restain.systems.config import BETAS, MOST_CHANNELS, WEIGHTS, SystemConfig, check_ranges
from restain.systems.task import Normalization

LEAST_CROP = 128
"""Pixels; the innermost batch norm must be given more than one place."""


@dataclass(frozen=True, kw_only=True)
class ChenConfig(SystemConfig):
    """CHEN's settings; the paper gives the weights of the losses and the crop, and is silent on most others."""

    epochs: int = 0
    """All epochs: those of the stages that are run, of which it is the sum; 0 says the same."""

    batch_size: int = 8
    """Images an update, of each domain."""

    crop: int = 512
    """Side of the training crops, pixels; a multiple of 64."""

    task_epochs: int = 10
    """Epochs in which the task network learns the labels of the target, before all else; none where it has
    `task_weights`, or where there is no task."""

    stage1_epochs: int = 20
    """Epochs in which tiles of the target are taken apart and coloured again: L1 and the first discriminator."""

    stage2_epochs: int = 10
    """Epochs in which tiles of the source are coloured, too, under the second discriminator."""

    stage3_epochs: int = 5
    """Epochs in which the task network must recognise what was coloured, too; none where there is no task."""

    channels: int = 64
    """Channels of the generator's first layer; up to eight times as many follow."""

    discriminator_channels: int = 64
    """Channels of the discriminators' first layer; up to eight times as many follow."""

    mask_delta: float = 0.0
    """Grey levels by which red must be greater than green and blue to be in the mask; 4 quietens it on glass."""

    mask_median: bool = False
    """Whether the mask is smoothed: each pixel takes the majority of the 3 × 3 around it."""

    lambda_gan1: float = 1.0
    """Weight of the first adversarial loss, on tiles of the target."""

    lambda_gan2: float = 1.0
    """Weight of the second, on tiles of the source; with 0 the source is never looked at."""

    lambda_l1: float = 100.0
    """Weight of the mean absolute error of tiles of the target."""

    lambda_task: float = 10.0
    """Weight of the task's cross-entropy on tiles of the target."""

    task: Literal["none", "resnet50", "squeezenet1_1", "own"] = "none"
    """The task network: one of these, or "own" for the one that `Chen.use_task` is given. "none" leaves stage 3 out."""

    task_weights: str = ""
    """File with the trained weights of the task network; empty to train it on the target's labels first."""

    task_classes: int = 2
    """Classes of the labels."""

    task_width: int = 64
    """Width of the task network; 64 is the published one."""

    task_normalization: Normalization = "imagenet"
    """What the task network sees: "imagenet", 0..1 less ImageNet's mean, by its deviation; or "signed", −1..1."""

    task_learning_rate: float = 1e-4
    """Of the task network's Adam."""

    beta1: float = 0.5
    """First decay rate of Adam, but for the task network's, which is 0.9."""

    beta2: float = 0.999
    """Second decay rate of Adam."""

    def __post_init__(self) -> None:
        check_ranges(self, task_epochs=(0, math.inf), stage1_epochs=(0, math.inf), stage2_epochs=(0, math.inf))
        check_ranges(self, stage3_epochs=(0, math.inf), task_classes=(2, MOST_CHANNELS), task_width=(4, MOST_CHANNELS))
        check_ranges(self, channels=(1, MOST_CHANNELS), discriminator_channels=(1, MOST_CHANNELS), mask_delta=(0, 254))
        check_ranges(self, lambda_gan1=WEIGHTS, lambda_gan2=WEIGHTS, lambda_l1=WEIGHTS, lambda_task=WEIGHTS)
        check_ranges(self, beta1=BETAS, beta2=BETAS)
        if not 0 < self.task_learning_rate < math.inf:
            raise InputError(f"got task_learning_rate = {self.task_learning_rate}; wanted a rate above 0")
        if self.crop % 64 or self.crop < LEAST_CROP:
            raise InputError(f"got crop = {self.crop}; wanted a multiple of 64, {LEAST_CROP} or more, for chen")
        self._check_task()
        total = sum(self.stages)
        if not sum(self.stages[1:]):
            raise InputError("the stages that are run have no epochs; wanted stage1_epochs or stage2_epochs above 0")
        if self.epochs not in (0, total):
            raise InputError(
                f"got epochs = {self.epochs}, but the stages that are run have {total}; leave it out, or set it to 0"
            )
        object.__setattr__(self, "epochs", total)
        super().__post_init__()

    def _check_task(self) -> None:
        built = self.task in ("resnet50", "squeezenet1_1")
        if self.task_weights and not built:
            raise InputError(f"got task_weights, but task is {self.task}; wanted resnet50 or squeezenet1_1")
        if built and not (self.task_weights or self.task_epochs):
            raise InputError("the task network is neither trained nor loaded; wanted task_epochs or task_weights")
        if self.task == "squeezenet1_1" and self.task_width % 4:
            raise InputError(f"got task_width = {self.task_width}; wanted a multiple of 4 for squeezenet1_1")

    @property
    def stages(self) -> tuple[int, int, int, int]:
        """Epochs of stage 0, in which the task network is taught, and of the paper's three; 0 where one is not run."""
        last = 0 if self.task == "none" else self.stage3_epochs
        first = 0 if self.task in ("none", "own") or self.task_weights or not last else self.task_epochs
        return first, self.stage1_epochs, self.stage2_epochs, last

    def stage(self, epoch: int) -> int:
        """The stage of an epoch, which is counted from 0; the last stage lasts for as long as there are epochs."""
        last = max(stage for stage, epochs in enumerate(self.stages) if epochs)
        return next((stage for stage, end in enumerate(accumulate(self.stages)) if epoch < end), last)
