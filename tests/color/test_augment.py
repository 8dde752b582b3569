"""Colour augmentations against scikit-image, OpenCV, Pillow, colorsys and what is known of their chances."""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import stats
from skimage import color as skcolor

from restain.color import augment
from restain.color.augment import AUGMENTATIONS
from restain.errors import InputError
from restain.phantom import make_phantom

TISSUE = make_phantom(40, 48, seed=3).image
ANY = np.random.default_rng(0).integers(0, 256, (33, 29, 3), np.uint8)
CORNERS = np.array([[[r, g, b] for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)]], np.uint8)


class Fixed(np.random.Generator):
    """A generator whose uniform numbers are the middle of their range, its normal ones given, its others drawn."""

    def __init__(self, normal: tuple[float, float, float] = (0, 0, 0), first: float = 0.0) -> None:
        super().__init__(np.random.PCG64(0))
        self._normal, self._first = normal, first

    def uniform(self, low=0.0, high=1.0, size=None):  # type: ignore[no-untyped-def, override]
        return np.full(size or (), (low + high) / 2)

    def normal(self, loc=0.0, scale=1.0, size=None):  # type: ignore[no-untyped-def, override]
        return loc + scale * np.array(self._normal)

    def random(self, *_):  # type: ignore[no-untyped-def, override]
        return self._first


# ---- all of them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AUGMENTATIONS)
@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_an_image_gives_another_of_its_size_and_stays_itself(name: str, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    before = image.copy()
    made = AUGMENTATIONS[name](image, np.random.default_rng(seed))
    assert made.shape == image.shape
    assert made.dtype == np.uint8
    assert (image == before).all()
    assert (made == AUGMENTATIONS[name](image, np.random.default_rng(seed))).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("level", [0, 1, 255])
def test_one_colour_stays_one_colour(name: str, level: int) -> None:
    for seed in range(8):
        made = AUGMENTATIONS[name](np.full((9, 7, 3), level, np.uint8), np.random.default_rng(seed))
        assert (made == made[0, 0]).all()


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "gray"])
def test_chance_makes_a_difference_but_no_large_one(name: str) -> None:
    made = [AUGMENTATIONS[name](TISSUE, np.random.default_rng(seed)) for seed in range(30)]
    assert len({image.tobytes() for image in made}) > 15
    changes = [np.abs(image.astype(float) - TISSUE).mean() for image in made]
    assert 0.5 < np.mean(changes) < 40


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_numbers_taken_do_not_depend_on_the_image(name: str) -> None:
    for seed in range(6):
        generators = [np.random.default_rng(seed) for _ in range(2)]
        for image, generator in zip((TISSUE, ANY), generators, strict=True):
            AUGMENTATIONS[name](image, generator)
        assert generators[0].random() == generators[1].random()


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        augment.hed_jitter(np.zeros((3, 8, 8), np.uint8), np.random.default_rng(0))


# ---- gray -------------------------------------------------------------------------------------------------------


def test_gray_equals_opencv() -> None:
    """OpenCV's weights have 14 bits, which may turn a half the other way."""
    for image in (ANY, TISSUE, CORNERS):
        gray = augment.to_gray(image)
        assert (gray == gray[..., :1]).all()
        difference = gray[..., 0].astype(int) - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        assert np.abs(difference).max() <= 1
        exact = image.astype(np.float64) @ (0.299, 0.587, 0.114)
        assert np.abs(gray[..., 0] - exact).max() <= 0.5 + 1e-9


# ---- PCA lighting -----------------------------------------------------------------------------------------------


