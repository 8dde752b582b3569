"""SSIM and MS-SSIM against scikit-image, torchmetrics, plain loops and hand-made cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.metrics import structural_similarity

from restain.errors import InputError
from restain.evaluation.metrics.inputs import gray, gray8
from restain.evaluation.metrics.multiscale import SCALE_WEIGHTS, ms_ssim
from restain.evaluation.metrics.structural import ssim, ssim_stretched
from restain.evaluation.metrics.windows import box_sums, gaussian_weights
from restain.phantom import Phantom

Pair = tuple[np.ndarray, np.ndarray]
AS_STAINNET = {"gaussian_weights": True, "sigma": 1.5, "win_size": 11, "data_range": 255}
small_images = hnp.arrays(np.uint8, st.tuples(st.integers(11, 20), st.integers(11, 20), st.just(3)))


# ---- SSIM -------------------------------------------------------------------------------------------------------


def test_rgb_as_scikit_image(pair: Pair, unrelated: Pair) -> None:
    for images in (pair, unrelated):
        expected = structural_similarity(*images, channel_axis=2, **AS_STAINNET)
        assert ssim(*images) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30)
@given(first=small_images, seed=st.integers(0, 99))
def test_any_image_as_scikit_image(first: np.ndarray, seed: int) -> None:
    second = np.random.default_rng(seed).integers(0, 256, first.shape, dtype=np.uint8)
    expected = structural_similarity(first, second, channel_axis=2, **AS_STAINNET)
    assert ssim(first, second) == pytest.approx(expected, abs=1e-6)


def test_plain_variances_as_scikit_image(pair: Pair) -> None:
    grays = [gray(image) / 255 for image in pair]
    expected = structural_similarity(*grays, use_sample_covariance=False, **(AS_STAINNET | {"data_range": 1.0}))
    assert ssim(*pair, color="gray", sample=False) == pytest.approx(expected, abs=1e-9)


def test_plain_variances_as_torchmetrics(pair: Pair) -> None:
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.functional.image")
    first, second = (torch.from_numpy(gray(pixels))[None, None] for pixels in pair)
    _, everywhere = image.structural_similarity_index_measure(second, first, data_range=255.0, return_full_image=True)
    whole = everywhere[..., 5:-5, 5:-5]  # it also counts windows that are mirrored at the border
    assert ssim(*pair, color="gray", sample=False) == pytest.approx(float(whole.mean()), abs=1e-9)


def test_one_window_by_hand() -> None:
    generator = np.random.default_rng(0)
    x, y = (generator.integers(0, 256, (11, 11), dtype=np.uint8) for _ in range(2))
    weights = np.outer(gaussian_weights(), gaussian_weights())
    assert weights.sum() == pytest.approx(1)
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    variance_x, variance_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
    covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    expected /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    assert ssim(x, y, sample=False) == pytest.approx(expected)


def test_two_flat_images_by_hand() -> None:
    first, second = np.full((20, 20, 3), 100, np.uint8), np.full((20, 20, 3), 200, np.uint8)
    expected = (2 * 100 * 200 + 2.55**2) / (100**2 + 200**2 + 2.55**2)
    assert ssim(first, second) == pytest.approx(expected)


def test_an_unknown_colour_is_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="gray8"):
        ssim(*pair, color="lab")


# ---- SSIM Source, stretched -------------------------------------------------------------------------------------


def test_stretched_as_stainnets_script(pair: Pair) -> None:
    stretched = []
    for image in pair:
        level = gray8(image).astype(float)
        stretched.append((level - level.min()) / (level.max() - level.min()) * 255)
    assert ssim_stretched(*pair) == pytest.approx(structural_similarity(*stretched, **AS_STAINNET), abs=1e-9)


def test_stretching_hides_brightness_and_contrast(tissue: Phantom) -> None:
    faded = np.rint(tissue.image * 0.6 + 80).astype(np.uint8)
    assert ssim(tissue.image, faded, color="gray8") < ssim_stretched(tissue.image, faded)
    assert ssim_stretched(tissue.image, faded) > 0.99


def test_one_level_cannot_be_stretched(pair: Pair) -> None:
    with pytest.raises(InputError, match="128 everywhere"):
        ssim_stretched(np.full_like(pair[0], 128), pair[0])


# ---- MS-SSIM ----------------------------------------------------------------------------------------------------


def test_ms_ssim_as_torchmetrics(pair: Pair) -> None:
    torch = pytest.importorskip("torch")
    image = pytest.importorskip("torchmetrics.functional.image")
    for channel in range(3):
        pixels = [each[..., channel] for each in pair]
        first, second = (torch.from_numpy(p.astype(float))[None, None] for p in pixels)
        expected = image.multiscale_structural_similarity_index_measure(second, first, data_range=255.0)
        # It counts windows mirrored at the border for the coarsest scale's luminance, which has little weight.
        assert ms_ssim(*pixels) == pytest.approx(float(expected), abs=1e-4)


def test_ms_ssim_as_piq() -> None:
    """Figures made with piq 0.8.0: multi_scale_ssim(x, y, data_range=1.0) of float64 tensors, image / 255."""
    noise = np.random.default_rng(0).integers(0, 256, (304, 272, 3), dtype=np.uint8)
    first = ndimage.gaussian_filter(noise, (2, 2, 0))
    second = np.roll(first, 1, axis=0)
    assert ms_ssim(first, second, color="rgb") == pytest.approx(0.9672184872044142, abs=1e-8)


def test_ms_ssim_of_colour_is_the_mean_of_channels(pair: Pair) -> None:
    apart = [ms_ssim(pair[0][..., c], pair[1][..., c]) for c in range(3)]
    assert ms_ssim(*pair, color="rgb") == pytest.approx(np.mean(apart))


def test_flat_images_leave_the_coarsest_luminance() -> None:
    first, second = np.full((176, 180), 90, np.uint8), np.full((176, 180), 180, np.uint8)
    luminance = (2 * 90 * 180 + 2.55**2) / (90**2 + 180**2 + 2.55**2)
    assert ms_ssim(first, second) == pytest.approx(luminance ** SCALE_WEIGHTS[-1])


def test_a_negative_image_scores_zero_and_not_nan(unrelated: Pair) -> None:
    assert ms_ssim(unrelated[0], 255 - unrelated[0]) == 0


def test_weights_sum_to_one() -> None:
    assert sum(SCALE_WEIGHTS) == pytest.approx(1, abs=2e-4)  # as printed in the paper


# ---- gray, windows ----------------------------------------------------------------------------------------------


def test_gray() -> None:
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(gray(colors), [[76.245, 149.685, 29.07, 255]])
    np.testing.assert_array_equal(gray8(colors), [[76, 150, 29, 255]])


@given(hnp.arrays(np.uint8, (9, 11, 3)))
def test_gray8_is_rounded_gray(image: np.ndarray) -> None:
    assert np.abs(gray8(image) - gray(image)).max() <= 0.51


@given(hnp.arrays(np.uint8, (9, 11)), st.integers(1, 9))
def test_box_sums(image: np.ndarray, side: int) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(float), (side, side))
    np.testing.assert_array_equal(box_sums(image.astype(float), side), windows.sum(axis=(2, 3)))
