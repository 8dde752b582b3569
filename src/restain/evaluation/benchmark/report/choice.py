"""Which images are shown: the worst cases first, by the metric that says most, then a typical one and the best."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import COHORT, Evaluation, Row
from restain.evaluation.benchmark.report.words import entry_of
from restain.evaluation.benchmark.samples import Sample

_FIRST = (("ssim", "target"), ("psnr", "target"), ("ssim", "source"), ("gradient_correlation", "source"))
_FROM_BELOW = 4
"""From so many examples on, the last two are a typical image and the best: six disasters alone would mislead too."""


@dataclass(frozen=True)
class Choice:
    """An image to show.

    Attributes:
        sample: the image.
        place: its place from the worst, 1 for the worst; 0 where nothing orders the images.
        values: the main metric of each contender that has a number.
    """

    sample: Sample
    place: int
    values: Mapping[str, float]


def main_metric(rows: Iterable[Row]) -> tuple[str, str] | None:
    """(suite, label) of the metric that images are ordered by; None where none says which way is better."""
    known = dict.fromkeys((row.suite, row.metric) for row in rows if row.image != COHORT and math.isfinite(row.value))
    of_use = [key for key in known if entry_of(*key).of.higher_is_better is not None]
    for metric, against in _FIRST:
        for key in of_use:
            if (entry_of(*key).metric, entry_of(*key).against) == (metric, against):
                return key
    return of_use[0] if of_use else None


def choose(evaluation: Evaluation, count: int) -> list[Choice]:
    """Up to `count` images, the one with the worst output of any method first."""
    samples, key = list(evaluation.samples), main_metric(evaluation.rows)
    count = min(max(count, 0), len(samples))
    if key is None:
        return [Choice(sample, 0, {}) for sample in evenly(samples, count)]
    values: dict[str, dict[str, float]] = {}
    for row in evaluation.rows:
        if (row.suite, row.metric) == key and math.isfinite(row.value):
            values.setdefault(row.image, {})[row.method] = row.value
    sign = 1.0 if entry_of(*key).of.higher_is_better else -1.0

    def worst(sample: Sample) -> float:
        """Of the methods; images without a number come last."""
        found = values.get(sample.name, {})
        return min((sign * v for name, v in found.items() if name != RAW or len(found) == 1), default=math.inf)

    ordered = sorted(samples, key=worst)
    places = {sample.name: place for place, sample in enumerate(ordered, 1) if math.isfinite(worst(sample))}
    shown = ordered[:count]
    if count >= _FROM_BELOW and count < len(places):
        shown = [*ordered[: count - 2], ordered[max(count - 2, len(places) // 2)], ordered[len(places) - 1]]
    unique = list(dict.fromkeys(sample.name for sample in shown))
    by_name = {sample.name: sample for sample in samples}
    return [Choice(by_name[name], places.get(name, 0), values.get(name, {})) for name in unique]


def evenly(items: Sequence[Sample], count: int) -> list[Sample]:
    """Up to `count` of the items, evenly spaced, in their order."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]
