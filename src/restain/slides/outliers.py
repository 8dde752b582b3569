"""How far each slide's appearance lies from the cohort's median: a robust score, in which outliers do not hide.

Every field of an appearance (white point, stain vectors, strengths, …) is compared by itself. The distance of a number
from the cohort's median is divided by its spread, 1.4826 times the median absolute deviation, which for a normal
distribution is the standard deviation and which a few odd slides do not change. A field's distance is the root mean
square over its numbers, the score the largest of the fields'. From 3.5 on a slide is called an outlier (Iglewicz and
Hoaglin 1993).

The spread counts as 1 % of the field's size at least (the root mean square of its medians), so that in a cohort of
slides that are all alike what cannot be seen is no outlier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTLIER = 3.5
LEAST_SLIDES = 5
"""Below, a median and a spread say nothing."""

LEAST_SPREAD = 0.01

_NO_LOOKS = frozenset(["tissue_pixels", "loss"])
"""Numbers of an appearance that do not say how a slide looks."""


@dataclass(frozen=True)
class Score:
    """How far a slide is from the others.

    Attributes:
        value: the score.
        field: of the appearance, that is furthest off.
        median: what the cohort has there, numbers in the order of the field's own.
    """

    value: float
    field: str
    median: tuple[float, ...]

    @property
    def outlier(self) -> bool:
        return self.value >= OUTLIER


def scores(appearances: Sequence[Mapping[str, Any]]) -> list[Score | None]:
    """The score of each appearance, given as plain values (`pipeline.describe`).

    None for one that could not be measured (it has a `fallback`, and takes no part in the medians), and for all where
    there are fewer than five.
    """
    numbers = [_numbers(item) for item in appearances]
    measured = [item for item in numbers if item is not None]
    if len(measured) < LEAST_SLIDES:
        return [None] * len(numbers)
    medians, spreads = {}, {}
    for name, shape in {name: value.shape for item in measured for name, value in item.items()}.items():
        column = np.array([item[name] for item in measured if name in item and item[name].shape == shape])
        medians[name] = np.median(column, axis=0)
        least = LEAST_SPREAD * float(np.sqrt(np.mean(medians[name] ** 2)))
        deviation = 1.4826 * np.median(np.abs(column - medians[name]), axis=0)
        spreads[name] = np.maximum(deviation, max(least, 1e-12))

    def score(item: Mapping[str, NDArray[np.float64]] | None) -> Score | None:
        distances = {
            name: float(np.sqrt(np.mean(((value - medians[name]) / spreads[name]) ** 2)))
            for name, value in (item or {}).items()
            if value.shape == medians[name].shape
        }
        if not distances:
            return None
        field = max(distances, key=lambda name: distances[name])
        return Score(distances[field], field, tuple(medians[field].tolist()))

    return [score(item) for item in numbers]


def _numbers(appearance: Mapping[str, Any]) -> dict[str, NDArray[np.float64]] | None:
    """The fields that are numbers, flat; None for what was not measured."""
    if not appearance or appearance.get("fallback"):
        return None
    unseen = {"white_point"} if appearance.get("white_origin", "glass") != "glass" else set()  # a guess is no look
    found = {}
    for name, value in appearance.items():
        if name in _NO_LOOKS | unseen or isinstance(value, (str, bool)) or value is None:
            continue
        try:
            array = np.asarray(value, np.float64).ravel()
        except (TypeError, ValueError):
            continue  # text, or lists of different lengths: not a quantity
        if array.size and np.isfinite(array).all():
            found[name] = array
    return found
