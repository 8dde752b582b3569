"""Trilinear interpolation in a lattice of colours, in NumPy: which eight points a colour lies between, and how near.

Trilinear rather than tetrahedral: the result is the same whatever the order of the channels, it has no creases along
the diagonals of a cell, and it is the mean that `restain.color.regression` fits. `kernels.trilinear` computes the
same faster; this is for the few colours for which Numba need not be imported.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CORNERS = np.array(list(product((0, 1), repeat=3)))
"""(8, 3): the corners of a cell, by their steps in red, green and blue."""


def grid_colors(size: int) -> Floats:
    """The colours at the points of a lattice: (size³, 3) in 0..255, red varying slowest."""
    axis = np.arange(size) * 255.0 / (size - 1)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def corner_weights(colors: NDArray[Any], size: int) -> tuple[NDArray[np.int64], Floats]:
    """For colours (n, 3) in 0..255 the first corner of each one's cell, and the shares of the cell's corners.

    Returns:
        (n,) the index of the corner with the least red, green and blue, in a lattice flattened to (size³, 3); and
        (n, 8) the shares of the corners in the order of `CORNERS`, each row with sum 1.
    """
    place = np.clip(np.asarray(colors, np.float64), 0.0, 255.0) * ((size - 1) / 255.0)
    cell = np.minimum(place.astype(np.int64), size - 2)
    share = place - cell
    weights = np.ones((len(place), 8))
    for channel in range(3):
        upper = share[:, channel, None]
        weights *= np.where(CORNERS[:, channel], upper, 1.0 - upper)
    return (cell[:, 0] * size + cell[:, 1]) * size + cell[:, 2], weights


def corner_steps(size: int) -> NDArray[np.int64]:
    """(8,): how far each corner of a cell lies behind its first in a flattened lattice."""
    steps: NDArray[np.int64] = CORNERS @ np.array([size * size, size, 1])
    return steps


def interpolate(levels: Floats, colors: NDArray[Any]) -> Floats:
    """A lattice (size, size, size, 3), indexed by red, green and blue, at colours (n, 3) in 0..255: (n, 3)."""
    size = len(levels)
    first, weights = corner_weights(colors, size)
    around = levels.reshape(-1, 3)[first[:, None] + corner_steps(size)]
    result: Floats = (weights[:, :, None] * around).sum(axis=1)
    return result
