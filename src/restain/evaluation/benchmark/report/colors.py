"""Where colours went: densities of R, G and B in tissue, and the stain vectors as directions of absorption."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from restain.color.histogram import ColorHistogram
from restain.color.spaces import density_to_hsd, hsd_to_density
from restain.errors import EstimateWarning
from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.report.figures import TARGET, TARGET_LOOK, Look, legend_of, plain_axes, plot
from restain.evaluation.benchmark.report.gather import Floats, Gathered, Pool
from restain.evaluation.benchmark.report.markup import MISSING, counted, number, paragraph, table, tag, text
from restain.evaluation.metrics.stains import stain_vector_angles
from restain.methods.macenko import Macenko
from restain.methods.stain_vectors import StainAppearance, angle_between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHED = 2.0
"""Levels (σ) that histograms are smoothed by: a map of 8-bit colours leaves gaps, which would hide the curve."""

_STAINS = ("hematoxylin", "eosin")


def draw_histograms(gathered: Gathered, look: Mapping[str, Look]) -> str:
    """Three plots, one a channel, of all contenders and the target."""
    curves = [(name, _density(pool), look[name]) for name, pool in gathered.pools.items()]
    target = _density(gathered.target)
    if all(density is None for _, density, _ in curves):
        return paragraph("No tissue was found in the images, so there are no histograms.")

    def draw(figure: "Figure") -> None:
        for channel, axes in enumerate(figure.subplots(1, 3)):
            raw = next((density for name, density, _ in curves if name == RAW), None)
            if raw is not None:
                axes.fill_between(range(256), raw[channel], color=look[RAW].color, alpha=0.25, linewidth=0)
            for name, density, style in curves:
                if density is not None and name != RAW:
                    axes.plot(density[channel], color=style.color, linestyle=style.dash, linewidth=1.4)
            if target is not None:
                axes.plot(target[channel], color=TARGET_LOOK.color, linewidth=1.8)
            axes.set_title(("Red", "Green", "Blue")[channel])
            axes.set_xlim(0, 255)
            axes.set_xticks([0, 64, 128, 192])
            axes.set_ylim(bottom=0)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlabel("level", fontsize=8.5, color="#666666")
            plain_axes(axes)

    return (
        legend_of(list(look), dict(look), target=target is not None)
        + plot("histograms", 12, 2.7, "Densities of red, green and blue in tissue", draw)
        + paragraph(
            f"Pixels of tissue (found in the source, so the same for all) of {counted(gathered.pooled, 'image')}, "
            f"smoothed by {SMOOTHED:g} levels; gray area: raw. Agreement says that colours occur as often as in the "
            "target, not that they are in the right places.",
            "caption",
        )
    )


def _density(pool: Pool) -> Floats | None:
    from scipy import ndimage

    total = pool.levels[0].sum()
    if not total:
        return None
    smooth: Floats = ndimage.gaussian_filter1d(pool.levels / total, SMOOTHED, axis=1, mode="constant")
    return smooth


def draw_stains(gathered: Gathered, look: Mapping[str, Look]) -> str:
    """The stain vectors in the plane of hue and saturation of absorption, and a table of angles to the target's."""
    vectors = {name: stain_vectors(pool) for name, pool in gathered.pools.items()}
    target = stain_vectors(gathered.target)
    found = [(vectors[name], look[name], name) for name in vectors if vectors[name] is not None]
    if not found:
        return paragraph("The images hold too little stained tissue to measure stain vectors.")
    points = [(chroma(matrix), style, 80) for matrix, style, _ in found if matrix is not None]
    if target is not None:
        points.append((chroma(target), TARGET_LOOK, 170))
    every = np.vstack([each for each, _, _ in points])

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        low, high = np.minimum(every.min(axis=0), 0) - 0.17, np.maximum(every.max(axis=0), 0) + 0.17
        extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
        axes.imshow(_absorbed(extent), extent=extent, origin="lower", interpolation="bilinear", alpha=0.5)
        for place, style, size in points:
            for stain in range(2):
                x, y = place[stain]
                axes.plot([0, x], [0, y], color=style.color, linestyle=style.dash, linewidth=1.2, alpha=0.8)
                axes.scatter([x], [y], s=size, marker=style.marker, color=style.color, edgecolor="white", zorder=3)
        for stain, name in enumerate(_STAINS):
            top = max((place[stain] for place, _, _ in points), key=lambda point: float(point[1]))
            axes.annotate(name, top, xytext=(0, 11), textcoords="offset points", ha="center", fontweight="bold")
        axes.plot([0], [0], "+", color="#555555")
        axes.annotate("gray", (0, 0), xytext=(5, -11), textcoords="offset points", color="#555555")
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
        axes.set_aspect("equal")
        axes.set_xlabel("red absorbed more →", fontsize=8.5)
        axes.set_ylabel("green absorbed more than blue →", fontsize=8.5)
        axes.set_xticks([])
        axes.set_yticks([])

    drawn = plot("stains", 6.2, 4.6, "Stain vectors in the plane of hue and saturation", draw)
    return (
        legend_of([name for _, _, name in found], dict(look), target=target is not None)
        + tag("div", drawn + tag("div", _angles(vectors, target)), class_="beside")
        + paragraph(
            "Each vector says how strongly a stain absorbs red, green and blue, whatever its strength: direction from "
            "the cross is hue, distance is saturation (van der Laak et al. 2000), and the ground has the colour that "
            "such a stain would give. Estimated by restain’s Macenko from all pooled pixels of "
            f"{counted(gathered.pooled, 'image')}; on few colours the estimate itself wanders by degrees.",
            "caption",
        )
    )


