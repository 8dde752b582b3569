"""The white point: found where there is glass, whatever lies beside it, and not invented where there is none."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from restain.color.glass import GLASS_DENSITY, PRIOR_WHITE, find_white_point, glass_weight
from restain.color.histogram import ColorHistogram
from restain.phantom import Scanner, make_phantom

White = tuple[float, float, float]

# Measured on one specimen, by scanner, and the ends of what fourteen sources show.
WHITES = [
    (243.0, 243.0, 243.0),
    (232.0, 232.0, 234.0),
    (236.0, 231.0, 228.0),
    (229.0, 229.0, 229.0),
    (250.0, 248.0, 252.0),
]


def glass(white: White, height: int, width: int, *, noise: float = 1.0, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.clip(np.rint(generator.normal(white, noise, (height, width, 3))), 0, 255).astype(np.uint8)


def texture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Tissue: stained everywhere, nowhere flat."""
    generator = np.random.default_rng(seed)
    amount = 0.6 + 0.35 * ndimage.gaussian_filter(generator.standard_normal((height, width)), 1) * 4
    light = np.exp(-np.maximum(amount, 0.25)[..., None] * np.array([0.35, 0.85, 0.4]))
    return np.rint(240 * light).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def find(image: np.ndarray, **arguments):
    return find_white_point(ColorHistogram.from_image(image, **arguments))


def assert_prior(found) -> None:
    assert found.origin == "prior"
    assert found.level.tolist() == list(PRIOR_WHITE)


# ---- found ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("white", WHITES)
def test_glass_of_a_phantom(white: White, noise: float) -> None:
    phantom = make_phantom(256, 256, seed=3, scanner=Scanner(white=white, noise=noise))
    found = find(phantom.image)
    assert found.origin == "glass"
    np.testing.assert_allclose(found.level, phantom.image[phantom.glass].mean(axis=0), atol=1)


@settings(max_examples=25)
@given(
    white=st.lists(st.floats(200, 250), min_size=3, max_size=3).filter(lambda w: max(w) - min(w) < 20),
    noise=st.floats(0, 3),
    share=st.integers(2, 30),
    seed=st.integers(0, 99),
)
def test_any_plausible_glass_beside_tissue(white: list[float], noise: float, share: int, seed: int) -> None:
    planted = glass(tuple(white), 160, 8 * share, noise=noise, seed=seed)
    found = find(np.hstack([planted, texture(160, 320 - 8 * share, seed=seed)]))
    assert found.origin == "glass"
    np.testing.assert_allclose(found.level, planted.reshape(-1, 3).mean(axis=0), atol=1)


@pytest.mark.parametrize("quality", [60, 80, 95])
@pytest.mark.parametrize("white", WHITES)
def test_glass_after_jpeg(white: White, quality: int) -> None:
    phantom = make_phantom(256, 256, seed=4, scanner=Scanner(white=white, noise=1.5))
    image = jpeg(phantom.image, quality)
    found = find(image)
    assert found.origin == "glass"
    # JPEG shifts the glass itself by up to two levels; its ringing reaches as far as its blocks, 16 pixels for chroma.
    away_from_tissue = ndimage.binary_erosion(phantom.glass, iterations=16)
    np.testing.assert_allclose(found.level, image[away_from_tissue].mean(axis=0), atol=1)


@pytest.mark.parametrize("noise", [0.7, 1.5, 3.0])
def test_saturated_glass(noise: float) -> None:
    planted = glass((255.0, 255.0, 255.0), 128, 64, noise=noise)
    found = find(np.hstack([planted, texture(128, 128)]))
    assert found.origin == "glass"
    np.testing.assert_allclose(found.level, planted.reshape(-1, 3).mean(axis=0), atol=1)


def test_saturated_glass_without_noise_is_believed_where_nothing_else_is_flat() -> None:
    found = find(np.hstack([glass((255.0, 255.0, 255.0), 128, 64, noise=0), texture(128, 128)]))
    assert found.origin == "glass"
    assert found.level.tolist() == [255, 255, 255]


def test_glass_that_fills_the_image() -> None:
    for white in (*WHITES, (255.0, 255.0, 255.0), (190.0, 200.0, 185.0)):
        found = find(glass(white, 64, 64, noise=0))
        assert found.origin == "glass"
        np.testing.assert_allclose(found.level, white)


