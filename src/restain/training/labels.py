"""What the images of the target show: labels by folder or from a csv, for systems that learn from them, too.

A csv has the columns `image` and `label`, and others that are let be. An image is named by its path below the folder
that was given as the target, with or without its extension; or by a path from the folder of the csv on, or absolutely.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from restain.errors import InputError
from restain.training.tiles import Picture

UNKNOWN = -1
"""The label of an image of which nobody has said what it shows."""


@dataclass(frozen=True)
class Labels:
    """Which class each file is of.

    Attributes:
        classes: their names, sorted.
        numbers: by file, the place of its class among these; `UNKNOWN` for none.
        notes: what a person should know.
    """

    classes: tuple[str, ...]
    numbers: Mapping[Path, int]
    notes: tuple[str, ...] = ()


def find_labels(labels: str, training: Iterable[Picture], validation: Iterable[Picture]) -> Labels:
    """The labels of pictures, those of slides for all their tiles.

    Args:
        labels: "folders" for the name of the folder that a file lies in; else a csv.
        training: pictures that are trained on.
        validation: pictures kept for validation; their classes count, too, so that a split changes none.

    Raises:
        InputError: the csv cannot be used, or there are fewer than two classes.
    """
    parts = [{picture.path: picture for picture in pictures} for pictures in (training, validation)]
    pictures = parts[0] | parts[1]
    table = {} if labels == "folders" else _read(Path(labels))
    found = {
        path: path.absolute().parent.name if labels == "folders" else _look_up(table, picture)
        for path, picture in pictures.items()
    }
    classes = tuple(sorted({label for label in found.values() if label}))
    where = "their folders" if labels == "folders" else labels
    if not classes:
        raise InputError(f"by {where}, none of the {len(found)} images of the target has a label")
    if len(classes) == 1:
        raise InputError(f"by {where}, all images of the target are {classes[0]}; wanted two classes or more")
    numbers = {path: classes.index(label) if label else UNKNOWN for path, label in found.items()}
    notes = []
    without = [path for path, number in numbers.items() if number == UNKNOWN]
    if without:
        notes.append(f"{len(without)} of {len(found)} images of the target have no label, such as {without[0]}")
    trained = {numbers[path] for path in parts[0]}
    unseen = [name for number, name in enumerate(classes) if number not in trained]
    if unseen:
        notes.append(f"no image of the target that is trained on is of the class {' or '.join(unseen)}")
    return Labels(classes, numbers, tuple(notes))


def _read(path: Path) -> dict[str, str]:
    """Labels by the name of the image, and by its path where that is a file."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), skipinitialspace=True)
        columns = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a csv of labels ({error}); wanted one with the columns image,label, or folders"
        ) from None
    if not {"image", "label"} <= set(columns):
        raise InputError(f"{path} has the columns {', '.join(columns) or 'nothing'}; wanted image and label")
    table: dict[str, str] = {}
    for line, row in rows:
        image, label = ((row[name] or "").strip() for name in ("image", "label"))
        if not image:
            raise InputError(f"{path}, line {line}: the image is missing")
        name = Path(image).as_posix()
        file = path.parent / image
        for key in {name, str(file.resolve())} if file.is_file() else {name}:
            if table.setdefault(key, label) != label:
                raise InputError(f"{path}, line {line}: {image} is {label or 'nothing'} here and {table[key]} before")
    return table


def _look_up(table: Mapping[str, str], picture: Picture) -> str:
    keys = (str(picture.path.resolve()), f"{picture.name}{picture.path.suffix}", picture.name)
    return next((table[key] for key in keys if key in table), "")
