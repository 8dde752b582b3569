"""What came of a test: every decision, the scores, and over seeds their mean, spread and confidence interval.

The scores are those of `restain.evaluation.metrics.tasks`, which says what each means.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError
from restain.evaluation.metrics import tasks
from restain.evaluation.tasks.models import Training

RESAMPLES = 2000
COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")

Chosen = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One model tested on one set of images in one appearance.

    Attributes:
        data: what the images are, in words.
        normalizer: what was done to them, in words; "raw" for nothing.
        transductive: whether the normalizer has learned from test images (never from their labels).
        settings: of the model, plain.
        training: on what it was trained, from which seed, and whether from published weights.
        names: of the images, one a row.
        groups: the patient or slide of each.
    """

    data: str
    normalizer: str
    transductive: bool
    settings: dict[str, Any]
    training: Training
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def scores(self, chosen: Chosen | None = None) -> dict[str, float]:
        """All scores, by name; NaN where one does not exist.

        Args:
            chosen: rows, some perhaps more than once; None for all.
        """
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """What was decided of each image, plain values by name."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ClassificationResult(TaskResult):
    """Of a classifier.

    Attributes:
        classes: their names.
        labels: (n,) int64, the true class of each image.
        probabilities: (n, k), what the classifier said.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    def scores(self, chosen: Chosen | None = None) -> dict[str, float]:
        """accuracy, balanced_accuracy, auc; precision and f1, macro over the classes that occur; the F1 of each class.

        The AUC is of the probabilities: of the second of two classes, else the mean over classes of each against the
        rest.
        """
        labels, said = self.labels, self.probabilities
        if chosen is not None:
            labels, said = labels[chosen], said[chosen]
        called = said.argmax(axis=1)
        scores = {
            "accuracy": tasks.accuracy(labels, called),
            "balanced_accuracy": tasks.balanced_accuracy(labels, called),
            "auc": _auc(labels, said),
            "precision": tasks.precision(labels, called),
            "f1": tasks.f1(labels, called),
        }
        for index, name in enumerate(self.classes):
            true, found = labels[None] == index, called[None] == index
            # A class's F1 is the Dice coefficient of the images that are of it and those called so.
            scores[f"f1_{name}"] = tasks.dice(true, found) if true.any() or found.any() else math.nan
        return scores

    def rows(self) -> list[dict[str, Any]]:
        """Name, group, label, the class called, and the probability of each class."""
        called = self.probabilities.argmax(axis=1)
        return [
            {
                "name": self.names[i],
                "group": self.groups[i],
                "label": self.classes[self.labels[i]],
                "called": self.classes[called[i]],
                **{f"p_{name}": float(p) for name, p in zip(self.classes, self.probabilities[i], strict=True)},
            }
            for i in range(len(self.names))
        ]


@dataclass(frozen=True, kw_only=True)
class SegmentationResult(TaskResult):
    """Of a segmenter; a row is a picture, whose patches are pooled.

    Attributes:
        counts: (n, 4) pixels: true positive, false positive, false negative, true negative.
    """

    counts: NDArray[np.int64]

    def scores(self, chosen: Chosen | None = None) -> dict[str, float]:
        """Means over pictures of dice, iou and pixel_accuracy, and the same of all pixels pooled.

        Dice and IoU of a picture are 1 where there is no foreground and none was found. Published tables are means
        over pictures (§10); the two differ, and for pooled pixels alone IoU = Dice/(2 − Dice).
        """
        counts = self.counts if chosen is None else self.counts[chosen]
        dice, iou, right = overlap(counts)
        pooled = [float(score[0]) for score in overlap(counts.sum(axis=0)[None])]
        return {
            "dice": float(dice.mean()),
            "iou": float(iou.mean()),
            "pixel_accuracy": float(right.mean()),
            "dice_pooled": pooled[0],
            "iou_pooled": pooled[1],
            "pixel_accuracy_pooled": pooled[2],
        }

    def rows(self) -> list[dict[str, Any]]:
        """Name, group, the three scores and the counts behind them."""
        scores = overlap(self.counts)
        return [
            {
                "name": self.names[i],
                "group": self.groups[i],
                **{key: float(score[i]) for key, score in zip(("dice", "iou", "pixel_accuracy"), scores, strict=True)},
                **{key: int(count) for key, count in zip(COUNTS, self.counts[i], strict=True)},
            }
            for i in range(len(self.names))
        ]


