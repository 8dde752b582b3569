"""Errors of single pixels: MSE, RMSE, PSNR, and the Pearson correlation of pixel values."""

from typing import Any

import numpy as np

from restain.evaluation.metrics.inputs import DATA_RANGE, Color, Floats, checked_pair, values_of


def mse(reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb") -> float:
    """Mean squared error over all pixels and channels together, in squared levels of 0..255; lower is better.

    Args:
        reference: (H, W, 3) or (H, W) uint8.
        image: the same shape.
        mask: (H, W) bool, the pixels to compare.
        color: "rgb" for the channels, "gray" for the luma.

    Raises:
        InputError: an image or the mask is not what was wanted.
    """
    first, second = values_of(checked_pair(reference, image, mask, color=color))
    return float(np.square(first - second).mean())


def rmse(reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb") -> float:
    """Root of `mse`, in levels of 0..255; lower is better.

    Over several images, average the roots: the mean of RMSE is not the root of the mean MSE.
    """
    return float(np.sqrt(mse(reference, image, mask, color=color)))


def psnr(reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb") -> float:
    """Peak signal-to-noise ratio, 10·log₁₀(255²/MSE), in dB; higher is better, infinite for equal images.

    The MSE of the three channels is taken together. Over several images, average the decibels.
    """
    error = mse(reference, image, mask, color=color)
    return float("inf") if error == 0 else float(10 * np.log10(DATA_RANGE**2 / error))


def pcc(reference: Any, image: Any, mask: Any = None, *, color: Color = "rgb") -> float:
    """Pearson correlation coefficient of pixel values; higher is better, 1 at most.

    "rgb" takes all values of the three channels together, as STST does; much of it is then that red is brighter than
    green everywhere. "gray" is DSTGAN's. It does not see brightness and contrast. NaN where an image is of one value.
    """
    first, second = values_of(checked_pair(reference, image, mask, color=color))
    return correlation(first.ravel(), second.ravel())


def correlation(first: Floats, second: Floats) -> float:
    """Pearson correlation of two vectors; NaN where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    a, b = first - first.mean(), second - second.mean()
    # Sums rather than products of vectors, which BLAS would share out to threads that wait longer than they work.
    length = np.sqrt(np.square(a).sum() * np.square(b).sum())
    return float(np.clip((a * b).sum() / length, -1.0, 1.0))
