"""Who leads by a metric, who cannot be told from the leader, and who beats the raw images: the stuff of sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import COHORT, Row
from restain.evaluation.benchmark.report.words import Words, entry_of, words_for
from restain.evaluation.benchmark.summary import Line, observations

Status = Literal["better", "worse", "same", "unclear", "untested"]
"""Against the raw images: "same" where most images have the very same value, "unclear" where a test found no
difference that chance could not make, "untested" where there were too few images for one."""

SIGNIFICANT = 0.05
"""As in `Line.better`."""

FIRST = {
    "target": ("ssim", "psnr", "lpips", "stain_angle"),
    "source": ("gradient_correlation", "ssim", "pcc", "ssim_stretched"),
}
"""Metrics that sentences are about, where they were measured: a table of twenty says no more than the first few."""

MOST_HEADLINES = {"target": 3, "source": 2}


@dataclass(frozen=True)
class Duel:
    """The leader beside another method, on the images that both have."""

    other: str
    behind: float
    """How far the other's mean is behind, not negative."""
    nearer: int
    """Images, or slides where they are the observations, on which the leader is better."""
    count: int
    """Those on which they differ; 0 where that is not known."""
    told_apart: bool
    """Whether a sign test at 5 % tells them apart; without the images' values, whether they are an sd apart."""


@dataclass(frozen=True)
class Standing:
    """One metric: its lines, its leader among the methods, and the leader beside each other one."""

    suite: str
    metric: str
    words: Words
    lines: Mapping[str, Line]
    leader: str
    duels: Sequence[Duel]

    @property
    def raw(self) -> Line | None:
        """The raw images' line, where they have a mean."""
        line = self.lines.get(RAW)
        return line if line is not None and math.isfinite(line.mean) else None

    @property
    def last(self) -> str:
        """The method with the worst mean."""
        return self.duels[-1].other if self.duels else self.leader

    @property
    def tested(self) -> list[str]:
        """The methods, raw apart, that have a mean."""
        return [name for name, line in self.lines.items() if name != RAW and math.isfinite(line.mean)]

    @property
    def leaders(self) -> list[str]:
        """The leader, and those that cannot be told from it."""
        return [self.leader, *(duel.other for duel in self.duels if not duel.told_apart)]

    def status(self, method: str) -> Status:
        """How a method stands against the raw images."""
        return status_of(self.lines[method])


def status_of(line: Line) -> Status:
    """How a method stands against the raw images by one metric."""
    if line.better is not None:
        return "better" if line.better else "worse"
    if line.difference == 0 and line.count > 1:
        return "same"
    return "untested" if math.isnan(line.p_holm) else "unclear"


def by_metric(lines: Sequence[Line]) -> dict[tuple[str, str], dict[str, Line]]:
    """(suite, metric) to method to line, in the order of the lines."""
    found: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines:
        found.setdefault((line.suite, line.metric), {})[line.method] = line
    return found


def distinct_metrics(lines: Sequence[Line], against: str | None = None) -> list[tuple[str, str]]:
    """The metrics that say which way is better and mean what they are called, each once however many suites have it.

    Args:
        lines: the summary.
        against: "source", "target" or "none"; None for all.
    """
    seen: set[tuple[object, ...]] = set()
    found = []
    for (suite, metric), methods in by_metric(lines).items():
        entry = entry_of(suite, metric)
        # Gray as piq rounds it or as OpenCV does is one metric to a reader.
        key = (entry.metric, entry.against, str(entry.options.get("color", ""))[:4], entry.options.get("stain"))
        of_use = next(iter(methods.values())).higher_is_better is not None and not entry.of.legacy
        if of_use and key not in seen and against in (None, entry.against):
            seen.add(key)
            found.append((suite, metric))
    return found


def standings(lines: Sequence[Line], rows: Sequence[Row], against: str) -> list[Standing]:
    """The metrics that sentences are about, the most telling first."""
    found, methods = [], by_metric(lines)
    order = FIRST[against]
    known = [key for key in distinct_metrics(lines, against) if entry_of(*key).metric in order]
    for suite, metric in sorted(known, key=lambda key: order.index(entry_of(*key).metric)):
        standing = _standing(suite, metric, methods[suite, metric], rows)
        if standing is not None:
            found.append(standing)
    return found[: MOST_HEADLINES[against]]


def _standing(suite: str, metric: str, lines: Mapping[str, Line], rows: Sequence[Row]) -> Standing | None:
    measured = {name: line for name, line in lines.items() if name != RAW and math.isfinite(line.mean)}
    if not measured:
        return None
    sign = 1.0 if next(iter(lines.values())).higher_is_better else -1.0
    ordered = sorted(measured, key=lambda name: -sign * measured[name].mean)
    leader = ordered[0]
    values: dict[str, dict[str, float]] = {}
    own = [row for row in rows if (row.suite, row.metric) == (suite, metric) and row.image != COHORT]
    for method in lines:
        finite = [row for row in own if row.method == method and math.isfinite(row.value)]
        values[method] = {name: sign * value for name, value in observations(finite).items()}
    duels = [_duel(measured[leader], measured[other], values) for other in ordered[1:]]
    return Standing(suite, metric, words_for(suite, metric), lines, leader, duels)


def _duel(leader: Line, other: Line, values: Mapping[str, Mapping[str, float]]) -> Duel:
    behind = abs(leader.mean - other.mean)
    first, second = values.get(leader.method, {}), values.get(other.method, {})
    differences = [first[name] - second[name] for name in first if name in second]
    nearer, count = sum(d > 0 for d in differences), sum(d != 0 for d in differences)
    if differences:
        from scipy.stats import binomtest

        told_apart = count > 0 and nearer > count / 2 and binomtest(nearer, count).pvalue < SIGNIFICANT
    else:
        told_apart = behind > max((sd for sd in (leader.sd, other.sd) if math.isfinite(sd)), default=math.inf)
    return Duel(other.method, behind, nearer, count, bool(told_apart))
