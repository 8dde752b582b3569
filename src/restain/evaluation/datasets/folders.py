"""Any folder of images: a subfolder is a class, or a slide, and nothing else is known."""

import os
from pathlib import Path
from typing import Literal

from restain.evaluation.datasets.item import Item, files_below, found
from restain.slides.batch import is_image


def list_folder(folder: str | os.PathLike[str], subfolders: Literal["label", "slide"] = "label") -> list[Item]:
    """The images in a folder and its subfolders.

    Args:
        folder: the folder.
        subfolders: what the name of the folder that an image lies in says: its label, each image being a slide of
            its own, or its slide. Images in `folder` itself have no label.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    items = []
    for path in files_below(folder, is_image):
        name = path.relative_to(folder).with_suffix("").as_posix()
        inside = path.parent.relative_to(folder).as_posix()
        known = None if inside == "." else inside
        if subfolders == "label":
            items.append(Item(path, "folder", name, label=known))
        else:
            items.append(Item(path, "folder", known or name))
    return found(items, folder, "LABEL/IMAGE.png")
