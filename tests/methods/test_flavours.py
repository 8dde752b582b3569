"""Flavours: what other packages compute, against their formulas evaluated on every pixel, and what they share."""

import itertools

import numpy as np
import pytest
from sklearn.decomposition import DictionaryLearning

from restain import METHODS, ColorHistogram, load
from restain.errors import EstimateWarning, InputError
from restain.methods.flavours import TIATOOLBOX, tiatoolbox_dictionary
from restain.phantom import Phantom

FLAVOURS = [
    *itertools.product(["macenko", "reinhard"], ["torchstain", "tiatoolbox", "staintools", "paper"]),
    *itertools.product(["vahadane"], ["tiatoolbox", "staintools", "paper"]),
    ("reinhard_modified", "torchstain"),
    ("ruifrok", "tiatoolbox"),
]
every_flavour = pytest.mark.parametrize(("name", "flavour"), FLAVOURS)


def macenko_torchstain(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Densities, stains and 99th percentiles, on every pixel: I₀ = 240, offset 1, no clipping anywhere."""
    density = -np.log((image.reshape(-1, 3).astype(float) + 1) / 240)
    tissue = density[(density >= 0.15).all(axis=1)]
    plane = np.linalg.svd(tissue - tissue.mean(axis=0), full_matrices=False)[2][:2]
    plane *= np.sign(plane[:, :1])
    angle = np.arctan2(tissue @ plane[1], tissue @ plane[0])
    ends = [np.array([np.cos(a), np.sin(a)]) @ plane for a in np.percentile(angle, [1, 99])]
    stains = np.stack(sorted(ends, key=lambda vector: -vector[0]))
    concentrations = np.linalg.lstsq(stains.T, density.T, rcond=None)[0].T
    return concentrations, stains, np.percentile(concentrations, 99, axis=0)


def test_macenko_of_torchstain_on_every_pixel(phantom: Phantom, reference: Phantom) -> None:
    normalizer = METHODS["macenko"](flavour="torchstain", background="none").fit(reference.image)
    concentrations, _, largest = macenko_torchstain(phantom.image)
    _, stains, wanted = macenko_torchstain(reference.image)
    expected = np.minimum(240 * np.exp(-(concentrations * (wanted / largest)) @ stains), 255)
    difference = normalizer.transform(phantom.image).reshape(-1, 3) - np.floor(expected)
    assert np.abs(difference).max() <= 1  # a value that lies on a whole level
    assert np.abs(difference).mean() < 0.001


def vahadane_tiatoolbox(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concentrations, stains (longer in red first) and 99th percentiles, on every pixel, by scikit-learn."""
    levels = image.reshape(-1, 3).astype(float)
    density = np.maximum(-np.log(np.maximum(levels, 1.0) / 255.0), 1e-6)
    tissue = TIATOOLBOX.tissue(levels, np.ones(len(levels)))
    learning = DictionaryLearning(
        n_components=2,
        alpha=0.1,
        max_iter=3,
        fit_algorithm="lars",
        transform_algorithm="lasso_lars",
        transform_alpha=0.1,
        positive_dict=True,
    )
    code = learning.fit_transform(density[tissue].T)
    code = code[:, np.argsort(-code[0])]
    stains = (code / np.linalg.norm(code, axis=0)).T
    concentrations = np.linalg.lstsq(stains.T, density.T, rcond=None)[0].T
    return concentrations, stains, np.percentile(concentrations, 99, axis=0)


def test_vahadane_of_tiatoolbox_on_every_pixel(phantom: Phantom, reference: Phantom) -> None:
    normalizer = METHODS["vahadane"](flavour="tiatoolbox", background="none").fit(reference.image)
    concentrations, _, largest = vahadane_tiatoolbox(phantom.image)
    _, wanted_stains, wanted = vahadane_tiatoolbox(reference.image)
    assert wanted_stains[0, 0] < wanted_stains[1, 0]  # first is what has more red before it is of unit length
    expected = 255 * np.exp(-(concentrations * (wanted / largest)) @ wanted_stains)
    difference = normalizer.transform(phantom.image).reshape(-1, 3) - np.floor(np.clip(expected, 0, 255))
    assert np.abs(difference).max() <= 1  # a value that lies on a whole level
    assert np.abs(difference).mean() < 0.001


@every_flavour
def test_tiles_equal_the_whole_and_files_keep_the_flavour(
    name: str, flavour: str, phantom: Phantom, reference: Phantom, tmp_path
) -> None:
    normalizer = METHODS[name](flavour=flavour, background="none").fit(reference.image)
    appearance = normalizer.estimate(phantom.image)
    whole = normalizer.transform(phantom.image, appearance)
    assert (whole != METHODS[name](background="none").fit(reference.image).transform(phantom.image)).any()
    np.testing.assert_array_equal(normalizer.transform(phantom.image[:50], appearance), whole[:50])
    normalizer.save(tmp_path / "n.safetensors")
    assert load(tmp_path / "n.safetensors") == normalizer


@every_flavour
def test_blank_tiles_fall_back_and_glass_is_matched(name: str, flavour: str, reference: Phantom) -> None:
    normalizer = METHODS[name](flavour=flavour).fit(reference.image)
    blank = np.full((64, 64, 3), 243, np.uint8)
    with pytest.warns(EstimateWarning):
        result = normalizer.transform(blank)
    np.testing.assert_allclose(result.mean(axis=(0, 1)), reference.scanner.white, atol=1.5)


@every_flavour
def test_a_flavour_decides_its_settings(name: str, flavour: str) -> None:
    with pytest.raises(InputError, match="decides luminosity itself"):
        METHODS[name](flavour=flavour, luminosity=0.5)
    with pytest.raises(InputError, match="flavour"):
        METHODS[name](flavour="none of these")


def test_counts_stand_for_repeated_pixels_in_the_factorisation_of_tiatoolbox(phantom: Phantom) -> None:
    histogram = ColorHistogram.from_image(phantom.image)
    counted = histogram.where(histogram.colors.max(axis=1) < 220)
    density = -np.log((counted.colors + 1.0) / 256)
    repeated = np.repeat(density, counted.counts.astype(int), axis=0)
    by_counts = tiatoolbox_dictionary(density, counted.counts)
    by_pixels = tiatoolbox_dictionary(repeated, np.ones(len(repeated)))
    np.testing.assert_allclose(by_counts, by_pixels, rtol=1e-6)
