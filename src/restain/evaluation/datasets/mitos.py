"""MITOS-ATYPIA-14: sixteen breast slides, each scanned by an Aperio and a Hamamatsu, in frames at x10, x20 and x40.

    A03/frames/x40/A03_00Aa.tiff     Aperio (1539x1376 pixels)
    H03/frames/x40/H03_00Aa.tiff     Hamamatsu (1663x1485), the same field
    A03/mitosis/A03_00Aa_mitosis.csv             x, y, confidence of the mitoses of an x40 frame
    A03/atypia/x20/A03_00A_cna_score_decision.csv    the nuclear atypia of an x20 frame, 1 to 3; some are empty

An x20 frame holds four x40 frames, whose names end in a, b, c, d. The archives unpack to folders of several depths, and
some slides to a folder within a folder of the same name, so that frames are looked for wherever they are. Training:
eleven slides, 300 and 1200 frames at x20 and x40; test: five slides, 124 and 496.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.datasets.item import Item, files_below, found, table_rows
from restain.evaluation.datasets.pairing import pair_items
from restain.evaluation.datasets.pairs import Pair
from restain.evaluation.datasets.positions import read_positions

TRAINING_SLIDES = frozenset(["03", "04", "05", "07", "10", "11", "12", "14", "15", "17", "18"])
TEST_SLIDES = frozenset(["06", "08", "09", "13", "16"])
SCANNERS = {"A": "aperio", "H": "hamamatsu"}

_FRAME = re.compile(r"([AH])(\d\d)_(\d\d[A-D]?[a-d]?)\.tiff?", re.IGNORECASE)
_LAYOUT = "A03/frames/x40/A03_00Aa.tiff"


def list_mitos(folder: str | os.PathLike[str], magnification: str | None = None) -> list[Item]:
    """The frames of MITOS-ATYPIA-14, or a part of them.

    An item's label is the atypia score of an x20 frame where there is one, its annotations are the mitoses of an x40
    frame, and its pair is the frame's name without the scanner's letter. Patients are not published: a slide counts
    as one.

    Args:
        folder: what the archives were unpacked into.
        magnification: "x10", "x20" or "x40"; None for all.

    Raises:
        InputError: there is no such folder, or no frame in it.
    """
    folder = Path(folder)
    return found(_frames(folder, magnification), folder, _LAYOUT)


def mitos_pairs(folder: str | os.PathLike[str], magnification: str = "x40") -> list[Pair]:
    """Aperio frames, as sources, with the Hamamatsu frames of the same fields, as targets; not registered."""
    return pair_items(list_mitos(folder, magnification), "aperio", "hamamatsu")


def read_mitoses(item: Item) -> NDArray[np.float64]:
    """The mitoses of an x40 frame, (N, 2) x and y in its pixels; none where it has no annotations."""
    return np.zeros((0, 2)) if item.annotations is None else read_positions(item.annotations, rows_first=False)


def _frames(folder: Path, magnification: str | None) -> Iterator[Item]:
    for path in files_below(folder, lambda path: _FRAME.fullmatch(path.name) is not None):
        match, scale = _FRAME.fullmatch(path.name), path.parent.name.lower()
        if match is None or path.parent.parent.name != "frames" or (magnification not in (None, scale)):
            continue
        slide = match[2]
        home = path.parent.parent.parent
        mitoses = home / "mitosis" / f"{path.stem}_mitosis.csv"
        yield Item(
            path,
            "mitos",
            slide,
            scanner=SCANNERS[match[1].upper()],
            split="train" if slide in TRAINING_SLIDES else "test" if slide in TEST_SLIDES else None,
            label=_atypia(home / "atypia" / scale / f"{path.stem}_cna_score_decision.csv"),
            annotations=mitoses if scale == "x40" and mitoses.is_file() else None,
            magnification=scale,
            pair=f"{slide}_{match[3]}",
        )


def _atypia(path: Path) -> str | None:
    rows = table_rows(path) if path.is_file() else []
    return rows[0][0] if rows else None
