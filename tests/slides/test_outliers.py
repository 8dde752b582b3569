"""The score of how far a slide lies from the cohort's median: planted outliers are found, and hide nobody else."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import median_abs_deviation

from restain.slides.outliers import OUTLIER, scores


def cohort(count: int, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {
            "white_point": (240 + random.normal(0, 4, 3)).tolist(),
            "white_origin": "glass",
            "tissue_pixels": float(random.integers(1, 10**9)),
            "fallback": "",
            "stain_matrix": (
                np.array([[0.61, 0.74, 0.28], [0.09, 0.95, 0.26]]) + random.normal(0, 0.02, (2, 3))
            ).tolist(),
            "max_concentrations": (np.array([1.5, 0.8]) + random.normal(0, 0.1, 2)).tolist(),
        }
        for _ in range(count)
    ]


def test_against_the_formula() -> None:
    """One field, five numbers: |x − median| / (1.4826·MAD), with SciPy's MAD."""
    values = [10.0, 11.0, 12.0, 14.0, 40.0]
    found = scores([{"angle": value} for value in values])
    spread = median_abs_deviation(values, scale="normal")
    wanted = [abs(value - 12.0) / spread for value in values]
    assert [score.value for score in found if score] == pytest.approx(wanted, rel=1e-4)
    assert [bool(score and score.outlier) for score in found] == [False, False, False, False, True]


@pytest.mark.parametrize("field", ["white_point", "stain_matrix", "max_concentrations"])
def test_planted_outliers_are_found_and_named(field: str) -> None:
    """A third of the cohort is off; a mean and a standard deviation would take it for normal."""
    slides = cohort(30)
    for slide in slides[:10]:
        slide[field] = (
            np.array(slide[field]) + {"white_point": 40, "stain_matrix": 0.25, "max_concentrations": 1.2}[field]
        ).tolist()
    found = scores(slides)
    assert all(score is not None and score.outlier and score.field == field for score in found[:10])
    assert sum(bool(score and score.outlier) for score in found[10:]) <= 2


def test_few_of_an_ordinary_cohort_are_marked() -> None:
    found = [score for score in scores(cohort(1000)) if score]
    assert len(found) == 1000
    assert np.mean([score.outlier for score in found]) < 0.01


def test_slides_that_are_all_alike_have_no_outliers() -> None:
    """A tenth of a grey level is not seen, however alike the others are."""
    slides = [dict(cohort(1)[0]) for _ in range(20)]
    slides[3] = slides[3] | {"white_point": [level + 0.5 for level in slides[3]["white_point"]]}
    found = scores(slides)
    assert all(score is not None and not score.outlier for score in found)
    assert found[0] is not None
    assert found[0].value == 0


def test_how_much_tissue_there_is_is_no_matter() -> None:
    slides = cohort(20)
    before = scores(slides)
    slides[0]["tissue_pixels"] = 1e12
    assert scores(slides) == before


def test_what_was_not_measured_has_no_score_and_no_say() -> None:
    slides = cohort(20)
    before = scores(slides)
    stand_in = cohort(1)[0] | {"fallback": "nothing to see", "white_point": [1.0, 1.0, 1.0]}
    assert scores([*slides, stand_in, {}]) == [*before, None, None]


def test_glass_that_nobody_saw_is_no_look() -> None:
    slides = cohort(20)
    slides[0] |= {"white_origin": "prior", "white_point": [1.0, 1.0, 1.0]}
    first = scores(slides)[0]
    assert first is not None
    assert not first.outlier
    assert scores([slide | {"white_origin": "prior"} for slide in slides]) != scores(slides)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few(count: int) -> None:
    assert scores(cohort(count)) == [None] * count
    assert OUTLIER == 3.5
