"""QSSIM against quaternion arithmetic written out, and against SSIM on gray images."""

import numpy as np
import pytest

from restain.evaluation.metrics.quaternion import qssim
from restain.evaluation.metrics.structural import ssim
from restain.evaluation.metrics.windows import gaussian_weights

Pair = tuple[np.ndarray, np.ndarray]


def product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hamilton's product of quaternions (..., 4)."""
    a, b, c, d = np.moveaxis(p, -1, 0)
    e, f, g, h = np.moveaxis(q, -1, 0)
    return np.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        axis=-1,
    )


def conjugate(q: np.ndarray) -> np.ndarray:
    return q * (1, -1, -1, -1)


def modulus(q: np.ndarray) -> np.ndarray:
    return np.sqrt((q**2).sum(axis=-1))


def test_one_window_by_hamiltons_rules() -> None:
    generator = np.random.default_rng(1)
    images = [generator.integers(0, 256, (11, 11, 3), dtype=np.uint8) for _ in range(2)]
    weights = np.outer(gaussian_weights(), gaussian_weights())[..., None]
    x, y = (np.dstack([np.zeros((11, 11)), image / 255]) for image in images)
    mean_x, mean_y = (weights * x).sum(axis=(0, 1)), (weights * y).sum(axis=(0, 1))
    covariance = (weights * product(x - mean_x, conjugate(y - mean_y))).sum(axis=(0, 1))
    variances = sum((weights[..., 0] * modulus(q - m) ** 2).sum() for q, m in ((x, mean_x), (y, mean_y)))
    one, c1, c2 = np.array([1.0, 0, 0, 0]), 1e-4, 9e-4
    top = product(2 * product(mean_x, conjugate(mean_y)) + c1 * one, 2 * covariance + c2 * one)
    bottom = (modulus(mean_x) ** 2 + modulus(mean_y) ** 2 + c1) * (variances + c2)
    assert qssim(*images) == pytest.approx(modulus(top) / bottom)


def test_gray_images_have_the_ssim_of_gray(pair: Pair) -> None:
    grays = [image[..., 1] for image in pair]
    colors = [np.dstack([gray] * 3) for gray in grays]
    assert qssim(*colors, per_root_three=True) == pytest.approx(ssim(*grays, sample=False), abs=1e-3)
    assert qssim(*colors) < qssim(*colors, per_root_three=True)


def test_the_authors_white_hardly_matters(pair: Pair) -> None:
    assert qssim(*pair, white=256) != qssim(*pair)
    assert qssim(*pair, white=256) == pytest.approx(qssim(*pair), abs=1e-3)


def test_a_turned_hue_is_seen(pair: Pair) -> None:
    rotated = np.ascontiguousarray(pair[0][..., [2, 0, 1]])
    assert qssim(pair[0], rotated) < 0.95


def test_an_inverted_image_is_not(unrelated: Pair) -> None:
    """A modulus has no sign: local contrast the other way round counts as structure."""
    image = unrelated[0] // 2 + 64
    assert qssim(image, (255 - image.astype(int)).astype(np.uint8)) > 0.9
