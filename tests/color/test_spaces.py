"""Colour spaces against scikit-image, closed forms and their own inverses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import color as skcolor

from restain.color import spaces

CORNERS = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)


def random_colors(seed: int, size: tuple[int, ...] = (20_000,)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


colors_of_a_glass = st.tuples(
    st.lists(st.floats(0, 255), min_size=3, max_size=3), st.lists(st.floats(1, 255), min_size=3, max_size=3)
)


# ---- CIELAB -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colors", [random_colors(0), CORNERS, np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)])
def test_lab_equals_scikit_image(colors: np.ndarray) -> None:
    np.testing.assert_allclose(spaces.rgb_to_lab(colors), skcolor.rgb2lab(colors / 255.0), rtol=0, atol=1e-9)


def test_lab_of_levels_that_are_not_whole_equals_scikit_image() -> None:
    levels = np.random.default_rng(1).uniform(0, 255, (20_000, 3))
    np.testing.assert_allclose(spaces.rgb_to_lab(levels), skcolor.rgb2lab(levels / 255.0), rtol=0, atol=1e-9)


def test_lab_back_to_rgb_equals_scikit_image() -> None:
    levels = np.random.default_rng(2).uniform(0, 255, (20_000, 3))
    lab = skcolor.rgb2lab(levels / 255.0)
    np.testing.assert_allclose(spaces.lab_to_rgb(lab), skcolor.lab2rgb(lab) * 255.0, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")  # scikit-image, on colours with a negative Z
def test_lab_outside_srgb_equals_scikit_image_once_clipped() -> None:
    # As far outside as a normalizer's stretch may throw a colour that has a positive tristimulus value.
    generator = np.random.default_rng(3)
    lab = np.column_stack([generator.uniform(0, 120, 20_000), generator.uniform(-120, 120, (20_000, 2))])
    y = (lab[:, 0] + 16) / 116
    lab = lab[(y + lab[:, 1] / 500 > 0) & (y - lab[:, 2] / 200 > 0)]
    ours = np.clip(spaces.lab_to_rgb(lab), 0, 255)
    np.testing.assert_allclose(ours, skcolor.lab2rgb(lab) * 255.0, rtol=0, atol=1e-6)


def test_lab_round_trip() -> None:
    colors = random_colors(4)
    # 1e-3: scikit-image's constants, which are kept, leave a step of this size where the cube root meets the line.
    np.testing.assert_allclose(spaces.lab_to_rgb(spaces.rgb_to_lab(colors)), colors, rtol=0, atol=1e-3)


def test_lab_of_white_and_black() -> None:
    lab = spaces.rgb_to_lab(np.array([[255, 255, 255], [0, 0, 0]]))
    np.testing.assert_allclose(lab, [[100, 0, 0], [0, 0, 0]], atol=0.01)


def test_lab_is_finite_far_outside_srgb() -> None:
    lab = np.array([[-300.0, 0, 0], [400, 900, -900], [0, -500, 500], [50, 1e4, -1e4]])
    assert np.isfinite(spaces.lab_to_rgb(lab)).all()


@pytest.mark.parametrize("colors", [random_colors(5), CORNERS])
def test_lightness_is_a_hundredth_of_l(colors: np.ndarray) -> None:
    expected = skcolor.rgb2lab(colors / 255.0)[:, 0] / 100
    np.testing.assert_allclose(spaces.lightness(colors), expected, rtol=0, atol=1e-5)


# ---- optical density --------------------------------------------------------------------------------------------


def test_density_closed_form() -> None:
    white = np.array([243.0, 240.0, 255.0])
    rgb = np.array([[243.0, 240.0, 255.0], [121.0, 0.0, 63.0], [0.0, 0.0, 0.0]])
    expected = [[0, 0, 0], [np.log(2), np.log(241), np.log(4)], np.log([244, 241, 256])]
    np.testing.assert_allclose(spaces.rgb_to_density(rgb, white), expected, atol=1e-15)


def test_density_is_zero_above_the_white_point() -> None:
    assert spaces.rgb_to_density(np.array([250.0, 241.0, 255.0]), 240.0).tolist() == [0.0, 0.0, 0.0]


@given(colors_of_a_glass)
def test_density_round_trip(drawn: tuple[list[float], list[float]]) -> None:
    rgb, white = np.array(drawn[0]), np.array(drawn[1])
    back = spaces.density_to_rgb(spaces.rgb_to_density(rgb, white), white)
    np.testing.assert_allclose(back, np.minimum(rgb, white), rtol=0, atol=1e-10)


@given(st.lists(st.floats(0, 30), min_size=3, max_size=3), st.floats(1, 255))
def test_density_round_trip_the_other_way(density: list[float], white: float) -> None:
    back = spaces.rgb_to_density(spaces.density_to_rgb(np.array(density), white), white)
    # Near 30 the level is −1 + 1e-11, and what is left of its digits is the tolerance.
    np.testing.assert_allclose(back, density, rtol=1e-2, atol=1e-12)


@given(st.lists(st.floats(0, 5), min_size=3, max_size=3), st.lists(st.floats(0, 5), min_size=3, max_size=3))
def test_densities_add_where_transmittances_multiply(first: list[float], second: list[float]) -> None:
    one, other = (spaces.density_to_rgb(np.array(d), 240.0) + 1 for d in (first, second))
    both = spaces.density_to_rgb(np.add(first, second), 240.0) + 1
    np.testing.assert_allclose(both, one * other / 241.0, rtol=1e-12)


# ---- Ruderman's lαβ ---------------------------------------------------------------------------------------------


def test_lalphabeta_closed_form() -> None:
    # Reinhard et al. 2001, equations 2 to 7, with one level added before the logarithm.
    red, green, blue = (np.array([200, 90, 30]) + 1) / 256
    long = np.log(0.3811 * red + 0.5783 * green + 0.0402 * blue)
    medium = np.log(0.1967 * red + 0.7244 * green + 0.0782 * blue)
    short = np.log(0.0241 * red + 0.1288 * green + 0.8444 * blue)
    expected = [
        (long + medium + short) / np.sqrt(3),
        (long + medium - 2 * short) / np.sqrt(6),
        (long - medium) / np.sqrt(2),
    ]
    np.testing.assert_allclose(spaces.rgb_to_lalphabeta(np.array([200, 90, 30])), expected, rtol=1e-12)


@pytest.mark.parametrize("colors", [random_colors(6), CORNERS])
def test_lalphabeta_round_trip(colors: np.ndarray) -> None:
    back = spaces.lalphabeta_to_rgb(spaces.rgb_to_lalphabeta(colors))
    np.testing.assert_allclose(back, colors, rtol=0, atol=1e-9)


# ---- hue, saturation, density -----------------------------------------------------------------------------------


def test_hsd_closed_forms() -> None:
    density = np.array([[0.3, 0.3, 0.3], [0.6, 0.0, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 0.0]])
    root = np.sqrt(3)
    expected = [[0.3, 0, 0], [0.2, 2, 0], [0.3, -1, root], [0, 0, 0]]
    np.testing.assert_allclose(spaces.density_to_hsd(density), expected, atol=1e-12)


@given(st.lists(st.floats(0, 6), min_size=3, max_size=3))
def test_hsd_round_trip(density: list[float]) -> None:
    back = spaces.hsd_to_density(spaces.density_to_hsd(np.array(density)))
    np.testing.assert_allclose(back, density, rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(0.01, 3), min_size=3, max_size=3), st.floats(0.1, 3))
def test_hsd_hue_does_not_depend_on_the_amount_of_stain(density: list[float], amount: float) -> None:
    pale, dark = spaces.density_to_hsd(np.array([density, np.multiply(density, amount)]))
    np.testing.assert_allclose(dark[1:], pale[1:], rtol=1e-9, atol=1e-9)


# ---- every space ------------------------------------------------------------------------------------------------

CONVERSIONS = (
    spaces.rgb_to_lab,
    spaces.lab_to_rgb,
    spaces.lightness,
    spaces.rgb_to_density,
    spaces.density_to_rgb,
    spaces.rgb_to_lalphabeta,
    spaces.lalphabeta_to_rgb,
    spaces.density_to_hsd,
    spaces.hsd_to_density,
)


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda function: function.__name__)
def test_any_leading_shape_the_same_values_and_an_untouched_input(convert) -> None:
    flat = np.random.default_rng(7).uniform(0.5, 3, (60, 3))
    before = flat.copy()
    rows = convert(flat)
    np.testing.assert_array_equal(convert(flat.reshape(3, 4, 5, 3)), rows.reshape(3, 4, 5, *rows.shape[1:]))
    np.testing.assert_array_equal(np.stack([convert(color) for color in flat]), rows)
    np.testing.assert_array_equal(flat, before)
    assert rows.dtype == np.float64


@pytest.mark.parametrize("shape", [(3, 3), (3, 2), (3, 1), (2, 3)])
def test_apply_matrix_is_the_matrix_product_row_by_row(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(8)
    matrix, rows = generator.normal(size=shape), generator.normal(size=(501, shape[0]))
    product = spaces.apply_matrix(rows, matrix)
    np.testing.assert_allclose(product, rows @ matrix, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(np.concatenate([spaces.apply_matrix(rows[:7], matrix), product[7:]]), product)
