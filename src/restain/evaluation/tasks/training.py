"""Training: one loop for classifiers and segmenters, in plain PyTorch; the same seed gives the same network."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from restain.color.augment import AUGMENTATIONS
from restain.color.images import RGB8
from restain.errors import InputError, TrainingError
from restain.evaluation.tasks.examples import Examples
from restain.evaluation.tasks.models import Classifier, Segmenter, Training, make_network, scaled
from restain.evaluation.tasks.settings import ClassifierSettings, SegmenterSettings, TaskSettings

Report = Callable[[int, int, float], object]
"""Called after each epoch with its number, the number of all, and its mean loss."""

DSTGAN_CLASSIFIER, DSTGAN_SEGMENTER = ClassifierSettings(), SegmenterSettings()

DECAY = 0.1
"""What the learning rate is multiplied by at a milestone."""


def train_classifier(
    examples: Examples,
    settings: ClassifierSettings = DSTGAN_CLASSIFIER,
    *,
    seed: int = 0,
    data: str = "",
    device: str = "cpu",
    report: Report | None = None,
) -> Classifier:
    """Train a network to tell classes apart, by cross-entropy.

    Args:
        examples: with classes.
        settings: see `ClassifierSettings`; `PROTOCOLS` has those of the papers.
        seed: of first weights, order and augmentation. On CPUs, the same gives the same bits.
        data: what the examples are, in words, for the results.
        device: where.
        report: told of each epoch.

    Raises:
        InputError: the examples have no classes, or another size than the settings.
        WeightsUnavailable: published weights are wanted and not at hand.
        TrainingError: the loss is not finite any more.
    """
    if not examples.classes:
        raise InputError("got examples without classes; wanted some to tell apart")
    weights = None
    if settings.balanced:
        counts = np.bincount(examples.truth, minlength=len(examples.classes))
        weights = torch.from_numpy(len(examples) / (len(counts) * np.maximum(counts, 1))).float().to(device)

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        return functional.cross_entropy(logits, truth, weight=weights)

    network = _trained(examples, settings, len(examples.classes), loss, seed, device, report)
    return Classifier(settings, examples.classes, _training(examples, settings, seed, data), network)


def train_segmenter(
    examples: Examples,
    settings: SegmenterSettings = DSTGAN_SEGMENTER,
    *,
    seed: int = 0,
    data: str = "",
    device: str = "cpu",
    report: Report | None = None,
) -> Segmenter:
    """Train a network to find foreground, by binary cross-entropy and Dice; arguments as `train_classifier`."""
    if examples.classes:
        raise InputError("got examples with classes; wanted masks")

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        return bce_dice(logits[:, 0], truth.to(logits))

    network = _trained(examples, settings, 1, loss, seed, device, report)
    return Segmenter(settings, (), _training(examples, settings, seed, data), network)


def bce_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross-entropy of the pixels, and 1 − (2·Σpt + 1)/(Σp + Σt + 1) of each image, mean over images.

    The 1 gives an empty mask, found empty, a loss of 0. Milletari, Navab & Ahmadi, "V-Net", 2016, with Σp for Σp².

    Args:
        logits: (N, H, W).
        truth: the same shape, 0 and 1.
    """
    found = logits.sigmoid()
    both, all_of = (found * truth).sum((1, 2)), found.sum((1, 2)) + truth.sum((1, 2))
    dice = (2 * both + 1) / (all_of + 1)
    return functional.binary_cross_entropy_with_logits(logits, truth) + (1 - dice).mean()


def digest(group: str) -> str:
    """A name that tells patients apart and not who they are, for files that are handed on."""
    return hashlib.sha256(group.encode()).hexdigest()[:16]


def draw_batch(
    examples: Examples, chosen: Iterable[int], settings: TaskSettings, seed: int, epoch: int
) -> tuple[RGB8, NDArray[Any]]:
    """Images and truth of some examples, augmented: what is drawn depends on seed, epoch and example alone."""
    images, truths = [], []
    for index in chosen:
        generator = np.random.default_rng([seed, epoch, index])
        turns, mirror = int(generator.integers(4)), bool(generator.integers(2))
        image, truth = examples.images[index], examples.truth[index]
        if settings.augmentation in AUGMENTATIONS:
            image = AUGMENTATIONS[settings.augmentation](image, generator)
        turns, mirror = turns if settings.turns else 0, mirror and settings.flips
        images.append(_lying(image, turns, mirror))
        truths.append(truth if examples.classes else _lying(truth, turns, mirror))
    return np.stack(images), np.stack(truths)


def _trained(
    examples: Examples,
    settings: TaskSettings,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    device: str,
    report: Report | None,
) -> nn.Module:
    if examples.images.shape[1:3] != (settings.side, settings.side):
        raise InputError(f"got images {examples.images.shape}; wanted sides of {settings.side}, as the settings say")
    with torch.random.fork_rng():  # first weights and dropout draw from it; what others draw is not changed
        torch.manual_seed(seed)
        network = make_network(settings, outputs).to(device).train()
        optimizer = torch.optim.Adam(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(settings.milestones), DECAY)
        like = next(network.parameters())
        for epoch in range(settings.epochs):
            total = 0.0
            for chosen in _batches(len(examples), settings.batch_size, seed, epoch):
                images, truth = draw_batch(examples, chosen, settings, seed, epoch)
                value = loss(network(scaled(images, settings.scaling, like)), torch.from_numpy(truth).to(device))
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(value.detach()) * len(chosen)
            if not math.isfinite(total):
                raise TrainingError(f"the loss of epoch {epoch + 1} is not finite; lower learning_rate")
            schedule.step()
            if report is not None:
                report(epoch + 1, settings.epochs, total / len(examples))
    return network.eval().requires_grad_(False)


def _batches(count: int, most: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """All indices in an order by chance, cut as evenly as can be: batch norms cannot learn from one image alone."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    yield from np.array_split(order, math.ceil(count / most))


def _lying(array: NDArray[Any], turns: int, mirror: bool) -> NDArray[Any]:
    turned = np.rot90(array, turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirror else turned)


def _training(examples: Examples, settings: TaskSettings, seed: int, data: str) -> Training:
    seen = tuple(sorted({digest(group) for group in examples.groups}))
    return Training(data, len(examples), seen, seed, settings.pretrained)
