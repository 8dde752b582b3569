"""Camelyon16 and Camelyon17: whole slides of lymph nodes, with outlines of metastases.

    Camelyon16                                    Camelyon17
    training/normal/normal_001.tif                training/center_0/patient_000_node_0.tif
    training/tumor/tumor_001.tif                  training/lesion_annotations/patient_004_node_4.xml
    training/lesion_annotations/tumor_001.xml     training/stage_labels.csv (patient_000_node_0.tif,macro)
    testing/images/test_001.tif
    testing/lesion_annotations/test_001.xml
    testing/reference.csv (test_001,Tumor,…)

Copies that keep all slides in `images` and all outlines in `annotations` are read too: names decide, not folders.
In Camelyon16 a slide counts as a patient. Its training slides came in the order of their two centres: normal 1 to 100
and tumour 1 to 70 from Radboud (Nijmegen), the others from Utrecht; of its test slides the centre is not told. In
Camelyon17 each of five centres has twenty training patients, in order, of five nodes each.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from restain.evaluation.datasets.item import Item, files_below, found, table_rows

RADBOUD, UTRECHT = "radboud", "utrecht"
_OF_RADBOUD = {"normal": 100, "tumor": 70}
_SLIDE_16 = re.compile(r"(normal|tumor|test)_(\d{3})", re.IGNORECASE)
_SLIDE_17 = re.compile(r"(patient_(\d{3}))_node_\d", re.IGNORECASE)
_CENTER = re.compile(r"center_(\d)", re.IGNORECASE)
_TRAINING_PATIENTS, _PATIENTS_A_CENTER = 100, 20


def list_camelyon16(folder: str | os.PathLike[str]) -> list[Item]:
    """The slides of Camelyon16; labels are "normal" and "tumor", of test slides where a table or outlines tell.

    Raises:
        InputError: there is no such folder, or no slide in it.
    """
    folder = Path(folder)
    outlines = _by_stem(folder, ".xml", _SLIDE_16)
    told = _table(folder, "reference.csv")
    items = []
    for name, path in _by_stem(folder, ".tif", _SLIDE_16).items():
        kind, number = name.split("_")
        label: str | None = kind
        if kind == "test":
            label = told.get(name, "tumor" if name in outlines else None)
        items.append(
            Item(
                path,
                "camelyon16",
                name,
                patient=name,
                center=None if kind == "test" else RADBOUD if int(number) <= _OF_RADBOUD[kind] else UTRECHT,
                split="test" if kind == "test" else "train",
                label=label,
                annotations=outlines.get(name),
                magnification="x40",
            )
        )
    return found(items, folder, "training/normal/normal_001.tif")


def list_camelyon17(folder: str | os.PathLike[str]) -> list[Item]:
    """The slides of Camelyon17; labels are "negative", "itc", "micro" and "macro", where the table tells.

    Raises:
        InputError: there is no such folder, or no slide in it.
    """
    folder = Path(folder)
    outlines = _by_stem(folder, ".xml", _SLIDE_17)
    return found(_nodes(folder, outlines), folder, "training/center_0/patient_000_node_0.tif")


def _nodes(folder: Path, outlines: dict[str, Path]) -> Iterator[Item]:
    stages = _table(folder, "stage_labels.csv")
    for name, path in _by_stem(folder, ".tif", _SLIDE_17).items():
        patient = int(name[8:11])
        training = patient < _TRAINING_PATIENTS
        center = next((m[1] for part in path.parts if (m := _CENTER.fullmatch(part))), None)
        yield Item(
            path,
            "camelyon17",
            name,
            patient=f"patient_{patient:03d}",
            center=center or (str(patient // _PATIENTS_A_CENTER) if training else None),
            split="train" if training else "test",
            label=stages.get(name),
            annotations=outlines.get(name),
            magnification="x40",
        )


def _by_stem(folder: Path, suffix: str, name: re.Pattern[str]) -> dict[str, Path]:
    """Files by their names in small letters, in order; masks, which are slides too, have other names."""
    wanted: Callable[[Path], bool] = lambda path: path.suffix.lower() == suffix and bool(name.fullmatch(path.stem))  # noqa: E731
    return {path.stem.lower(): path for path in files_below(folder, wanted)}


def _table(folder: Path, name: str) -> dict[str, str]:
    """What a table without a header that we rely on says of each slide, in small letters."""
    told: dict[str, str] = {}
    for path in files_below(folder, lambda path: path.name == name):
        told |= {Path(row[0]).stem.lower(): row[1].lower() for row in table_rows(path) if len(row) > 1}
    return told
