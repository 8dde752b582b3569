"""What became of the glass: maps of its tint, amplified, and a table of how far it lies from the wanted colour."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import RestainError
from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import COHORT, Evaluation, wanted_white
from restain.evaluation.benchmark.report.figures import plot
from restain.evaluation.benchmark.report.markup import MISSING, number, paragraph, picture, shrunk, table, tag, text
from restain.evaluation.benchmark.samples import Sample
from restain.evaluation.metrics.background import background_mask
from restain.evaluation.metrics.inputs import gray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AMPLIFIED = 8
"""How many times a tint is enlarged around middle gray: 16 levels reach the end of the scale, and 2 are seen."""

FULL = 127 / AMPLIFIED
"""Levels at which an amplified channel is full, and the end of the scale of amounts."""

SMOOTHED = 1.5
"""Pixels (σ) that a tint is smoothed by, within the glass: the eye does so, and sensor noise is no tint."""

SHOWN = 400


@dataclass(frozen=True)
class _Tint:
    signed: RGB8
    amount: RGB8
    shift: NDArray[np.float64]
    """Mean of the glass minus what was wanted, R, G, B."""


def draw_glass(evaluation: Evaluation, sample: Sample | None) -> str:
    """The maps of one image, where some image shows glass, and the table."""
    return (_maps(evaluation, sample) if sample is not None else _NO_GLASS) + _shifts(evaluation)


_NO_GLASS = paragraph("None of the images that were looked at shows glass, so its tint cannot be shown.")


def _maps(evaluation: Evaluation, sample: Sample) -> str:
    try:
        source = sample.read().source
    except (RestainError, OSError) as error:
        return paragraph(f"{text(sample.name)} could not be read again: {text(error)}.")
    glass = background_mask(source, find_white_point(ColorHistogram.from_image(source)).level)
    figures = []
    every = [wanted_white(contender) for contender in evaluation.contenders if contender.name != RAW]
    # What the raw glass looks like beside the white that all methods were to give it, where there is one.
    shared = every[0] if every and all(w is not None and np.array_equal(w, every[0]) for w in every) else None
    for contender in evaluation.contenders:
        wanted = shared if contender.name == RAW else wanted_white(contender)
        aim = source[glass].mean(axis=0) if wanted is None else np.broadcast_to(np.asarray(wanted, np.float64), (3,))
        output = evaluation.output(contender, source)
        tint = _tint(output, glass, aim)
        name = "source (raw)" if contender.name == RAW else contender.name
        levels = ", ".join(f"{'+' if v >= 0.05 else ''}{number(float(v), 1)}" for v in tint.shift)
        caption = tag("figcaption", text(name) + tag("span", levels, class_="value"))
        label = f"{sample.name}, {name}: tint of the glass"
        maps = picture(tint.signed, label, exact=True), picture(tint.amount, f"{label}, amount", exact=True)
        figures.append(tag("figure", caption + "".join(tag("div", each, class_="whole") for each in maps)))
    aims = (
        f"{_rgb(shared)} for all, the raw image too"
        if shared is not None
        else "the reference’s white where a method matches glass, 255 where it whitens it, and else the source’s own"
    )
    columns = max(3, min(len(figures), 6))
    style = f"grid-template-columns: repeat({columns}, minmax(0, 1fr))"
    grid = tag("div", "".join(figures), class_="grid", style=style)
    return (
        paragraph(
            f"Glass of {text(sample.name)}; tissue is faded. Above: output minus wanted white, enlarged {AMPLIFIED} "
            "times around middle gray, so that gray is right and a tint shows in its own colour. Below: the amount, "
            f"mean absolute difference of R, G and B. Both are smoothed by {SMOOTHED:g} pixels. Beside the names: mean "
            f"difference of R, G and B over the glass, in levels of 255. Wanted is {aims}."
        )
        + tag("div", grid, class_="card")
        + _scales()
    )


def _tint(output: RGB8, glass: NDArray[np.bool_], aim: NDArray[np.float64]) -> _Tint:
    from matplotlib import colormaps
    from scipy import ndimage

    raw_difference = output.astype(np.float64) - aim
    weight = ndimage.gaussian_filter(glass.astype(np.float64), SMOOTHED)[..., None]
    within = np.where(glass[..., None], raw_difference, 0.0)
    difference = ndimage.gaussian_filter(within, (SMOOTHED, SMOOTHED, 0)) / np.maximum(weight, 1e-6)
    # Whiter than the darkest tint, so that tissue is recognized but not taken for glass.
    faded = np.repeat((215 + gray(output) * (40 / 255))[..., None], 3, axis=2)
    signed = np.where(glass[..., None], 127.5 + AMPLIFIED * difference, faded)
    share = np.clip(np.abs(difference).mean(axis=2) / FULL, 0, 1)
    amount = np.where(glass[..., None], 255 * colormaps["viridis"](share)[..., :3], faded)
    both = [shrunk(np.clip(np.rint(each), 0, 255).astype(np.uint8), SHOWN) for each in (signed, amount)]
    return _Tint(both[0], both[1], raw_difference[glass].mean(axis=0))


def _scales() -> str:
    def draw(figure: "Figure") -> None:
        from matplotlib import colormaps

        left, right = figure.subplots(1, 2)
        levels = np.linspace(-FULL, FULL, 128)
        rows = []
        for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
            rows.append(127.5 + AMPLIFIED * levels[:, None] * np.array(weights))
        left.imshow(np.clip(rows, 0, 255) / 255, extent=(-FULL, FULL, 4, 0), aspect="auto", interpolation="nearest")
        left.set_yticks([0.5, 1.5, 2.5, 3.5], ["R", "G", "B", "all"])
        left.set_xlabel("levels from the wanted white", fontsize=8.5)
        right.imshow(colormaps["viridis"](np.linspace(0, 1, 128))[None], extent=(0, FULL, 1, 0), aspect="auto")
        right.set_yticks([])
        right.set_xlabel("amount: mean absolute difference, levels", fontsize=8.5)

    return plot("glass-scales", 12, 1.05, "Scales of the maps", draw)


def _shifts(evaluation: Evaluation) -> str:
    by_method: dict[str, list[tuple[float, str]]] = {}
    for row in evaluation.rows:
        if row.metric == "background_shift" and row.image != COHORT and math.isfinite(row.value):
            by_method.setdefault(row.method, []).append((row.value, row.image))
    if not by_method:
        return ""
    rows = []
    for contender in evaluation.contenders:
        found = by_method.get(contender.name, [])
        values = np.array([value for value, _ in found])
        worst = max(found, default=(math.nan, ""))
        wanted = wanted_white(contender)
        rows.append(
            [
                text(contender.name),
                "the source’s own" if wanted is None else _rgb(wanted),
                number(float(values.mean()), 2) if len(values) else MISSING,
                f"{number(worst[0], 2)} {tag('span', text(worst[1]), class_='small')}" if found else MISSING,
                str(len(values)),
            ]
        )
    head = ["", "wanted white (R, G, B)", "mean shift, levels", "worst image", "images with glass"]
    return tag("h3", "Background shift") + table(head, rows, "compact")


def _rgb(level: Sequence[float] | NDArray[np.float64]) -> str:
    return ", ".join(number(float(value), 0) for value in np.broadcast_to(np.asarray(level, np.float64), (3,)))
