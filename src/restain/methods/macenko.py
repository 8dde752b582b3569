"""Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.

The stain vectors are the robust extremes of the angle of optical densities in the plane of their two largest
principal components.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from restain.color.histogram import ColorHistogram
from restain.color.spaces import apply_matrix, rgb_to_density
from restain.errors import InputError
from restain.methods.base import Floats, Unlearnable
from restain.methods.flavours import (
    MACENKO_PAPER,
    STAINTOOLS,
    TIATOOLBOX,
    TORCHSTAIN,
    StainFlavour,
    check_flavour,
    dense,
)
from restain.methods.stain_vectors import StainNormalizer, order_stains
from restain.methods.statistics import weighted_covariance, weighted_percentile


@dataclass(eq=False, kw_only=True)
class Macenko(StainNormalizer):
    """Stain vectors from the extreme angles, concentrations by least squares.

    The defaults are the robust ones (see `StainNormalizer`): tissue by lightness, stain vectors not negative, what is
    off the plane of the stains left out and carried over. "Macenko" is another computation in every package; a
    `flavour` is that computation, for earlier results (with `background="none"`, for its bytes).

    Attributes:
        flavour: "restain"; "torchstain", "tiatoolbox" or "staintools": as these packages compute it; "paper": the
            publication's. A flavour decides all other settings but `background`, `alpha` and `beta` itself.
        tissue: "lightness": colours below `luminosity` (the rule of StainTools); "density": colours with every
            channel's optical density at or above `beta` (as torchstain and the Warwick toolbox have it).
        beta: threshold of the density rule, natural log.
        alpha: percentile of the angle taken as extreme, on both sides, 0..50.
    """

    name: ClassVar[str] = "macenko"

    flavour: Literal["restain", "torchstain", "tiatoolbox", "staintools", "paper"] = "restain"
    tissue: Literal["lightness", "density"] = "lightness"
    beta: float = 0.15
    alpha: float = 1.0

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.tissue not in ("lightness", "density"):
            raise InputError(f"got tissue={self.tissue!r}; wanted lightness or density")
        if not 0 <= self.alpha < 50:
            raise InputError(f"got alpha={self.alpha}; wanted a percentile in 0..50")
        if not self.beta >= 0:
            raise InputError(f"got beta={self.beta}; wanted an optical density, not negative")
        check_flavour(self, _FLAVOURS, free=("alpha", "beta"))

    def _as_package(self) -> StainFlavour | None:
        flavour = _FLAVOURS.get(self.flavour)
        if flavour is not None and self.flavour in ("torchstain", "paper"):
            return replace(flavour, tissue=dense(self.beta, flavour.white, flavour.offset))
        return flavour

    def _tissue(self, histogram: ColorHistogram, white: Floats) -> ColorHistogram:
        if self.tissue == "lightness" or self.flavour != "restain":
            return super()._tissue(histogram, white)
        stained = np.all(rgb_to_density(histogram.colors, white) >= self.beta, axis=1)
        return histogram.where(stained)

    def _find_stains(self, density: Floats, counts: Floats) -> Floats:
        return extreme_angles(density, counts, self.alpha, negative=self.flavour != "restain")


_FLAVOURS = {"torchstain": TORCHSTAIN, "tiatoolbox": TIATOOLBOX, "staintools": STAINTOOLS, "paper": MACENKO_PAPER}


def extreme_angles(density: Floats, counts: Floats, alpha: float, *, negative: bool = False) -> Floats:
    """The two stain vectors (2, 3), unit, hematoxylin first; not negative unless `negative` allows it.

    Args:
        density: (n, 3) optical densities of tissue.
        counts: (n,).
        alpha: percentile taken as extreme, on both sides.

    Raises:
        Unlearnable: the densities do not span a plane.
    """
    covariance = weighted_covariance(density, counts)
    values, vectors = np.linalg.eigh(covariance)
    if not values[1] > 1e-8:
        raise Unlearnable("the tissue's optical densities lie on a line: one stain or one colour")
    plane = vectors[:, [2, 1]].T  # the largest first
    # The sign of an eigenvector is arbitrary; fixed so that angles lie around 0 and cannot wrap at ±π.
    plane *= np.where(plane[:, :1] < 0, -1.0, 1.0)
    along = apply_matrix(density, plane.T)
    angle = np.arctan2(along[:, 1], along[:, 0])
    low, high = weighted_percentile(angle, counts, [alpha, 100.0 - alpha])
    extremes = [np.cos(a) * plane[0] + np.sin(a) * plane[1] for a in (low, high)]
    if negative:
        return order_stains(*extremes)
    # A slightly negative density is noise (no stain emits light); the nearest not negative vector replaces it.
    first, second = (np.maximum(vector, 0.0) for vector in extremes)
    if not (first.any() and second.any()):
        raise Unlearnable("a stain vector has only negative densities")
    return order_stains(first, second)
