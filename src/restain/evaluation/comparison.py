"""How far two slides are apart in colour, before and after one is normalized to the other: `restain compare`.

A slide is a colour histogram, so nothing is written and no pixel is mapped: the colours of the first slide's sample are
mapped, with their counts, and the two histograms are compared. A method that looks at neighbourhoods (a network) has to
map pixels: windows of a smaller sample, so its numbers waver more.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.color.spaces import rgb_to_lab
from restain.errors import EstimateWarning, InputError, OutputError, SlideWarning
from restain.evaluation.benchmark.contenders import RAW, make_contenders
from restain.evaluation.metrics.stains import stain_vector_angles
from restain.files import write_atomically
from restain.methods.base import Appearance, Icc, Normalizer, OnError
from restain.methods.macenko import Macenko
from restain.methods.statistics import weighted_mean, weighted_percentile
from restain.methods.windows import WindowMap
from restain.slides.forgiving import ForgivingSlide
from restain.slides.pipeline import check_paths
from restain.slides.preview import encode_sheet
from restain.slides.reader import open_slide
from restain.slides.sample import estimate_slide, sample_mapped, sample_slide

Floats = NDArray[np.float64]

TISSUE = 0.9
"""Share of glass's lightness below which a colour is tissue, as for the methods."""

DIRECTIONS = 48
QUANTILES = (np.arange(200) + 0.5) / 200
"""Of the sliced Wasserstein distance: fixed directions spread over the half sphere, and shares at which they are read;
with twice as many of either, distances of four scans of one slide moved by less than 1 %."""


@dataclass(frozen=True)
class ColorDistance:
    """How far two histograms are apart; 0 everywhere for equal ones, smaller is nearer.

    Attributes:
        glass: largest difference of the white points in a channel, grey levels.
        tissue: sliced Wasserstein distance of the tissue colours in CIELAB: how far colours would have to be moved, on
            average, mean over directions (Rabin et al. 2011). Half of ΔE for a shift of all colours.
        mean_color: ΔE (CIE 1976) of the mean tissue colours; 2 is just visible.
        hematoxylin, eosin: angle between the stain vectors (Macenko), degrees; NaN where they cannot be measured.
    """

    glass: float
    tissue: float
    mean_color: float
    hematoxylin: float
    eosin: float


@dataclass(frozen=True)
class Comparison:
    """Two slides, compared.

    Attributes:
        distances: by method, the raw slide first.
        fallback: by method, why the source could not be measured; only those where it could not.
        thumbnails: by method, the source's thumbnail (h, w, 3) uint8; under "target" the target's.
    """

    distances: dict[str, ColorDistance]
    fallback: dict[str, str]
    thumbnails: dict[str, RGB8]

    def as_dict(self) -> dict[str, Any]:
        """Plain values: distances by method, each also as a share of the raw slides'."""
        raw = asdict(self.distances[RAW])
        return {
            method: {
                name: {"distance": _plain(value), "of_raw": _plain(value / raw[name] if raw[name] else np.nan)}
                for name, value in asdict(distance).items()
            }
            for method, distance in self.distances.items()
        }


def compare_slides(
    source: Any,
    target: Any,
    methods: Sequence[str] = ("macenko", "reinhard"),
    *,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    max_pixels: int = 64_000_000,
    seed: int = 0,
    workers: int | None = None,
) -> Comparison:
    """Compare two slides, and what each method makes of the first when it is fitted to the second.

    Args:
        source, target: paths of slides or images.
        methods: as for `make_contenders`: methods are fitted to the target, saved normalizers stay as they are.
        icc: "srgb" converts both to sRGB by their ICC profiles first, "keep" does not.
        on_error: of damaged tiles: "stop" raises `SlideError`, "skip" and "fill" do not count them.
        max_pixels: most tissue pixels to sample from each.
        seed: of the sample.
        workers: reading threads.

    Raises:
        SlideError: a slide cannot be read. InputError: a method is unknown, or a slide shows no tissue.
    """
    histograms, thumbnails = [], []
    for path in (source, target):
        with open_slide(path, icc=icc, on_error=on_error) as slide:
            histograms.append(sample_slide(slide, max_pixels=max_pixels, seed=seed, workers=workers))
            thumbnails.append(slide.thumbnail(1024)[0])
            if isinstance(slide, ForgivingSlide):
                slide.check_some_left(histograms[-1])
                slide.tell()
    first, second = histograms
    wanted = _looks(second, f"{target}")
    distances = {RAW: _distance(_looks(first, f"{source}"), wanted)}
    shown, fallback = {RAW: thumbnails[0]}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        for contender in make_contenders(methods, second)[1:]:
            normalizer = contender.normalizer
            assert normalizer is not None
            if normalizer.neighbourhood:
                appearance, result = _through_windows(
                    source, first, normalizer, icc=icc, on_error=on_error, seed=seed, workers=workers
                )
            else:
                appearance = normalizer.estimate(first)
                result = mapped(first, normalizer, appearance)
            if appearance.fallback:
                fallback[contender.name] = appearance.fallback
            distances[contender.name] = _distance(_looks(result, f"{source}"), wanted)
            shown[contender.name] = contender.apply(thumbnails[0], appearance)
    return Comparison(distances, fallback, {**shown, "target": thumbnails[1]})


