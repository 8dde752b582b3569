"""ICIAR-BACH-2018, the microscopy images: 400 breast fields of 2048x1536 pixels in four classes.

    ICIAR2018_BACH_Challenge/Photos/Benign/b001.tif     and InSitu/is001.tif, Invasive/iv001.tif, Normal/n001.tif
    ICIAR2018_BACH_Challenge/Photos/microscopy_ground_truth.csv     b001.tif,Benign without a header

The labels of the challenge's 100 test images are not public. `restain.evaluation.datasets.splits.make_folds` gives a
fixed split of the 400 with every class in every part. It keeps patients together where it is told who they are: the
owners publish that in a table of its own, which covers a part of the images.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from restain.errors import InputError
from restain.evaluation.datasets.item import Item, files_below, found, table_rows

CLASSES = ("Normal", "Benign", "InSitu", "Invasive")
TRUTH = "microscopy_ground_truth.csv"
_LAYOUT = "ICIAR2018_BACH_Challenge/Photos/Benign/b001.tif"


def list_bach(folder: str | os.PathLike[str], patients: str | os.PathLike[str] | None = None) -> list[Item]:
    """The labelled images of ICIAR-BACH-2018.

    Args:
        folder: what the archive was unpacked into, or its Photos.
        patients: a csv whose rows are an image's name and its patient, where they are known.

    Raises:
        InputError: there is no such folder, no image in it, or its table and its folders contradict each other.
    """
    folder = Path(folder)
    return found(_images(folder, {} if patients is None else _table(Path(patients))), folder, _LAYOUT)


def _images(folder: Path, patients: dict[str, str]) -> Iterator[Item]:
    truths: dict[str, str] = {}
    for table in files_below(folder, lambda path: path.name == TRUTH):
        truths |= _table(table)
    by_name = {name.lower(): name for name in CLASSES}
    for path in files_below(folder, lambda path: path.suffix.lower() in (".tif", ".tiff", ".png")):
        place, told = by_name.get(path.parent.name.lower()), truths.get(path.stem.lower())
        label = place or (None if told is None else by_name.get(told.lower(), told))
        if label is None:
            continue
        if told is not None and told.lower() != label.lower():
            raise InputError(f"{path} lies among {label}, but {TRUTH} calls it {told}")
        yield Item(path, "bach", path.stem, patient=patients.get(path.stem.lower()), label=label, magnification="x20")


def _table(path: Path) -> dict[str, str]:
    rows = table_rows(path)
    if any(len(row) < 2 for row in rows):
        raise InputError(f"{path} has a row of one column; wanted the name of an image and what is said of it")
    return {Path(row[0]).stem.lower(): row[1] for row in rows}
