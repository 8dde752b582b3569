"""MSE, RMSE, PSNR and PCC against scikit-image, SciPy and arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import pearsonr
from skimage.metrics import peak_signal_noise_ratio

from restain.evaluation.metrics.pixel_errors import mse, pcc, psnr, rmse

Pair = tuple[np.ndarray, np.ndarray]


def test_by_hand() -> None:
    first = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)
    second = np.array([[[13, 20, 26], [40, 50, 60]]], np.uint8)
    assert mse(first, second) == pytest.approx((9 + 16) / 6)
    assert rmse(first, second) == pytest.approx(math.sqrt(25 / 6))
    assert psnr(first, second) == pytest.approx(10 * math.log10(255**2 * 6 / 25))
    assert mse(first, second, np.array([[True, False]])) == pytest.approx(25 / 3)


def test_levels_do_not_wrap_round() -> None:
    assert mse(np.full((4, 4), 0, np.uint8), np.full((4, 4), 255, np.uint8)) == 65025


def test_psnr_as_scikit_image(pair: Pair) -> None:
    assert psnr(*pair) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255), abs=1e-9)


def test_pcc_as_scipy(pair: Pair) -> None:
    assert pcc(*pair) == pytest.approx(pearsonr(pair[0].ravel().astype(float), pair[1].ravel().astype(float))[0])


def test_pcc_is_blind_to_brightness_and_contrast(pair: Pair) -> None:
    half = pair[0] // 2 * 2
    assert pcc(half, half // 2 + 100) == pytest.approx(1)
    assert pcc(half, 255 - half) == pytest.approx(-1)


def test_pcc_of_one_value_is_not_a_number(pair: Pair) -> None:
    assert math.isnan(pcc(np.full_like(pair[0], 7), pair[0]))
    # 0.299·R + … of one colour everywhere is one value too, whatever its rounding.
    assert math.isnan(pcc(np.full_like(pair[0], 77), pair[0], color="gray"))


@given(hnp.arrays(np.uint8, (6, 7, 3)), hnp.arrays(np.uint8, (6, 7, 3)), st.randoms(use_true_random=False))
def test_pixels_may_be_shuffled(first: np.ndarray, second: np.ndarray, random) -> None:
    order = list(range(42))
    random.shuffle(order)
    shuffled = [image.reshape(42, 3)[order].reshape(6, 7, 3) for image in (first, second)]
    for metric in (mse, psnr, pcc):
        assert metric(*shuffled) == pytest.approx(metric(first, second), nan_ok=True)


def test_gray(pair: Pair) -> None:
    first, second = (image @ (0.299, 0.587, 0.114) for image in pair)
    assert mse(*pair, color="gray") == pytest.approx(((first - second) ** 2).mean())
    assert pcc(*pair, color="gray") == pytest.approx(pearsonr(first.ravel(), second.ravel())[0])
