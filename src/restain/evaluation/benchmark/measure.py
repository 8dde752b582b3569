"""Every contender on every sample by every metric: the tidy table that all else is made from.

A sample's files are read once; each contender's output is made, measured and dropped. Samples are shared out over
threads, and rows come in the order of the samples, whatever the number of threads.
"""

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import EstimateWarning, InputError, RestainError
from restain.evaluation.benchmark.contenders import Contender
from restain.evaluation.benchmark.samples import Pixels, Progress, Sample
from restain.evaluation.metrics import SUITES, SuiteResult, run_cohort, run_suite
from restain.methods.base import Appearance

COHORT = "(all)"
"""What stands for the image in rows of metrics that look at all outputs together."""

Estimate = Literal["image", "folder"]


@dataclass(frozen=True)
class Row:
    """One number of the tidy table.

    Attributes:
        method: the contender.
        image: the sample, or `COHORT`.
        slide: the sample's slide; "" where it is not known.
        suite: the suite of metrics.
        metric: the suite's label, as in "ssim_target".
        against: "source", "target" or "none".
        value: the number; NaN where the metric has none for this image.
    """

    method: str
    image: str
    slide: str
    suite: str
    metric: str
    against: str
    value: float


@dataclass(frozen=True)
class Evaluation:
    """All that was measured, and all that it takes to show it.

    Attributes:
        samples: those that were measured.
        contenders: the raw images first.
        suites: names of the suites.
        estimate: whether each image was measured by itself, or all together.
        rows: the tidy table, by sample, contender and metric.
        skipped: (suite, metric) to the reason why it has no numbers.
        failures: (sample, reason) of those that could not be read or measured.
        fallbacks: (contender, sample) where an appearance could not be measured and the reference's stood in.
    """

    samples: Sequence[Sample]
    contenders: Sequence[Contender]
    suites: Sequence[str]
    estimate: Estimate
    rows: Sequence[Row]
    skipped: Mapping[tuple[str, str], str]
    failures: Sequence[tuple[str, str]]
    fallbacks: Sequence[tuple[str, str]]
    appearances: Mapping[str, Appearance | None] = field(default_factory=dict, repr=False)

    def output(self, contender: Contender, image: RGB8) -> RGB8:
        """What a contender makes of a sample's source (H, W, 3) uint8, made anew."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EstimateWarning)
            appearance = self.appearances.get(contender.name) or contender.estimate_image(image)
            return contender.apply(image, appearance)


def evaluate(
    samples: Sequence[Sample],
    contenders: Sequence[Contender],
    suites: Sequence[str] = ("stainnet", "toolkit"),
    *,
    estimate: Estimate = "image",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure every contender on every sample.

    Args:
        samples: from `open_samples`, or unpaired.
        contenders: from `make_contenders`.
        suites: keys of `restain.evaluation.metrics.SUITES`.
        estimate: "image" measures each image by itself, as of different slides; "folder" all of them together, as
            tiles of one slide.
        options: keyword arguments for metrics by label, such as weights: `{"lpips_target": {"weights": path}}`.
        workers: threads; None for one a core. The result does not depend on it.
        progress: called after each sample.

    Raises:
        InputError: no samples or contenders, or an unknown suite.
    """
    for suite in suites:
        if suite not in SUITES:
            raise InputError(f"there is no suite {suite!r}; there are {', '.join(SUITES)}")
    if len(set(suites)) < len(suites):
        raise InputError(f"got the suites {', '.join(suites)}; wanted each of them once")
    if not samples or not contenders or not suites:
        raise InputError("got no samples, contenders or suites; wanted at least one of each")
    options = options or {}
    for label in options:
        if not any(label in SUITES[suite] for suite in suites):
            raise InputError(f"got options for {label!r}, which no suite among {', '.join(suites)} has")
    together = _estimate_together(samples, contenders) if estimate == "folder" else {}

    def job(sample: Sample) -> _Measured | str:
        try:
            return _measure(sample, contenders, suites, options, together)
        except (RestainError, OSError, MemoryError) as error:
            return str(error) or type(error).__name__
        except Exception as error:  # whatever it is, it must not cost the other images
            return f"unforeseen {type(error).__name__}: {error}"

    rows: list[Row] = []
    skipped: dict[tuple[str, str], str] = {}
    failures: list[tuple[str, str]] = []
    fallbacks: list[tuple[str, str]] = []
    measured: list[Sample] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")  # fallbacks are counted below; a slide's implausible metadata is no news here
        for done, (sample, result) in enumerate(zip(samples, pool.map(job, samples), strict=True), start=1):
            if isinstance(result, str):
                failures.append((sample.name, result))
            else:
                measured.append(sample)
                rows += result.rows
                skipped |= result.skipped
                fallbacks += [(name, sample.name) for name in result.fallbacks]
            if progress is not None:
                progress(done, len(samples), sample.source)
        for contender in contenders if measured else ():
            outputs, targets = _Outputs(measured, contender, together), _Targets(measured)
            rows += _measure_cohort(contender, outputs, targets, suites, options, rows, skipped)
    # A metric that has numbers for some images was not skipped.
    present = {(row.suite, row.metric) for row in rows}
    missing = {key: reason for key, reason in skipped.items() if key not in present}
    return Evaluation(
        measured, contenders, tuple(suites), estimate, tuple(rows), missing, tuple(failures), tuple(fallbacks), together
    )


