"""Testing under a normalizer: what it gains, what is said with it, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restain
from restain.errors import InputError, OutputError
from restain.evaluation.datasets.item import Item

pytest.importorskip("torch")

from restain.evaluation.tasks import (
    ClassifierSettings,
    SegmenterSettings,
    evaluate_classifier,
    evaluate_segmenter,
    make_examples,
    summarize,
    train_classifier,
    train_segmenter,
    write_results,
)
from restain.evaluation.tasks.models import Classifier, Segmenter

from .making import SIDE, squares, tinted


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    settings = ClassifierSettings(
        network="squeezenet1_1", width=32, side=SIDE, weights="scratch", learning_rate=1e-3, batch_size=8, epochs=12
    )
    return train_classifier(tinted(24), settings, data="tinted noise")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return train_segmenter(
        squares(12), SegmenterSettings(width=4, side=SIDE, learning_rate=1e-2, batch_size=3, epochs=12)
    )


def swapped(image: np.ndarray) -> np.ndarray:
    """Red for blue: another scanner, and its own undoing."""
    return np.ascontiguousarray(image[..., ::-1])


def test_what_undoes_the_shift_gains_what_the_shift_cost(classifier: Classifier) -> None:
    test = tinted(16, seed=9)
    shifted = test.changed(swapped)
    wanted, raw, undone = (
        evaluate_classifier(classifier, *arguments) for arguments in ((test,), (shifted,), (shifted, swapped))
    )
    assert wanted.scores()["accuracy"] > 0.9
    assert raw.scores()["accuracy"] < 0.6
    assert np.array_equal(undone.probabilities, wanted.probabilities)
    assert [result.normalizer for result in (wanted, raw, undone)] == ["raw", "raw", "swapped"]


def test_items_are_read_normalized_and_tested(classifier: Classifier, tmp_path: Path) -> None:
    examples = tinted(4, seed=9)
    items = []
    for index, image in enumerate(examples.images):
        path = tmp_path / f"{index}.png"
        Image.fromarray(image).save(path)
        items.append(Item(path, "tints", f"slide {index}", label=examples.classes[examples.truth[index]]))
    result = evaluate_classifier(classifier, items)
    assert np.array_equal(result.probabilities, classifier.probabilities(examples.images))
    assert result.groups[0] == "tints: slide slide 0"
    normalizer = restain.Reinhard(background="none").fit(list(tinted(4).images))
    made = evaluate_classifier(classifier, items, normalizer, estimate="slide", transductive=True)
    assert (made.normalizer, made.transductive) == ("reinhard", True)
    assert not np.array_equal(made.probabilities, result.probabilities)


def test_patches_of_a_picture_are_pooled(segmenter: Segmenter) -> None:
    examples = squares(4, seed=9)
    found = segmenter.masks(examples.images)
    apart = evaluate_segmenter(segmenter, examples)
    assert apart.counts.sum(axis=1).tolist() == [SIDE * SIDE] * 4
    assert apart.counts[:, 0].tolist() == [int((a & b).sum()) for a, b in zip(found, examples.truth, strict=True)]
    assert apart.counts[:, 1].tolist() == [int((a & ~b).sum()) for a, b in zip(found, examples.truth, strict=True)]
    together = evaluate_segmenter(
        segmenter, type(examples)(**{**vars(examples), "pictures": ("p", "q", "p", "q"), "groups": ("p", "q") * 2})
    )
    assert together.names == together.groups == ("p", "q")
    assert np.array_equal(together.counts, apart.counts[:2] + apart.counts[2:])
    assert apart.scores()["dice"] > 0.8


def test_patients_of_the_training_are_refused(classifier: Classifier, segmenter: Segmenter) -> None:
    for evaluate, model, seen in (
        (evaluate_classifier, classifier, tinted(4)),
        (evaluate_segmenter, segmenter, squares(4)),
    ):
        with pytest.raises(InputError, match=r"0: patient 0 was in the training"):
            evaluate(model, seen)
        assert evaluate(model, seen, allow_leaks=True).names == seen.names


def test_other_tests_are_refused(classifier: Classifier, segmenter: Segmenter) -> None:
    with pytest.raises(InputError, match="classes"):
        evaluate_classifier(classifier, tinted(3, seed=9, classes=("x", "y")))
    with pytest.raises(InputError, match="masks"):
        evaluate_segmenter(segmenter, tinted(3, seed=9))
    with pytest.raises(InputError, match="needs its items"):
        evaluate_classifier(classifier, tinted(3, seed=9), swapped, estimate="slide")
    small = make_examples(np.zeros((1, 16, 16, 3), np.uint8), [0], ("rose", "blue"))
    with pytest.raises(InputError, match="trained on"):
        evaluate_classifier(classifier, small)


def test_results_are_written_with_all_that_must_be_said(
    classifier: Classifier, segmenter: Segmenter, tmp_path: Path
) -> None:
    result = evaluate_classifier(
        classifier, tinted(4, seed=9), swapped, name="swap", data="other tints", transductive=True
    )
    lines = summarize([result], resamples=10)
    write_results(tmp_path / "out", [result], lines)
    facts = json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]
    assert facts["scores"]["accuracy"] == result.scores()["accuracy"]
    told = {key: facts[key] for key in ("data", "normalizer", "transductive", "pretrained", "seed", "images", "groups")}
    assert told == {
        **{"data": "other tints", "normalizer": "swap", "transductive": True, "pretrained": False},
        **{"seed": 0, "images": 4, "groups": 2},
    }
    assert facts["settings"]["network"] == "squeezenet1_1"
    assert facts["training"] == {
        **{"data": "tinted noise", "images": 24, "groups": 12, "seed": 0, "pretrained": False},
    }
    with (tmp_path / "out" / "images.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["p_blue"]) for row in rows] == result.probabilities[:, 1].tolist()
    assert rows[1]["label"] == "blue"
    with (tmp_path / "out" / "summary.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert (first["score"], first["sd"], first["pretrained"]) == ("accuracy", "", "False")
    with pytest.raises(OutputError):
        write_results(tmp_path / "out", [result], lines)

    found = evaluate_segmenter(segmenter, squares(3, seed=9))
    write_results(tmp_path / "out", [found], summarize([found], resamples=10), overwrite=True)
    with (tmp_path / "out" / "images.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(found.scores()["dice"])
