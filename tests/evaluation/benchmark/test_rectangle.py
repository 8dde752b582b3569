"""The largest rectangle in a mask, against trying all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from restain.evaluation.benchmark.rectangle import largest_rectangle


def largest_area(mask: np.ndarray) -> int:
    height, width = mask.shape
    return max(
        (
            (bottom - top) * (right - left)
            for top in range(height)
            for bottom in range(top + 1, height + 1)
            for left in range(width)
            for right in range(left + 1, width + 1)
            if mask[top:bottom, left:right].all()
        ),
        default=0,
    )


@given(mask=arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_no_other_is_larger(mask: np.ndarray) -> None:
    inside = mask[largest_rectangle(mask)]
    assert inside.all()
    assert inside.size == largest_area(mask)


def test_a_masked_border_is_cut_off() -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[5:-5, 7:-3] = True
    assert largest_rectangle(mask) == (slice(5, 35), slice(7, 57))


@pytest.mark.parametrize("shape", [(3, 4), (1, 1)])
def test_nothing_in_it(shape: tuple[int, int]) -> None:
    assert np.zeros(shape, np.bool_)[largest_rectangle(np.zeros(shape, np.bool_))].size == 0
