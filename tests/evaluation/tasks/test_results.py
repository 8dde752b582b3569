"""Scores of tests against scikit-learn and by hand; their intervals where they are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn

from restain.errors import InputError
from restain.evaluation.metrics import tasks

pytest.importorskip("torch")

from restain.evaluation.tasks.models import Training
from restain.evaluation.tasks.results import ClassificationResult, SegmentationResult, overlap, summarize

FACTS = {
    "data": "test",
    "normalizer": "raw",
    "transductive": False,
    "settings": {},
    "training": Training("train", 1, (), 0, False),
}


def classified(labels, probabilities, groups=None) -> ClassificationResult:
    said = np.asarray(probabilities, np.float64)
    names = tuple(map(str, range(len(said))))
    return ClassificationResult(
        **FACTS,
        names=names,
        groups=names if groups is None else tuple(groups),
        classes=tuple("abcd"[: said.shape[1]]),
        labels=np.asarray(labels, np.int64),
        probabilities=said,
    )


def by_chance(count: int, classes: int, seed: int = 0) -> ClassificationResult:
    generator = np.random.default_rng(seed)
    said = generator.dirichlet(np.ones(classes), count)
    return classified(generator.integers(0, classes, count), said)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_scores_are_scikit_learns(classes: int) -> None:
    result = by_chance(60, classes)
    called = result.probabilities.argmax(1)
    several = {} if classes == 2 else {"multi_class": "ovr", "average": "macro"}
    said = result.probabilities[:, 1] if classes == 2 else result.probabilities
    wanted = {
        "accuracy": sklearn.accuracy_score(result.labels, called),
        "balanced_accuracy": sklearn.balanced_accuracy_score(result.labels, called),
        "auc": sklearn.roc_auc_score(result.labels, said, **several),
        "precision": sklearn.precision_score(result.labels, called, average="macro"),
        "f1": sklearn.f1_score(result.labels, called, average="macro"),
    }
    each = sklearn.f1_score(result.labels, called, average=None)
    wanted |= {f"f1_{name}": value for name, value in zip(result.classes, each, strict=True)}
    assert result.scores() == pytest.approx(wanted)


def test_the_auc_is_of_scores_and_not_of_decisions() -> None:
    """All are called the first class, and yet they are in the right order."""
    result = classified([0, 0, 1, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    assert result.scores()["auc"] == 1
    assert result.scores()["balanced_accuracy"] == 0.5


def test_scores_that_do_not_exist_are_nan() -> None:
    scores = classified([0, 0], [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]).scores()
    assert math.isnan(scores["auc"])
    assert math.isnan(scores["f1_c"])
    assert scores["f1_b"] == 0


def segmented(counts, groups=None) -> SegmentationResult:
    names = tuple(map(str, range(len(counts))))
    groups = names if groups is None else tuple(groups)
    return SegmentationResult(**FACTS, names=names, groups=groups, counts=np.asarray(counts, np.int64))


def test_overlaps_are_the_metrics() -> None:
    generator = np.random.default_rng(0)
    masks = [generator.random((2, 8, 9)) < share for share in (0.0, 0.2, 0.5, 0.9)]
    masks.append(np.stack([np.ones((8, 9), bool), np.zeros((8, 9), bool)]))
    counts = [[(t & f).sum(), (~t & f).sum(), (t & ~f).sum(), (~t & ~f).sum()] for t, f in masks]
    ours = overlap(np.array(counts))
    for score, metric in zip(ours, (tasks.dice, tasks.iou, tasks.pixel_accuracy), strict=True):
        assert score.tolist() == pytest.approx([metric(*pair) for pair in masks])
    assert ours[0][0] == 1  # both empty


def test_means_of_pictures_beside_pooled_pixels() -> None:
    scores = segmented([[10, 0, 10, 80], [1, 0, 0, 99]]).scores()
    assert scores["dice"] == pytest.approx((2 * 10 / 30 + 1) / 2)
    assert scores["dice_pooled"] == pytest.approx(2 * 11 / (22 + 10))
    assert scores["iou_pooled"] == pytest.approx(scores["dice_pooled"] / (2 - scores["dice_pooled"]))
    assert scores["iou"] == pytest.approx((0.5 + 1) / 2)
    assert scores["pixel_accuracy"] == scores["pixel_accuracy_pooled"] == pytest.approx(190 / 200)


# ---- over seeds -------------------------------------------------------------------------------------------------


def test_mean_and_spread_over_seeds() -> None:
    right = [[0.9, 0.1], [0.1, 0.9]]
    results = [classified([0, 1, 0, 1], [right[c] for c in called]) for called in ([0, 1, 0, 1], [0, 1, 0, 0])]
    line = next(line for line in summarize(results, resamples=20) if line.score == "accuracy")
    assert (line.mean, line.seeds, line.images, line.groups) == (0.875, 2, 4, 4)
    assert line.sd == pytest.approx(np.std([1, 0.75], ddof=1))


def test_the_interval_of_two_patients_is_all_that_can_be_drawn() -> None:
    """One is always right and one always wrong: accuracies 0, ½ and 1, with chances of ¼, ½ and ¼."""
    result = classified([0] * 6, [[1, 0]] * 3 + [[0, 1]] * 3, groups=["p"] * 3 + ["q"] * 3)
    line = next(line for line in summarize([result], resamples=400) if line.score == "accuracy")
    assert (line.low, line.mean, line.high) == (0, 0.5, 1)


def test_the_interval_of_many_patients_is_the_normal_one() -> None:
    generator = np.random.default_rng(1)
    right = generator.random(400) < 0.7
    result = classified([0] * 400, [[1, 0] if each else [0, 1] for each in right])
    line = next(line for line in summarize([result], resamples=1000) if line.score == "accuracy")
    half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert (line.low, line.high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.1 * half)


def test_patients_are_drawn_and_not_images() -> None:
    """Forty images of four patients say no more than four do."""
    few = classified([0] * 4, [[1, 0], [1, 0], [1, 0], [0, 1]])
    many = classified(
        [0] * 40, np.repeat(few.probabilities, 10, axis=0), groups=[str(i) for i in range(4) for _ in range(10)]
    )
    first, second = (summarize([result], resamples=300)[0] for result in (few, many))
    assert (first.low, first.high) == (second.low, second.high)


def test_one_patient_has_no_interval_and_one_seed_no_spread() -> None:
    lines = summarize([segmented([[1, 1, 1, 1], [2, 0, 0, 2]], groups=["p", "p"])])
    assert all(math.isnan(value) for line in lines for value in (line.low, line.high, line.sd))
    assert not any(math.isnan(line.mean) for line in lines)


def test_the_same_seed_gives_the_same_interval() -> None:
    result = by_chance(20, 3)
    first, again, other = (summarize([result], resamples=50, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_results_that_do_not_belong_together_are_refused() -> None:
    result = by_chance(5, 2)
    with pytest.raises(InputError, match="one or more"):
        summarize([])
    for change in ({"normalizer": "macenko"}, {"names": tuple("vwxyz")}, {"data": "other"}):
        with pytest.raises(InputError, match="different"):
            summarize([result, replace(result, **change)])