@dataclass(frozen=True)
class _Measured:
    rows: list[Row]
    skipped: dict[tuple[str, str], str]
    fallbacks: list[str]


def _measure(
    sample: Sample,
    contenders: Sequence[Contender],
    suites: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    together: Mapping[str, Appearance | None],
) -> _Measured:
    pixels = sample.read()
    histogram = ColorHistogram.from_image(pixels.source)
    white = find_white_point(histogram).level
    result = _Measured([], {}, [])
    for contender in contenders:
        appearance = together.get(contender.name) or contender.estimate_image(pixels.source, histogram)
        if appearance is not None and appearance.fallback:
            result.fallbacks.append(contender.name)
        output = contender.apply(pixels.source, appearance)
        for suite in suites:
            given = _with_white_points(_of_suite(options, suite), suite, contender, white)
            _run(sample, contender, suite, output, pixels, given, result)
    return result


def _run(
    sample: Sample,
    contender: Contender,
    suite: str,
    output: RGB8,
    pixels: Pixels,
    options: Mapping[str, Mapping[str, Any]],
    result: _Measured,
) -> None:
    found = _masked_or_cropped(suite, output, pixels, options)
    for label, value in found.values.items():
        against = SUITES[suite][label].against
        result.rows.append(Row(contender.name, sample.name, sample.slide or "", suite, label, against, value))
    reason = f"no pair could be compared: {sample.reason}" if sample.reason else ""
    for label, why in found.skipped.items():
        missing_target = SUITES[suite][label].against == "target" and pixels.target is None
        result.skipped[suite, label] = reason if reason and missing_target else why


def _masked_or_cropped(
    suite: str, output: RGB8, pixels: Pixels, options: Mapping[str, Mapping[str, Any]]
) -> SuiteResult:
    """The suite on one output: metrics that take no mask see the largest rectangle where source and target overlap."""
    lines = SUITES[suite]
    whole = pixels.mask is not None
    cropped = {
        label: entry
        for label, entry in lines.items()
        if whole and entry.against == "target" and not entry.of.takes_mask and entry.of.takes == "pair"
    }
    masked = {label: entry for label, entry in lines.items() if label not in cropped}
    results = [
        run_suite(
            masked,
            output,
            source=pixels.source,
            target=pixels.target,
            mask=pixels.mask,
            options={label: given for label, given in options.items() if label in masked},
        )
    ]
    if cropped:
        assert pixels.target is not None
        rectangle = pixels.rectangle
        results.append(
            run_suite(
                cropped,
                np.ascontiguousarray(output[rectangle]),
                target=np.ascontiguousarray(pixels.target[rectangle]),
                options={label: given for label, given in options.items() if label in cropped},
            )
        )
    values = {label: value for result in results for label, value in result.values.items()}
    skipped = {label: why for result in results for label, why in result.skipped.items()}
    return SuiteResult({label: values[label] for label in lines if label in values}, skipped)


