"""Crops, mirrored borders and orientations, against plain indexing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from restain.errors import InputError
from restain.training.augment import Orientation, crop_position, draw_orientation, reflect_to


def numbered(height: int, width: int) -> np.ndarray:
    """An image in which every pixel says where it is."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.dstack([y, x, 255 - x])


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 2**32))
def test_a_random_crop_lies_inside(width: int, height: int, crop: int, seed: int) -> None:
    x, y = crop_position((width, height), crop, "random", np.random.default_rng(seed))
    assert 0 <= x <= max(width - crop, 0)
    assert 0 <= y <= max(height - crop, 0)


def test_every_position_is_as_likely() -> None:
    generator = np.random.default_rng(1)
    found = [crop_position((20, 18), 16, "random", generator) for _ in range(3000)]
    counts = [found.count((x, y)) for x in range(5) for y in range(3)]
    assert sum(counts) == 3000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_fixed_crops() -> None:
    assert crop_position((21, 40), 16, "center") == (2, 12)
    assert crop_position((21, 40), 16, "top-left") == (0, 0)
    assert crop_position((8, 9), 16, "center") == (0, 0)
    with pytest.raises(InputError, match="generator"):
        crop_position((21, 40), 16, "random")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40))
def test_small_images_are_mirrored(height: int, width: int, side: int) -> None:
    image = numbered(height, width)
    out = reflect_to(image, side)
    assert out.shape == (max(height, side), max(width, side), 3)
    top, left = (max(side - n, 0) // 2 for n in (height, width))
    assert (out[top : top + height, left : left + width] == image).all()

    def source(i: int, n: int) -> int:  # a ray between two mirrors that stand on the outermost pixels
        i %= max(2 * (n - 1), 1)
        return min(i, 2 * (n - 1) - i)

    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            assert (out[y, x] == image[source(y - top, height), source(x - left, width)]).all()


@given(st.integers(0, 3), st.booleans(), st.booleans(), st.integers(1, 4))
def test_orientations_move_pixels_as_they_say(turns: int, flipped: bool, upside_down: bool, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, channels), dtype=np.uint8)
    before = image.copy()
    out = Orientation(turns, flipped, upside_down)(image[1:, 1:])
    size = 11
    for y in range(size):
        for x in range(size):
            v = size - 1 - y if upside_down else y
            u = size - 1 - x if flipped else x
            for _ in range(turns):  # counterclockwise: what is at the right comes to the top
                v, u = u, size - 1 - v
            assert (out[y, x] == image[1 + v, 1 + u]).all()
    assert (image == before).all()


def test_orientations_are_drawn_evenly_and_only_as_allowed() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_orientation(generator, flip=True, flip_vertical=True, rotate=True) for _ in range(4000)]
    counts = [
        drawn.count(Orientation(turns, flipped, upside))
        for turns in range(4)
        for flipped in (False, True)
        for upside in (False, True)
    ]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert {draw_orientation(generator) for _ in range(50)} == {Orientation(), Orientation(0, True)}
    assert {draw_orientation(generator, flip=False) for _ in range(50)} == {Orientation()}


def test_what_is_allowed_does_not_change_what_else_is_drawn() -> None:
    for seed in range(20):
        one = draw_orientation(np.random.default_rng(seed), flip=True)
        all_of_it = draw_orientation(np.random.default_rng(seed), flip=True, flip_vertical=True, rotate=True)
        assert one.flipped == all_of_it.flipped
