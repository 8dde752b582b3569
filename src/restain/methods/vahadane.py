"""Vahadane et al., "Structure-preserving color normalization and sparse stain separation", IEEE TMI 2016.

Sparse non-negative factorisation OD ≈ C·M, C ≥ 0, M ≥ 0, unit rows, minimising ½‖OD − C·M‖² + λ‖C‖₁ over colours
with counts. With two stains the lasso has a closed form, so no solver is needed.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from restain.errors import InputError
from restain.methods.base import Floats, Unlearnable
from restain.methods.flavours import (
    STAINTOOLS,
    TIATOOLBOX,
    VAHADANE_PAPER,
    StainFlavour,
    check_flavour,
    tiatoolbox_dictionary,
)
from restain.methods.lasso import lasso
from restain.methods.macenko import extreme_angles
from restain.methods.stain_vectors import StainNormalizer, angle_between, order_stains, unit_rows


@dataclass(eq=False, kw_only=True)
class Vahadane(StainNormalizer):
    """Stain vectors by sparse non-negative factorisation, concentrations by the non-negative lasso.

    Attributes:
        flavour: "restain"; "tiatoolbox" or "staintools": as these packages compute it; "paper": the publication's, as
            its authors' demonstration sets it. A flavour decides all other settings but `background` itself.
        sparsity: λ of the factorisation (0.02 in the authors' demonstration, 0.1 in StainTools).
        concentration_sparsity: λ of the concentrations once the vectors are known (0.01 in StainTools).
        iterations: most rounds of alternating updates; they stop when the vectors turn less than 0.001 degrees.
            On real slides the vectors are then, or after 100 rounds, within 0.1 degrees of where they would rest.
    """

    name: ClassVar[str] = "vahadane"
    fit_bits: ClassVar[int] = 6  # it goes through all colours a hundred times; this moves it by some 0.2 degrees

    flavour: Literal["restain", "tiatoolbox", "staintools", "paper"] = "restain"
    sparsity: float = 0.02
    concentration_sparsity: float = 0.01
    iterations: int = 100

    def _check_settings(self) -> None:
        super()._check_settings()
        if not (self.sparsity >= 0 and self.concentration_sparsity >= 0):
            raise InputError("sparsity and concentration_sparsity must not be negative")
        if self.iterations != int(self.iterations) or self.iterations < 1:
            raise InputError(f"got iterations={self.iterations}; wanted a whole number, 1 or more")
        check_flavour(self, _FLAVOURS)

    def _as_package(self) -> StainFlavour | None:
        return _FLAVOURS.get(self.flavour)

    def _bits(self) -> int:
        return self.fit_bits  # for the flavours too: all colours of a slide would take minutes

    def _find_stains(self, density: Floats, counts: Floats) -> Floats:
        if self.flavour == "tiatoolbox":
            matrix = tiatoolbox_dictionary(density, counts)
            if (np.linalg.norm(matrix, axis=1) < 1e-9).any():
                raise Unlearnable("one of two stains does not occur")
            return unit_rows(matrix)
        start = extreme_angles(density, counts, 1.0)
        sparsity = 0.1 if self.flavour == "staintools" else self.sparsity  # λ of the two is not the same there
        return sparse_stains(density, counts, start, sparsity, self.iterations)

    def _concentrations(self, density: Floats, matrix: Floats) -> Floats:
        return lasso(density, matrix, self.concentration_sparsity)


_FLAVOURS = {"tiatoolbox": TIATOOLBOX, "staintools": STAINTOOLS, "paper": VAHADANE_PAPER}


def sparse_stains(density: Floats, counts: Floats, start: Floats, sparsity: float, iterations: int) -> Floats:
    """Alternate the lasso and block-coordinate updates of the stains until they rest: (2, 3), hematoxylin first.

    Each row's update is the exact minimiser given the other, projected on vectors that are not negative and of unit
    length (Mairal et al. 2010).
    """
    matrix = start
    for _ in range(iterations):
        concentrations = lasso(density, matrix, sparsity)
        weighted = concentrations * counts[:, None]
        second_moment = concentrations.T @ weighted
        cross = weighted.T @ density
        updated = matrix.copy()
        for row in range(2):
            if second_moment[row, row] <= 1e-12:
                raise Unlearnable("one of two stains does not occur")
            other = 1 - row
            target = cross[row] - second_moment[row, other] * updated[other]
            target = np.maximum(target / second_moment[row, row], 0.0)
            if not target.any():
                raise Unlearnable("a stain vector has only negative densities")
            updated[row] = target / np.linalg.norm(target)
        turn = max(angle_between(matrix[row], updated[row]) for row in range(2))
        matrix = updated
        if turn < 1e-3:
            break
    return order_stains(*matrix)
