"""The bending of lattices by NumPy's differences, and systems of equations by SciPy's factorisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import spsolve

from restain.color.multigrid import bending_energy, solve


def energy(field: np.ndarray) -> float:
    """The sum of squared second differences, mixed ones twice."""
    total = 0.0
    for first in range(3):
        for second in range(3):
            total += (np.diff(np.diff(field, axis=first), axis=second) ** 2).sum()
    return total


@given(size=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_energy_of_a_field(size: int, seed: int) -> None:
    field = np.random.default_rng(seed).normal(size=(size, size, size))
    flat = field.ravel()
    assert flat @ (bending_energy(size) @ flat) == pytest.approx(energy(field), rel=1e-10)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_affine_fields_and_no_others_do_not_bend(size: int) -> None:
    values = np.linalg.eigvalsh(bending_energy(size).toarray())
    assert (values > 1e-9).sum() == size**3 - 4
    assert values.min() > -1e-9
    red, green, blue = np.indices((size, size, size))
    affine = (3 + 2 * red - green + 0.5 * blue).ravel()
    np.testing.assert_allclose(bending_energy(size) @ affine, 0, atol=1e-9)


@given(size=st.integers(2, 12), seed=st.integers(0, 99), most=st.sampled_from([1.0, 1e4, 1e8]))
def test_systems_are_solved(size: int, seed: int, most: float) -> None:
    """Few points are pinned down, with weights that differ by many orders of magnitude; the others bend."""
    generator = np.random.default_rng(seed)
    weights = np.where(generator.random(size**3) < 0.2, most ** generator.random(size**3), 0.0)
    matrix = (sparse.diags_array(weights + 1e-4) + bending_energy(size)).tocsr()
    right = weights[:, None] * generator.normal(0, 20, (size**3, 3))
    found = solve(matrix, right, size)
    np.testing.assert_allclose(found, spsolve(matrix.tocsc(), right), rtol=0, atol=1e-3)


def test_the_largest_lattices_are_solved_in_few_steps() -> None:
    """A preconditioner that fails would need thousands."""
    size = 33
    generator = np.random.default_rng(0)
    weights = np.where(generator.random(size**3) < 0.1, 1000.0, 0.0)
    matrix = (sparse.diags_array(weights + 1e-4) + bending_energy(size)).tocsr()
    wanted = generator.normal(size=(size**3, 1))
    right = matrix @ wanted
    few, exact = (solve(matrix, right, size, most_steps=steps) for steps in (100, 500))
    np.testing.assert_array_equal(few, exact)  # it had come to rest before
    remaining = few - wanted
    assert (remaining * (matrix @ remaining)).sum() < 1e-10 * (wanted * (matrix @ wanted)).sum()


def test_nothing_to_solve() -> None:
    assert not solve(bending_energy(5) + sparse.eye_array(125), np.zeros((125, 3)), 5).any()
