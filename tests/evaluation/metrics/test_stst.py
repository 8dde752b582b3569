"""What STST's scripts compute, by plain formulas of its own MATLAB and Python."""

import math

import numpy as np
import pytest
from scipy import ndimage

from restain.errors import InputError
from restain.evaluation.metrics.multiscale import SCALE_WEIGHTS, ms_ssim
from restain.evaluation.metrics.structural import ssim
from restain.evaluation.metrics.stst import ms_ssim_stst, ssim_volume, stst_image_distance

Pair = tuple[np.ndarray, np.ndarray]


def test_volume_by_a_three_dimensional_window(pair: Pair) -> None:
    x, y = (image[:40, :36].astype(float) for image in pair)
    offset = np.arange(-5, 6)
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    window = line[:, None, None] * line[:, None] * line
    window /= window.sum()

    def mean(volume: np.ndarray) -> np.ndarray:
        return ndimage.correlate(volume, window, mode="nearest")

    c1, c2 = 2.55**2, 7.65**2
    top = (2 * mean(x) * mean(y) + c1) * (2 * (mean(x * y) - mean(x) * mean(y)) + c2)
    bottom = mean(x) ** 2 + mean(y) ** 2 + c1
    bottom *= mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2 + c2
    assert ssim_volume(pair[0][:40, :36], pair[1][:40, :36]) == pytest.approx((top / bottom).mean())


def test_a_volume_is_not_three_channels(pair: Pair) -> None:
    assert abs(ssim_volume(*pair) - ssim(*pair)) > 0.005


def test_ms_ssim_stst_by_formula(pair: Pair) -> None:
    pair = tuple(image[:192, :176] for image in pair)
    x, y = (np.rint(image @ (0.298936021293775, 0.587043074451121, 0.114020904255103)) for image in pair)
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(values: np.ndarray) -> np.ndarray:
        return np.einsum("ijkl,kl->ij", np.lib.stride_tricks.sliding_window_view(values, (11, 11)), window)

    score, c1, c2 = 1.0, 2.55**2, 7.65**2
    for scale, weight in enumerate(SCALE_WEIGHTS[:4]):
        mean_x, mean_y = mean(x), mean(y)
        variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
        sigmas = np.sqrt(variance_x * variance_y)
        if scale == 0:
            score *= ((2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)).mean()
        score *= ((2 * sigmas + c2) / (variance_x + variance_y + c2)).mean() ** weight
        score *= ((2 * (mean(x * y) - mean_x * mean_y) + c2) / (2 * sigmas + c2)).mean() ** weight
        x, y = ((v[::2, ::2] + v[1::2, ::2] + v[::2, 1::2] + v[1::2, 1::2]) / 4 for v in (x, y))
    assert ms_ssim_stst(*pair) == pytest.approx(score)


def test_ms_ssim_stst_is_not_wangs(pair: Pair) -> None:
    assert abs(ms_ssim_stst(*pair) - ms_ssim(*pair)) > 0.001
    darker = (pair[0] * 0.5).astype(np.uint8)
    assert ms_ssim_stst(pair[0], darker) < ms_ssim(pair[0], darker) - 0.05  # its luminance has the full exponent


def test_saturated_squares_spoil_the_finest_scale(pair: Pair) -> None:
    assert ms_ssim_stst(pair[0], pair[0], saturate=True) == pytest.approx(1)
    assert ms_ssim_stst(*pair, saturate=True) != pytest.approx(ms_ssim_stst(*pair), abs=1e-3)


def test_image_distance_by_formula(pair: Pair) -> None:
    rows = np.array([[0.644211, 0.716556, 0.266844], [0.092789, 0.954111, 0.283111]])
    rows = np.vstack([rows, np.cross(rows[0], rows[1])])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for number, stain in enumerate(("hematoxylin", "eosin", "background")):
        pictures = []
        for image in pair:
            amounts = -np.log((image.reshape(-1, 3) + 1.0) / 255) @ np.linalg.inv(rows)
            painted = np.rint(np.clip(255 * np.exp(-np.outer(amounts[:, number], rows[number])), 0, 255))
            pictures.append((painted - painted.min()) / (painted.max() - painted.min()))
        expected = np.linalg.norm(pictures[0] - pictures[1])
        assert stst_image_distance(*pair, stain=stain) == pytest.approx(expected, rel=1e-6)


def test_image_distance_grows_with_the_image(pair: Pair) -> None:
    doubled = [np.tile(image, (2, 2, 1)) for image in pair]
    assert stst_image_distance(*doubled) == pytest.approx(2 * stst_image_distance(*pair))


def test_image_distance_of_one_colour() -> None:
    flat = np.full((8, 8, 3), 200, np.uint8)
    assert math.isfinite(stst_image_distance(flat, flat))  # its three channels differ in the painted picture
    assert math.isnan(stst_image_distance(np.full_like(flat, 254), flat))  # OD 0 everywhere: painted 255
    with pytest.raises(InputError, match="background"):
        stst_image_distance(flat, flat, stain="dab")
