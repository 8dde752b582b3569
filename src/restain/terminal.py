"""What the command line shows: progress while it works, a report when it is done."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restain import __version__
from restain.errors import OutputError
from restain.strict_json import to_json

if TYPE_CHECKING:
    from restain.evaluation.benchmark.command import Evaluated
    from restain.evaluation.benchmark.summary import Line
    from restain.evaluation.comparison import Comparison
    from restain.evaluation.registration.files import Outcome
    from restain.methods.base import Normalizer
    from restain.slides.batch import Failure
    from restain.slides.manifest import Row
    from restain.slides.pipeline import SlideResult
    from restain.slides.separate import SeparationResult


@contextmanager
def slide_progress() -> Iterator[Any]:
    """A progress bar for one slide on stderr, where that is a terminal: megapixels a second and time left."""
    settled = False

    def settle(stage: str, done: int, total: int) -> None:
        nonlocal settled
        if not settled and stage != "estimate":
            settled = True
            gc.freeze()
            gc.enable()

    # What starting makes, a million objects of Numba's above all, stays until the end: the garbage collector need not
    # look at it while it grows, and again and again between tiles.
    gc.disable()
    try:
        with _slide_bar(settle) as progress:
            yield progress
    finally:
        gc.enable()


@contextmanager
def _slide_bar(settle: Callable[[str, int, int], None]) -> Iterator[Any]:
    if not sys.stderr.isatty():
        yield settle
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("estimate", total=None, rate="")

        def progress(stage: str, done: int, total: int) -> None:
            settle(stage, done, total)
            speed = bar.tasks[0].speed
            rate = f"{speed / 1e6:.0f} Mpx/s" if speed else ""
            bar.update(task, description=stage, total=total if done else None, completed=done, rate=rate)

        yield progress


@contextmanager
def file_progress(total: int, stage: str = "") -> Iterator[Any]:
    """A progress bar for many files on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()]
    with Progress(TextColumn(stage), *columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, of, path: bar.update(task, total=of, completed=done, description=path.name)


@contextmanager
def cohort_progress() -> Iterator[Any]:
    """A progress bar for the stages of a cohort on stderr, where that is a terminal: slides done and time left."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(
        TextColumn("{task.description}"),
        *columns,
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=600,
    ) as bar:
        tasks: dict[str, Any] = {}

        def progress(stage: str, done: float, total: int) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    bar.update(earlier, visible=False)
                tasks[stage] = bar.add_task(stage, total=total, count="")
            bar.update(tasks[stage], completed=done, count=f"{int(done)} of {total}")

        yield progress


@dataclass(frozen=True)
class Reported:
    """What is told of one image or slide that was normalized, however it was done."""

    source: Path
    output: Path
    size: tuple[int, int]
    seconds: float
    appearance: Mapping[str, Any]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, result: "SlideResult", fitted: "Normalizer") -> "Reported":
        from restain.slides.pipeline import describe

        looks = describe(fitted, result.appearance)["appearance"]
        return cls(result.source, result.output, result.size, result.seconds, looks, result.warnings)

    @classmethod
    def of_row(cls, row: "Row", source: Path, output: Path) -> "Reported":
        """Of a cohort's manifest, with the paths as they were given."""
        return cls(source, output, (row.width, row.height), row.seconds, row.appearance, row.warnings)


def in_line(text: object) -> str:
    """Text in one line: names of files may have line breaks."""
    return " ".join(str(text).splitlines())


def print_note(message: object) -> None:
    """Print to stderr what is worth knowing and stops nothing."""
    print(f"restain: note: {in_line(message)}", file=sys.stderr)


def print_report(
    fitted: "Normalizer", results: "list[Reported]", failures: "list[Failure]", as_json: bool, many: bool
) -> None:
    """Print failures and notes to stderr, and what was done to stdout: a line, or the whole `summary` as JSON."""
    for failure in failures:
        print(f"restain: {in_line(failure.source)}: {in_line(failure.error)}", file=sys.stderr)
    if as_json:
        print(to_json(summary(fitted, results, failures), indent=2))
        return
    notes = [(r.source, message) for r in results for message in r.warnings]
    for source, message in notes[:10] if many else []:
        print_note(f"{source}: {message}")
    if len(notes) > 10:
        print_note(f"{len(notes) - 10} more notes; --json has them all")
    if not many:
        result = results[0]
        width, height = result.size
        rate = width * height / 1e6 / max(result.seconds, 1e-9)
        print(f"{result.output}: {width}x{height}, {fitted.name}, {result.seconds:.1f} s, {rate:.1f} Mpx/s")
    else:
        print(f"{len(results)} files normalized by {fitted.name}" + (f", {len(failures)} failed" if failures else ""))


def summary(fitted: "Normalizer", results: "list[Reported]", failures: "list[Failure]") -> dict[str, Any]:
    """Everything about a run in plain values: settings, reference, each result's appearance, failures."""
    return {
        "software": f"restain {__version__}",
        "method": fitted.name,
        "settings": fitted.settings(brief=True),
        "reference": dict(fitted.provenance_),
        "results": [
            {
                "source": str(r.source),
                "output": str(r.output),
                "size": list(r.size),
                "seconds": round(r.seconds, 3),
                "appearance": dict(r.appearance),
                "warnings": list(r.warnings),
            }
            for r in results
        ],
        "failed": [{"source": str(f.source), "error": f.error} for f in failures],
    }


def print_separations(results: "list[SeparationResult]", failures: "list[Failure]", as_json: bool, many: bool) -> None:
    """Print failures and notes to stderr, and what was separated to stdout: a line, or all that was measured as JSON.

    Raises `OutputError` where every output of a run was there already.
    """
    for failure in failures:
        print(f"restain: {in_line(failure.source)}: {in_line(failure.error)}", file=sys.stderr)
    kept = sum(len(result.kept) for result in results)
    if kept and not failures and kept == sum(len(result.outputs) for result in results):
        raise OutputError(f"all {kept} outputs exist already; pass --overwrite to replace them, or name another folder")
    if kept:
        print_note(f"{kept} outputs exist already and are left as they are")
    if as_json:
        print(to_json(separation_summary(results, failures), indent=2))
        return
    notes = dict.fromkeys(message for result in results for message in result.warnings)
    for message in notes if many else ():
        print_note(message)
    if many:
        print(f"{len(results)} files separated" + (f", {len(failures)} failed" if failures else ""))
        return
    facts = results[0].facts
    white = ", ".join(f"{level:.1f}" for level in facts["white_point"])
    for name in facts["names"]:
        print(f"{results[0].outputs[name]}: up to {facts['percentiles'][name]['99']:.2f}")
    if "concentrations" in results[0].outputs:
        print(results[0].outputs["concentrations"])
    print(f"white point {white} ({facts['white_origin']}), {results[0].seconds:.1f} s")
    for message in results[0].warnings:
        print_note(message)


def separation_summary(results: "list[SeparationResult]", failures: "list[Failure]") -> dict[str, Any]:
    """Everything about a run in plain values: what was measured on each file, its outputs, failures."""
    return {
        "software": f"restain {__version__}",
        "method": "separation",
        "results": [
            {
                "source": str(r.source),
                "outputs": {name: str(path) for name, path in r.outputs.items()},
                "kept": [str(path) for path in r.kept],
                "size": list(r.size),
                "seconds": round(r.seconds, 3),
                **r.facts,
                "warnings": list(r.warnings),
            }
            for r in results
        ],
        "failed": [{"source": str(f.source), "error": f.error} for f in failures],
    }


def print_registrations(outcomes: "Sequence[Outcome]", as_json: bool) -> None:
    """Print pairs that failed or were rejected to stderr, and what was registered to stdout: a line, or all as JSON."""
    from restain.evaluation.registration.report import headline, summary

    for outcome in outcomes:
        if outcome.status != "accepted":
            print(f"restain: {in_line(outcome.pair.name)} {outcome.status}: {in_line(outcome.reason)}", file=sys.stderr)
    kept = sum(outcome.kept for outcome in outcomes)
    if kept:
        print_note(f"{kept} pairs were done already and are left as they are")
    print(to_json(summary(outcomes), indent=2) if as_json else headline(outcomes))


def print_evaluation(result: "Evaluated", as_json: bool) -> None:
    """Print images that failed to stderr, and the summary to stdout: a table a suite, or all lines as JSON."""
    evaluation = result.evaluation
    for image, reason in evaluation.failures:
        print(f"restain: {in_line(image)}: {in_line(reason)}", file=sys.stderr)
    by_reason: dict[str, list[str]] = {}
    for (suite, metric), reason in evaluation.skipped.items():
        by_reason.setdefault(reason, []).append(f"{metric} ({suite})")
    for reason, metrics in by_reason.items():
        # The metrics speak of their own argument; here it is an option.
        option = "--lpips-weights FILE" if "lpips" in metrics[0] else "--fid-weights FILE"
        print_note(f"no {', '.join(metrics)}: {reason.replace('weights=…', option)}")
    if as_json:
        lines = [{k: v if v == v else None for k, v in asdict(line).items()} for line in result.lines]
        print(to_json({"written": [str(path) for path in result.written], "summary": lines}, indent=2))
        return
    methods = [contender.name for contender in evaluation.contenders]
    for suite in evaluation.suites:
        found = [line for line in result.lines if line.suite == suite]
        rows = []
        for metric in dict.fromkeys(line.metric for line in found):
            cells = {line.method: line for line in found if line.metric == metric}
            better = next(iter(cells.values())).higher_is_better
            arrow = "" if better is None else " ↑" if better else " ↓"
            rows.append([metric + arrow, *(_mean_cell(cells.get(method)) for method in methods)])
        if rows:
            print(f"\n{suite}: mean ± sd over images (+ nearer to the target, - further than raw: p < 0.05, corrected)")
            print_columns([["", *methods], *rows])
    print(f"\n{result.written[-1]}")


def _mean_cell(line: "Line | None") -> str:
    if line is None or line.mean != line.mean:
        return "-"
    mark = {True: " +", False: " -", None: ""}[line.better]
    spread = f" ± {line.sd:.3g}" if line.sd == line.sd else ""
    return f"{line.mean:.4g}{spread}{mark}"


def print_comparison(comparison: "Comparison", as_json: bool) -> None:
    """Print the distances to stdout, each also as a share of the raw slides': a table, or JSON."""
    for method, reason in comparison.fallback.items():
        print_note(f"{method}: {reason}")
    table = comparison.as_dict()
    if as_json:
        print(to_json(table, indent=2))
        return
    names = {
        "glass": "glass, levels",
        "tissue": "tissue, Lab",
        "mean_color": "mean colour, ΔE",
        "hematoxylin": "hematoxylin, °",
        "eosin": "eosin, °",
    }
    rows = [["distance", *names.values()]]
    for method, distances in table.items():
        cells = []
        for name in names:
            value, share = distances[name]["distance"], distances[name]["of_raw"]
            text = "-" if value is None else f"{value:.2f}"
            cells.append(text if method == "raw" or share is None else f"{text} ({share:.0%})")
        rows.append([method, *cells])
    print_columns(rows)


def print_columns(rows: list[list[str]]) -> None:
    """Print rows in columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def appearance_line(fitted: "Normalizer") -> str:
    """What a fitted reference looks like, in a few words."""
    reference = fitted.reference_
    assert reference is not None
    white = ", ".join(f"{level:.1f}" for level in reference.white_point)
    return f"white point {white} ({reference.white_origin}), {reference.tissue_pixels:,.0f} tissue pixels"
