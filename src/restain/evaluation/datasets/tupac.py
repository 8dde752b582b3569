"""TUPAC-2016, the auxiliary data set of mitoses: 656 high power fields of 73 breast cancer cases from three centres.

    mitoses_image_data_part_1/01/01.tif     case 01, its first field (three parts, 40x, 0.25 micrometres per pixel)
    mitoses_ground_truth/01/01.csv          row, column of each mitosis; no file where there is none

Cases 1 to 23 are those of AMIDA13 (Utrecht); 24 to 48 and 49 to 73 come from two other centres and one scanner.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.datasets.item import Item, files_below, found
from restain.evaluation.datasets.positions import read_positions

_LAYOUT = "mitoses_image_data_part_1/01/01.tif"


def list_tupac(folder: str | os.PathLike[str]) -> list[Item]:
    """The fields of TUPAC-2016; a case is a patient, its annotations are its mitoses.

    Test cases, in a folder whose name contains "test", are numbered from 1 again: they are called "test-01", ….

    Raises:
        InputError: there is no such folder, or no field in it.
    """
    folder = Path(folder)
    return found(_fields(folder), folder, _LAYOUT)


def read_mitoses(item: Item) -> NDArray[np.float64]:
    """The mitoses of a field, (N, 2) x and y in its pixels; none where it has no annotations."""
    return np.zeros((0, 2)) if item.annotations is None else read_positions(item.annotations, rows_first=True)


def _fields(folder: Path) -> Iterator[Item]:
    truths = {_key(path, folder): path for path in files_below(folder, lambda path: _is_field(path, ".csv"))}
    for path in files_below(folder, lambda path: _is_field(path, ".tif")):
        test, case, _ = _key(path, folder)
        name = f"test-{case}" if test else case
        yield Item(
            path,
            "tupac",
            name,
            patient=name,
            center=None if test else _center(int(case)),
            split="test" if test else "train",
            annotations=truths.get(_key(path, folder)),
            magnification="x40",
        )


def _is_field(path: Path, suffix: str) -> bool:
    return path.suffix.lower() == suffix and path.stem.isdecimal() and path.parent.name.isdecimal()


def _key(path: Path, folder: Path) -> tuple[bool, str, str]:
    test = any("test" in part.lower() for part in path.relative_to(folder).parts)
    return test, path.parent.name, path.stem


def _center(case: int) -> str | None:
    return "1" if 1 <= case <= 23 else "2" if case <= 48 else "3" if case <= 73 else None