def test_components_are_those_of_the_covariance() -> None:
    variances, vectors = augment.color_components([TISSUE, ANY])
    colors = np.concatenate([TISSUE.reshape(-1, 3), ANY.reshape(-1, 3)]) / 255
    covariance = np.cov(colors.T, bias=True)
    np.testing.assert_allclose(vectors @ np.diag(variances) @ vectors.T, covariance, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert (np.diff(variances) >= 0).all()
    with pytest.raises(InputError, match="no images"):
        augment.color_components([])


def test_lighting_adds_a_multiple_of_each_component() -> None:
    variances, vectors = augment.color_components([TISSUE])
    for k in range(3):
        chance = [0.0, 0.0, 0.0]
        chance[k] = 1.5
        made = augment.pca_lighting(TISSUE, Fixed(normal=tuple(chance)), sigma=0.2)  # type: ignore[arg-type]
        exact = np.clip(TISSUE + 255 * 0.3 * np.sqrt(variances[k]) * vectors[:, k], 0, 255)
        assert np.abs(made - exact).max() <= 0.5 + 1e-9


def test_lighting_spreads_as_it_says() -> None:
    """The shift of a pixel in the middle of the range has the covariance σ²·C."""
    given = augment.color_components([TISSUE])
    gray = np.full((1, 1, 3), 128, np.uint8)
    shifts = np.array(
        [
            augment.pca_lighting(gray, np.random.default_rng(seed), sigma=0.5, components=given)[0, 0] / 255.0
            for seed in range(3000)
        ]
    )
    covariance = 0.25 * given[1] @ np.diag(given[0]) @ given[1].T
    np.testing.assert_allclose(np.cov(shifts.T), covariance, atol=0.1 * covariance.max())


# ---- HSV --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [ANY, TISSUE, CORNERS], ids=["any", "tissue", "corners"])
def test_hsv_equals_scikit_image_and_colorsys(image: np.ndarray) -> None:
    hsv = augment.rgb_to_hsv(image / 255)
    np.testing.assert_allclose(hsv, skcolor.rgb2hsv(image), atol=1e-12)
    one_by_one = [colorsys.rgb_to_hsv(*color) for color in (image / 255).reshape(-1, 3)]
    np.testing.assert_allclose(hsv.reshape(-1, 3), one_by_one, atol=1e-12)
    np.testing.assert_allclose(augment.hsv_to_rgb(hsv), image / 255, atol=1e-12)


@given(st.tuples(st.floats(0, 0.999), st.floats(0, 1), st.floats(0, 1)))
def test_hsv_back_equals_colorsys(hsv: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(augment.hsv_to_rgb(np.array(hsv)), colorsys.hsv_to_rgb(*hsv), atol=1e-12)


def test_hsv_is_changed_linearly() -> None:
    made = augment.hsv_change(TISSUE, Fixed(), scale=(1.1, 1.3), offset=(-0.1, 0.0), hue=(0.0, 0.04))
    expected = np.array(
        [
            colorsys.hsv_to_rgb((h + 0.02) % 1, min(max(1.2 * s - 0.05, 0), 1), min(max(1.2 * v - 0.05, 0), 1))
            for h, s, v in (colorsys.rgb_to_hsv(*color) for color in (TISSUE / 255).reshape(-1, 3))
        ]
    ).reshape(TISSUE.shape)
    assert np.abs(made - 255 * expected).max() <= 0.5 + 1e-6
    same = augment.hsv_change(ANY, Fixed())  # the middle of every range: the identity
    assert (same == ANY).all()


# ---- HED --------------------------------------------------------------------------------------------------------


def test_stains_are_scikit_images() -> None:
    np.testing.assert_array_equal(augment.RGB_FROM_HED, skcolor.rgb_from_hed)
    alpha, beta = np.array([1.1, 0.9, 1.05]), np.array([0.01, -0.004, 0.002])
    stains = np.random.default_rng(4).uniform(0.0, 0.08, (40, 40, 3))
    image = np.rint(255 * skcolor.hed2rgb(stains)).astype(np.uint8)
    stains = np.linalg.solve(skcolor.rgb_from_hed.T, np.log(image / 255).reshape(-1, 3).T / np.log(1e-6)).T
    kept = (stains >= 0).all(axis=1)  # scikit-image takes the others for 0
    assert kept.mean() > 0.9
    expected = skcolor.hed2rgb(alpha * skcolor.rgb2hed(image) + beta).reshape(-1, 3)

    class Given(Fixed):
        def uniform(self, low=0.0, high=1.0, size=None):  # type: ignore[no-untyped-def, override]
            return alpha if low > 0.5 else beta

    made = augment.hed_jitter(image, Given()).reshape(-1, 3)
    assert np.abs(made - 255 * expected)[kept].max() <= 0.5 + 1e-6


@pytest.mark.parametrize("image", [ANY, TISSUE, CORNERS], ids=["any", "tissue", "corners"])
def test_no_change_of_the_stains_is_none_of_the_image(image: np.ndarray) -> None:
    assert (augment.hed_jitter(image, Fixed()) == image).all()


# ---- CAGAN ------------------------------------------------------------------------------------------------------


def test_the_blur_is_opencvs() -> None:
    for image in (ANY, TISSUE, ANY[:1], ANY[:, :1]):
        assert (augment._blurred(image) == cv2.GaussianBlur(image, (3, 3), 0)).all()


def test_saturation_and_contrast_are_pillows() -> None:
    """Pillow rounds grays first and cuts off what is behind the point, where the nearest level is taken here."""
    made = augment.cagan_change(TISSUE, Fixed(first=0.1))
    blurred = Image.fromarray(cv2.GaussianBlur(TISSUE, (3, 3), 0))
    expected = np.asarray(ImageEnhance.Contrast(ImageEnhance.Color(blurred).enhance(1.5)).enhance(1.5)).astype(int)
    assert np.abs(made - expected).max() <= 3
    assert np.abs(made - expected).mean() < 1


def test_each_kind_of_change_comes_as_often_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str, original: Callable[..., np.ndarray]) -> None:
        monkeypatch.setattr(augment, name, lambda *given: (calls.append(name), original(*given))[1])

    noted("_blurred", augment._blurred)
    noted("hed_jitter", augment.hed_jitter)
    image, count = ANY[:4, :4], 4000
    unchanged = sum(augment.cagan_change(image, np.random.default_rng(seed)) is image for seed in range(count))
    strong = calls.count("_blurred")
    counts = [strong, calls.count("hed_jitter") - strong, unchanged]
    assert stats.chisquare(counts, [0.2 * count, 0.48 * count, 0.32 * count]).pvalue > 1e-3
