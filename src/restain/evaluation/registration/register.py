"""Register a pair: the whole story on one page.

Both pictures become local contrast, in which stains and scanners look alike. Phase correlation finds the shift (and
the scale, where the sizes allow two), ECC the affine map, Farneback's flow what is left. The same is done from the
target to the source; what does not find its way back is the sign of a bad pair.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from restain.color.images import RGB8, as_rgb8, opaque
from restain.errors import InputError
from restain.evaluation.registration.affine import find_affine
from restain.evaluation.registration.contrast import Float32, Mask, gray_levels, local_contrast
from restain.evaluation.registration.flow import STEP, Flow, Positions, find_flow, find_positions
from restain.evaluation.registration.opencv import LONGEST_SIDE, opencv
from restain.evaluation.registration.quality import Quality, judge, measure_quality, return_errors
from restain.evaluation.registration.result import Registration
from restain.evaluation.registration.settings import RegistrationSettings
from restain.evaluation.registration.shift import Matrix, agreement, find_shift, possible_scales

SMALLEST_SIDE = 64
"""Shortest side, pixels, of a picture that can be registered; of a smaller one the borders leave little."""

FLAT = 0.05
"""Standard deviation of local contrast below which a picture shows nothing to hold on to; tissue has about 1."""


@dataclass(frozen=True)
class _Picture:
    pixels: RGB8
    known: Mask | None
    contrast: Float32

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]


def register(
    source: Any,
    target: Any,
    settings: RegistrationSettings | None = None,
    *,
    shift: tuple[float, float] | None = None,
) -> Registration:
    """Find how a target lies over a source: two pictures of one piece of tissue, from two scanners or stainings.

    The same pictures and settings give the same bytes. Nothing about a bad pair raises: blank pictures, pictures
    below 64 pixels a side and pictures of different tissue give a registration that is not `accepted` and whose
    `reason` says why.

    Args:
        source: (H, W, 3) uint8, whose pixels stay as they are; gray, RGBA and floats as everywhere. Transparent
            pixels count for nothing.
        target: (h, w, 3), which is warped into the source's frame. Its size may differ: by another crop, or, with the
            same aspect ratio, by another pixel size.
        settings: how; None for the defaults.
        shift: (x, y) pixels from where something is in the source to where it is in the target, if it is known;
            phase correlation otherwise.

    Raises:
        InputError: what came is no picture, or is longer than 32,000 pixels.
        MissingExtraError: OpenCV or scikit-image is not installed.
    """
    settings = settings or RegistrationSettings()
    first, second = _prepared(source, settings, "source"), _prepared(target, settings, "target")
    reason = _hopeless(first, second)
    if reason:
        return _rejected(first, second, reason, settings)
    scaled, start = _best_scale(first, second, shift, settings)
    matrix, flow = _measured(first, scaled, start, settings)
    back = _measured(scaled, first, (-start[0], -start[1]), settings)
    errors = return_errors(find_positions(matrix, flow, first.size), find_positions(*back, scaled.size))

    matrix = _to_target_pixels(matrix, scaled.size, second.size)
    mask = _mask(first, second, find_positions(matrix, flow, first.size), settings.border)
    result = Registration(matrix, flow, mask, second.size, Quality(), "", settings)
    quality = _quality(first, second, scaled, result, errors, settings)
    return Registration(matrix, flow, mask, second.size, quality, judge(quality, settings), settings)


def _prepared(image: Any, settings: RegistrationSettings, role: str) -> _Picture:
    pixels = np.ascontiguousarray(as_rgb8(image))
    if max(pixels.shape[:2]) > LONGEST_SIDE:
        height, width = pixels.shape[:2]
        raise InputError(
            f"the {role} came as {width}x{height}; wanted at most {LONGEST_SIDE} pixels a side: register tiles of it"
        )
    known = opaque(image)
    return _Picture(pixels, known, local_contrast(gray_levels(pixels), known, settings.contrast_radius))


def _hopeless(source: _Picture, target: _Picture) -> str:
    for role, picture in (("source", source), ("target", target)):
        if min(picture.size) < SMALLEST_SIDE:
            return f"the {role} is {picture.size[0]}x{picture.size[1]}, below {SMALLEST_SIDE} pixels a side"
        if float(picture.contrast.std()) < FLAT:
            return f"the {role} is blank"
    return ""


def _best_scale(
    source: _Picture, target: _Picture, shift: tuple[float, float] | None, settings: RegistrationSettings
) -> tuple[_Picture, tuple[float, float]]:
    """The target in the source's scale, and the shift to it: of the scales that the sizes allow, the best."""
    found = []
    for scale in possible_scales(source.size, target.size):
        picture = target if scale == 1 else _resized(target, source.size, settings)
        start = find_shift(source.contrast, picture.contrast) if shift is None else (shift[0] / scale, shift[1] / scale)
        found.append((agreement(source.contrast, picture.contrast, start), picture, start))
    _, picture, start = max(found, key=lambda candidate: candidate[0])
    return picture, start


