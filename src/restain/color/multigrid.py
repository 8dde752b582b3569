"""Smooth lattices: the bending energy of a field on a lattice, and a solver for the systems of equations it leads to.

Bending makes such systems stiff, in a 33³ lattice by a factor of a million, and in three dimensions their
factorisation fills up. Conjugate gradients need some fifty steps when each is preconditioned by one V-cycle of
multigrid: an error too smooth to be seen on one lattice is rough on one of half as many points.
"""

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Matrix = Any
"""A SciPy sparse array, in rows (CSR)."""

_COARSEST = 4
"""Points along a side of the lattice whose system is solved at once, by its inverse of 64 × 64."""


def bending_energy(size: int) -> Matrix:
    """The matrix Q (size³, size³) with fᵀQf = the sum of squared second differences of a field f on the lattice.

    Mixed differences count twice, as in a thin plate's energy, so that affine fields, and no others, have none.
    """
    one = sparse.eye_array(size, format="csr")
    slope, bend = (_squared(np.diff(np.eye(size), order, axis=0)) for order in (1, 2))
    straight = _product(bend, one, one) + _product(one, bend, one) + _product(one, one, bend)
    mixed = _product(slope, slope, one) + _product(slope, one, slope) + _product(one, slope, slope)
    return (straight + 2.0 * mixed).tocsr()


def solve(matrix: Matrix, right: Floats, size: int, *, most_error: float = 1e-3, most_steps: int = 500) -> Floats:
    """Solve matrix · x = right for a field on a lattice, by conjugate gradients preconditioned with multigrid.

    Deterministic: the same numbers give the same bytes.

    Args:
        matrix: (size³, size³) sparse, symmetric and positive definite.
        right: (size³, m), of m systems that are solved side by side.
        size: points along a side of the lattice.
        most_error: what may remain, roughly: √(eᵀ·matrix·e) for the error e, and at most a millionth of that of no
            solution at all (zeros). Of the error at an observation that weighs w, it is a bound divided by √w.
        most_steps: after which the solution so far is returned.

    Returns:
        (size³, m).
    """
    cycle = _Cycle(matrix, size)
    solution, residual = np.zeros_like(right), right.copy()
    direction = step = cycle(residual)
    error = _dot(residual, step)  # of the energy, as the preconditioner sees it
    least = np.clip(most_error**2, 1e-28 * error, 1e-12 * error)  # less than the first is beyond rounding
    for _ in range(most_steps):
        if (error <= least).all():
            break
        pushed = matrix @ direction
        length = _ratio(error, _dot(direction, pushed))
        solution += length * direction
        residual -= length * pushed
        step = cycle(residual)
        before, error = error, _dot(residual, step)
        direction = step + _ratio(error, before) * direction
    return solution


class _Cycle:
    """An approximate inverse: rough errors are damped here, smooth ones on a coarser lattice, and so on (a V-cycle)."""

    def __init__(self, matrix: Matrix, size: int) -> None:
        self._matrix = matrix
        if size <= _COARSEST:
            self._inverse: Floats | None = np.linalg.inv(matrix.toarray())
            return
        self._inverse = None
        # Divided by the sums of its rows' magnitudes, the system has no eigenvalue above 1: the sweeps cannot diverge.
        self._damping = 1.0 / np.asarray(abs(matrix).sum(axis=1)).reshape(-1, 1)
        coarse = (size + 1) // 2
        linear = _refinement(size, coarse)
        self._refine = _product(linear, linear, linear)
        self._coarsen = self._refine.T.tocsr()
        self._coarser = _Cycle((self._coarsen @ matrix @ self._refine).tocsr(), coarse)

    def __call__(self, right: Floats) -> Floats:
        """The same sweep before and after, which keeps the cycle symmetric, as conjugate gradients need it."""
        if self._inverse is not None:
            return self._inverse @ right
        guess = self._damping * right
        guess += self._refine @ self._coarser(self._coarsen @ (right - self._matrix @ guess))
        guess += self._damping * (right - self._matrix @ guess)
        return guess


def _refinement(fine: int, coarse: int) -> Matrix:
    """(fine, coarse): linear interpolation between two rows of points with the same ends."""
    place = np.arange(fine) * ((coarse - 1) / (fine - 1))
    low = np.minimum(place.astype(np.int64), coarse - 2)
    matrix = np.zeros((fine, coarse))
    matrix[np.arange(fine), low] = 1.0 - (place - low)
    matrix[np.arange(fine), low + 1] = place - low
    return sparse.csr_array(matrix)


def _squared(differences: Floats) -> Matrix:
    return sparse.csr_array(differences.T @ differences)


def _product(*matrices: Matrix) -> Matrix:
    """The Kronecker product: of one matrix for each channel, one for the lattice."""
    return reduce(lambda left, right: sparse.kron(left, right, format="csr"), matrices)


def _dot(left: Floats, right: Floats) -> Floats:
    products: Floats = (left * right).sum(axis=0)  # no BLAS, whose sums may change with the number of threads
    return products


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, 0 where a system is solved exactly and nothing is left to divide by."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
