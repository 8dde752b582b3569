"""Three scores as the package sewar, up to version 0.4.5, computes them: to compare with numbers that were published.

STST's table has them. None is what its name says: the mean of a window is divided by the window's 64 pixels once more
(ERGAS and RASE), or means stand where sums belong (UQI). For the real ones see `remote_sensing`.
"""

from typing import Any

import numpy as np
from scipy import ndimage

from restain.evaluation.metrics.inputs import Floats, checked_pair

SIDE = 8
_BORDER = 4  # what sewar cuts off on each side, though only 4 before and 3 behind are incomplete

LEAST_SIDE = 2 * _BORDER + 1


def ergas_sewar(reference: Any, image: Any) -> float:
    """ERGAS of sewar ≤ 0.4.5: about 1774 = 64·16·√3 times `ergas` where colours are even; lower is better.

    Sliding 8 × 8 windows; h/l = 4 where a quarter is usual (16×); the window's mean divided by 64 again (64×); no
    division by the three channels (√3×); and the mean is also taken across channels, a filter on all three axes.

    Args:
        reference: (H, W, 3) or (H, W) uint8, sides of 9 or more.
        image: the same shape.

    Raises:
        InputError: an image is not what was wanted.
    """
    first, second = _channels_last(reference, image)
    means, errors = _shrunken_means(first), _window_errors(first, second)
    black = means == 0
    means[black], errors[black] = 1, 0
    return float(_inner(100 * 4 * np.sqrt((errors / means**2).sum(axis=2))).mean())


def rase_sewar(reference: Any, image: Any) -> float:
    """RASE of sewar, all versions: about 64 times `rase`; lower is better. torchmetrics has the same factor.

    Sliding 8 × 8 windows, whose mean is divided by 64 again. Infinite where a window of the reference is black.
    """
    first, second = _channels_last(reference, image)
    means, errors = _shrunken_means(first).mean(axis=2), _window_errors(first, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(_inner(100 / means * np.sqrt(errors.mean(axis=2))).mean())


def uqi_sewar(reference: Any, image: Any) -> float:
    """UQI of sewar ≤ 0.4.5, which puts means in place of sums: far too high; higher is better, 1 for equal images.

    64·E[xy] − μx·μy stands for the covariance 64·(E[xy] − μx·μy), so two unrelated images score some 0.7.
    """
    first, second = _channels_last(reference, image)
    channels = [_uqi_channel(first[..., c], second[..., c]) for c in range(first.shape[2])]
    return float(np.mean(channels))


def _uqi_channel(first: Floats, second: Floats) -> float:
    n = SIDE * SIDE
    x, y, xx, yy, xy = (ndimage.uniform_filter(m, SIDE) for m in (first, second, first**2, second**2, first * second))
    product, squares = x * y, x * x + y * y
    spread = n * (xx + yy) - squares
    quality = np.ones_like(spread)
    flat = (spread == 0) & (squares != 0)
    quality[flat] = 2 * product[flat] / squares[flat]
    whole = spread * squares != 0
    quality[whole] = (4 * (n * xy - product) * product)[whole] / (spread * squares)[whole]
    return float(_inner(quality).mean())


def _channels_last(reference: Any, image: Any) -> tuple[Floats, Floats]:
    pair = checked_pair(reference, image, least=LEAST_SIDE)
    return np.moveaxis(pair.reference, 0, 2), np.moveaxis(pair.image, 0, 2)


def _shrunken_means(first: Floats) -> Floats:
    means: Floats = ndimage.uniform_filter(first, SIDE) / SIDE**2  # all three axes, as sewar has it
    return means


def _window_errors(first: Floats, second: Floats) -> Floats:
    """Mean squared error of each window and channel, (H, W, C)."""
    errors: Floats = ndimage.uniform_filter((first - second) ** 2, (SIDE, SIDE, 1))
    return errors


def _inner(values: Floats) -> Floats:
    return values[_BORDER:-_BORDER, _BORDER:-_BORDER]
