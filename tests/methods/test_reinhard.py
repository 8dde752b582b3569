"""Reinhard: the output's moments, and a plain implementation on pixels with scikit-image."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from restain import ColorHistogram, Reinhard
from restain.errors import InputError
from restain.phantom import Phantom

from . import oracles

BARE = {"background": "none", "luminosity": None}


def lalphabeta(levels: np.ndarray) -> np.ndarray:
    return (oracles.AXES @ np.log(oracles.LMS @ ((levels.reshape(-1, 3).T + 1) / 256))).T


def lab(levels: np.ndarray) -> np.ndarray:
    return rgb2lab(levels.reshape(-1, 3) / 255.0)


@pytest.mark.parametrize(("space", "convert"), [("lab", lab), ("lalphabeta", lalphabeta)])
def test_the_output_has_the_references_moments_before_clipping(
    space: str, convert, phantom: Phantom, reference: Phantom
) -> None:
    normalizer = Reinhard(space=space, **BARE).fit(reference.image)
    histogram = ColorHistogram.from_image(phantom.image)
    values = normalizer.map_colors(histogram.colors, normalizer.estimate(histogram))
    pixels = convert(np.repeat(values, histogram.counts.astype(int), axis=0))
    wanted = convert(reference.image)
    np.testing.assert_allclose(pixels.mean(axis=0), wanted.mean(axis=0), rtol=0, atol=1e-4)
    np.testing.assert_allclose(pixels.std(axis=0), wanted.std(axis=0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("space", "convert"), [("lab", lab), ("lalphabeta", lalphabeta)])
def test_the_estimate_is_the_moments_of_the_pixels(space: str, convert, phantom: Phantom) -> None:
    appearance = Reinhard(space=space, **BARE).estimate(phantom.image)
    np.testing.assert_allclose(appearance.mean, convert(phantom.image).mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(appearance.deviation, convert(phantom.image).std(axis=0), rtol=0, atol=1e-6)
    assert appearance.tissue_pixels == phantom.image.shape[0] * phantom.image.shape[1]


def test_equals_a_plain_implementation_on_pixels(phantom: Phantom, reference: Phantom) -> None:
    source, target = rgb2lab(phantom.image), rgb2lab(reference.image)
    moved = (source - source.mean((0, 1))) / source.std((0, 1)) * target.std((0, 1)) + target.mean((0, 1))
    expected = lab2rgb(moved) * 255
    result = Reinhard(**BARE).fit(reference.image).transform(phantom.image)
    tie = np.abs(expected - np.floor(expected) - 0.5) < 1e-4
    np.testing.assert_array_equal(result[~tie], np.rint(expected)[~tie])
    assert tie.mean() < 0.001


def test_only_tissue_counts_by_default(phantom: Phantom) -> None:
    appearance = Reinhard().estimate(phantom.image)
    balanced = np.clip((phantom.image + 1) * (256 / (appearance.white_point + 1)) - 1, 0, 255)
    tissue = rgb2lab(balanced / 255)
    tissue = tissue[tissue[..., 0] < 90]
    np.testing.assert_allclose(appearance.mean, tissue.mean(axis=0), rtol=0, atol=0.01)
    np.testing.assert_allclose(appearance.deviation, tissue.std(axis=0), rtol=0, atol=0.01)


def test_a_source_that_is_the_reference_stays_as_it_is(phantom: Phantom) -> None:
    for space in ("lab", "lalphabeta"):
        normalizer = Reinhard(space=space, **BARE).fit(phantom.image)
        np.testing.assert_array_equal(normalizer.transform(phantom.image), phantom.image)


def test_a_constant_channel_is_only_shifted(phantom: Phantom, reference: Phantom) -> None:
    normalizer = Reinhard(**BARE).fit(reference.image)
    appearance = normalizer.estimate(phantom.image)
    flat = replace(appearance, deviation=np.array([appearance.deviation[0], 0.0, 1e-9]))
    colors = np.array([[200, 120, 180], [150, 90, 140]])
    moved = lab(normalizer.map_colors(colors, flat)) - lab(colors)
    wanted = normalizer.reference_.mean - appearance.mean
    np.testing.assert_allclose(moved[:, 1:], np.broadcast_to(wanted[1:], (2, 2)), atol=1e-3)


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(InputError, match="space='hsv'; wanted one of lab, lalphabeta"):
        Reinhard(space="hsv")