def overlap(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Dice, IoU and pixel accuracy, (n,) each, of counts (n, 4) as in `COUNTS`; 1 where both masks are empty."""
    true, extra, missed, rest = counts.astype(np.float64).T
    wrong = extra + missed
    one = np.ones_like(true)
    dice = np.divide(2 * true, 2 * true + wrong, out=one.copy(), where=true + wrong > 0)
    iou = np.divide(true, true + wrong, out=one, where=true + wrong > 0)
    return dice, iou, (true + rest) / (true + wrong + rest)


@dataclass(frozen=True)
class Line:
    """One score of one normalizer, over the seeds of training.

    Attributes:
        data, normalizer, transductive, pretrained: as the results say.
        score: which; higher is better, of all of them.
        mean, sd: over seeds; the deviation of a sample, NaN for one seed.
        low, high: 95 % bootstrap interval of the mean over seeds: patients or slides are drawn anew. NaN for one.
        seeds: how many.
        images, groups: how many images, and patients or slides, were tested.
    """

    data: str
    normalizer: str
    transductive: bool
    pretrained: bool
    score: str
    mean: float
    sd: float
    low: float
    high: float
    seeds: int
    images: int
    groups: int


def summarize(results: Sequence[TaskResult], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Line]:
    """A line for every score of models that differ in their seeds alone, tested on the same images.

    The interval says how sure the mean is for other patients of this kind; the spread over seeds says what training
    by itself changes. Resamples in which a score does not exist, as a class is missing, are left out of its interval.

    Args:
        results: of one normalizer.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: there is none, or they are of different images or normalizers.
    """
    if not results:
        raise InputError("got no results; wanted one or more")
    first = results[0]
    for other in results:
        if (other.names, other.groups, other.normalizer, other.data) != (
            first.names,
            first.groups,
            first.normalizer,
            first.data,
        ):
            raise InputError("got results of different images or normalizers; wanted those of several seeds")
    values = [result.scores() for result in results]
    groups = sorted(set(first.groups))
    drawn = _resampled(results, groups, resamples, seed) if len(groups) > 1 else {}
    lines = []
    for score in values[0]:
        known = np.array([each[score] for each in values])
        resampled = drawn.get(score, np.empty(0))
        resampled = resampled[np.isfinite(resampled)]
        low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (math.nan, math.nan)
        lines.append(
            Line(
                data=first.data,
                normalizer=first.normalizer,
                transductive=first.transductive,
                pretrained=first.training.pretrained,
                score=score,
                mean=float(known.mean()),
                sd=float(known.std(ddof=1)) if len(known) > 1 else math.nan,
                low=float(low),
                high=float(high),
                seeds=len(results),
                images=len(first.names),
                groups=len(groups),
            )
        )
    return lines


def _resampled(
    results: Sequence[TaskResult], groups: Sequence[str], resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Each score's mean over seeds, for groups drawn with replacement."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(np.array(results[0].groups) == group) for group in groups]
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        chosen = np.concatenate([members[i] for i in generator.integers(len(groups), size=len(groups))])
        scores = [result.scores(chosen) for result in results]
        for score in scores[0]:
            drawn.setdefault(score, []).append(float(np.mean([each[score] for each in scores])))
    return {score: np.array(values) for score, values in drawn.items()}


def _auc(labels: NDArray[np.int64], said: NDArray[np.float64]) -> float:
    present = np.unique(labels)
    if len(present) < 2:
        return math.nan
    positives = [1] if said.shape[1] == 2 else present
    return float(np.mean([tasks.auc(labels == index, said[:, index]) for index in positives]))
