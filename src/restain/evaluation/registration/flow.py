"""Third stage: what an affine map cannot bend, by dense optical flow in a few smoothed rounds.

Farneback, Two-frame motion estimation based on polynomial expansion, 2003. Of OpenCV's and scikit-image's dense flows
this had the smallest error on planted warps (`benchmarks/registration.py`), in a quarter of scikit-image's time.
"""

import numpy as np
from numpy.typing import NDArray

from restain.evaluation.registration.contrast import Float32, as_8_bits
from restain.evaluation.registration.opencv import opencv
from restain.evaluation.registration.settings import RegistrationSettings
from restain.evaluation.registration.shift import Matrix

STEP = 4
"""Pixels between the nodes on which flow is kept: smoothed by 5 px, it is straight over 4, and a sixteenth the size."""

STRUCTURE = (0.1, 0.2)
"""Mean square of local contrast, without its grain, below which flow is not believed, and from which it is: tissue full
of edges has 0.6, noise on glass below 0.06."""

DOUBT = 0.002
"""Weight of no flow, beside that of flow measured nearby, 0..1: so small that it decides only where nothing is
measured. There, on empty glass, flow would follow noise; the affine map is kept instead."""

Flow = NDArray[np.float32]
"""(h, w, 2): x and y displacement, source pixels, at every fourth pixel; it is added before the affine map."""

Positions = NDArray[np.float32]
"""(H, W, 2): the (x, y) of the target for every pixel of the source."""


def find_flow(source: Float32, target: Float32, matrix: Matrix, settings: RegistrationSettings) -> Flow:
    """What is left to bend after the affine map.

    Args:
        source: (H, W) local contrast.
        target: (h, w) local contrast in the source's scale.
        matrix: from `find_affine`.
        settings: `flow_rounds`, `flow_window`, `flow_smoothing`.
    """
    cv2 = opencv()
    height, width = source.shape
    flow = np.zeros((height, width, 2), np.float32)
    identity = pixel_grid(height, width)
    still, weight = as_8_bits(source), _structure(source, settings.flow_smoothing)
    for _ in range(settings.flow_rounds):
        moved = as_8_bits(sample(target, _affine(matrix, identity + flow)))
        step = cv2.calcOpticalFlowFarneback(
            still, moved, None, pyr_scale=0.5, levels=3, winsize=settings.flow_window, iterations=5, poly_n=5,
            poly_sigma=1.1, flags=0,
        )  # fmt: skip
        # First along the new step, then along the old flow from where it leads to.
        flow = step + sample(flow, identity + step, outside="nearest")
        if settings.flow_smoothing > 0:
            total = _blurred(weight, settings.flow_smoothing) + np.float32(DOUBT)
            flow = _blurred(flow * weight[..., None], settings.flow_smoothing) / total[..., None]
    rows, columns = (-(-(side - 1) // STEP) + 1 for side in (height, width))
    beyond = ((0, (rows - 1) * STEP + 1 - height), (0, (columns - 1) * STEP + 1 - width), (0, 0))
    return np.ascontiguousarray(np.pad(flow, beyond, mode="edge")[::STEP, ::STEP])


def find_positions(matrix: Matrix, flow: Flow, size: tuple[int, int]) -> Positions:
    """Where in the target each pixel of the source is shown.

    Args:
        matrix: (2, 3) affine map.
        flow: from `find_flow`.
        size: (width, height) of the source.
    """
    identity = pixel_grid(size[1], size[0])
    return _affine(matrix, identity + sample(flow, identity / np.float32(STEP), outside="nearest"))


def pixel_grid(height: int, width: int) -> Positions:
    """(H, W, 2): the (x, y) of every pixel itself."""
    grid = np.empty((height, width, 2), np.float32)
    grid[..., 0] = np.arange(width)
    grid[..., 1] = np.arange(height)[:, None]
    return grid


def sample(picture: Float32, positions: Positions, *, outside: str = "zero") -> Float32:
    """Values of a (h, w) or (h, w, 2) picture at positions, bilinear; 0 or the nearest value outside it."""
    cv2 = opencv()
    border = cv2.BORDER_REPLICATE if outside == "nearest" else cv2.BORDER_CONSTANT
    values: Float32 = cv2.remap(picture, positions, None, cv2.INTER_LINEAR, borderMode=border)
    return values


def _structure(source: Float32, radius: float) -> Float32:
    """How far flow is believed, (H, W) in 0..1, by how much there is to follow."""
    coarse = _blurred(source, 1.0)  # noise differs from pixel to pixel, tissue does not
    energy = _blurred(coarse * coarse, max(radius, 1.0))
    low, high = STRUCTURE
    weight: Float32 = np.clip((energy - np.float32(low)) / np.float32(high - low), 0, 1)
    return weight


def _blurred(picture: Float32, radius: float) -> Float32:
    cv2 = opencv()
    out: Float32 = cv2.GaussianBlur(picture, (0, 0), radius, borderType=cv2.BORDER_REPLICATE)
    return out


def _affine(matrix: Matrix, positions: Positions) -> Positions:
    return positions @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
