"""Histogram matching against scikit-image."""

import numpy as np
import pytest
from skimage.exposure import match_histograms

from restain import HistogramMatching
from restain.phantom import Phantom

BARE = {"background": "none", "luminosity": None}


def random_image(seed: int, low: int, high: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (90, 110, 3), dtype=np.uint8)


def assert_equals_scikit_image(source: np.ndarray, target: np.ndarray) -> None:
    # As floats: of 8-bit images scikit-image truncates the result.
    expected = match_histograms(source.astype(float), target.astype(float), channel_axis=-1)
    normalizer = HistogramMatching(**BARE).fit(target)
    appearance = normalizer.estimate(source)
    values = normalizer.map_colors(source.reshape(-1, 3), appearance).reshape(source.shape)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)
    tie = np.abs(expected - np.floor(expected) - 0.5) < 1e-6
    result = normalizer.transform(source)
    np.testing.assert_array_equal(result[~tie], np.rint(expected)[~tie])
    # A level goes somewhere as a whole. In small images the shares are small fractions, and one or two of a hundred
    # levels lie halfway; those may be rounded to either side.
    assert np.abs(result - expected).max() <= 0.5 + 1e-6
    assert sum(len(np.unique(source[..., channel][tie[..., channel]])) for channel in range(3)) <= 0.03 * 3 * 256


def test_phantoms(phantom: Phantom, reference: Phantom) -> None:
    assert_equals_scikit_image(phantom.image, reference.image)
    assert_equals_scikit_image(reference.image, phantom.image)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (random_image(0, 0, 256), random_image(1, 0, 256)),
        (random_image(2, 100, 130), random_image(3, 0, 256)),
        (random_image(4, 0, 256), random_image(5, 200, 230)),
        (random_image(6, 0, 40), random_image(7, 220, 256)),
        (random_image(8, 10, 30) * 8, random_image(9, 3, 30) * 7),
    ],
    ids=["full ranges", "narrow to full", "full to narrow", "dark to bright", "with gaps"],
)
def test_random_images(source: np.ndarray, target: np.ndarray) -> None:
    assert_equals_scikit_image(source, target)


def test_the_cumulative_distribution_is_that_of_the_pixels(phantom: Phantom) -> None:
    cumulative = HistogramMatching(**BARE).estimate(phantom.image).cumulative
    for channel in range(3):
        expected = [(phantom.image[..., channel] <= level).mean() for level in range(256)]
        np.testing.assert_allclose(cumulative[channel], expected, rtol=0, atol=1e-12)


def test_levels_keep_their_order(phantom: Phantom, reference: Phantom) -> None:
    for settings in (BARE, {}):
        normalizer = HistogramMatching(**settings).fit(reference.image)
        appearance = normalizer.estimate(phantom.image)
        grays = np.arange(256)[:, None].repeat(3, axis=1)
        restyled = normalizer._restyle(grays.astype(float), appearance, normalizer.reference_)
        assert (np.diff(restyled, axis=0) >= 0).all()


def test_an_image_matched_to_itself_stays_as_it_is(phantom: Phantom) -> None:
    normalizer = HistogramMatching(**BARE).fit(phantom.image)
    np.testing.assert_array_equal(normalizer.transform(phantom.image), phantom.image)


def test_the_amount_of_glass_does_not_matter_by_default(phantom: Phantom, reference: Phantom) -> None:
    normalizer = HistogramMatching().fit(reference.image)
    glass = np.full((400, 256, 3), 243, np.uint8)
    framed = np.vstack([phantom.image, glass])
    alone, beside = normalizer.estimate(phantom.image), normalizer.estimate(framed)
    np.testing.assert_allclose(beside.cumulative, alone.cumulative, atol=0.01)
