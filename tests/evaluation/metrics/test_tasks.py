"""Scores of classifiers and segmentations against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn

from restain.errors import InputError
from restain.evaluation.metrics import tasks

labels = hnp.arrays(np.int64, 30, elements=st.integers(0, 3))
binary = hnp.arrays(np.int64, 30, elements=st.integers(0, 1)).filter(lambda values: 0 < values.sum() < 30)
scores = hnp.arrays(np.float64, 30, elements=st.sampled_from([-1.0, 0.0, 0.1, 0.5, 0.7, 9.0]))
masks = hnp.arrays(np.bool_, (4, 5))


@given(binary, scores)
def test_auc(truth: np.ndarray, values: np.ndarray) -> None:
    assert tasks.auc(truth, values) == pytest.approx(sklearn.roc_auc_score(truth, values))


@given(binary, scores)
def test_the_auc_of_decisions_is_the_balanced_accuracy(truth: np.ndarray, values: np.ndarray) -> None:
    decisions = (values >= 0.5).astype(int)
    assert tasks.auc(truth, decisions) == pytest.approx(tasks.balanced_accuracy(truth, decisions))


@given(labels, labels, st.sampled_from(["macro", "micro", "weighted"]))
def test_scores_of_classes(truth: np.ndarray, called: np.ndarray, average: str) -> None:
    options = {"average": average, "zero_division": 0}
    assert tasks.precision(truth, called, average=average) == pytest.approx(
        sklearn.precision_score(truth, called, **options)
    )
    assert tasks.recall(truth, called, average=average) == pytest.approx(sklearn.recall_score(truth, called, **options))
    assert tasks.f1(truth, called, average=average) == pytest.approx(sklearn.f1_score(truth, called, **options))
    assert tasks.accuracy(truth, called) == pytest.approx(sklearn.accuracy_score(truth, called))
    np.testing.assert_array_equal(tasks.confusion(truth, called), sklearn.confusion_matrix(truth, called))


@given(labels, labels)
def test_balanced_accuracy(truth: np.ndarray, called: np.ndarray) -> None:
    recalls = [(called[truth == each] == each).mean() for each in np.unique(truth)]
    assert tasks.balanced_accuracy(truth, called) == pytest.approx(np.mean(recalls))


def test_names_are_labels_too() -> None:
    assert tasks.f1(np.array(["benign", "tumour"]), np.array(["benign", "benign"])) == pytest.approx((2 / 3 + 0) / 2)


@given(masks, masks)
def test_masks(first: np.ndarray, second: np.ndarray) -> None:
    dice, iou = tasks.dice(first, second), tasks.iou(first, second)
    assert iou == pytest.approx(dice / (2 - dice))
    if first.any() or second.any():
        assert dice == pytest.approx(sklearn.f1_score(first.ravel(), second.ravel(), zero_division=0))
        assert iou == pytest.approx(sklearn.jaccard_score(first.ravel(), second.ravel(), zero_division=0))
    assert tasks.pixel_accuracy(first, second) == pytest.approx((first == second).mean())


def test_empty_masks_agree() -> None:
    empty = np.zeros((3, 3), bool)
    assert tasks.dice(empty, empty) == tasks.iou(empty, empty) == 1
    assert tasks.dice(empty, ~empty) == tasks.iou(empty, ~empty) == 0


def test_means_of_images_are_not_pooled() -> None:
    """IoU = Dice/(2 − Dice) holds for one image, and not for means over images."""
    first = [np.array([[True, True, False]]), np.array([[True, False, False]])]
    second = [np.array([[True, False, False]]), np.array([[True, False, False]])]
    dice = np.mean([tasks.dice(a, b) for a, b in zip(first, second, strict=True)])
    iou = np.mean([tasks.iou(a, b) for a, b in zip(first, second, strict=True)])
    assert iou > dice / (2 - dice) + 0.01


@pytest.mark.parametrize(
    ("truth", "values"),
    [([0, 1], [0.5]), ([0, 2], [0, 1]), ([1, 1], [0, 1]), ([0, 1], [0, np.nan]), ([[0, 1]], [[0, 1]])],
)
def test_auc_refuses(truth, values) -> None:
    with pytest.raises(InputError):
        tasks.auc(truth, values)


def test_others_refuse() -> None:
    with pytest.raises(InputError, match="wanted"):
        tasks.accuracy([0, 1], [1])
    with pytest.raises(InputError, match="average"):
        tasks.f1([0, 1], [1, 1], average="none")
    with pytest.raises(InputError, match="bool"):
        tasks.dice(np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(InputError, match="wanted"):
        tasks.iou(np.zeros((3, 3), bool), np.zeros((3, 4), bool))
