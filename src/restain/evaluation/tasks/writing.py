"""Results as files: `results.json` with all that must be said of them, and two tables."""

import csv
import io
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from restain import __version__
from restain.evaluation.benchmark.tables import as_csv, environment
from restain.evaluation.tasks.results import Line, TaskResult
from restain.files import write_atomically


def write_results(
    folder: str | os.PathLike[str],
    results: Sequence[TaskResult],
    lines: Sequence[Line],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write what was tested into a folder, which is made.

    * `results.json`: data, settings, seeds, whether from published weights, normalizer, whether transductive, scores.
    * `images.csv`: a row an image, model and normalizer: what was decided. Results of one task only.
    * `summary.csv`: the lines of `summarize`.

    Returns:
        The files.

    Raises:
        OutputError: one is there already and `overwrite` is false, or cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"normalizer": result.normalizer, "seed": result.training.seed, **row}
        for result in results
        for row in result.rows()
    ]
    facts = {
        "software": f"restain {__version__}",
        "environment": environment(),
        "results": [_facts(result) for result in results],
    }
    contents = {
        "results.json": json.dumps(facts, indent=2, allow_nan=False).encode(),
        "images.csv": _table(rows),
        "summary.csv": as_csv(Line, lines),
    }
    for name, data in contents.items():
        write_atomically(folder / name, partial(_write, data), overwrite=overwrite)
    return [folder / name for name in contents]


def _facts(result: TaskResult) -> dict[str, Any]:
    training = {**vars(result.training), "groups": len(result.training.groups)}
    return {
        "data": result.data,
        "normalizer": result.normalizer,
        "transductive": result.transductive,
        "pretrained": result.training.pretrained,
        "seed": result.training.seed,
        "settings": result.settings,
        "training": training,
        "images": len(result.names),
        "groups": len(set(result.groups)),
        # JSON has no NaN
        "scores": {name: value if value == value else None for name, value in result.scores().items()},
    }


def _table(rows: Sequence[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else ["normalizer"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def _write(data: bytes, stream: BinaryIO) -> None:
    stream.write(data)