def check_preview(path: Path, inputs: Sequence[str], overwrite: bool) -> None:
    """Raise `OutputError`, before any work is done, if the preview may not be written."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"{path} should end in .png or .jpg")
    for item in inputs:
        check_paths(Path(item), path, overwrite)


def write_preview(path: Path, comparison: Comparison, overwrite: bool) -> None:
    """Write the thumbnails side by side, each with its name."""
    side = 480
    sheet = Image.new("RGB", (len(comparison.thumbnails) * (side + 8) + 8, side + 32), (64, 64, 64))
    draw = ImageDraw.Draw(sheet)
    for column, (name, pixels) in enumerate(comparison.thumbnails.items()):
        small = Image.fromarray(pixels)
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        draw.text((8 + column * (side + 8), 6), name, fill=(255, 255, 255))
        sheet.paste(small, (8 + column * (side + 8), 24))
    data = encode_sheet(sheet, path.suffix)
    write_atomically(path, lambda stream: stream.write(data), overwrite=overwrite)


def mapped(histogram: ColorHistogram, normalizer: Normalizer, appearance: Appearance) -> ColorHistogram:
    """The histogram of the normalized slide, from that of the slide: every colour mapped, with its count."""

    def through(colors: RGB8) -> Floats:
        values: Floats = np.rint(np.clip(normalizer.map_colors(colors, appearance), 0.0, 255.0))
        return values

    result = ColorHistogram.from_colors(through(histogram.colors), histogram.counts)
    if histogram.flat is None:
        return result
    flat = ColorHistogram.from_colors(through(histogram.flat.colors), histogram.flat.counts)
    return ColorHistogram(result.codes, result.counts, flat=flat)


def _through_windows(
    source: Any,
    histogram: ColorHistogram,
    normalizer: Normalizer,
    *,
    icc: Icc,
    on_error: OnError,
    seed: int,
    workers: int | None,
) -> tuple[Appearance, ColorHistogram]:
    """As `mapped`, by a method that looks at neighbourhoods; also the appearance, which needs the slide's tiles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlideWarning)  # issued when the slide was sampled
        slide = open_slide(source, icc=icc, on_error=on_error)
    with slide:
        appearance, _ = estimate_slide(slide, normalizer, histogram, seed=seed, workers=workers)
        window_map = normalizer.pixel_map(appearance)
        assert isinstance(window_map, WindowMap)
        return appearance, sample_mapped(slide, window_map, seed=seed, workers=workers)


def sliced_wasserstein(first: Floats, first_counts: Floats, second: Floats, second_counts: Floats) -> float:
    """Mean over directions of the one-dimensional Wasserstein distance of points (n, 3) and (m, 3) with counts."""
    total = 0.0
    for direction in _directions():
        quantiles = [
            weighted_percentile(points @ direction, counts, 100.0 * QUANTILES)
            for points, counts in ((first, first_counts), (second, second_counts))
        ]
        total += float(np.abs(quantiles[0] - quantiles[1]).mean())
    return total / DIRECTIONS


def _directions() -> Floats:
    """Unit vectors (48, 3) spread evenly over the half sphere: a Fibonacci lattice."""
    index = np.arange(DIRECTIONS) + 0.5
    height = index / DIRECTIONS
    angle = np.pi * (1.0 + np.sqrt(5.0)) * index
    radius = np.sqrt(1.0 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


@dataclass(frozen=True)
class _Looks:
    white: Floats
    lab: Floats
    counts: Floats
    stains: Floats | None


def _looks(histogram: ColorHistogram, name: str) -> _Looks:
    white = find_white_point(histogram).level
    tissue = histogram.tissue(white, TISSUE)
    if not len(tissue):
        raise InputError(f"{name} shows no tissue; there is nothing to compare")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        appearance: Any = Macenko().estimate(histogram)
    return _Looks(
        white, rgb_to_lab(tissue.colors), tissue.counts, None if appearance.fallback else appearance.stain_matrix
    )


def _distance(first: _Looks, second: _Looks) -> ColorDistance:
    angles = (np.nan, np.nan)
    if first.stains is not None and second.stains is not None:
        angles = tuple(stain_vector_angles(first.stains, second.stains).tolist())
    means = [weighted_mean(looks.lab, looks.counts) for looks in (first, second)]
    return ColorDistance(
        glass=float(np.abs(first.white - second.white).max()),
        tissue=sliced_wasserstein(first.lab, first.counts, second.lab, second.counts),
        mean_color=float(np.linalg.norm(means[0] - means[1])),
        hematoxylin=angles[0],
        eosin=angles[1],
    )


def _plain(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


COLUMNS = tuple(item.name for item in fields(ColorDistance))
"""The distances by name, in order."""