def stain_vectors(pool: Pool) -> Floats | None:
    """(2, 3) unit rows of a pool's hematoxylin and eosin; None where they cannot be measured."""
    if not pool.histograms or not any(len(histogram) for histogram in pool.histograms):
        return None
    normalizer = Macenko()
    histogram = ColorHistogram.merged(pool.histograms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        appearance = normalizer.estimate(histogram)
    assert isinstance(appearance, StainAppearance)
    return None if appearance.fallback else appearance.stain_matrix


def chroma(vectors: Floats) -> Floats:
    """Hue and saturation of absorbing colours (n, 3) as points (n, 2); red absorption to the right."""
    return density_to_hsd(vectors)[:, 1:]


def _absorbed(extent: tuple[float, float, float, float], density: float = 0.55) -> Floats:
    """The colour of glass stained in each direction of the plane, (n, n, 3) in 0..1."""
    x, y = np.meshgrid(np.linspace(extent[0], extent[1], 48), np.linspace(extent[2], extent[3], 48))
    densities = hsd_to_density(np.stack([np.full_like(x, density), x, y], axis=-1))
    colors: Floats = np.clip(np.exp(-densities), 0, 1)
    return colors


def _angles(vectors: Mapping[str, Floats | None], target: Floats | None) -> str:
    rows = []
    every = [(name, matrix, False) for name, matrix in vectors.items()]
    if target is not None:
        every.append((TARGET, target, True))
    for name, matrix, is_target in every:
        shown = [MISSING] * 3
        if matrix is not None:
            shown[2] = f"{number(angle_between(matrix[0], matrix[1]), 1)}°"
            if target is not None and not is_target:
                shown[:2] = [f"{number(angle, 1)}°" for angle in stain_vector_angles(target, matrix).tolist()]
        rows.append([text(name), *(shown if target is not None else shown[2:])])
    note = (
        paragraph("A dash: too little stained tissue to measure.", "caption")
        if any(matrix is None for matrix in vectors.values())
        else ""
    )
    from_target = ["hematoxylin,<br>from target", "eosin,<br>from target"] if target is not None else []
    head = ["", *from_target, "between<br>the two"]
    return table(head, rows, "compact") + note
