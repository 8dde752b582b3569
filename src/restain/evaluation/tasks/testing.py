"""Testing a trained model on images as they are, or as any normalizer makes them."""

from collections.abc import Sequence

import numpy as np

from restain.errors import InputError
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.patches import Patch
from restain.evaluation.tasks.examples import Change, Estimate, Examples, read_examples
from restain.evaluation.tasks.models import Classifier, Segmenter
from restain.evaluation.tasks.results import ClassificationResult, SegmentationResult
from restain.evaluation.tasks.training import digest
from restain.methods.base import Normalizer

RAW = "raw"


def evaluate_classifier(
    model: Classifier,
    items: Examples | Sequence[Item | Patch],
    normalizer: Change | None = None,
    *,
    name: str | None = None,
    data: str = "",
    transductive: bool = False,
    estimate: Estimate = "image",
    allow_leaks: bool = False,
) -> ClassificationResult:
    """Test a classifier.

    Args:
        model: trained on images in the wanted appearance.
        items: what to test on: of no patient or slide that it was trained on.
        normalizer: what brings them into that appearance, fitted without their labels: a normalizer, or a function of
            an image. None for the images as they are.
        name: what the results call it; by default its own name.
        data: what the items are, in words.
        transductive: whether it has learned from test images, as STAINNET on Camelyon16; to be said with the results.
        estimate: what it learns each image's own appearance from, for items; see `read_examples`. Of examples that
            were read before, each image by itself.
        allow_leaks: test on patients of the training all the same; only to see how well it has learned them.

    Raises:
        InputError: a patient or slide was in the training, or classes are others.
    """
    examples = _prepared(items, normalizer, estimate, model.settings.side, model.classes)
    if examples.classes != model.classes:
        raise InputError(f"got the classes {examples.classes}; wanted {model.classes}, as it was trained on")
    _refuse_leaks(model, examples, allow_leaks)
    return ClassificationResult(
        data=data,
        normalizer=name or _name(normalizer),
        transductive=transductive,
        settings=model.settings.plain(),
        training=model.training,
        names=examples.names,
        groups=examples.groups,
        classes=model.classes,
        labels=examples.truth,
        probabilities=model.probabilities(examples.images),
    )


def evaluate_segmenter(
    model: Segmenter,
    items: Examples | Sequence[Item | Patch],
    normalizer: Change | None = None,
    *,
    name: str | None = None,
    data: str = "",
    transductive: bool = False,
    estimate: Estimate = "image",
    allow_leaks: bool = False,
) -> SegmentationResult:
    """Test a segmenter, at the size that it sees; arguments and errors as `evaluate_classifier`."""
    examples = _prepared(items, normalizer, estimate, model.settings.side, ())
    if examples.classes:
        raise InputError("got examples with classes; wanted masks")
    _refuse_leaks(model, examples, allow_leaks)
    found, truth = model.masks(examples.images), examples.truth
    counted = np.stack([found & truth, found & ~truth, ~found & truth, ~found & ~truth], axis=1).sum(axis=(2, 3))
    pictures = list(dict.fromkeys(examples.pictures))
    counts = np.zeros((len(pictures), 4), np.int64)
    np.add.at(counts, [pictures.index(picture) for picture in examples.pictures], counted)
    group_of = dict(zip(examples.pictures, examples.groups, strict=True))
    return SegmentationResult(
        data=data,
        normalizer=name or _name(normalizer),
        transductive=transductive,
        settings=model.settings.plain(),
        training=model.training,
        names=tuple(pictures),
        groups=tuple(group_of[picture] for picture in pictures),
        counts=counts,
    )


def _prepared(
    items: Examples | Sequence[Item | Patch],
    change: Change | None,
    estimate: Estimate,
    side: int,
    classes: Sequence[str],
) -> Examples:
    if not isinstance(items, Examples):
        return read_examples(items, side, classes, change=change, estimate=estimate)
    if estimate != "image":
        raise InputError("got images that were read before; a slide's estimate needs its items")
    return items if change is None else items.changed(change)


def _refuse_leaks(model: Classifier | Segmenter, examples: Examples, allowed: bool) -> None:
    seen = [group for group in dict.fromkeys(examples.groups) if digest(group) in model.training.groups]
    if seen and not allowed:
        raise InputError(f"{seen[0]} was in the training: results would be too good; split by patient or slide")


def _name(change: Change | None) -> str:
    if change is None:
        return RAW
    return change.name if isinstance(change, Normalizer) else getattr(change, "__name__", type(change).__name__)
