"""The rule for glass on whole images is the one on colours; and with no rule nothing changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.color.glass import GLASS_DENSITY
from restain.color.spaces import balance
from restain.errors import InputError
from restain.methods.glass import GlassRule, match_glass

whites = st.tuples(*[st.floats(120, 255)] * 3).map(np.array)


def by_hand(pixel: np.ndarray, restyled: np.ndarray, source: np.ndarray, reference: np.ndarray, wanted: np.ndarray):
    """DESIGN's promise 3 for one colour, step by step in Python's floats."""
    transmittance = [(float(level) + 1) / (white + 1) for level, white in zip(pixel, source, strict=True)]
    density = max(-float(np.log(value)) for value in transmittance)
    low, high = GLASS_DENSITY
    way = min(max((density - low) / (high - low), 0.0), 1.0)
    weight = 1 - way * way * (3 - 2 * way)
    result = []
    for value, level, white, goal in zip(transmittance, restyled, reference, wanted, strict=True):
        balanced = min(max((float(level) + 1) / (white + 1) * 256 - 1, 0.0), 255.0)
        result.append((weight * value + (1 - weight) * (balanced + 1) / 256) * (goal + 1) - 1)
    return result


@given(source=whites, reference=whites, wanted=whites, seed=st.integers(0, 99))
def test_images_get_what_colours_get(source, reference, wanted, seed: int) -> None:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (2, 9, 7, 3), np.uint8)
    # Half of them near glass, where the rule acts.
    near = np.rint(np.clip(source * generator.uniform(0.75, 1.05, pixels.shape), 0, 255)).astype(np.uint8)
    pixels[generator.random((2, 9, 7)) < 0.5] = near[0, 0, 0]
    restyled = generator.uniform(-20, 280, pixels.shape).astype(np.float32)
    got = GlassRule(source, reference, wanted)(pixels, restyled.copy())
    assert got.dtype == np.float32
    colors, results = pixels.reshape(-1, 3).astype(np.float64), restyled.reshape(-1, 3)
    of_colors = match_glass(colors, balance(results, reference), source, wanted)
    np.testing.assert_allclose(got.reshape(-1, 3), of_colors, atol=1e-3)
    for index in range(0, len(colors), 17):
        expected = by_hand(colors[index], results[index], source, reference, wanted)
        np.testing.assert_allclose(of_colors[index], expected, atol=1e-9)


@given(source=whites, wanted=whites)
def test_the_white_point_becomes_the_wanted_one_whatever_the_network_makes_of_it(source, wanted) -> None:
    pixels = np.rint(source).astype(np.uint8)[None, None]
    rule = GlassRule(source, (240.0, 240.0, 240.0), wanted)
    for network in (0.0, 255.0, 400.0):
        got = rule(pixels, np.full((1, 1, 3), network, np.float32))
        assert np.abs(got - wanted).max() <= 1.5  # of rounding the white point to a pixel
        np.testing.assert_allclose(got, rule.glass(pixels), atol=1e-3)


def test_results_that_do_not_fit_their_colours_are_refused() -> None:
    """Compiled loops look at no bounds: they would answer with what lies behind the array."""
    colors = np.full((5, 3), 100.0)
    for wrong in (np.zeros((3, 3)), np.zeros((5, 1)), np.zeros((1, 3))):
        with pytest.raises(InputError, match="one restyled colour for each"):
            match_glass(colors, wrong, 240.0, 240.0)


def test_one_level_is_a_white_point_of_three() -> None:
    colors, restyled = np.random.default_rng(0).uniform(0, 255, (2, 50, 3))
    for gray in (240.0, [240.0]):
        np.testing.assert_array_equal(
            match_glass(colors, restyled, gray, gray), match_glass(colors, restyled, [240.0] * 3, [240.0] * 3)
        )


def test_glass_alone_is_told_from_glass_with_a_speck() -> None:
    rule = GlassRule((236.0, 231.0, 228.0), (240.0, 240.0, 240.0), (240.0, 240.0, 240.0))
    generator = np.random.default_rng(0)
    glass = np.clip(np.rint(generator.normal((236, 231, 228), 1, (40, 40, 3))), 0, 255).astype(np.uint8)
    assert rule.is_glass(glass)
    made = rule.glass(glass)
    np.testing.assert_array_equal(rule(glass, np.zeros(glass.shape, np.float32)), made)
    np.testing.assert_array_equal(rule(glass, np.full(glass.shape, 99, np.float32)), made)
    for channel in range(3):
        speck = glass.copy()
        speck[20, 20, channel] -= 20
        assert not rule.is_glass(speck)
    assert not rule.is_glass(np.full((4, 4, 3), 100, np.uint8))


@pytest.mark.parametrize("white", [(240.0, 240.0, 240.0), (236.4, 231.0, 228.7), (255.0, 255.0, 255.0)])
def test_glass_alone_is_where_no_network_has_a_say(white: tuple[float, float, float]) -> None:
    """Level by level, in one channel, beside glass: what is spared the network, and no more, does not depend on it."""
    rule = GlassRule(white, (230.0, 230.0, 230.0), (230.0, 230.0, 230.0))
    for channel in range(3):
        told = []
        for level in range(180, 256):
            pixel = np.floor(white).astype(np.uint8)[None, None]
            pixel[..., channel] = level
            dark, bright = (rule(pixel, np.full((1, 1, 3), network, np.float32)) for network in (0.0, 255.0))
            told.append(rule.is_glass(pixel))
            assert told[-1] == np.array_equal(dark, bright)
        assert 0 < sum(told) < len(told)


def test_tissue_is_what_the_network_makes_of_it() -> None:
    """On the target's scale, up to its glass, where no other white point is wanted."""
    rule = GlassRule((240.0, 238.0, 236.0), (230.0, 231.0, 232.0), (230.0, 231.0, 232.0))
    pixels = np.full((1, 4, 3), 120, np.uint8)
    network = np.array([[[0, 0, 0], [10, 99.5, 180], [229, 230, 231], [250, 250, 250]]], np.float32)
    np.testing.assert_allclose(rule(pixels, network.copy())[0, :3], network[0, :3], atol=1e-3)
    np.testing.assert_allclose(rule(pixels, network.copy())[0, 3], (230, 231, 232), atol=1e-3)


@pytest.mark.parametrize("shape", [(5, 3), (1, 1, 3), (2, 3, 4, 3)])
def test_without_a_rule_nothing_changes(shape: tuple[int, ...]) -> None:
    rule = GlassRule(None)
    white = np.full(shape, 255, np.uint8)
    network = np.random.default_rng(0).uniform(-50, 300, shape).astype(np.float32)
    np.testing.assert_array_equal(rule(white, network.copy()), network)
    assert not rule.is_glass(white)


def test_memory_that_is_not_in_order_is_taken() -> None:
    """A tensor in channels-first memory arrives so."""
    rule = GlassRule((240.0, 240.0, 240.0), (230.0, 230.0, 230.0), (230.0, 230.0, 230.0))
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 8, 6, 3), np.uint8)
    network = generator.uniform(0, 255, (2, 3, 8, 6)).astype(np.float32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(rule(pixels, network.copy(order="K")), rule(pixels, np.ascontiguousarray(network)))
