"""FSIM and FSIMc: published behaviour, figures of another implementation, and the parts by themselves."""

import numpy as np
import pytest
from scipy import ndimage

from restain.evaluation.metrics.feature_similarity import fsim, fsimc, phase_congruency

Pair = tuple[np.ndarray, np.ndarray]


def textures(height: int, width: int) -> Pair:
    """Smoothed noise, and the same three rows further down: made alike everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    first = ndimage.gaussian_filter(noise, (2, 2, 0))
    return first, np.roll(first, 3, axis=0)


# Made with piq 0.8.0: piq.fsim(x, y, data_range=1.0, chromatic=…) of float64 tensors, image / 255.
@pytest.mark.parametrize(
    ("size", "plain", "chromatic"),
    [((96, 96), 0.911617, 0.899869), ((97, 131), 0.907066, 0.894688), ((599, 601), 0.889688, 0.880527)],
)
def test_as_piq(size: tuple[int, int], plain: float, chromatic: float) -> None:
    images = textures(*size)
    assert fsim(*images) == pytest.approx(plain, abs=5e-5)
    assert fsimc(*images) == pytest.approx(chromatic, abs=5e-5)


def test_phase_congruency_finds_a_step_of_any_height() -> None:
    image = np.full((64, 64), 100.0)
    image[:, 32:] = 130.0
    low = phase_congruency(image)
    assert 0.75 < low[32, 31:33].max() <= 1
    assert low[32].argmax() in (0, 31, 32, 63)  # the border, where the picture repeats, is a step too
    high = phase_congruency(100 + (image - 100) * 4)
    assert high[32, 31:33].max() == pytest.approx(low[32, 31:33].max(), abs=0.02)


def test_a_wrong_hue_costs_little(pair: Pair) -> None:
    rotated = np.ascontiguousarray(pair[0][..., [2, 1, 0]])
    assert fsimc(pair[0], rotated) < fsim(pair[0], rotated)
    assert fsimc(pair[0], rotated) > 0.8 * fsim(pair[0], rotated)


def test_without_structure_there_is_no_number() -> None:
    for level in (0, 100, 255):
        flat = np.full((33, 32, 3), level, np.uint8)
        assert np.isnan(fsim(flat, flat))
        assert np.isnan(fsimc(flat, flat))
