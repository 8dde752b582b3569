"""GlaS (MICCAI 2015): 165 fields of colon from 16 slides, each of another patient, with every gland outlined.

    train_1.bmp, train_1_anno.bmp     an image, and its instances: 0 is background, 1, 2, … are glands
    testA_1.bmp, …; testB_1.bmp, …    85 images for training, 60 and 20 for test
    Grade.csv                         name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)

Copies of the data set that keep images and masks in two folders, `img` and `mask`, are read too.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from restain.errors import InputError
from restain.evaluation.datasets.item import Item, files_below, found, table_rows

_NAME = re.compile(r"(train|testA|testB)_\d+")
_SUFFIXES = frozenset([".bmp", ".png", ".tif", ".tiff"])
_LAYOUT = "train_1.bmp, train_1_anno.bmp"
_MASK_FOLDERS = frozenset(["mask", "masks", "labelcol"])


def list_glas(folder: str | os.PathLike[str]) -> list[Item]:
    """The images of GlaS; labels are benign or malignant, splits "train", "testA" and "testB".

    Patients and labels need Grade.csv. Without it each image counts as a slide of its own, and nothing that depends
    on patients can be promised.

    Raises:
        InputError: there is no such folder, no image in it, or Grade.csv lacks its columns.
    """
    folder = Path(folder)
    return found(_images(folder), folder, _LAYOUT)


def _images(folder: Path) -> Iterator[Item]:
    files = files_below(folder, lambda path: path.suffix.lower() in _SUFFIXES)
    masks = {path.stem.removesuffix("_anno"): path for path in files if _is_mask(path)}
    grades: dict[str, tuple[str, str]] = {}
    for table in files_below(folder, lambda path: path.name.lower() == "grade.csv"):
        grades |= _grades(table)
    for path in files:
        match = _NAME.fullmatch(path.stem)
        if match is None or _is_mask(path):
            continue
        patient, label = grades.get(path.stem, (None, None))
        yield Item(
            path,
            "glas",
            slide=path.stem if patient is None else f"patient {patient}",
            patient=patient,
            center="Coventry",
            scanner="mirax",
            split=match[1],
            label=label,
            mask=masks.get(path.stem),
            magnification="x20",
        )


def _is_mask(path: Path) -> bool:
    return path.stem.endswith("_anno") or path.parent.name in _MASK_FOLDERS


def _grades(path: Path) -> dict[str, tuple[str, str]]:
    header, *rows = table_rows(path) or [[]]
    wanted = ("name", "patient ID", "grade (GlaS)")
    if not set(wanted) <= set(header):
        raise InputError(f"{path} has the columns {', '.join(header) or 'nothing'}; wanted {', '.join(wanted)}")
    name, patient, grade = (header.index(column) for column in wanted)
    return {row[name]: (row[patient], row[grade]) for row in rows if len(row) > max(name, patient, grade)}
