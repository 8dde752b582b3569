"""`restain evaluate`: plan what is compared, register, measure, and write tables and a report into one folder."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from restain.errors import EstimateWarning, InputError, OutputError
from restain.evaluation.benchmark.contenders import make_contenders
from restain.evaluation.benchmark.measure import Estimate, Evaluation, evaluate
from restain.evaluation.benchmark.report.page import check_report, write_report
from restain.evaluation.benchmark.samples import Sample, open_samples
from restain.evaluation.benchmark.summary import Line, summarize
from restain.evaluation.benchmark.tables import write_tables
from restain.evaluation.datasets.pairs import Pair, pair_folders, read_pairs, single_images
from restain.methods.base import Background

FILES = ("metrics.csv", "metrics.parquet", "summary.csv", "evaluation.json", "report.html")
"""What is written beside the folder of registrations."""


@dataclass(frozen=True)
class EvaluateSettings:
    """How to evaluate; see `restain evaluate`."""

    methods: Sequence[str]
    reference: str | None = None
    """What methods are fitted to; None for all targets together, or for the profile "he" without targets."""
    suites: Sequence[str] = ("stainnet", "toolkit")
    estimate: Estimate = "image"
    background: Background | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Keyword arguments for metrics by label."""
    examples: int = 6
    """How many images the report shows."""
    workers: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate_folders` did."""

    evaluation: Evaluation
    lines: Sequence[Line]
    written: Sequence[Path]


def evaluate_folders(
    source: Path,
    target: Path | None,
    table: Path | None,
    output: Path,
    settings: EvaluateSettings,
    *,
    progress: Callable[[int, str], AbstractContextManager[Any]],
) -> Evaluated:
    """Evaluate methods on the images of a folder, against registered targets where a second folder has them.

    Args:
        source: folder of sources.
        target: folder of the same tissue in the wanted appearance; None without.
        table: csv of pairs; None to pair by name.
        output: folder to write to.
        settings: how.
        progress: gives, for a number of images and what is done with them, a context with what is called after each.

    Raises:
        InputError, OutputError: what was asked for cannot be done; nothing was measured.
    """
    _check_weights(settings.options)
    _check_output(output, [source, *([target] if target else [])], settings.overwrite)
    pairs = _plan(source, target, table, output)
    reference = settings.reference if settings.reference is not None or target is None else _targets(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        contenders = make_contenders(settings.methods, reference, settings.background)
    output.mkdir(parents=True, exist_ok=True)
    failed: list[tuple[str, str]] = []
    if target is None:
        samples = [Sample(pair.name, pair.source) for pair in pairs]
    else:
        with progress(len(pairs), "registering") as report:
            samples, outcomes = open_samples(
                pairs,
                output / "registration",
                overwrite=settings.overwrite,
                workers=settings.workers,
                progress=report,
            )
        failed = [(outcome.pair.name, outcome.reason) for outcome in outcomes]
        if not samples:
            raise InputError(f"none of {len(pairs)} pairs could be read; {failed[0][0]}: {failed[0][1]}")
    with progress(len(samples), "measuring") as report:
        evaluation = evaluate(
            samples,
            contenders,
            settings.suites,
            estimate=settings.estimate,
            options=settings.options,
            workers=settings.workers,
            progress=report,
        )
    if not evaluation.rows:
        name, reason = evaluation.failures[0]
        raise InputError(f"none of {len(samples)} images could be measured; {name}: {reason}")
    evaluation = replace(evaluation, failures=(*failed, *evaluation.failures))
    lines = summarize(evaluation.rows)
    written = write_tables(output, evaluation, lines, overwrite=settings.overwrite)
    page = output / "report.html"
    with progress(settings.examples, "drawing") as report:
        write_report(page, evaluation, lines, examples=settings.examples, overwrite=settings.overwrite, progress=report)
    return Evaluated(evaluation, lines, [*written, page])


def _check_output(output: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    for folder in inputs:
        if folder.resolve().is_relative_to(output.resolve()):
            raise OutputError(f"{output} is, or holds, the input folder {folder}; name another folder")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; name a folder")
    there = [name for name in FILES if (output / name).exists()]
    if there and not overwrite:
        raise OutputError(f"{output} holds {there[0]} of an earlier evaluation; pass --overwrite, or name another")
    check_report(output / "report.html", overwrite)


def _plan(source: Path, target: Path | None, table: Path | None, output: Path) -> list[Pair]:
    if target is None:
        if table is not None:
            raise InputError("got --pairs without --target; the csv names files in both folders")
        return single_images(source, without=output)
    if table is not None:
        return read_pairs(table, source, target)
    pairs, alone = pair_folders(source, target, without=output)
    if alone:
        warnings.warn(f"{len(alone)} images have no partner and are left out, {alone[0]} for one", stacklevel=2)
    return pairs


def _check_weights(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `InputError` for weights that were named and are not there, before any work is done."""
    for label, given in options.items():
        path = given.get("weights")
        if path is not None and not Path(path).is_file():
            raise InputError(f"{path} is not a file; wanted the weights for {label}")


def _targets(pairs: Sequence[Pair]) -> list[Path]:
    return list(dict.fromkeys(pair.target for pair in pairs))
