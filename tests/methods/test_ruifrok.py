"""Ruifrok & Johnston against scikit-image's colour deconvolution."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.color import rgb_from_hed, separate_stains

from restain import Ruifrok, load
from restain.errors import InputError
from restain.phantom import Phantom

# As printed in the paper and in the packages; hematoxylin, eosin, DAB.
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
WARWICK = np.array([[0.644211, 0.716556, 0.266844], [0.092789, 0.954111, 0.283111]])
PRINTED = {"he": HED[:2], "he-warwick": WARWICK, "hdab": HED[[0, 2]], "hed": HED}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def completed(rows: np.ndarray) -> np.ndarray:
    rows = unit(rows)
    return rows if len(rows) == 3 else np.vstack([rows, unit([np.cross(rows[0], rows[1])])])


def stains_of_scikit_image(image: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Concentrations (n, k) of the pixels, natural logarithm; scikit-image sets negative ones to 0."""
    # separate_stains divides by log(1e-6), so that its densities have their own unit.
    amounts = separate_stains((image + 1.0) / 256.0, np.linalg.inv(completed(rows))) * -np.log(1e-6)
    return amounts.reshape(-1, 3)[:, : len(rows)]


def test_the_printed_vectors_are_those_of_scikit_image() -> None:
    np.testing.assert_allclose(Ruifrok(stains="hed").stain_matrix(), unit(rgb_from_hed), atol=1e-15)


@pytest.mark.parametrize("stains", PRINTED)
def test_strengths_are_those_of_scikit_image(stains: str, phantom: Phantom) -> None:
    normalizer = Ruifrok(stains=stains, percentile=90, off_plane=1, background="none", luminosity=None)
    appearance = normalizer.estimate(phantom.image)
    amounts = stains_of_scikit_image(phantom.image, PRINTED[stains])
    np.testing.assert_allclose(appearance.stain_matrix, unit(PRINTED[stains]), atol=1e-15)
    maxima, medians = (np.percentile(amounts, p, axis=0) for p in (90, 50))
    np.testing.assert_allclose(np.maximum(appearance.max_concentrations, 0), maxima, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.maximum(appearance.median_concentrations, 0), medians, rtol=0, atol=1e-9)


@pytest.mark.parametrize("stains", PRINTED)
def test_the_picture_is_that_of_scaled_stains(stains: str, phantom: Phantom, reference: Phantom) -> None:
    """Without tone: densities change by what each stain's scale adds or takes."""
    normalizer = Ruifrok(stains=stains, tone=False, background="none", luminosity=None).fit(reference.image)
    appearance = normalizer.estimate(phantom.image)
    ratio = normalizer.reference_.max_concentrations / appearance.max_concentrations
    present = np.minimum(normalizer.reference_.max_concentrations, appearance.max_concentrations) >= 0.05
    scale = np.where(present, np.clip(ratio, 1 / 3, 3), 1)
    density = -np.log((phantom.image.reshape(-1, 3) + 1.0) / 256)
    rows = completed(PRINTED[stains])
    amounts = density @ np.linalg.inv(rows)
    amounts[:, : len(scale)] *= scale
    expected = 256 * np.exp(-amounts @ rows) - 1
    np.testing.assert_allclose(normalizer.map_colors(phantom.image.reshape(-1, 3), appearance), expected, atol=1e-8)


@pytest.mark.parametrize("stains", PRINTED)
def test_a_source_that_is_the_reference_stays_as_it_is(stains: str, phantom: Phantom) -> None:
    normalizer = Ruifrok(stains=stains, background="none").fit(phantom.image)
    appearance = normalizer.estimate(phantom.image)
    colors = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    np.testing.assert_array_equal(normalizer.transform(colors, appearance), colors)


def test_the_plane_of_the_stains_stays_as_it_is_when_the_rest_is_dropped(phantom: Phantom) -> None:
    normalizer = Ruifrok(residual="drop", background="none").fit(phantom.image)
    appearance = normalizer.estimate(phantom.image)
    amounts = np.random.default_rng(1).uniform(0, 1.5, (1000, 2))
    colors = 256 * np.exp(-amounts @ unit(HED[:2])) - 1
    np.testing.assert_allclose(normalizer.map_colors(colors, appearance), colors, atol=1e-9)


@given(
    hnp.arrays(np.float64, (2, 3), elements=st.floats(0.05, 3)).filter(
        lambda rows: np.linalg.norm(np.cross(*unit(rows))) > 0.1
    )
)
def test_vectors_of_ones_own(phantom: Phantom, rows: np.ndarray) -> None:
    normalizer = Ruifrok(stains=rows)
    np.testing.assert_allclose(normalizer.stain_matrix(), unit(rows), rtol=1e-12)
    assert Ruifrok(**json.loads(json.dumps(normalizer.settings()))) == normalizer


TWO = [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]


@pytest.mark.parametrize(
    "stains",
    [np.array(TWO), np.array(TWO, np.float32), [np.array(row) for row in TWO], tuple(map(tuple, TWO)), TWO],
    ids=["array", "float32 array", "list of arrays", "tuples", "lists"],
)
def test_vectors_in_any_form_are_saved_and_compared(stains, reference: Phantom, tmp_path) -> None:
    normalizer = Ruifrok(stains=stains).fit(reference.image)
    normalizer.save(tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors") == normalizer
    assert normalizer == Ruifrok(stains=stains).fit(reference.image)


@pytest.mark.parametrize(
    "stains",
    [
        "hematoxylin",
        [[1, 0, 0]],
        [[1, 0], [0, 1]],
        [[0, 0, 0], [0, 1, 0]],
        [[1, 2, 3], [2, 4, 6]],
        [[1, 0, 0], [0, 1, 0], [1, 1, 0]],
        [[float("nan"), 1, 0], [0, 1, 0]],
        [[float("inf"), 1, 0], [0, 1, 0]],
        [["a", "b", "c"], [0, 1, 0]],
        None,
        3,
        {},
    ],
    ids=str,
)
def test_vectors_that_cannot_be_are_refused(stains) -> None:
    with pytest.raises(InputError):
        Ruifrok(stains=stains)
