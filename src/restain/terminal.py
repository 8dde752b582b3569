"""What the command line shows: progress while it works, a report when it is done."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from restain import __version__

if TYPE_CHECKING:
    from restain.methods.base import Normalizer
    from restain.slides.batch import Failure
    from restain.slides.pipeline import SlideResult


@contextmanager
def slide_progress() -> Iterator[Any]:
    """A progress bar for one slide on stderr, where that is a terminal: megapixels a second and time left."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("estimate", total=None, rate="")

        def progress(stage: str, done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed / 1e6:.0f} Mpx/s" if speed else ""
            bar.update(task, description=stage, total=total if done else None, completed=done, rate=rate)

        yield progress


@contextmanager
def file_progress(total: int) -> Iterator[Any]:
    """A progress bar for many files on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, _, path: bar.update(task, completed=done, description=path.name)


def print_report(
    fitted: "Normalizer", results: "list[SlideResult]", failures: "list[Failure]", as_json: bool, many: bool
) -> None:
    """Print failures and notes to stderr, and what was done to stdout: a line, or the whole `summary` as JSON."""
    for failure in failures:
        print(f"restain: {failure.source}: {failure.error}", file=sys.stderr)
    if as_json:
        print(json.dumps(summary(fitted, results, failures), indent=2))
        return
    notes = [(r.source, message) for r in results for message in r.warnings]
    for source, message in notes[:10] if many else []:
        print(f"restain: note: {source}: {message}", file=sys.stderr)
    if len(notes) > 10:
        print(f"restain: note: {len(notes) - 10} more notes; --json has them all", file=sys.stderr)
    if not many:
        result = results[0]
        width, height = result.size
        rate = width * height / 1e6 / max(result.seconds, 1e-9)
        print(f"{result.output}: {width}x{height}, {fitted.name}, {result.seconds:.1f} s, {rate:.1f} Mpx/s")
    else:
        print(f"{len(results)} files normalized by {fitted.name}" + (f", {len(failures)} failed" if failures else ""))


def summary(fitted: "Normalizer", results: "list[SlideResult]", failures: "list[Failure]") -> dict[str, Any]:
    """Everything about a run in plain values: settings, reference, each result's appearance, failures."""
    from restain.slides.pipeline import describe

    return {
        "software": f"restain {__version__}",
        "method": fitted.name,
        "settings": fitted.settings(),
        "reference": dict(fitted.provenance_),
        "results": [
            {
                "source": str(r.source),
                "output": str(r.output),
                "size": list(r.size),
                "seconds": round(r.seconds, 3),
                "appearance": describe(fitted, r.appearance)["appearance"],
                "warnings": list(r.warnings),
            }
            for r in results
        ],
        "failed": [{"source": str(f.source), "error": f.error} for f in failures],
    }


def appearance_line(fitted: "Normalizer") -> str:
    """What a fitted reference looks like, in a few words."""
    reference = fitted.reference_
    assert reference is not None
    white = ", ".join(f"{level:.1f}" for level in reference.white_point)
    return f"white point {white} ({reference.white_origin}), {reference.tissue_pixels:,.0f} tissue pixels"
