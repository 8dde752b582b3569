"""Vahadane: the lasso's closed form against two solvers, the descent, and planted vectors."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from restain import ColorHistogram, Vahadane
from restain.errors import InputError
from restain.methods.base import Unlearnable
from restain.methods.macenko import extreme_angles
from restain.methods.vahadane import lasso, sparse_stains
from restain.phantom import Phantom

from .oracles import angles_between


def random_stains(generator: np.random.Generator, least_angle: float = 5.0) -> np.ndarray:
    """Two unit vectors at least so many degrees apart."""
    while True:
        rows = generator.uniform(0, 1, (2, 3))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        if angles_between(rows[:1], rows[1:])[0] > least_angle:
            return rows


def objective(density: np.ndarray, matrix: np.ndarray, amounts: np.ndarray, sparsity: float) -> np.ndarray:
    """½‖OD − c·M‖² + λ(c₁ + c₂), row by row."""
    return 0.5 * ((density - amounts @ matrix) ** 2).sum(axis=-1) + sparsity * amounts.sum(axis=-1)


# ---- the lasso --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_the_closed_form_is_the_optimum_that_nnls_finds(seed: int, sparsity: float) -> None:
    generator = np.random.default_rng(seed)
    matrix = random_stains(generator)
    # Also beside the plane of the stains and outside their wedge, where one or both concentrations are 0.
    density = generator.normal(0.3, 0.6, (300, 3))
    # With G = L·Lᵀ the lasso is the least-squares problem ‖Lᵀc − L⁻¹b‖², c ≥ 0.
    root = np.linalg.cholesky(matrix @ matrix.T)
    sides = np.linalg.solve(root, matrix @ density.T - sparsity)
    expected = np.array([nnls(root.T, side)[0] for side in sides.T])
    found = lasso(density, matrix, sparsity)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    kinds = {(a > 0, b > 0) for a, b in found}
    assert len(kinds) == 4  # both stains, either, none: every case of the closed form was met


@pytest.mark.parametrize("seed", range(2))
def test_the_closed_form_is_the_optimum_that_l_bfgs_b_finds(seed: int) -> None:
    generator = np.random.default_rng(100 + seed)
    matrix, sparsity = random_stains(generator, 20), 0.05  # of nearly parallel stains this solver stops too early
    density = generator.normal(0.4, 0.5, (60, 3))
    for row, found in zip(density, lasso(density, matrix, sparsity), strict=True):
        solved = minimize(
            lambda c, row=row: objective(row, matrix, c, sparsity),
            np.ones(2),
            jac=lambda c, row=row: (c @ matrix - row) @ matrix.T + sparsity,
            bounds=[(0, None)] * 2,
            method="L-BFGS-B",
            options={"ftol": 1e-16, "gtol": 1e-10},
        )
        assert objective(row, matrix, found, sparsity) <= solved.fun + 1e-9
        np.testing.assert_allclose(found, solved.x, rtol=0, atol=1e-6)


def test_the_lasso_of_parallel_stains_is_finite() -> None:
    matrix = np.array([[0.6, 0.8, 0.0], [0.6, 0.8, 0.0]])
    density = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(lasso(density, matrix, 0.1), [[0.9, 0], [0, 0]], atol=1e-12)


# ---- the factorisation ------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    sparsity=st.sampled_from([0.0, 0.02, 0.1]),
    rounds=st.integers(1, 30),
    noise=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_the_objective_never_rises(seed: int, sparsity: float, rounds: int, noise: float) -> None:
    generator = np.random.default_rng(seed)
    density = generator.exponential(0.5, (200, 2)) @ random_stains(generator) + noise * generator.normal(size=(200, 3))
    density = np.maximum(density, 0)
    counts = generator.integers(1, 50, 200).astype(float)
    start = random_stains(generator)

    def total(matrix: np.ndarray) -> float:
        return float((counts * objective(density, matrix, lasso(density, matrix, sparsity), sparsity)).sum())

    try:
        found = sparse_stains(density, counts, start, sparsity, rounds)
    except Unlearnable:
        return
    assert total(found) <= total(start) * (1 + 1e-12)
    assert (found >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert found[0, 0] >= found[1, 0]


def test_more_rounds_lower_the_objective_further(phantom: Phantom) -> None:
    histogram = ColorHistogram.from_image(phantom.image).tissue((243, 243, 243), 0.9)
    density = -np.log((histogram.colors + 1.0) / 244).clip(max=0)
    start = extreme_angles(density, histogram.counts, 1.0)
    totals = []
    for rounds in (1, 2, 5, 20, 100):
        matrix = sparse_stains(density, histogram.counts, start, 0.02, rounds)
        amounts = lasso(density, matrix, 0.02)
        totals.append(float((histogram.counts * objective(density, matrix, amounts, 0.02)).sum()))
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(totals))
    assert totals[-1] < totals[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"sparsity": -0.1},
        {"sparsity": float("nan")},
        {"concentration_sparsity": -1},
        {"iterations": 0},
        {"iterations": 2.5},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(arguments: dict) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        Vahadane(**arguments)