def _with_white_points(
    options: Mapping[str, Mapping[str, Any]], suite: str, contender: Contender, white: Any
) -> dict[str, Mapping[str, Any]]:
    """Tell metrics of glass where glass is, and what it was to become: the reference's, where a method matches it."""
    given = {label: dict(arguments) for label, arguments in options.items()}
    for label, entry in SUITES[suite].items():
        if entry.metric == "background_shift":
            wanted: dict[str, Any] = {"source_white": white, "white": wanted_white(contender)}
            given[label] = wanted | given.get(label, {})
    return dict(given)


def wanted_white(contender: Contender) -> Any:
    """The level, or three, that a contender should give glass; None where the source's own should stay."""
    normalizer = contender.normalizer
    if normalizer is None or normalizer.reference_ is None:
        return None
    return {"match": normalizer.reference_.white_point, "white": 255.0}.get(normalizer.background)


def _of_suite(options: Mapping[str, Mapping[str, Any]], suite: str) -> dict[str, Mapping[str, Any]]:
    return {label: arguments for label, arguments in options.items() if label in SUITES[suite]}


def _measure_cohort(
    contender: Contender,
    outputs: "_Outputs",
    targets: "_Targets",
    suites: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Row],
    skipped: dict[tuple[str, str], str],
) -> list[Row]:
    """Rows of the metrics that look at all outputs of a contender."""
    found = []
    for suite in suites:
        given = _of_suite(options, suite)
        known = [row.value for row in rows if (row.method, row.suite, row.metric) == (contender.name, suite, "nmi")]
        for label, entry in SUITES[suite].items():
            if entry.metric in ("nmi_cv", "nmi_sd"):  # of values that are there already
                given[label] = {"images": np.array([value for value in known if math.isfinite(value)])}
        result = run_cohort(SUITES[suite], outputs, targets=targets if len(targets) else None, options=given)
        for label, value in result.values.items():
            found.append(Row(contender.name, COHORT, "", suite, label, SUITES[suite][label].against, value))
        skipped |= {(suite, label): why for label, why in result.skipped.items()}
    return found


def _estimate_together(samples: Sequence[Sample], contenders: Sequence[Contender]) -> dict[str, Appearance | None]:
    histogram = ColorHistogram.merged(_histograms(samples))
    files = [sample.source for sample in samples]
    return {contender.name: contender.estimate(histogram, files) for contender in contenders}


def _histograms(samples: Sequence[Sample]) -> Iterator[ColorHistogram]:
    for sample in samples:
        try:
            source = sample.read_source()
        except (RestainError, OSError):
            continue  # it is reported when it is to be measured
        yield ColorHistogram.from_image(source)


@dataclass(frozen=True)
class _Outputs:
    """A contender's outputs, made anew each time they are gone through."""

    samples: Sequence[Sample]
    contender: Contender
    together: Mapping[str, Appearance | None]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[RGB8]:
        for sample in self.samples:
            source = sample.read_source()
            appearance = self.together.get(self.contender.name) or self.contender.estimate_image(source)
            yield self.contender.apply(source, appearance)


@dataclass(frozen=True)
class _Targets:
    """The target files as they are: warped ones have white borders, and are blurred by interpolation."""

    samples: Sequence[Sample]

    def __len__(self) -> int:
        return sum(sample.target is not None for sample in self.samples)

    def __iter__(self) -> Iterator[RGB8]:
        for sample in self.samples:
            if sample.target is not None:
                yield sample.read_target()
