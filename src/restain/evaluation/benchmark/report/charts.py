"""Ranks of the methods, and every metric's mean with its interval."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.report.figures import RAW_COLOR, Look, legend_of, plain_axes, plot
from restain.evaluation.benchmark.report.markup import paragraph
from restain.evaluation.benchmark.report.standings import by_metric, distinct_metrics
from restain.evaluation.benchmark.report.words import words_for
from restain.evaluation.benchmark.summary import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3

_PANELS = (
    ("target", "Nearness to the target"),
    ("source", "Tissue and glass left as they were"),
    ("none", "Images alike"),
)


def draw_ranks(lines: Sequence[Line], look: Mapping[str, Look]) -> str:
    """Mean rank of each method by each metric, a panel for each kind of comparison."""
    table = by_metric(lines)
    panels = []
    for against, title in _PANELS:
        ranked = [
            (words_for(*key).title, ranks)
            for key in distinct_metrics(lines, against)
            if (ranks := {n: line.rank for n, line in table[key].items() if math.isfinite(line.rank)})
        ]
        if ranked:
            panels.append((title, ranked))
    if not panels:
        return paragraph("No metric says which way is better, so there is nothing to rank.")
    methods = [name for name in look if any(name in ranks for _, ranked in panels for _, ranks in ranked)]

    def draw(figure: "Figure") -> None:
        for axes, (title, ranked) in zip(np.ravel(figure.subplots(1, len(panels), squeeze=False)), panels, strict=True):
            means = {n: np.mean([ranks[n] for _, ranks in ranked if n in ranks] or [math.inf]) for n in methods}
            order = sorted(methods, key=lambda name: (float(means[name]), methods.index(name)))
            for y, name in enumerate(order):
                single = [ranks[name] for _, ranks in ranked if name in ranks]
                if single:
                    axes.plot([min(single), max(single)], [y, y], color=look[name].color, linewidth=1, alpha=0.5)
                    axes.plot(single, [y] * len(single), "o", color=look[name].color, alpha=0.45, markersize=4)
                    _dot(axes, float(means[name]), y, look[name], 9)
            axes.set_yticks(range(len(order)), order)
            axes.set_ylim(len(order) - 0.5, -0.5)
            axes.set_xlim(0.8, len(methods) + 0.2)
            axes.set_xticks(range(1, len(methods) + 1))
            axes.set_title(title)
            axes.set_xlabel("\n".join(["mean rank, 1 is best", *_wrapped([name for name, _ in ranked])]))
            plain_axes(axes)

    most = max(len(_wrapped([name for name, _ in ranked])) for _, ranked in panels)
    height = 1.2 + 0.3 * len(methods) + 0.17 * most
    return plot("ranks", 4 * max(2, len(panels)), height, "Mean rank of each method", draw) + paragraph(
        "Large: mean over metrics; small: one metric, its mean rank over the images that all methods have. Metrics "
        "that several suites have count once, and those that reproduce a published error do not count. "
        "Beside its own source the raw image is first by definition.",
        "caption",
    )


def _wrapped(names: Sequence[str], width: int = 44) -> list[str]:
    rows = [""]
    for name in names:
        if rows[-1] and len(rows[-1]) + len(name) + 2 > width:
            rows.append("")
        rows[-1] += (" " if rows[-1] else "") + name + ","
    return [*rows[:-1], rows[-1].rstrip(",")]


def draw_intervals(lines: Sequence[Line], look: Mapping[str, Look]) -> str:
    """A panel for each metric: mean and 95 % interval of each method, raw as a line through all."""
    table = by_metric(lines)
    shown = [
        key
        for key in [
            *distinct_metrics(lines, "target"),
            *distinct_metrics(lines, "source"),
            *distinct_metrics(lines, "none"),
        ]
        if any(math.isfinite(line.mean) for line in table[key].values())
    ]
    if not shown:
        return ""
    rows = -(-len(shown) // COLUMNS)
    methods = [name for name in look if any(name in table[key] for key in shown)]

    def draw(figure: "Figure") -> None:
        every = np.ravel(figure.subplots(rows, COLUMNS, squeeze=False))
        for axes, key in zip(every, shown, strict=False):
            for y, name in enumerate(methods):
                line = table[key].get(name)
                if line is None or not math.isfinite(line.mean):
                    continue
                if name == RAW:
                    axes.axvline(line.mean, color=RAW_COLOR, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0)
                if math.isfinite(line.low) and math.isfinite(line.high):
                    axes.plot([line.low, line.high], [y, y], color=look[name].color, linewidth=2, alpha=0.8)
                _dot(axes, line.mean, y, look[name], 7)
            words = words_for(*key)
            better = "higher" if next(iter(table[key].values())).higher_is_better else "lower"
            axes.set_title(words.full_title)
            arrow = "→" if better == "higher" else "←"
            unit = f"{words.unit}, " if words.unit else ""
            axes.set_xlabel(f"{unit}{better} is better {arrow}", fontsize=8.5, color="#666666")
            axes.set_yticks(range(len(methods)), methods)
            axes.set_ylim(len(methods) - 0.5, -0.5)
            axes.margins(x=0.08)
            axes.locator_params(axis="x", nbins=5)
            plain_axes(axes)
        for axes in every[len(shown) :]:
            axes.set_visible(False)

    height = rows * (0.85 + 0.22 * len(methods))
    return plot("intervals", 12, height, "Mean and interval of each method by each metric", draw) + paragraph(
        "Dot: mean over images; bar: 95 % bootstrap interval of the mean, where there are two images or more; dashed: "
        "raw images. Intervals of two methods may overlap although one is ahead on nearly every image: the same "
        "images are compared, so read the tests.",
        "caption",
    )


def _dot(axes: Any, x: float, y: float, look: Look, size: float) -> None:
    axes.plot([x], [y], look.marker, color=look.color, markersize=size, markeredgecolor="white", markeredgewidth=0.8)


def draw_charts(lines: Sequence[Line], look: Mapping[str, Look]) -> str:
    """Both, with one legend."""
    return legend_of(list(look), dict(look)) + draw_ranks(lines, look) + draw_intervals(lines, look)
