"""The promise of exactness: a compiled map gives, for all 16,777,216 colours, what the published formula gives.

The oracles are independent float64 evaluations (see oracles.py). A value may differ only where the oracle lies within
1e-6 of a rounding tie, and such values are counted.
"""

from dataclasses import replace

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from restain import METHODS
from restain.color.colormap import ColorMap
from restain.methods.base import Appearance, Normalizer
from restain.phantom import Phantom

from . import oracles
from .making import make

MOST_FORGIVEN = 20  # of 50,331,648 values; a hundred lie that near to a tie by chance, and most of these agree


def fitted(name: str, source: Phantom, reference: Phantom, **settings) -> tuple[Normalizer, Appearance]:
    normalizer = make(name, **settings).fit(reference.image)
    return normalizer, normalizer.estimate(source.image)


def assert_exact(comparison: oracles.Comparison) -> None:
    assert comparison.wrong == 0, f"colour, table, oracle: {comparison.example}"
    assert comparison.forgiven <= MOST_FORGIVEN


@pytest.mark.parametrize("background", ["none", "match"])
@pytest.mark.parametrize("name", METHODS)
def test_all_colours_are_what_the_formula_gives(
    name: str, background: str, phantom: Phantom, reference: Phantom
) -> None:
    assert name in oracles.RESTYLES, f"write the formula of {name} into oracles.py, from its paper"
    normalizer, appearance = fitted(name, phantom, reference, background=background)
    table = normalizer.color_map(appearance).table
    assert_exact(oracles.compare(table, oracles.expected_map(normalizer, appearance)))


SOME = np.random.default_rng(0).integers(0, 256, (150_000, 3), dtype=np.uint8)

# What the tests above leave out, on a part of the colours. Keys of the methods' own settings, not of shared ones.
VARIANTS = [
    ("reinhard", {"space": "lalphabeta"}),
    ("reinhard", {"luminosity": None}),
    ("ruifrok", {"stains": "he-warwick"}),
    ("ruifrok", {"stains": "hdab"}),
    ("ruifrok", {"stains": "hed"}),
    ("ruifrok", {"stains": [[0.6, 0.7, 0.3], [0.1, 0.9, 0.2]]}),
    ("macenko", {"tone": False}),
    ("macenko", {"residual": "drop", "percentile": 99.0}),
    ("macenko", {"tissue": "density"}),
    ("vahadane", {"concentration_sparsity": 0.0}),
    ("vahadane", {"concentration_sparsity": 0.2, "residual": "drop", "tone": False}),
    *((name, {"background": background}) for name in METHODS for background in ("keep", "white")),
]


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=lambda value: str(value))
def test_variants_are_what_their_formulas_give(name: str, settings: dict, phantom: Phantom, reference: Phantom) -> None:
    normalizer, appearance = fitted(name, phantom, reference, **settings)
    expected = oracles.expected_map(normalizer, appearance)(SOME)
    values = normalizer.map_colors(SOME, appearance)
    np.testing.assert_allclose(np.clip(values, 0, 255), np.clip(expected, 0, 255), rtol=0, atol=1e-9)
    image = SOME.reshape(300, 500, 3)
    mapped = normalizer.color_map(appearance, lazy=True)(image).reshape(-1, 3)
    tie = np.abs(expected - np.floor(expected) - 0.5) < 1e-6
    differs = mapped != np.clip(np.rint(expected), 0, 255)
    assert not (differs & ~tie).any()


@pytest.mark.parametrize(("name", "stain"), [(name, stain) for name in ("ruifrok", "macenko") for stain in (0, 1)])
@pytest.mark.parametrize("strength", [0.04, 0.3, 20.0])
def test_absent_and_very_unequal_stains(
    name: str, stain: int, strength: float, phantom: Phantom, reference: Phantom
) -> None:
    normalizer, appearance = fitted(name, phantom, reference)
    scale = np.where(np.arange(2) == stain, strength, 1.0)
    appearance = replace(
        appearance,
        max_concentrations=appearance.max_concentrations * scale,
        median_concentrations=appearance.median_concentrations * scale,
    )
    expected = oracles.expected_map(normalizer, appearance)(SOME)
    values = normalizer.map_colors(SOME, appearance)
    np.testing.assert_allclose(np.clip(values, 0, 255), np.clip(expected, 0, 255), rtol=0, atol=1e-9)


# ---- the oracles themselves -------------------------------------------------------------------------------------


def test_the_comparison_sees_a_single_wrong_value() -> None:
    table = ColorMap.identity().table
    assert oracles.compare(table, lambda colors: colors.astype(float)) == oracles.Comparison(0, 0, None)
    table[200, 100, 50, 2] += 1
    comparison = oracles.compare(table, lambda colors: colors.astype(float))
    assert comparison == oracles.Comparison(1, 0, ([200, 100, 50], [200, 100, 51], [200.0, 100.0, 50.0]))


def test_the_oracles_lab_is_that_of_scikit_image() -> None:
    tables = oracles.balanced(np.array([236.0, 231.0, 228.0]))
    levels = oracles.look_up(tables, SOME).T
    lab = oracles.lab_from_rgb(tables, SOME)
    np.testing.assert_allclose(lab.T, rgb2lab(levels / 255), rtol=0, atol=1e-9)
    np.testing.assert_allclose(oracles.rgb_from_lab(lab).T, lab2rgb(lab.T) * 255, rtol=0, atol=1e-6)
