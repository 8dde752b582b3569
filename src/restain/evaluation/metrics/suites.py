"""Suites: which metrics are computed against what, to reproduce a paper's table or to judge a normalizer all round.

A suite is run once an image (`run_suite`), once a cohort (`run_cohort`), and summed up by `summarise`: the average is
taken per image first, then over images.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from restain.errors import FormatError, InputError, WeightsUnavailable
from restain.evaluation.metrics.catalogue import METRICS, Metric
from restain.evaluation.metrics.inputs import checked_mask, checked_pair, checked_rgb

Reference = Literal["source", "target", "none"]


@dataclass(frozen=True)
class Entry:
    """One line of a suite.

    Attributes:
        metric: a key of `METRICS`.
        against: what is given as the reference; "none" for a metric of the output alone.
        options: the metric's keyword arguments.
    """

    metric: str
    against: Reference
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of(self) -> Metric:
        """The metric itself."""
        return METRICS[self.metric]


_GRAY_AS_PIQ = {"color": "gray", "sample": False}

SUITES: dict[str, dict[str, Entry]] = {
    # Kang et al. 2021, as their script computes it.
    "stainnet": {
        "ssim_target": Entry("ssim", "target"),
        "psnr_target": Entry("psnr", "target"),
        "ssim_source": Entry("ssim_stretched", "source"),
    },
    # Du et al. 2025: gray output against gray input. The identity scores 1, 1 and infinity: look at a target as well.
    "dstgan": {
        "ssim_source": Entry("ssim", "source", _GRAY_AS_PIQ),
        "pcc_source": Entry("pcc", "source", {"color": "gray"}),
        "psnr_source": Entry("psnr", "source", {"color": "gray"}),
    },
    # Salehi & Chalechale 2020: first as their scripts compute it, then what the names mean.
    "stst": {
        "ssim_volume": Entry("ssim_volume", "target"),
        "ms_ssim_stst": Entry("ms_ssim_stst", "target"),
        "fsim": Entry("fsim", "target"),
        "pcc": Entry("pcc", "target"),
        "mse": Entry("mse", "target"),
        "rmse": Entry("rmse", "target"),
        "psnr": Entry("psnr", "target"),
        "scc": Entry("scc", "target"),
        "ergas_sewar": Entry("ergas_sewar", "target"),
        "rase_sewar": Entry("rase_sewar", "target"),
        "uqi_sewar": Entry("uqi_sewar", "target"),
        "stst_distance_hematoxylin": Entry("stst_image_distance", "target", {"stain": "hematoxylin"}),
        "stst_distance_eosin": Entry("stst_image_distance", "target", {"stain": "eosin"}),
        "stst_distance_background": Entry("stst_image_distance", "target", {"stain": "background"}),
        "ssim": Entry("ssim", "target"),
        "ms_ssim": Entry("ms_ssim", "target"),
        "ergas": Entry("ergas", "target"),
        "rase": Entry("rase", "target"),
        "uqi": Entry("uqi", "target"),
        "stain_angle": Entry("stain_angle", "target"),
    },
    # What restain reports: is the tissue still there, does it look like the target, and is the picture whole?
    "toolkit": {
        "ssim_source": Entry("ssim", "source", {"color": "gray8"}),
        "gradient_correlation": Entry("gradient_correlation", "source"),
        "lpips_target": Entry("lpips", "target"),
        "background_shift": Entry("background_shift", "source"),
        "seam_score": Entry("seam_score", "source"),
        "nmi": Entry("nmi", "none"),
        "nmi_cv": Entry("nmi_cv", "none"),
        "fid_target": Entry("fid", "target"),
    },
}
"""Every suite by name: its lines by their label in tables."""

_PER_IMAGE = ("pair", "image")
_PER_COHORT = ("cohort", "cohorts")


@dataclass(frozen=True)
class SuiteResult:
    """What a suite gave.

    Attributes:
        values: label to number, in the order of the suite. NaN is a number: the metric says when it is.
        skipped: label to the reason why there is none.
    """

    values: Mapping[str, float]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Summary:
    """A label over images.

    Attributes:
        mean: over the images with a finite value; NaN without any. Infinite values (PSNR of equal images) are left out.
        sd: of a sample (ddof 1); NaN for fewer than two.
        count: images with a finite value.
        missing: images with NaN, an infinite value or none.
    """

    mean: float
    sd: float
    count: int
    missing: int


def run_suite(
    suite: str | Mapping[str, Entry],
    output: Any,
    *,
    source: Any = None,
    target: Any = None,
    mask: Any = None,
    tile: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> SuiteResult:
    """Compute those lines of a suite that look at one image.

    Args:
        suite: a key of `SUITES`, or lines of your own.
        output: (H, W, 3) uint8, the normalized image.
        source: the same size, what it was made from.
        target: the same size, the registered target: the same tissue in the wanted appearance.
        mask: (H, W) bool, where the target is registered and seen. It holds for comparisons with the target only.
        tile: side of the tiles that the output was put together from; without, there is no seam score.
        options: by label, keyword arguments that a metric is given beside those of the suite: weights, white points.

    Returns:
        Numbers, and reasons for those that there are none of: a reference that was not given, an image too small for
        one of the metrics, weights that are not at hand or damaged, an extra that is not installed.

    Raises:
        InputError: there is no such suite, label or metric; an image is not (H, W, 3) uint8; sizes differ.
    """
    lines, extra = _lines(suite), _checked_options(suite, options)
    references = {"source": source, "target": target}
    pixels = checked_rgb(output, "output")
    for reference in references.values():
        if reference is not None:
            checked_pair(reference, pixels, need_rgb=True)
    where = checked_mask(mask, pixels.shape[:2])
    values: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for label, entry in lines.items():
        metric = entry.of
        if metric.takes not in _PER_IMAGE:
            continue
        arguments = {**entry.options, **extra.get(label, {})}
        if entry.metric == "seam_score":
            if tile is None and "tile" not in arguments:
                skipped[label] = "the side of the tiles was not given"
                continue
            arguments.setdefault("tile", tile)
        images: tuple[Any, ...] = (pixels,)
        if metric.takes == "pair":
            if references[entry.against] is None:
                skipped[label] = f"no {entry.against} was given"
                continue
            images = (references[entry.against], pixels)
        if where is not None and entry.against == "target":
            if not metric.takes_mask:
                skipped[label] = "it takes no mask: crop the images to where they are registered"
                continue
            arguments.setdefault("mask", where)
        _compute(label, metric, images, arguments, values, skipped)
    return SuiteResult(values, skipped)


def run_cohort(
    suite: str | Mapping[str, Entry],
    outputs: Iterable[Any],
    *,
    targets: Iterable[Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> SuiteResult:
    """Compute those lines of a suite that look at a whole cohort.

    Args:
        suite: a key of `SUITES`, or lines of your own.
        outputs: of (H, W, 3) uint8, gone through once a metric: a list, or what reads files anew each time.
        targets: images of the wanted appearance, as many; they need not be registered.
        options: as for `run_suite`. `{"nmi_cv": {"images": values}}` takes values of `nmi` that are known already.

    Returns:
        As `run_suite`.
    """
    lines, extra = _lines(suite), _checked_options(suite, options)
    values: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for label, entry in lines.items():
        metric = entry.of
        if metric.takes not in _PER_COHORT:
            continue
        arguments = {**entry.options, **extra.get(label, {})}
        cohorts: tuple[Any, ...] = () if "images" in arguments else (outputs,)
        if metric.takes == "cohorts":
            if targets is None:
                skipped[label] = "no targets were given"
                continue
            cohorts = (targets, outputs)
        _compute(label, metric, cohorts, arguments, values, skipped)
    return SuiteResult(values, skipped)


def summarise(results: Sequence[SuiteResult]) -> dict[str, Summary]:
    """Mean and standard deviation over images of every label that has a number for some image."""
    labels = dict.fromkeys(label for result in results for label in result.values)
    table = {}
    for label in labels:
        finite = [value for result in results if math.isfinite(value := result.values.get(label, math.nan))]
        mean = statistics.fmean(finite) if finite else math.nan
        sd = statistics.stdev(finite) if len(finite) > 1 else math.nan
        table[label] = Summary(mean, sd, len(finite), len(results) - len(finite))
    return table


def _compute(
    label: str,
    metric: Metric,
    images: tuple[Any, ...],
    arguments: Mapping[str, Any],
    values: dict[str, float],
    skipped: dict[str, str],
) -> None:
    try:
        values[label] = float(metric.function(*images, **arguments))
    except (InputError, FormatError, WeightsUnavailable, ImportError) as error:  # the images are checked before
        skipped[label] = str(error)


def _lines(suite: str | Mapping[str, Entry]) -> Mapping[str, Entry]:
    if isinstance(suite, str):
        if suite not in SUITES:
            raise InputError(f"there is no suite {suite!r}; there are {', '.join(SUITES)}")
        return SUITES[suite]
    for label, entry in suite.items():
        if entry.metric not in METRICS or METRICS[entry.metric].takes not in _PER_IMAGE + _PER_COHORT:
            raise InputError(f"the line {label!r} has no metric of images: {entry.metric!r}")
    return suite


def _checked_options(
    suite: str | Mapping[str, Entry], options: Mapping[str, Mapping[str, Any]] | None
) -> Mapping[str, Mapping[str, Any]]:
    for label in options or {}:
        if label not in _lines(suite):
            raise InputError(f"got options for {label!r}, which the suite has no line for: {', '.join(_lines(suite))}")
    return options or {}
