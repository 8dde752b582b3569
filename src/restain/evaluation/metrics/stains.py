"""How far the stain vectors of two images are apart, as an angle."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.histogram import ColorHistogram
from restain.errors import EstimateWarning, InputError
from restain.evaluation.metrics.inputs import Floats, checked_mask, checked_rgb
from restain.methods.macenko import Macenko
from restain.methods.stain_vectors import StainAppearance, angle_between, order_stains


def stain_angle(reference: Any, image: Any, mask: Any = None) -> float:
    """Mean angle between the stain vectors of two images, hematoxylin with hematoxylin and eosin with eosin, degrees.

    Lower is better, 0 for the same stains. Vectors are unit rows of optical density against each image's own white
    point, estimated by restain's Macenko. Images need not be registered, but should show similar tissue: on a tile of
    few colours the estimate itself wanders by degrees.

    Args:
        reference: (H, W, 3) uint8, of any size.
        image: (H, W, 3) uint8, of any size.
        mask: (H, W) bool, of the image's size: the pixels to measure. It holds for the reference too where that has
            the image's size, as a registered target does: outside the mask a warped target is filled with white, which
            would be taken for its glass. A reference of another size is taken whole.

    Returns:
        Degrees in 0..90; NaN where an image holds too little stained tissue to be measured.

    Raises:
        InputError: an image or the mask is not what was wanted.
    """
    first, second = checked_rgb(reference, "reference"), checked_rgb(image)
    where = checked_mask(mask, second.shape[:2])
    matrices = [_estimated(first, where if first.shape == second.shape else None), _estimated(second, where)]
    if any(matrix is None for matrix in matrices):
        return float("nan")
    return float(stain_vector_angles(*matrices).mean())


def stain_vector_angles(first: Any, second: Any) -> Floats:
    """Angles in degrees between two pairs of stain vectors, (2,): hematoxylin's, eosin's.

    Args:
        first: (2, 3) rows of optical density, of any length, in either order; the one with the larger share of red is
            taken for hematoxylin. A row of negative densities is turned round, as its sign means nothing.
        second: the same.

    Raises:
        InputError: not (2, 3), not finite, or a row of zeros.
    """
    a, b = (order_stains(*_turned(matrix)) for matrix in (first, second))
    return np.array([angle_between(a[row], b[row]) for row in range(2)])


def _turned(matrix: Any) -> Floats:
    rows = np.asarray(matrix, np.float64)
    if rows.shape != (2, 3) or not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise InputError(f"got stain vectors of shape {rows.shape}; wanted two rows of R, G, B densities, not zero")
    turned: Floats = np.where(rows.sum(axis=1, keepdims=True) < 0, -rows, rows)
    return turned


def _estimated(pixels: NDArray[np.uint8], mask: Any) -> Floats | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        appearance = Macenko().estimate(ColorHistogram.from_image(pixels, mask=mask))
    assert isinstance(appearance, StainAppearance)
    return None if appearance.fallback else appearance.stain_matrix
