"""Interpolation in a lattice, by NumPy and by the kernel, beside SciPy's."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from restain.color import kernels
from restain.color.trilinear import corner_steps, corner_weights, grid_colors, interpolate


def lattice(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-100, 400, (size, size, size, 3))


@given(size=st.integers(2, 65), seed=st.integers(0, 99))
def test_all_three_agree(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    levels, axis = lattice(size, seed), np.linspace(0, 255, size)
    whole, between = generator.integers(0, 256, (500, 3)).astype(float), generator.uniform(0, 255, (500, 3))
    colors = np.concatenate([whole, between, [[0, 0, 0], [255, 255, 255], [255, 0, 255]]])
    expected = RegularGridInterpolator((axis, axis, axis), levels)(colors)
    np.testing.assert_allclose(interpolate(levels, colors), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(kernels.trilinear(levels, colors), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [2, 4, 6, 16, 18, 52])
def test_points_of_the_lattice_are_met_exactly(size: int) -> None:
    levels = lattice(size)
    points = grid_colors(size)
    assert points.tolist() == np.rint(points).tolist()  # these sizes have them on whole levels
    np.testing.assert_allclose(kernels.trilinear(levels, points), levels.reshape(-1, 3), rtol=0, atol=1e-9)


@given(size=st.integers(2, 33), seed=st.integers(0, 99))
def test_weights_are_shares_and_their_mean_is_the_colour(size: int, seed: int) -> None:
    colors = np.random.default_rng(seed).uniform(0, 255, (200, 3))
    first, weights = corner_weights(colors, size)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    around = grid_colors(size)[first[:, None] + corner_steps(size)]
    np.testing.assert_allclose((weights[:, :, None] * around).sum(axis=1), colors, rtol=0, atol=1e-9)


def test_what_lies_outside_is_taken_as_the_nearest_end() -> None:
    levels = lattice(5)
    outside = np.array([[-5.0, 100, 300], [1e300, -1e300, 10], [np.inf, -np.inf, 260]])
    expected = kernels.trilinear(levels, np.clip(outside, 0, 255))
    np.testing.assert_array_equal(kernels.trilinear(levels, outside), expected)
    np.testing.assert_allclose(interpolate(levels, outside), expected, rtol=0, atol=1e-9)
    no_number = kernels.trilinear(levels, np.full((4, 3), np.nan))  # reads nothing outside the lattice
    np.testing.assert_array_equal(no_number, np.broadcast_to(levels[0, 0, 0], (4, 3)))


def test_the_same_bytes_in_many_threads_and_whatever_the_neighbours() -> None:
    levels = lattice(33)
    colors = np.random.default_rng(1).uniform(0, 255, (100_001, 3))
    whole = kernels.trilinear(levels, colors)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda part: kernels.trilinear(levels, part), np.array_split(colors, 37)))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
