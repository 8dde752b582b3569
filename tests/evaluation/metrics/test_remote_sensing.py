"""ERGAS, RASE, UQI and SCC against torchmetrics, plain loops and arithmetic; and what sewar makes of them."""

import math

import numpy as np
import pytest

from restain.errors import InputError
from restain.evaluation.metrics.remote_sensing import ergas, rase, scc, uqi
from restain.evaluation.metrics.sewar import ergas_sewar, rase_sewar, uqi_sewar

Pair = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def tensors(pair: Pair):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchmetrics")
    return [torch.from_numpy(image.astype(float)).permute(2, 0, 1)[None] for image in pair]


def windows(image: np.ndarray, side: int = 8) -> np.ndarray:
    """(…, side²) values of all whole windows of (H, W)."""
    view = np.lib.stride_tricks.sliding_window_view(image.astype(float), (side, side))
    return view.reshape(*view.shape[:2], -1)


# ---- as defined -------------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    reference = np.full((4, 4, 3), (100, 50, 200), np.uint8)
    image = np.full((4, 4, 3), (110, 55, 180), np.uint8)  # off by 10 % of each mean
    assert ergas(reference, image) == pytest.approx(100 * 0.25 * 0.1)
    assert ergas(reference, image, ratio=1) == pytest.approx(100 * 0.1)
    assert rase(reference, image) == pytest.approx(100 / (350 / 3) * math.sqrt((100 + 25 + 400) / 3))


def test_ergas_as_torchmetrics(pair: Pair, tensors) -> None:
    from torchmetrics.functional.image import error_relative_global_dimensionless_synthesis as expected

    assert ergas(*pair) == pytest.approx(float(expected(tensors[1], tensors[0], ratio=4)), rel=1e-9)


def test_uqi_by_loops(pair: Pair) -> None:
    first, second = (windows(image[:60, :50, 0]) for image in pair)
    covariance = (first * second).mean(axis=2) - first.mean(axis=2) * second.mean(axis=2)
    quality = 4 * covariance * first.mean(axis=2) * second.mean(axis=2)
    quality /= (first.var(axis=2) + second.var(axis=2)) * (first.mean(axis=2) ** 2 + second.mean(axis=2) ** 2)
    assert uqi(pair[0][:60, :50, 0], pair[1][:60, :50, 0]) == pytest.approx(quality.mean(), abs=1e-9)


def test_uqi_is_near_torchmetrics(pair: Pair, tensors) -> None:
    from torchmetrics.functional.image import universal_image_quality_index as gaussian

    # Its window is a Gaussian of 11 × 11, so it is the same score of about the same neighbourhood.
    assert uqi(*pair) == pytest.approx(float(gaussian(tensors[1], tensors[0])), abs=0.05)


def test_uqi_of_flat_images() -> None:
    first, second = np.full((9, 9, 3), 100, np.uint8), np.full((9, 9, 3), 50, np.uint8)
    assert uqi(first, second) == pytest.approx(2 * 5000 / 12500)
    assert uqi(first, first) == 1
    assert uqi(np.zeros_like(first), np.zeros_like(first)) == 1
    assert uqi(first, second, color="gray") == pytest.approx(2 * 5000 / 12500, abs=1e-6)
    with_texture = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    assert uqi(first, with_texture) == 0  # nothing in common with a flat one


def test_flat_regions_of_a_large_gray_image_are_flat() -> None:
    """Luma is no whole number: sums over a large image must not leave a variance in its flat windows."""
    flat = np.full((700, 900, 3), (201, 157, 203), np.uint8)
    other = np.full_like(flat, (93, 121, 77))
    first, second = (float(image[0, 0] @ (0.299, 0.587, 0.114)) for image in (flat, other))
    expected = 2 * first * second / (first**2 + second**2)
    assert uqi(flat, other, color="gray") == pytest.approx(expected, abs=1e-12)
    assert scc(flat, other, color="gray") == 0


def test_scc_by_loops(pair: Pair) -> None:
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8
    edges = []
    for image in pair:
        neighbours = np.lib.stride_tricks.sliding_window_view(image[:50, :40, 2].astype(float), (3, 3))
        edges.append(windows((neighbours * kernel).sum(axis=(2, 3))))
    expected = np.mean(
        [
            np.corrcoef(edges[0][row, column], edges[1][row, column])[0, 1]
            for row in range(edges[0].shape[0])
            for column in range(edges[0].shape[1])
        ]
    )
    assert scc(pair[0][:50, :40, 2], pair[1][:50, :40, 2]) == pytest.approx(expected, abs=1e-9)


