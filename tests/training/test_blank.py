"""Blank crops, against phantoms whose glass is known and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.phantom import Scanner, make_phantom
from restain.training.blank import STAINED_SHARE, kinds, place_crop, stained_blocks, stained_share


@pytest.mark.parametrize("white", [(243.0, 243.0, 243.0), (236.0, 231.0, 228.0)])
def test_blocks_of_known_glass_are_not_stained_and_those_of_tissue_are(white: tuple[float, float, float]) -> None:
    phantom = make_phantom(256, 320, seed=4, scanner=Scanner(white=white, noise=1.5))
    blocks = stained_blocks(phantom.image, white)
    assert blocks.shape == (32, 40)
    glass = phantom.glass.reshape(32, 8, 40, 8).mean(axis=(1, 3))
    assert not blocks[glass == 1].any()
    assert blocks[glass == 0].mean() > 0.95
    assert (glass == 1).sum() > 50 < (glass == 0).sum()


def test_blocks_at_the_end_are_averages_of_what_there_is() -> None:
    image = np.full((20, 9, 3), 240, np.uint8)
    image[16:, :8] = 100  # the last four rows are half a block
    image[:8, 8] = 0  # the last column is an eighth of one
    assert stained_blocks(image, (240, 240, 240)).tolist() == [[False, True], [False, False], [True, False]]


def by_hand(blocks: np.ndarray, x: int, y: int, side: int) -> float:
    inside = [
        blocks[row, column]
        for row in range(blocks.shape[0])
        for column in range(blocks.shape[1])
        if y <= 8 * row + 4 < y + side and x <= 8 * column + 4 < x + side
    ]
    return float(np.mean(inside))


@given(st.integers(0, 50), st.integers(0, 30), st.integers(0, 1000))
def test_shares_are_those_of_the_blocks_whose_centres_lie_inside(x: int, y: int, seed: int) -> None:
    blocks = np.random.default_rng(seed).random((8, 11)) < 0.3  # a picture of 64 by 88
    side = 33
    assert stained_share(blocks, x, y, side) == pytest.approx(by_hand(blocks, x, y, side))


@given(st.integers(0, 10_000), st.floats(0, 0.3), st.booleans())
def test_a_place_is_found_wherever_there_is_one(seed: int, density: float, blank: bool) -> None:
    generator = np.random.default_rng(seed)
    blocks = generator.random((9, 12)) < density
    size, side = (94, 70), 24
    every = [(x, y) for x in range(size[0] - side + 1) for y in range(size[1] - side + 1)]
    x, y = np.array(every).T
    is_blank = stained_share(blocks, x, y, side) < STAINED_SHARE
    assert kinds(blocks, size, side) == (not is_blank.all(), is_blank.any())
    place = place_crop(blocks, size, side, blank, generator)
    assert place in every
    if (is_blank == blank).any():
        assert (by_hand(blocks, *place, side) < STAINED_SHARE) == blank


def test_a_rare_place_is_found_too() -> None:
    blocks = np.ones((60, 60), np.bool_)
    blocks[40:42, 17:19] = False  # 16 by 16 blank pixels of 480 by 480
    found = {place_crop(blocks, (480, 480), 16, True, np.random.default_rng(seed)) for seed in range(20)}
    assert found
    for x, y in found:
        assert by_hand(blocks, x, y, 16) == 0
