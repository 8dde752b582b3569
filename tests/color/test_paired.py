"""What colours became: counted pixel by pixel here, in Python's whole numbers and fractions."""

import itertools
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.color import paired
from restain.color.paired import PairedColors
from restain.errors import InputError


def pair(seed: int, height: int = 20, width: int = 30, colors: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A source of few colours, and a target in which each of them becomes many."""
    generator = np.random.default_rng(seed)
    palette = generator.integers(0, 256, (colors, 3))
    source = palette[generator.integers(0, colors, (height, width))]
    target = np.clip(0.7 * source + 30 + generator.normal(0, 15, source.shape), 0, 255)
    return source.astype(np.uint8), target.astype(np.uint8)


def by_color(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """All that each colour became."""
    became = defaultdict(list)
    for source, target in pairs:
        for before, after in zip(source.reshape(-1, 3).tolist(), target.reshape(-1, 3).tolist(), strict=True):
            became[tuple(before)].append(tuple(after))
    return became


def assert_counted(found: PairedColors, became: dict) -> None:
    order = sorted(became)
    assert found.colors.tolist() == [list(color) for color in order]
    assert found.counts.tolist() == [len(became[color]) for color in order]
    assert found.sums.tolist() == [[sum(channel) for channel in zip(*became[c], strict=True)] for c in order]
    squares = [[sum(v * v for v in channel) for channel in zip(*became[c], strict=True)] for c in order]
    assert found.squares.tolist() == squares
    assert found.pixels == sum(map(len, became.values()))


@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=5))
def test_pairs_are_counted(seeds: list[int]) -> None:
    pairs = [pair(seed) for seed in seeds]
    assert_counted(PairedColors.merged(PairedColors.from_images(*each) for each in pairs), by_color(pairs))


@given(cut=st.integers(0, 20), seed=st.integers(0, 99))
def test_parts_add_up_in_any_order(cut: int, seed: int) -> None:
    source, target = pair(seed)
    parts = [PairedColors.from_images(source[i], target[i]) for i in (np.s_[cut:], np.s_[:cut]) if len(source[i])]
    whole = PairedColors.from_images(source, target)
    for order in itertools.permutations(parts):
        assert sum(order, PairedColors()) == whole
        assert PairedColors.merged(order) == whole


def test_large_pictures_and_long_lists_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [pair(seed) for seed in range(12)]
    whole = PairedColors.merged(PairedColors.from_images(*each) for each in pairs)
    monkeypatch.setattr(paired, "_BAND", 70)
    monkeypatch.setattr(paired, "_LEAST", 50)
    assert PairedColors.merged(PairedColors.from_images(*each) for each in pairs) == whole


def test_what_is_masked_or_transparent_is_left_out() -> None:
    source, target = pair(3)
    mask = np.zeros(source.shape[:2], bool)
    mask[5:, 10:] = True
    wanted = PairedColors.from_images(source[5:, 10:], target[5:, 10:])
    alpha = np.where(mask, 255, 0).astype(np.uint8)
    assert PairedColors.from_images(source, target, mask=mask) == wanted
    assert PairedColors.from_images(np.dstack([source, alpha]), target) == wanted
    assert PairedColors.from_images(source, np.dstack([target, alpha])) == wanted
    rest = np.zeros_like(mask)
    rest[:, :15] = True
    both = PairedColors.from_images(source[5:, 10:15], target[5:, 10:15])
    assert PairedColors.from_images(np.dstack([source, alpha]), target, mask=rest) == both
    nothing = PairedColors.from_images(source, target, mask=np.zeros_like(mask))
    assert nothing == PairedColors()
    assert len(nothing) == nothing.pixels == 0


@given(seed=st.integers(0, 99))
def test_means_and_variances(seed: int) -> None:
    pairs = [pair(seed)]
    found, became = PairedColors.from_images(*pairs[0]), by_color(pairs)
    for i, color in enumerate(sorted(became)):
        outputs = np.array(became[color], float)
        np.testing.assert_allclose(found.means[i], outputs.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.within[i], outputs.var(axis=0) * len(outputs), rtol=1e-9, atol=1e-9)
    flat = pairs[0][1].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found.total, flat.var(axis=0) * len(flat), rtol=1e-9)


def test_the_spread_of_very_many_pixels_is_not_lost_in_rounding() -> None:
    """A colour that became 200 three billion times, and 201 once: a spread of almost 1 in sums of 10¹⁴."""
    count, once = 3_000_000_001, 1
    sums = np.full((1, 3), 200 * (count - once) + 201 * once)
    squares = np.full((1, 3), 200**2 * (count - once) + 201**2 * once)
    found = PairedColors(np.array([7], np.uint32), np.array([count]), sums, squares)
    exact = Fraction(int(squares[0, 0])) - Fraction(int(sums[0, 0])) ** 2 / count
    np.testing.assert_allclose(found.within[0], float(exact), rtol=1e-12)


def test_what_does_not_fit_together_is_refused() -> None:
    source, target = pair(1)
    with pytest.raises(InputError, match="wanted one size"):
        PairedColors.from_images(source, target[:-1])
    with pytest.raises(InputError, match="mask of shape"):
        PairedColors.from_images(source, target, mask=np.ones((3, 3), bool))
    with pytest.raises(InputError):
        PairedColors.from_images(source, None)
    with pytest.raises(TypeError):
        PairedColors() + 1
    assert PairedColors() != 1
    with pytest.raises(TypeError):
        hash(PairedColors())
