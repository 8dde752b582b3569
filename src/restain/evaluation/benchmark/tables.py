"""Writing what was measured: the tidy table as CSV and Parquet, the summary, and where and when it was measured."""

import csv
import importlib.metadata
import io
import os
import platform
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from restain import __version__
from restain.errors import MissingExtraError
from restain.evaluation.benchmark.measure import Evaluation, Row
from restain.evaluation.benchmark.summary import Line
from restain.files import write_atomically
from restain.strict_json import to_json

PACKAGES = ("numpy", "scipy", "numba", "scikit-image", "opencv-python-headless", "torch", "pyarrow")
"""Whose versions may change a number."""


def write_tables(folder: Path, evaluation: Evaluation, lines: Sequence[Line], *, overwrite: bool = False) -> list[Path]:
    """Write `metrics.csv`, `metrics.parquet`, `summary.csv` and `evaluation.json` into a folder; their paths.

    The tidy table has a number a row, with the columns of `Row`; the summary those of `Line`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OutputError: a file is there already and `overwrite` is false, or cannot be written.
    """
    contents = {
        "metrics.csv": as_csv(Row, evaluation.rows),
        "metrics.parquet": as_parquet(Row, evaluation.rows),
        "summary.csv": as_csv(Line, lines),
        "evaluation.json": to_json(facts(evaluation), indent=2).encode(),
    }
    for name, data in contents.items():
        write_atomically(folder / name, partial(_write, data), overwrite=overwrite)
    return [folder / name for name in contents]


def as_csv(kind: type[Any], records: Sequence[Any]) -> bytes:
    """Records of a dataclass as CSV, UTF-8: floats in full, what is not a number as an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [item.name for item in fields(kind)]
    writer.writerow(names)
    for record in records:
        writer.writerow(["" if value != value else value for value in (getattr(record, name) for name in names)])
    return stream.getvalue().encode()


def as_parquet(kind: type[Any], records: Sequence[Any]) -> bytes:
    """Records of a dataclass as Parquet."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        message = f"writing Parquet needs pyarrow ({error}); install it with: pip install 'restain[evaluation]'"
        raise MissingExtraError(message) from error
    table = pyarrow.table({item.name: [getattr(record, item.name) for record in records] for item in fields(kind)})
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


def _write(data: bytes, stream: BinaryIO) -> None:
    stream.write(data)


def facts(evaluation: Evaluation) -> dict[str, Any]:
    """What a reader must know of an evaluation to repeat it; plain values."""
    return {
        "software": f"restain {__version__}",
        "environment": environment(),
        "images": len(evaluation.samples),
        "compared_with_target": sum(sample.paired for sample in evaluation.samples),
        "estimate": evaluation.estimate,
        "suites": list(evaluation.suites),
        "methods": {
            contender.name: None
            if contender.normalizer is None
            else {
                "method": contender.normalizer.name,
                "settings": contender.normalizer.settings(brief=True),
                "reference": dict(contender.normalizer.provenance_),
            }
            for contender in evaluation.contenders
        },
        "skipped": [
            {"suite": suite, "metric": metric, "reason": why} for (suite, metric), why in evaluation.skipped.items()
        ],
        "not_compared": [
            {"image": sample.name, "reason": sample.reason} for sample in evaluation.samples if sample.reason
        ],
        "failed": [{"image": image, "reason": reason} for image, reason in evaluation.failures],
        "fallbacks": [{"method": method, "image": image} for method, image in evaluation.fallbacks],
    }


def environment() -> dict[str, Any]:
    """The machine, the interpreter and the packages whose versions may change a number."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
    }
