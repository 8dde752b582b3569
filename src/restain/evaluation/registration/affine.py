"""Second stage: rotation, scale and shear, by maximizing the enhanced correlation coefficient (ECC).

Evangelidis and Psarakis, Parametric image alignment using enhanced correlation coefficient maximization, 2008.
"""

import numpy as np

from restain.evaluation.registration.contrast import Float32
from restain.evaluation.registration.opencv import opencv
from restain.evaluation.registration.shift import Matrix

COARSE_SIDE = 512
"""Longest side, pixels, of the first pass: at a frame's corner half a degree is many pixels, and few in a small one."""

SMOOTHING = 3
"""Side, pixels, of the Gaussian that OpenCV applies before it takes gradients."""

FARTHEST = 0.15
"""Largest entry by which the linear part may differ from the identity: scanners turn and stretch tissue by less, and
a wider one is a search that ran away."""


def find_affine(source: Float32, target: Float32, shift: tuple[float, float]) -> Matrix:
    """The affine map that lays the target over the source, starting from a shift; the shift itself where none is found.

    Args:
        source: (H, W) local contrast.
        target: (h, w) local contrast in the source's scale.
        shift: (x, y) pixels, from `find_shift`.
    """
    start: Matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    factor = max(source.shape) / COARSE_SIDE
    matrix = start
    if factor > 1:
        small = [_shrunk(picture, factor) for picture in (source, target)]
        found = _maximized(small[0], small[1], _at_scale(start, 1 / factor))
        matrix = start if found is None else _at_scale(found, factor)
    found = _maximized(source, target, matrix)
    return matrix if found is None else found


def _maximized(source: Float32, target: Float32, start: Matrix) -> Matrix | None:
    cv2 = opencv()
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6)
    matrix = start.astype(np.float32)
    try:
        _, matrix = cv2.findTransformECC(source, target, matrix, cv2.MOTION_AFFINE, criteria, None, SMOOTHING)
    except cv2.error:  # it does not converge, or the two do not overlap
        return None
    found: Matrix = np.asarray(matrix, np.float64)
    fine = np.isfinite(found).all() and np.abs(found[:, :2] - np.eye(2)).max() <= FARTHEST
    return found if fine else None


def _at_scale(matrix: Matrix, scale: float) -> Matrix:
    """The same map between pictures whose sides are `scale` times as long; pixel centres stay centres."""
    half = (scale - 1) / 2
    offset = scale * matrix[:, 2] + half - half * matrix[:, :2].sum(axis=1)
    return np.column_stack([matrix[:, :2], offset])


def _shrunk(picture: Float32, factor: float) -> Float32:
    cv2 = opencv()
    size = tuple(max(1, round(side / factor)) for side in picture.shape[::-1])
    out: Float32 = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return out