def test_scc_is_near_torchmetrics(pair: Pair, tensors) -> None:
    from torchmetrics.functional.image import spatial_correlation_coefficient as with_border

    assert scc(*pair) == pytest.approx(float(with_border(tensors[1], tensors[0])), abs=0.03)


def test_scc_without_edges() -> None:
    flat = np.full((12, 12, 3), 90, np.uint8)
    assert scc(flat, flat) == 0
    assert scc(flat, np.random.default_rng(0).integers(0, 256, flat.shape, dtype=np.uint8)) == 0


def test_scc_collapses_by_one_pixel(unrelated: Pair) -> None:
    image = unrelated[0]
    assert scc(image, np.roll(image, 1, axis=1)) < 0.1


def test_a_black_channel_is_refused(pair: Pair) -> None:
    black = pair[0].copy()
    black[..., 2] = 0
    for metric in (ergas, rase):
        with pytest.raises(InputError, match="0 everywhere"):
            metric(black, pair[1])
    with pytest.raises(InputError, match="ratio"):
        ergas(*pair, ratio=0)


# ---- as sewar computes it ---------------------------------------------------------------------------------------


def reflected(axis: int, size: int) -> list[np.ndarray]:
    """For each place, the 8 places around it (4 before, 3 behind), mirrored at the ends."""
    period = np.concatenate([np.arange(size), np.arange(size)[::-1]])
    return [period[(np.arange(place - 4, place + 4)) % (2 * size)] for place in range(size)]


def moving_mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    for axis in axes:
        values = np.stack([values.take(i, axis).mean(axis) for i in reflected(axis, values.shape[axis])], axis)
    return values


def test_sewars_formulas_by_loops(pair: Pair) -> None:
    x, y = (image[:30, :26].astype(float) for image in pair)
    inner = np.s_[4:-4, 4:-4]
    errors = moving_mean((x - y) ** 2, (0, 1))
    means = moving_mean(x, (0, 1, 2)) / 64
    expected = (400 * np.sqrt((errors / means**2).sum(axis=2)))[inner].mean()
    assert ergas_sewar(pair[0][:30, :26], pair[1][:30, :26]) == pytest.approx(expected)
    expected = (100 / means.mean(axis=2) * np.sqrt(errors.mean(axis=2)))[inner].mean()
    assert rase_sewar(pair[0][:30, :26], pair[1][:30, :26]) == pytest.approx(expected)
    mean_x, mean_y, xx, yy, xy = (moving_mean(m, (0, 1)) for m in (x, y, x * x, y * y, x * y))
    top = 4 * (64 * xy - mean_x * mean_y) * mean_x * mean_y
    bottom = (64 * (xx + yy) - mean_x**2 - mean_y**2) * (mean_x**2 + mean_y**2)
    expected = (top / bottom)[inner].mean()
    assert uqi_sewar(pair[0][:30, :26], pair[1][:30, :26]) == pytest.approx(expected)


def test_how_much_too_large(unrelated: Pair) -> None:
    """1774 = 64·16·√3 and 64 times, exactly so where neither level nor error varies."""
    reference = np.full((40, 40, 3), 150, np.uint8)
    image = np.full((40, 40, 3), 159, np.uint8)
    assert ergas_sewar(reference, image) / ergas(reference, image) == pytest.approx(64 * 16 * math.sqrt(3))
    assert rase_sewar(reference, image) / rase(reference, image) == pytest.approx(64)
    assert ergas_sewar(reference, image) / rase_sewar(reference, image) == pytest.approx(4 * math.sqrt(3))


def test_how_much_too_large_on_tissue(pair: Pair) -> None:
    assert 1774 * 0.8 < ergas_sewar(*pair) / ergas(*pair) < 1774 * 1.2
    assert 64 * 0.8 < rase_sewar(*pair) / rase(*pair) < 64 * 1.2


def test_torchmetrics_has_sewars_factor(pair: Pair, tensors) -> None:
    from torchmetrics.functional.image import relative_average_spectral_error as theirs

    assert float(theirs(tensors[1], tensors[0])) / rase(*pair) == pytest.approx(64, rel=0.2)


def test_uqi_is_inflated(pair: Pair, unrelated: Pair) -> None:
    assert uqi(*pair) < 0.9 < 0.97 < uqi_sewar(*pair)
    assert abs(uqi(*unrelated)) < 0.05
    assert 0.65 < uqi_sewar(*unrelated) < 0.8


def test_sewars_zeros() -> None:
    black = np.zeros((16, 16, 3), np.uint8)
    bright = np.full((16, 16, 3), 9, np.uint8)
    assert ergas_sewar(black, bright) == 0  # where its mean is 0, it forgets the error
    assert rase_sewar(black, bright) == math.inf
    assert uqi_sewar(black, black) == 1
