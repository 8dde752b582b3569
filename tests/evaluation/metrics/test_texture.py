"""Gradients, seams, profiles, against arithmetic and the benchmark's own seam score."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import sobel_h, sobel_v
from skimage.measure import profile_line

from restain.errors import InputError
from restain.evaluation.metrics.gradients import gradient_correlation, gradient_magnitude
from restain.evaluation.metrics.profiles import gray_profile, profile_difference
from restain.evaluation.metrics.seams import seam_ratio, seam_score

Pair = tuple[np.ndarray, np.ndarray]


# ---- gradients --------------------------------------------------------------------------------------------------


def test_magnitude_as_scikit_image(pair: Pair) -> None:
    level = pair[0][..., 0].astype(float)
    expected = np.hypot(sobel_h(level), sobel_v(level)) / 2  # its kernel sums to 1 a side, ours is levels a pixel
    np.testing.assert_allclose(gradient_magnitude(level)[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-9)


def test_a_ramp_has_its_own_slope() -> None:
    ramp = np.arange(20.0)[None] * 3 + np.zeros((20, 1))
    np.testing.assert_allclose(gradient_magnitude(ramp)[1:-1, 1:-1], 3)


def test_brightness_and_contrast_do_not_matter(pair: Pair) -> None:
    faded = (pair[0] // 2 + 40).astype(np.uint8)
    assert gradient_correlation(pair[0] // 2 * 2, faded) == pytest.approx(1)
    assert gradient_correlation(pair[0], 255 - pair[0]) == pytest.approx(1)


def test_erased_and_invented_texture_are_seen(pair: Pair) -> None:
    erased = ndimage.gaussian_filter(pair[0], (4, 4, 0))
    noise = np.random.default_rng(0).normal(0, 25, pair[0].shape)
    invented = np.clip(pair[0] + noise, 0, 255).astype(np.uint8)
    assert gradient_correlation(pair[0], erased) < 0.9
    assert gradient_correlation(pair[0], invented) < 0.9


def test_flat_images_have_no_gradients() -> None:
    flat = np.full((9, 9, 3), 100, np.uint8)
    assert math.isnan(gradient_correlation(flat, flat))


# ---- seams ------------------------------------------------------------------------------------------------------


def test_seams_by_hand() -> None:
    """Columns 0 1 2 3 | 9 10 11 12: six across the border, one beside it."""
    image = np.tile(np.array([0, 1, 2, 3, 9, 10, 11, 12], np.uint8), (4, 1))
    assert seam_ratio(image, tile=4) == 6
    ramp = np.tile(np.arange(8, dtype=np.uint8), (4, 1))
    assert seam_ratio(ramp, tile=4) == 1
    assert seam_score(ramp, image, tile=4) == 6


def test_tiles_may_start_elsewhere() -> None:
    image = np.tile(np.array([0, 1, 7, 8, 9, 10, 16, 17, 18], np.uint8), (4, 1))
    assert seam_ratio(image, tile=4, origin=(2, 0)) == 6
    assert seam_ratio(image, tile=4, origin=(-2, 0)) == 6
    assert seam_ratio(image, tile=4) == 1


def test_as_the_benchmark_computes_it(pair: Pair) -> None:
    across, inside, tile = [], [], 64
    for pixels in (pair[0].astype(float), pair[0].astype(float).swapaxes(0, 1)):
        step = np.abs(np.diff(pixels, axis=0))
        borders = np.arange(tile, len(pixels) - 1, tile)
        across.append(step[borders - 1].ravel())
        inside += [step[borders - 2].ravel(), step[borders].ravel()]
    expected = np.concatenate(across).mean() / np.concatenate(inside).mean()
    assert seam_ratio(pair[0], tile=64) == pytest.approx(expected)


def test_a_colour_for_every_tile_is_seen(pair: Pair) -> None:
    reference = pair[0]
    tiled = reference.astype(int)
    for row in range(0, 200, 50):
        for column in range(0, 232, 50):
            tiled[row : row + 50, column : column + 50] -= (row + 2 * column) // 50 % 3 * 12
    tiled = np.clip(tiled, 0, 255).astype(np.uint8)
    assert seam_score(reference, tiled, tile=50) > 1.5
    assert seam_score(reference, np.clip(reference, 0, 240), tile=50) == pytest.approx(1, abs=0.05)


def test_levels_do_not_wrap_round() -> None:
    image = np.tile(np.array([250, 251, 252, 253, 2, 3, 4, 5], np.uint8), (4, 1))
    assert seam_ratio(image, tile=4) == 251


def test_without_borders_or_steps() -> None:
    flat = np.full((12, 12, 3), 7, np.uint8)
    assert math.isnan(seam_score(flat, flat, tile=4))
    with pytest.raises(InputError, match="no border"):
        seam_score(flat, flat, tile=12)
    with pytest.raises(InputError, match="tile=2"):
        seam_score(flat, flat, tile=2)


# ---- profiles ---------------------------------------------------------------------------------------------------


def test_a_row_is_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 9), dtype=np.uint8)
    np.testing.assert_allclose(gray_profile(image), image[2])
    np.testing.assert_allclose(gray_profile(image, (0, 4), (8, 4)), image[4])
    np.testing.assert_allclose(gray_profile(image, (3, 0), (3, 4)), image[:, 3])
    np.testing.assert_allclose(gray_profile(image, (8, 4), (0, 4)), image[4, ::-1])
    np.testing.assert_allclose(gray_profile(image, (1, 2), (7, 2), width=3), image[1:4, 1:8].mean(axis=0))
    np.testing.assert_allclose(gray_profile(image, (4, 1), (4, 1)), image[1, 4])


def test_a_slanted_profile_as_scikit_image(pair: Pair) -> None:
    level = pair[0] @ (0.299, 0.587, 0.114)
    expected = profile_line(level, (13, 20), (73, 100), order=1, mode="reflect")  # (row, column); 3-4-5: length 100
    np.testing.assert_allclose(gray_profile(pair[0], (20, 13), (100, 73)), expected, atol=1e-9)


def test_profile_difference(pair: Pair) -> None:
    brighter = np.clip(pair[0], 0, 245) + np.uint8(10)
    assert profile_difference(np.clip(pair[0], 0, 245), brighter, (3, 5), (90, 60)) == pytest.approx(10)


@pytest.mark.parametrize("point", [(-1, 0), (0, 200), (232, 0), (np.nan, 0)])
def test_points_outside_are_refused(pair: Pair, point) -> None:
    with pytest.raises(InputError, match="within"):
        gray_profile(pair[0], point, (5, 5))


def test_a_band_has_a_width(pair: Pair) -> None:
    with pytest.raises(InputError, match="width=0"):
        gray_profile(pair[0], width=0)
