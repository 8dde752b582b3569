"""Positions that a csv without header lists, such as those of mitoses."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError
from restain.evaluation.datasets.item import table_rows


def read_positions(path: Path, *, rows_first: bool) -> NDArray[np.float64]:
    """The positions in a csv, one a row, as (N, 2) x and y in pixels; further columns are let be.

    Args:
        path: the csv; an empty one has none.
        rows_first: whether a row gives y before x, as TUPAC-2016 does; MITOS-ATYPIA-14 gives x before y.

    Raises:
        InputError: it cannot be read, or a row does not begin with two numbers.
    """
    points = np.zeros((0, 2))
    rows = table_rows(path)
    if rows:
        try:
            points = np.array([[float(cell) for cell in row[:2]] for row in rows], np.float64).reshape(len(rows), 2)
        except ValueError:
            raise InputError(f"{path} has a row that does not begin with two numbers") from None
    return points[:, ::-1].copy() if rows_first else points