def _resized(picture: _Picture, size: tuple[int, int], settings: RegistrationSettings) -> _Picture:
    cv2 = opencv()
    method = cv2.INTER_AREA if size < picture.size else cv2.INTER_CUBIC
    pixels = cv2.resize(picture.pixels, size, interpolation=method)
    known = None
    if picture.known is not None:
        known = cv2.resize(picture.known.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    return _Picture(pixels, known, local_contrast(gray_levels(pixels), known, settings.contrast_radius))


def _measured(
    source: _Picture, target: _Picture, shift: tuple[float, float], settings: RegistrationSettings
) -> tuple[Matrix, Flow]:
    matrix = find_affine(source.contrast, target.contrast, shift)
    return matrix, find_flow(source.contrast, target.contrast, matrix, settings)


def _to_target_pixels(matrix: Matrix, scaled: tuple[int, int], target: tuple[int, int]) -> Matrix:
    """The map onto the target as it came, from that onto the target in the source's scale; pixel centres correspond."""
    scale = np.array(target) / np.array(scaled)
    out: Matrix = matrix * scale[:, None]
    out[:, 2] += (scale - 1) / 2
    return out


def _mask(source: _Picture, target: _Picture, positions: Positions, border: int) -> Mask:
    inner = _eroded(target, border)
    nearest = np.rint(positions).astype(np.int64)
    x, y = nearest[..., 0], nearest[..., 1]
    inside = (x >= 0) & (y >= 0) & (x < target.size[0]) & (y < target.size[1])
    covered = np.zeros(inside.shape, np.bool_)
    covered[inside] = inner[y[inside], x[inside]]
    return covered & _eroded(source, border)


def _eroded(picture: _Picture, border: int) -> Mask:
    """Which pixels are further than `border` from the edges and from padding."""
    cv2 = opencv()
    width, height = picture.size
    known = np.ones((height, width), np.uint8) if picture.known is None else picture.known.astype(np.uint8)
    square = np.ones((2 * border + 1, 2 * border + 1), np.uint8)
    eroded: Mask = cv2.erode(known, square, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(np.bool_)
    return eroded


def _quality(
    source: _Picture,
    target: _Picture,
    scaled: _Picture,
    result: Registration,
    errors: Float32,
    settings: RegistrationSettings,
) -> Quality:
    after = result.warp(target.pixels)
    before = np.full_like(source.pixels, 255)
    height, width = (min(a, b) for a, b in zip(before.shape[:2], scaled.pixels.shape[:2], strict=True))
    before[:height, :width] = scaled.pixels[:height, :width]
    contrasts = [local_contrast(gray_levels(pixels), None, settings.contrast_radius) for pixels in (before, after)]
    return measure_quality(
        (source.pixels, before, after), (source.contrast, contrasts[0], contrasts[1]), errors, result.mask, settings
    )


def _rejected(source: _Picture, target: _Picture, reason: str, settings: RegistrationSettings) -> Registration:
    """The identity, with nothing in its mask: what can be said about a pair that cannot be measured."""
    width, height = source.size
    flow = np.zeros((-(-(height - 1) // STEP) + 1, -(-(width - 1) // STEP) + 1, 2), np.float32)
    mask = np.zeros((height, width), np.bool_)
    return Registration(np.eye(2, 3), flow, mask, target.size, Quality(), reason, settings)
