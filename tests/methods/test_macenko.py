"""Macenko: planted vectors come back, and the paper's settings give what a plain implementation on pixels gives."""

import numpy as np
import pytest

from restain import ColorHistogram, Macenko
from restain.errors import FitError, InputError
from restain.methods.base import Unlearnable
from restain.methods.macenko import extreme_angles
from restain.phantom import Phantom, make_phantom

from .oracles import angles_between

AS_PUBLISHED = {
    "tissue": "density",
    "percentile": 99,
    "tone": False,
    "residual": "drop",
    "darkest": 0,
    "off_plane": 1,
    "background": "none",
}


def plain_stains(density: np.ndarray) -> np.ndarray:
    """Macenko et al. 2009 on pixels (n, 3): the two stains as unit rows, hematoxylin first."""
    _, vectors = np.linalg.eigh(np.cov(density, rowvar=False))
    plane = vectors[:, [2, 1]]
    plane = plane * np.where(plane[0] < 0, -1, 1)
    projected = density @ plane
    angles = np.arctan2(projected[:, 1], projected[:, 0])
    low, high = np.percentile(angles, [1, 99])
    first, second = (np.maximum(plane @ [np.cos(angle), np.sin(angle)], 0) for angle in (low, high))
    rows = [first, second] if first[0] > second[0] else [second, first]
    return np.array([row / np.linalg.norm(row) for row in rows])


def plain_estimate(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    density = -np.log((image.reshape(-1, 3).astype(float) + 1) / 256)
    tissue = density[(density >= 0.15).all(axis=1)]
    stains = plain_stains(tissue)
    amounts = np.linalg.lstsq(stains.T, tissue.T, rcond=None)[0]
    return stains, np.percentile(amounts, 99, axis=1)


def plain_macenko(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    (stains, maxima), (wanted_stains, wanted) = plain_estimate(image), plain_estimate(target)
    density = -np.log((image.reshape(-1, 3).astype(float) + 1) / 256)
    amounts = np.linalg.lstsq(stains.T, density.T, rcond=None)[0]
    levels = 256 * np.exp(-wanted_stains.T @ (amounts * (wanted / maxima)[:, None])) - 1
    return np.clip(np.rint(levels), 0, 255).T.reshape(image.shape)


def test_published_settings_equal_a_plain_implementation_on_pixels(phantom: Phantom, reference: Phantom) -> None:
    normalizer = Macenko(**AS_PUBLISHED).fit(reference.image)
    appearance = normalizer.estimate(phantom.image)
    for found, image in ((appearance, phantom.image), (normalizer.reference_, reference.image)):
        stains, maxima = plain_estimate(image)
        np.testing.assert_allclose(found.stain_matrix, stains, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.max_concentrations, maxima, rtol=0, atol=1e-9)
    result = normalizer.transform(phantom.image).astype(int)
    expected = plain_macenko(phantom.image, reference.image)
    assert np.abs(result - expected).max() <= 1
    assert (result != expected).mean() < 1e-4  # rounding ties alone


def test_strengths_are_those_of_the_planted_concentrations() -> None:
    phantom = make_phantom(384, 384, seed=0, blood=False, glass_fraction=0.1)
    appearance = Macenko().estimate(phantom.image)
    stained = phantom.concentrations.reshape(-1, 2).astype(float)
    balanced = (phantom.image.reshape(-1, 3) + 1) / 244
    stained = stained[balanced.min(axis=1) < 0.75]
    # Stains two degrees off mix a little of one into the other.
    np.testing.assert_allclose(appearance.max_concentrations, np.percentile(stained, 95, axis=0), rtol=0.12)


def test_the_density_rule_takes_pixels_dense_in_every_channel(phantom: Phantom) -> None:
    appearance = Macenko(tissue="density", beta=0.2, background="none").estimate(phantom.image)
    density = -np.log((phantom.image.astype(float) + 1) / 256)
    assert appearance.tissue_pixels == (density >= 0.2).all(axis=-1).sum()


def test_dark_colours_take_no_part_in_the_vectors(phantom: Phantom) -> None:
    pixels = phantom.image.reshape(-1, 3)
    dark = np.random.default_rng(0).integers(0, 9, (len(pixels) // 5, 3), dtype=np.uint8)
    clean, dirty = (ColorHistogram.from_colors(c) for c in (pixels, np.concatenate([pixels, dark])))
    plain, robust = (Macenko(background="none", darkest=level) for level in (0, 10))
    expected = robust.estimate(clean).stain_matrix
    np.testing.assert_allclose(robust.estimate(dirty).stain_matrix, expected, rtol=0, atol=1e-12)
    assert angles_between(plain.estimate(dirty).stain_matrix, expected).max() > 1


def test_one_stain_is_not_taken_for_two() -> None:
    levels = np.arange(5, 240)
    amounts = -np.log((levels + 1) / 256)
    one_stain = np.unique(np.rint(256 * np.exp(-amounts[:, None] * [0.65, 0.7, 0.29]) - 1), axis=0)
    gray = np.repeat(levels[:, None], 3, axis=1)
    for colors in (one_stain, gray):
        with pytest.raises(FitError, match="one stain"):
            Macenko(background="none").fit(ColorHistogram.from_colors(colors))


@pytest.mark.parametrize("seed", range(5))
def test_extreme_angles_of_a_planted_wedge(seed: int) -> None:
    generator = np.random.default_rng(seed)
    stains = generator.uniform(0.05, 1, (2, 3))
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    stains = stains[np.argsort(-stains[:, 0])]
    amounts = generator.dirichlet([0.3, 0.3], 20_000) * generator.uniform(0.3, 2, (20_000, 1))
    found = extreme_angles(amounts @ stains, np.ones(20_000), 1.0)
    assert angles_between(found, stains).max() < 2


def test_densities_on_a_line_are_unlearnable() -> None:
    line = np.linspace(0.1, 2, 50)[:, None] * [0.6, 0.7, 0.3]
    with pytest.raises(Unlearnable, match="line"):
        extreme_angles(line, np.ones(50), 1.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tissue": "red"},
        {"alpha": 50},
        {"alpha": -1},
        {"alpha": float("nan")},
        {"beta": float("nan")},
        {"percentile": 0},
        {"percentile": 101},
        {"residual": "half"},
        {"darkest": -1},
        {"darkest": 255},
        {"off_plane": 0},
        {"off_plane": 1.5},
        {"off_plane": float("nan")},
        {"least_angle": float("nan")},
        {"least_angle": -5},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(arguments: dict) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        Macenko(**arguments)
