"""Outlines as ASAP writes them (Camelyon): polygons in level-0 pixels, in groups that say what they enclose."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from restain.errors import FormatError

EXCLUDING = frozenset(["_2", "exclusion", "normal", "none"])
"""Groups, in small letters, whose outlines are healthy tissue inside a tumour; Camelyon16 calls them _2 or Exclusion,
Camelyon17 normal. All other groups (Tumor, _0, _1, metastases) are tumour."""


@dataclass(frozen=True)
class Outline:
    """One polygon."""

    group: str
    points: NDArray[np.float64]
    """(N, 2) x and y in level-0 pixels, in order; closed from the last to the first."""

    @property
    def excluding(self) -> bool:
        """Whether it cuts healthy tissue out of a tumour."""
        return self.group.lower() in EXCLUDING


def read_outlines(path: str | os.PathLike[str]) -> list[Outline]:
    """The outlines in an ASAP file; those of fewer than three points are left out.

    A document type, in which entities could be declared that open other files or grow without end, is refused:
    ASAP writes none.

    Raises:
        FormatError: it is no ASAP file, is damaged, or declares a document type.
    """
    path = Path(path)
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    try:
        parser.Parse(path.read_bytes(), True)
        outlines = [Outline(group, _in_order(points)) for group, points in reader.found if len(points) >= 3]
    except (OSError, expat.ExpatError, ValueError, KeyError) as error:
        raise FormatError(f"{path} cannot be read as ASAP annotations ({error})") from None
    if not reader.asap:
        raise FormatError(f"{path} is XML, but not of ASAP; wanted ASAP_Annotations")
    return outlines


def draw_outlines(
    outlines: Sequence[Outline], size: tuple[int, int], location: tuple[float, float] = (0, 0), downsample: float = 1
) -> NDArray[np.bool_]:
    """Where tumour is: inside an including outline, and in no excluding one.

    Args:
        outlines: from `read_outlines`.
        size: (width, height) of the mask.
        location: (x, y) of its top left corner, level-0 pixels.
        downsample: level-0 pixels per pixel of the mask.

    Returns:
        (height, width) bool.
    """
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for outline in sorted(outlines, key=lambda outline: outline.excluding):
        # Pixel i covers i..i+1, and its middle decides: Pillow counts from middles.
        points = (outline.points - np.asarray(location, np.float64)) / downsample - 0.5
        draw.polygon([(float(x), float(y)) for x, y in points], fill=0 if outline.excluding else 1)
    return np.asarray(canvas, np.bool_)


class _Reader:
    """What the parser meets, gathered."""

    def __init__(self) -> None:
        self.asap = False
        self.found: list[tuple[str, list[tuple[float, float, float]]]] = []

    def refuse(self, *_: Any) -> None:
        raise ValueError("it declares a document type, which is not read")

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "ASAP_Annotations":
            self.asap = True
        elif name == "Annotation":
            self.found.append((attributes.get("PartOfGroup", "None"), []))
        elif name == "Coordinate" and self.found:
            order, x, y = (float(attributes[key]) for key in ("Order", "X", "Y"))
            if not np.isfinite([order, x, y]).all():
                raise ValueError("a coordinate is not finite")
            self.found[-1][1].append((order, x, y))


def _in_order(points: list[tuple[float, float, float]]) -> NDArray[np.float64]:
    return np.array(sorted(points, key=lambda point: point[0]), np.float64)[:, 1:]
