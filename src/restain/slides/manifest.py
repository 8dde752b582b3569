"""`manifest.csv`: what became of each slide of a cohort, one row an output, written as the work goes on.

A row is added to the end of the file and synced to disk as soon as its slide is done, so a kill loses at most the rows
of the slides that were under way; a line that was torn by it is dropped when the file is read again. When a run ends,
the file is written anew in one step, in the order of the outputs.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

import numpy as np

from restain.errors import OutputError
from restain.files import atomic_output
from restain.strict_json import to_json

NAME = "manifest.csv"

Status = Literal["done", "failed", "started", "found"]
"""Of a row: written by this or an earlier run; not written, `error` says why; under way, which a killed run leaves
behind; an output that was there before and that no run of this folder wrote."""

_SEPARATOR = " | "  # between warnings; a spreadsheet shows them in one cell


@dataclass(frozen=True)
class Row:
    """One output.

    Attributes:
        input: absolute path of the source.
        output: path of the output within the cohort's folder, with forward slashes.
        status: see `Status`.
        method: the normalizer's name.
        settings: a digest of everything that decides what an output looks like: the normalizer, and how slides are
            sampled and written. Outputs of one digest belong together.
        seconds: from opening the source to the output's being on disk.
        width, height: of level 0, pixels.
        input_sha256, output_sha256: checksums of the files; of a format that is a folder, over all its files.
        appearance: how the source looks to the method, plain values; empty where that is not known.
        warnings: what a user should know of the result.
        error: why it failed.
    """

    input: Path
    output: str
    status: Status
    method: str = ""
    settings: str = ""
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    input_sha256: str = ""
    output_sha256: str = ""
    appearance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str = ""

    def cells(self) -> list[str]:
        """The row as text, in the order of `COLUMNS`."""
        values: dict[str, Any] = {name: getattr(self, name) for name in COLUMNS}
        values["seconds"] = f"{self.seconds:.3f}"
        values["appearance"] = to_json(self.appearance) if self.appearance else ""
        values["warnings"] = _SEPARATOR.join(_line(text) for text in self.warnings)
        values["error"] = _line(self.error)
        return [str(values[name]) for name in COLUMNS]

    @classmethod
    def from_cells(cls, cells: list[str]) -> "Row":
        """Read what `cells` made; raises `ValueError` where that is not what it was."""
        value = dict(zip(COLUMNS, cells, strict=True))
        if value["status"] not in get_args(Status):
            raise ValueError(f"there is no status {value['status']!r}")
        appearance = json.loads(value["appearance"]) if value["appearance"] else {}
        if not isinstance(appearance, dict):
            raise ValueError("the appearance is no mapping")
        for name, item in appearance.items():
            _check_look(name, item)
        seconds, width, height = float(value["seconds"]), int(value["width"]), int(value["height"])
        if not 0 <= seconds < float("inf") or width < 0 or height < 0:
            raise ValueError("a size or a time is no such")
        return cls(
            input=Path(value["input"]),
            output=value["output"],
            status=value["status"],  # type: ignore[arg-type]  # checked above
            method=value["method"],
            settings=value["settings"],
            seconds=seconds,
            width=width,
            height=height,
            input_sha256=value["input_sha256"],
            output_sha256=value["output_sha256"],
            appearance=appearance,
            warnings=tuple(value["warnings"].split(_SEPARATOR)) if value["warnings"] else (),
            error=value["error"],
        )


def _line(text: str) -> str:
    """Text in one line that any encoding takes: a file's own words may hold halves of characters."""
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")


_VECTORS = {"white_point": 1, "mean": 1, "deviation": 1, "stain_matrix": 2}
"""Fields of an appearance whose last axis is red, green and blue, and how many axes they have."""


def _check_look(name: str, value: Any) -> None:
    """Raise `ValueError` where a field of an appearance is not what one can be: text, or numbers in even rows."""
    if value is None or isinstance(value, (str, bool)):
        if name in _VECTORS:
            raise ValueError(f"{name} is no colour")
        return
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths") from None
    if array.dtype.kind == "O":  # null is what was not finite
        array = np.array([np.nan if item is None else item for item in array.flat]).reshape(array.shape)
    if not isinstance(value, (int, float, list)) or array.dtype.kind not in "if":
        raise ValueError(f"{name} is not made of numbers")
    if name == "max_concentrations" and array.ndim != 1:
        raise ValueError(f"{name} is no row of numbers")
    if name in _VECTORS and (array.ndim != _VECTORS[name] or array.shape[-1] != 3 or not np.isfinite(array).all()):
        raise ValueError(f"{name} is no colour")


COLUMNS = tuple(item.name for item in fields(Row))


class Manifest:
    """The rows of a cohort's folder by output, and the file that they are added to. A context manager, which ends by
    writing the file anew.

    Attributes:
        path: the file.
        rows: the last row of each output.
    """

    def __init__(self, folder: Path) -> None:
        """Read the manifest of a folder, where there is one.

        Raises:
            OutputError: a file of that name is not a manifest, or cannot be read.
        """
        self.path = folder / NAME
        self.rows: dict[str, Row] = {row.output: row for row in read_rows(self.path)}
        self._stream: TextIO | None = None

    def begin(self) -> None:
        """Write the file as far as it is known, without a line that a kill tore, and open it for more."""
        if self._stream is None:
            self._write(self.rows.values())
            try:
                self._stream = self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
            except OSError as error:
                raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def add(self, row: Row, *, sync: bool = True) -> None:
        """Add a row to the file; on disk when this returns, unless `sync` is false.

        Raises:
            OutputError: the file cannot be written.
        """
        try:
            self.begin()
            assert self._stream is not None
            csv.writer(self._stream).writerow(row.cells())
            self._stream.flush()
            if sync:
                os.fsync(self._stream.fileno())
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.rows[row.output] = row

    def close(self) -> None:
        """Write the file anew, in the order of the outputs."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with suppress(OSError):  # a row that a full disk did not take, which `add` told
                stream.close()
            self._write(sorted(self.rows.values(), key=lambda row: row.output))

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except OutputError:
            if kind is None:  # else what came first is told; the rows are on disk, only not in order
                raise

    def leave(self) -> None:
        """Close the file as it is: its folder is no longer the one that was locked."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with suppress(OSError):  # what could not be written was told when it was added
                stream.close()

    def _write(self, rows: Iterable[Row]) -> None:
        with (
            atomic_output(self.path, overwrite=True) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
        ):
            writer = csv.writer(stream)
            writer.writerow(COLUMNS)
            writer.writerows(row.cells() for row in rows)


def key(output: Path, folder: Path) -> str:
    """How a row names an output of a cohort's folder."""
    return Path(os.path.relpath(output, folder)).as_posix()


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a manifest, as far as they are whole; none where there is no file.

    Raises:
        OutputError: the file is not a manifest, or cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape").rstrip("\0")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    lines = csv.reader(io.StringIO(text, newline=""))
    head = next(lines, [])
    if head != list(COLUMNS):
        raise OutputError(f"{path} is no manifest that this version of restain wrote; move it, or name another folder")
    cells = list(lines)
    if cells and not text.endswith("\n"):
        del cells[-1]  # torn by a kill, however whole it looks
    for line in cells:
        try:
            yield Row.from_cells(line)
        except ValueError:
            continue  # damaged, so its output, if it is there, is one that nobody knows
