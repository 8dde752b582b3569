"""What other packages compute under the same names, so that users can reproduce earlier results and move over.

Each flavour is its package's computation on a whole image, with the white point that the package assumes; use it with
`background="none"` for its bytes. The facts were read in torchstain 1.4 (its NumPy backend), tiatoolbox 1.3 to 2.1 and
StainTools 2.1. "paper" is the publication's own, which all of them differ from.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.spaces import apply_matrix, lab_to_rgb, rgb_to_lab
from restain.errors import InputError
from restain.methods.base import Floats
from restain.methods.opencv_lab import lab8_to_rgb, rgb_to_lab8
from restain.methods.statistics import weighted_percentile

Mask = NDArray[np.bool_]
TissueRule = Callable[[Floats, Floats], Mask]
"""Which colours (n, 3) with counts (n,) are tissue: (n,)."""


@dataclass(frozen=True)
class StainFlavour:
    """How a package gets from levels to stains and back; what is matched is always the 99th percentile of all pixels.

    Attributes:
        white: I₀ of the Beer-Lambert law, OD = −ln((I + offset)/I₀).
        offset: added to the levels before the logarithm, and not taken off again unless `exact_inverse`.
        darkest: lowest level that is told apart; darker ones count as this.
        least_density: lowest optical density; −inf where brighter than I₀ counts as negative stain.
        tissue: which colours the stain vectors are found in.
        sparsity: λ of the non-negative lasso for the concentrations; None for least squares, which may be negative.
        truncate: results are cut, not rounded, to whole levels.
        exact_inverse: take `offset` off again when levels are computed from densities.
    """

    white: float
    offset: float
    darkest: float
    least_density: float
    tissue: TissueRule
    sparsity: float | None = None
    truncate: bool = True
    exact_inverse: bool = False

    def density(self, levels: Floats) -> Floats:
        """Levels (n, 3) in 0..255 to optical densities."""
        transmittance = (np.maximum(levels, self.darkest) + self.offset) / self.white
        return np.maximum(-np.log(transmittance), self.least_density)

    def levels(self, density: Floats) -> Floats:
        """Optical densities (n, 3) to levels, cut to whole ones where the package does."""
        # The exponent is kept finite: what it then gives is far above 255 and clipped all the same.
        values = self.white * np.exp(np.minimum(-density, 50.0)) - (self.offset if self.exact_inverse else 0.0)
        return np.floor(np.clip(values, 0.0, 255.0)) if self.truncate else values


def dense(threshold: float, white: float, offset: float) -> TissueRule:
    """Tissue is what has every channel's optical density at or above a threshold (natural log)."""

    def rule(levels: Floats, counts: Floats) -> Mask:
        dark_enough: Mask = np.all(-np.log((levels + offset) / white) >= threshold, axis=1)
        return dark_enough

    return rule


def darker(luminosity: float) -> TissueRule:
    """Tissue is what is below a share of full CIELAB lightness, in the 8-bit lightness of OpenCV."""

    def rule(levels: Floats, counts: Floats) -> Mask:
        below: Mask = rgb_to_lab8(levels)[:, 0] / 255.0 < luminosity
        return below

    return rule


def darker_stretched(luminosity: float) -> TissueRule:
    """As `darker`, after stretching the 2nd to 98th percentile of all values of the image to 0..255 (tiatoolbox)."""

    def rule(levels: Floats, counts: Floats) -> Mask:
        low, high = weighted_percentile(levels.ravel(), np.repeat(counts, 3), [2.0, 98.0])
        if low >= high:
            low, high = float(levels.min()), float(levels.max())
        stretched = levels
        if high > low:
            stretched = np.floor((np.clip(levels, low, high) - low) / (high - low) * 255.0)
        return darker(luminosity)(stretched, counts)

    return rule


def lightness_below(luminosity: float) -> TissueRule:
    """Tissue is what is below a share of full CIELAB lightness."""

    def rule(levels: Floats, counts: Floats) -> Mask:
        below: Mask = rgb_to_lab(levels)[:, 0] / 100.0 < luminosity
        return below

    return rule


_LAB_SCALE: Floats = np.array([2.55, 1.0, 1.0])
_LAB_SHIFT: Floats = np.array([0.0, 128.0, 128.0])


def opencv_lab(levels: Floats) -> Floats:
    """RGB 0..255 to L, a, b as they come out of OpenCV's 8 bits: steps of 1/2.55 in L, of 1 in a and b."""
    lab: Floats = rgb_to_lab8(levels) / _LAB_SCALE - _LAB_SHIFT
    return lab


def opencv_rgb(lab: Floats) -> Floats:
    """The way back of the packages that use OpenCV: L, a and b are cut to 8 bits, then converted."""
    codes = (lab + _LAB_SHIFT) * _LAB_SCALE
    # A code that nothing has moved must not fall to the one below.
    return lab8_to_rgb(np.floor(np.clip(codes + 1e-6, 0.0, 255.0)))


def torchstain_rgb(lab: Floats) -> Floats:
    """CIELAB to RGB, cut to whole levels."""
    return np.floor(np.clip(lab_to_rgb(lab) + 1e-4, 0.0, 255.0))  # float32 keeps some whole levels a trifle above


