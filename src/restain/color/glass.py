"""The white point: what a scanner makes of empty glass, and how near a colour is to it.

Glass is flat (its 8×8 blocks vary by sensor and JPEG noise alone), it is the brightest thing on a slide, and nearly
neutral. Pale cytoplasm is flat too, but darker than the glass beside it; padding is exactly white and has no noise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.histogram import ColorHistogram

PRIOR_WHITE = (240.0, 240.0, 240.0)
"""Taken where no glass is seen. Fourteen sources, measured: 229 to 255, median 241; 240 is also what most packages
assume. Neutral, because a guess must not tint."""

GLASS_DENSITY = (0.03, 0.25)
"""Optical densities against the white point between which glass fades into tissue: up to the first (7 levels, twice
the noise of the noisiest glass measured) a colour is glass, from the second (a light wash of stain) it is tissue.
Ending at 0.15 left blue rims around lumens where a method shifts all colours alike; ending at 0.35, four scans of one
slide differed more again."""

_LEAST_PIXELS = 128  # two 8×8 blocks
_MOST_ROUNDS = 50  # of the mean shift; glass of an even lamp rests after three
_NEAR = 6.0  # levels around the glass level that count as the same glass
_SHADE = 0.85  # of the glass level: how dark a lamp leaves the corners
_PADDING_NOISE = 0.02  # exact white with less than this share of almost-white beside it has no noise: padding


@dataclass(frozen=True)
class WhitePoint:
    """A white point and where it comes from.

    Attributes:
        level: (3,) float64, 0..255, the mean colour of glass.
        origin: "glass" (measured), "prior" (no glass was seen), or "assumed" (255, because `background="none"`).
    """

    level: NDArray[np.float64]
    origin: str


def find_white_point(histogram: ColorHistogram) -> WhitePoint:
    """Estimate the white point from the flat regions of a histogram, robustly.

    The brightest tenth of the flat pixels is taken, and its median is moved to the mean of the flat pixels within 6
    levels until it rests (mean shift: to the nearest mode). The result is believed if it is as bright and as neutral
    as glass has to be: the less there is of it, the more. Otherwise, or where positions were not known, it is
    `PRIOR_WHITE`.
    """
    return _prior() if histogram.flat is None else white_of_flat(histogram.flat, histogram.pixels)


def white_of_flat(flat: ColorHistogram, pixels: float) -> WhitePoint:
    """`find_white_point` from the flat regions alone, of an image of so many pixels."""
    if not len(flat):
        return _prior()
    least = _LEAST_PIXELS * min(1.0, float(flat.counts.min()))  # counts may be weights, of which the least is a pixel
    if flat.pixels < least:
        return _prior()
    flat = _without_padding(flat, least)
    colors, counts = flat.colors.astype(np.float64), flat.counts
    brightness = colors.mean(axis=1)
    order = np.argsort(-brightness, kind="stable")
    tenth = order[: int(np.searchsorted(np.cumsum(counts[order]), 0.1 * counts.sum())) + 1]
    level = np.array([_weighted_median(colors[tenth, channel], counts[tenth]) for channel in range(3)])
    for _ in range(_MOST_ROUNDS):
        near = (np.abs(colors - level) <= _NEAR).all(axis=1)
        mass = counts[near].sum()
        if mass < least:
            return _prior()
        before, level = level, (colors[near] * counts[near, None]).sum(axis=0) / mass
        if np.abs(level - before).max() < 0.01:
            break
    # Under a lamp that lights the middle more, glass varies; all of it that is nearly as bright is evidence.
    shaded = counts[(colors >= _SHADE * level).all(axis=1)].sum()
    return WhitePoint(level, "glass") if _plausible(level, shaded / max(pixels, flat.pixels)) else _prior()


def glass_weight(colors: NDArray[np.float64], white: ArrayLike) -> NDArray[np.float64]:
    """How much of a colour is glass: 1 near the white point, 0 in tissue, smooth between; (n, 3) gives (n,)."""
    density = -np.log((colors + 1.0) / (np.asarray(white, np.float64) + 1.0)).min(axis=-1)
    low, high = GLASS_DENSITY
    tissue = np.clip((density - low) / (high - low), 0.0, 1.0)
    weight: NDArray[np.float64] = 1.0 - tissue * tissue * (3.0 - 2.0 * tissue)
    return weight


def _plausible(level: NDArray[np.float64], share: float) -> bool:
    """Whether glass can look like this, filling this share of the image.

    Measured: under a badly balanced camera glass reaches a tint of 0.34 and a mean level of 130. Where it fills a
    tenth of the image that is believed. A small flat patch may be pale tissue instead, so it has to be brighter and
    more neutral; and since the stains of tissue absorb green most, a cast that leaves green high is no stain.
    """
    tint = float(np.log((level.max() + 1) / (level.min() + 1)))
    if share >= 0.1:
        return tint <= 0.35 and float(level.mean()) >= 110
    if level[1] > level.min() + 5:
        return tint <= 0.3 and float(level.min()) >= 170
    return tint <= 0.15 and float(level.min()) >= 190


def _prior() -> WhitePoint:
    return WhitePoint(np.array(PRIOR_WHITE), "prior")


def _without_padding(flat: ColorHistogram, least: float) -> ColorHistogram:
    """Drop exact white if it has no noise around it and other flat colours are left.

    Glass that saturates a scanner is white too, but its noise shows as 252 to 254.
    """
    exact = flat.codes == 0xFFFFFF
    if not exact.any() or exact.all():
        return flat
    almost = (flat.colors >= 250).all(axis=1) & ~exact
    rest = flat.where(~exact)
    is_padding = flat.counts[almost].sum() < _PADDING_NOISE * flat.counts[exact].sum()
    return rest if is_padding and rest.pixels >= least else flat


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
