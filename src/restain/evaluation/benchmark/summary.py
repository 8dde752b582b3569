"""From the tidy table to what may be said: means with confidence intervals, and paired tests against the raw images."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import COHORT, Row
from restain.evaluation.metrics import METRICS, SUITES

RESAMPLES = 2000
LEAST_PAIRS = 6
"""Fewest differing images, or slides, for a paired test: with five, the smallest possible two-sided p is 0.06."""

LEAST_SLIDES = LEAST_PAIRS
"""Fewest slides that count as the observations; below, images do, and what is said holds for these slides only."""


@dataclass(frozen=True)
class Line:
    """One method by one metric, over images.

    Attributes:
        method, suite, metric: as in `Row`.
        higher_is_better: None where neither way is.
        mean, sd: over images with a finite value (sd of a sample); of metrics of all outputs, the value and NaN.
        low, high: 95 % bootstrap interval of the mean (percentiles); NaN for fewer than two images.
        count, missing: images with a finite value, and without.
        resampled: what the bootstrap drew: "slides", "images", or "" where there is none.
        difference: median of the paired differences to the raw images, or of their means over slides; NaN without.
        p: two-sided Wilcoxon signed-rank test of these differences; NaN where there are fewer than `LEAST_PAIRS`, and
            for comparisons with the source, by which the raw images are perfect and every change is worse.
        p_holm: the same, corrected for the number of methods (Holm 1979).
        tested: what counts as one observation in the test: "slides", "images", or "" where there is none.
        rank: mean rank among methods over the images that all have (1 is best); NaN where neither way is better.
    """

    method: str
    suite: str
    metric: str
    higher_is_better: bool | None
    mean: float
    sd: float
    low: float
    high: float
    count: int
    missing: int
    resampled: str
    difference: float
    p: float
    p_holm: float
    tested: str
    rank: float

    @property
    def better(self) -> bool | None:
        """Whether the raw images are beaten, at 5 % after correction; None where that cannot be said."""
        if self.higher_is_better is None or not self.p_holm < 0.05 or self.difference == 0:
            return None
        return (self.difference > 0) == self.higher_is_better


def summarize(rows: Sequence[Row], *, seed: int = 0) -> list[Line]:
    """A line for every method and metric, in the order of the table.

    Args:
        rows: the tidy table.
        seed: of the bootstrap.
    """
    by_metric: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_metric[row.suite, row.metric][row.method].append(row)
    lines = []
    for (suite, metric), by_method in by_metric.items():
        ranks = _ranks(by_method, _higher_is_better(suite, metric))
        tests = {method: _against_raw(found, by_method.get(RAW, [])) for method, found in by_method.items()}
        corrected = _holm({method: p for method, (_, p, _) in tests.items()})
        for method, found in by_method.items():
            values = np.array([row.value for row in found])
            finite = np.isfinite(values)
            low, high, resampled = _interval([row for row in found if math.isfinite(row.value)], seed)
            lines.append(
                Line(
                    method=method,
                    suite=suite,
                    metric=metric,
                    higher_is_better=_higher_is_better(suite, metric),
                    mean=float(values[finite].mean()) if finite.any() else math.nan,
                    sd=float(values[finite].std(ddof=1)) if finite.sum() > 1 else math.nan,
                    low=low,
                    high=high,
                    count=int(finite.sum()),
                    missing=int((~finite).sum()),
                    resampled=resampled,
                    difference=tests[method][0],
                    p=tests[method][1],
                    p_holm=corrected[method],
                    tested=tests[method][2],
                    rank=ranks.get(method, math.nan),
                )
            )
    return lines


def _higher_is_better(suite: str, metric: str) -> bool | None:
    return METRICS[SUITES[suite][metric].metric].higher_is_better


def _interval(rows: Sequence[Row], seed: int) -> tuple[float, float, str]:
    """Percentile bootstrap of the mean: of whole slides where there are enough, since images of one are alike."""
    if len(rows) < 2 or rows[0].image == COHORT:
        return math.nan, math.nan, ""
    values = np.array([row.value for row in rows])
    slides = sorted({row.slide for row in rows})
    generator = np.random.default_rng(seed)
    if "" not in slides and len(slides) >= LEAST_SLIDES:
        groups = [values[[row.slide == slide for row in rows]] for slide in slides]
        sums, sizes = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
        drawn = generator.integers(0, len(groups), (RESAMPLES, len(groups)))
        means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        resampled = "slides"
    else:
        means = values[generator.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
        resampled = "images"
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high), resampled


def observations(rows: Sequence[Row]) -> dict[str, float]:
    """The values of one method by one metric, by what counts as one observation.

    Where every image's slide is known and there are enough of them, that is a slide: the mean of its images, which are
    alike. Otherwise it is an image.
    """
    slides = {row.slide for row in rows}
    if "" in slides or len(slides) < LEAST_SLIDES:
        return {row.image: row.value for row in rows}
    by_slide: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_slide[row.slide].append(row.value)
    return {slide: float(np.mean(values)) for slide, values in sorted(by_slide.items())}


def _against_raw(rows: Sequence[Row], raw: Sequence[Row]) -> tuple[float, float, str]:
    """Median difference to the raw images, the p of Wilcoxon's signed-rank test of it, and what was tested."""
    before = {row.image: row.value for row in raw if row.image != COHORT}
    differences = [replace(row, value=row.value - before[row.image]) for row in rows if row.image in before]
    differences = [row for row in differences if math.isfinite(row.value)]
    if not differences or rows[0].method == RAW:
        return math.nan, math.nan, ""
    observed = observations(differences)
    values = np.array(list(observed.values()))
    median = float(np.median(values))
    if np.count_nonzero(values) < LEAST_PAIRS or _of_source(rows[0]):
        return median, math.nan, ""
    from scipy.stats import wilcoxon

    tested = "images" if observed.keys() == {row.image for row in differences} else "slides"
    return median, float(wilcoxon(values).pvalue), tested


def _of_source(row: Row) -> bool:
    """Whether the raw images are compared with themselves: then any change is worse, and a test says nothing."""
    return row.against == "source"


def _holm(p: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction over the methods that have a p."""
    tested = sorted((value, name) for name, value in p.items() if math.isfinite(value))
    corrected = dict.fromkeys(p, math.nan)
    largest = 0.0
    for position, (value, name) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - position)))
        corrected[name] = largest
    return corrected


def _ranks(by_method: dict[str, list[Row]], higher_is_better: bool | None) -> dict[str, float]:
    """Mean rank of each method over the images where all have a number; ties share."""
    from scipy.stats import rankdata

    if higher_is_better is None:
        return {}
    values = {method: {row.image: row.value for row in rows} for method, rows in by_method.items()}
    shared = [image for image in next(iter(values.values())) if all(image in each for each in values.values())]
    table: NDArray[np.float64] = np.array([[each[image] for each in values.values()] for image in shared])
    table = table[~np.isnan(table).any(axis=1)] if len(table) else table
    if not len(table):
        return {}
    ranks = rankdata(-table if higher_is_better else table, axis=1)
    return dict(zip(values, ranks.mean(axis=0).tolist(), strict=True))