# ---- what lies beside the glass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("padding", [16, 64, 400])
@pytest.mark.parametrize("white", [(232.0, 232.0, 234.0), (243.0, 243.0, 243.0)])
def test_pure_white_padding_is_not_glass(white: White, padding: int, noise: float) -> None:
    planted = glass(white, 128, 48, noise=noise)
    image = np.hstack([np.full((128, padding, 3), 255, np.uint8), planted, texture(128, 128)])
    found = find(image)
    assert found.origin == "glass"
    np.testing.assert_allclose(found.level, planted.reshape(-1, 3).mean(axis=0), atol=1)


@pytest.mark.parametrize("share", [0.3, 0.15])
@pytest.mark.parametrize("pale", [(225.0, 214.0, 226.0), (214.0, 226.0, 222.0), (228.0, 220.0, 230.0)])
def test_pale_flat_cytoplasm_beside_glass(pale: White, share: float) -> None:
    width = int(400 * share) // 8 * 8
    planted = glass((240.0, 239.0, 241.0), 160, width, noise=1.0)
    cytoplasm = glass(pale, 160, 400 - width, noise=1.5, seed=1)
    found = find(np.hstack([planted, cytoplasm]))
    assert found.origin == "glass"
    np.testing.assert_allclose(found.level, planted.reshape(-1, 3).mean(axis=0), atol=1)


def test_masked_and_transparent_pixels_are_not_glass() -> None:
    planted = glass((232.0, 232.0, 234.0), 128, 64)
    beside = glass((250.0, 250.0, 250.0), 128, 128, seed=1)
    image = np.hstack([planted, beside])
    known = np.zeros((128, 192), bool)
    known[:, :64] = True
    expected = planted.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(find(image, mask=known).level, expected, atol=1)
    alpha = np.where(known, 255, 0).astype(np.uint8)
    np.testing.assert_allclose(find(np.dstack([image, alpha])).level, expected, atol=1)


def test_the_parts_of_a_histogram_may_come_in_any_order() -> None:
    parts = [ColorHistogram.from_image(glass(white, 64, 64, seed=i)) for i, white in enumerate(WHITES)]
    found = [find_white_point(ColorHistogram.merged(order)) for order in (parts, parts[::-1])]
    np.testing.assert_array_equal(found[0].level, found[1].level)


# ---- not found --------------------------------------------------------------------------------------------------


def test_tissue_without_glass() -> None:
    assert_prior(find(texture(256, 256)))


def test_a_small_flat_patch_of_tissue_is_not_glass() -> None:
    image = texture(256, 256)
    image[:64, :64] = glass((226.0, 180.0, 205.0), 64, 64)
    assert_prior(find(image))


@pytest.mark.parametrize("color", [(0, 0, 0), (60, 60, 60), (180, 60, 120), (90, 30, 140)])
def test_constant_colours_that_no_glass_has(color: tuple[int, int, int]) -> None:
    assert_prior(find(np.full((64, 64, 3), color, np.uint8)))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (7, 7), (8, 8)])
def test_images_too_small_to_tell(size: tuple[int, int]) -> None:
    assert_prior(find(np.full((*size, 3), 243, np.uint8)))


def test_an_empty_histogram_and_one_without_positions() -> None:
    assert_prior(find(np.zeros((64, 64, 4), np.uint8)))
    assert_prior(find_white_point(ColorHistogram.from_colors(np.full((5000, 3), 243, np.uint8))))


def test_the_prior_is_each_callers_own() -> None:
    find(np.zeros((8, 8, 3), np.uint8)).level[:] = 0
    assert_prior(find(np.zeros((8, 8, 3), np.uint8)))


# ---- how much of a colour is glass ------------------------------------------------------------------------------


def test_glass_weight_closed_form() -> None:
    # Smoothstep between two densities, of the densest channel.
    low, high = GLASS_DENSITY
    steps = np.array([0, 0, 0, 0.25, 0.5, 0.75, 1, 1])
    density = np.array([-0.1, 0.0, *(low + steps[2:7] * (high - low)), 2.0])
    levels = 241.0 * np.exp(-density) - 1
    expected = 1 - (3 * steps**2 - 2 * steps**3)
    for channel in range(3):
        colors = np.full((len(levels), 3), 240.0)
        colors[:, channel] = levels
        np.testing.assert_allclose(glass_weight(colors, (240.0, 240.0, 240.0)), expected, atol=1e-9)


@given(
    st.lists(st.floats(0, 255), min_size=3, max_size=3),
    st.integers(0, 2),
    st.floats(0, 255),
    st.lists(st.floats(150, 255), min_size=3, max_size=3),
)
def test_glass_weight_falls_with_every_channel(
    color: list[float], channel: int, level: float, white: list[float]
) -> None:
    darker = list(color)
    darker[channel] = min(level, color[channel])
    light, dark = glass_weight(np.array([color, darker]), white)
    assert 0 <= dark <= light <= 1
