"""What a normalized image is for: scores of classifiers and segmentations, on labels and masks rather than colours."""

from typing import Any, Literal, get_args

import numpy as np

from restain.errors import InputError
from restain.evaluation.metrics.inputs import Floats, Mask

Average = Literal["macro", "micro", "weighted"]


def auc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative; ties count half. Higher is better.

    Give scores, not decisions: of labels thresholded at 0.5 it is the balanced accuracy, which is what StainNet's
    repository reports as AUC.

    Args:
        labels: (n,) bool or 0/1.
        scores: (n,) numbers, larger for the positive class.

    Raises:
        InputError: shapes differ, a score is not finite, labels are not 0/1, or a class is missing.
    """
    truth, values = np.asarray(labels), np.asarray(scores, np.float64)
    if truth.ndim != 1 or truth.shape != values.shape or not np.isin(truth, (0, 1)).all():
        raise InputError(f"got labels {truth.shape} and scores {values.shape}; wanted (n,) of 0/1 and (n,) numbers")
    if not np.isfinite(values).all():
        raise InputError("got scores that are NaN or infinite; wanted finite ones")
    positive = truth == 1
    number, others = int(positive.sum()), int((~positive).sum())
    if not number or not others:
        raise InputError("got labels of one class only; AUC needs both")
    _, rank, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2  # of tied scores
    return float((mean_rank[rank[positive]].sum() - number * (number + 1) / 2) / (number * others))


def accuracy(labels: Any, predictions: Any) -> float:
    """Share of predictions that are right; higher is better. On uneven classes see `balanced_accuracy`."""
    return float(np.trace(confusion(labels, predictions)) / np.size(labels))


def balanced_accuracy(labels: Any, predictions: Any) -> float:
    """Mean over the classes that occur of the share found (recall); higher is better."""
    matrix = confusion(labels, predictions)
    occurring = matrix.sum(axis=1) > 0
    return float((np.diag(matrix)[occurring] / matrix.sum(axis=1)[occurring]).mean())


def precision(labels: Any, predictions: Any, *, average: Average = "macro") -> float:
    """Of what was called a class, the share that is; higher is better. 0 for a class that was never called."""
    return _averaged(labels, predictions, average)[0]


def recall(labels: Any, predictions: Any, *, average: Average = "macro") -> float:
    """Of a class, the share that was found; higher is better. 0 for a class that only was predicted."""
    return _averaged(labels, predictions, average)[1]


def f1(labels: Any, predictions: Any, *, average: Average = "macro") -> float:
    """Harmonic mean of precision and recall of each class, averaged; higher is better.

    "macro" weighs classes alike (taken where papers do not say, as DSTGAN), "weighted" by how often they occur, "micro"
    pools all decisions and is then the accuracy.
    """
    return _averaged(labels, predictions, average)[2]


def confusion(labels: Any, predictions: Any) -> Floats:
    """Counts (k, k): rows are true classes, columns predicted, in the sorted order of all values that occur."""
    truth, called = np.asarray(labels), np.asarray(predictions)
    if truth.ndim != 1 or truth.shape != called.shape or not truth.size:
        raise InputError(f"got labels {truth.shape} and predictions {called.shape}; wanted (n,) each, n of 1 or more")
    classes, codes = np.unique(np.concatenate([truth, called]), return_inverse=True)
    pairs = codes[: truth.size] * len(classes) + codes[truth.size :]
    return np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), -1).astype(np.float64)


def dice(reference: Any, mask: Any) -> float:
    """Dice coefficient 2·TP/(2·TP + FP + FN) of two masks, (H, W) bool; higher is better.

    1 where both are empty. Average it over images: pooled pixels give another number, for which alone
    IoU = Dice/(2 − Dice) holds. DSTGAN's are means over images.
    """
    first, second = _masks(reference, mask)
    total = first.sum() + second.sum()
    return float(2 * (first & second).sum() / total) if total else 1.0


def iou(reference: Any, mask: Any) -> float:
    """Intersection over union TP/(TP + FP + FN) of two masks, (H, W) bool; higher is better; 1 where both are empty."""
    first, second = _masks(reference, mask)
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def pixel_accuracy(reference: Any, mask: Any) -> float:
    """Share of pixels on which two masks, (H, W) bool, agree; higher is better, high where there is little."""
    first, second = _masks(reference, mask)
    return float((first == second).mean())


def _averaged(labels: Any, predictions: Any, average: Average) -> tuple[float, float, float]:
    if average not in get_args(Average):
        raise InputError(f"got average={average!r}; wanted one of {', '.join(get_args(Average))}")
    matrix = confusion(labels, predictions)
    right, called, occurring = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    if average == "micro":
        share = float(right.sum() / occurring.sum())
        return share, share, share
    scores = [_divided(right, called), _divided(right, occurring), _divided(2 * right, called + occurring)]
    weights = occurring if average == "weighted" else None
    first, second, third = (float(np.average(score, weights=weights)) for score in scores)
    return first, second, third


def _divided(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _masks(reference: Any, mask: Any) -> tuple[Mask, Mask]:
    first, second = np.asarray(reference), np.asarray(mask)
    if first.dtype != np.bool_ or second.dtype != np.bool_ or first.shape != second.shape or first.ndim != 2:
        raise InputError(
            f"got masks of {first.dtype} {first.shape} and {second.dtype} {second.shape}; wanted two of bool (H, W)"
        )
    if not first.size:
        raise InputError("got masks without pixels; wanted at least one")
    return first, second