TORCHSTAIN = StainFlavour(240.0, 1.0, 0.0, -np.inf, dense(0.15, 240.0, 1.0))
TIATOOLBOX = StainFlavour(255.0, 0.0, 1.0, 1e-6, darker_stretched(0.8))
STAINTOOLS = StainFlavour(255.0, 0.0, 1.0, 1e-6, darker(0.8), sparsity=0.01)
MACENKO_PAPER = StainFlavour(256.0, 1.0, 0.0, 0.0, dense(0.15, 256.0, 1.0), truncate=False, exact_inverse=True)
VAHADANE_PAPER = StainFlavour(
    256.0, 1.0, 0.0, 0.0, lightness_below(0.9), sparsity=0.02, truncate=False, exact_inverse=True
)


def check_flavour(normalizer: Any, flavours: Any, free: tuple[str, ...] = ()) -> None:
    """Raise `InputError` for an unknown flavour, or for a setting beside it that the flavour itself decides.

    Args:
        normalizer: with a setting `flavour`.
        flavours: the known ones, "restain" excepted.
        free: settings of the method that a flavour leaves open.
    """
    flavour = normalizer.flavour
    if not isinstance(flavour, str) or flavour not in ("restain", *flavours):
        known = ", ".join(["restain", *flavours])
        raise InputError(f"got flavour={flavour!r} of {normalizer.name}; wanted one of {known}")
    if flavour == "restain":
        return
    for item in fields(normalizer):
        if item.init and item.name not in ("flavour", "background", *free):
            value = getattr(normalizer, item.name)
            if value != item.default:
                raise InputError(f"flavour={flavour!r} decides {item.name} itself; leave out {item.name}={value!r}")


def scaled_by_maxima(concentrations: Floats, source: Floats, reference: Floats) -> Floats:
    """Concentrations (n, k) times the ratio of the maxima (k,), whatever its size and sign; unchanged for x/0."""
    return concentrations * np.where(source != 0, reference / np.where(source != 0, source, 1.0), 1.0)


def tiatoolbox_dictionary(density: Floats, counts: Floats, sparsity: float = 0.1, rounds: int = 3) -> Floats:
    """tiatoolbox's "Vahadane": the roles of stains and amounts are exchanged in the factorisation.

    The three channels are taken as samples and the pixels as features, OD^T (3, N) ≈ code (3, 2)·D (2, N), so that
    the "sparse code" is the stain matrix (its entries of any sign) and the dictionary of unit norm, not negative, are
    the amounts. It starts from the singular vectors and stops after three rounds, far from rest. Repeated pixels
    weigh as the square root of their number in every product, so colours with counts give the same.

    Returns:
        (2, 3) rows, not of unit length. The first has more red, compared at these lengths: mostly the denser stain.
    """
    weighted = density.T * np.sqrt(counts)
    code, values, amounts = np.linalg.svd(weighted, full_matrices=False)
    signs = np.sign(code[np.abs(code).argmax(axis=0), range(3)])
    code, amounts = (code * signs)[:, :2], (amounts * signs[:, None] * values[:, None])[:2]
    cost = np.inf
    for _ in range(rounds):
        code = _signed_lasso(weighted @ amounts.T, amounts @ amounts.T, sparsity)
        moment, cross = code.T @ code, weighted.T @ code
        if (np.diag(moment) <= 1e-6).any():
            break  # the package would go on from a channel drawn at random
        for row in range(2):
            updated = amounts[row] + (cross[:, row] - moment[row] @ amounts) / moment[row, row]
            updated = np.maximum(updated, 0.0)
            amounts[row] = updated / max(np.linalg.norm(updated), 1.0)
        before, cost = cost, 0.5 * ((weighted - code @ amounts) ** 2).sum() + sparsity * np.abs(code).sum()
        if before - cost < 1e-8 * cost:
            break
    return code.T if code[0, 0] >= code[0, 1] else code.T[::-1]


def _signed_lasso(cross: Floats, gram: Floats, sparsity: float) -> Floats:
    """Minimise ½‖x − c·D‖² + λ‖c‖₁ for each row of x·Dᵀ (n, 2), with D·Dᵀ (2, 2) not negative: (n, 2), any sign.

    The optimum is among the solutions for each pattern of signs; the best feasible one is taken.
    """
    best = np.zeros_like(cross)
    lowest = np.zeros(len(cross))
    for first in (-1.0, 0.0, 1.0):
        for second in (-1.0, 0.0, 1.0):
            signs = np.array([first, second])
            used = signs != 0
            if not used.any() or np.linalg.matrix_rank(gram[np.ix_(used, used)]) < used.sum():
                continue
            candidate = np.zeros_like(cross)
            inverse = np.linalg.inv(gram[np.ix_(used, used)])
            candidate[:, used] = apply_matrix((cross - sparsity * signs)[:, used], inverse)
            feasible = (candidate * signs >= 0).all(axis=1)
            objective = (
                0.5 * ((candidate @ gram) * candidate).sum(axis=1)
                - (candidate * cross).sum(axis=1)
                + sparsity * np.abs(candidate).sum(axis=1)
            )
            better = feasible & (objective < lowest)
            best[better], lowest[better] = candidate[better], objective[better]
    return best
