"""What a reader of a data set lists: one picture and what its owner says about it. No pixels are read."""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from restain.errors import InputError


@dataclass(frozen=True)
class Item:
    """One picture of a data set; None where its owner does not say."""

    path: Path
    dataset: str
    """Which data set: a name of `DATASETS`."""
    slide: str
    """The glass slide: pictures of it by two scanners, and all its frames, have one. Unique in a data set."""
    patient: str | None = None
    center: str | None = None
    """The hospital or lab."""
    scanner: str | None = None
    split: str | None = None
    """The owner's own: "train", "test", …; see `owners_split`."""
    label: str | None = None
    mask: Path | None = None
    """An image of labels of the same size."""
    annotations: Path | None = None
    """A file of polygons or positions."""
    magnification: str | None = None
    """The objective or subfolder: "x40"."""
    pair: str | None = None
    """A key that pictures of the same piece of tissue by different scanners share."""


def files_below(folder: Path, accept: Callable[[Path], bool]) -> list[Path]:
    """The files in a folder and its subfolders that `accept` wants, sorted; hidden ones are left out.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; wanted the folder of a data set")
    hidden = (path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    return sorted(path for path in hidden if path.is_file() and accept(path))


def found(items: Iterable[Item], folder: Path, layout: str) -> list[Item]:
    """The items as a list; an `InputError` that says which layout was looked for if there are none."""
    listed = list(items)
    if not listed:
        raise InputError(f"{folder} holds nothing in the layout {layout}")
    return listed


def table_rows(path: Path) -> list[list[str]]:
    """The rows of a csv without surrounding blanks; empty rows are left out.

    Raises:
        InputError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a csv ({error})") from None
    return [row for row in rows if any(row)]
