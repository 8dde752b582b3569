"""Statistics of values with counts, equal to those of the values repeated."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def weighted_percentile(values: Floats, counts: Floats, percentiles: ArrayLike) -> Floats:
    """Percentiles of values (n,) with counts (n,).

    For whole counts this is what `np.percentile` gives for the values repeated (linear interpolation). Fractional
    counts have no single sample to step to; there, it is the value at which the cumulative weight is reached.
    """
    order = np.argsort(values)
    ordered, cumulative = values[order], np.cumsum(counts[order])
    last = len(ordered) - 1
    share = np.asarray(percentiles, np.float64) / 100.0
    if (counts != np.floor(counts)).any():
        reached: Floats = ordered[np.minimum(np.searchsorted(cumulative, share * cumulative[-1]), last)]
        return reached
    position = share * (cumulative[-1] - 1.0)
    lower = np.floor(position)
    low = ordered[np.minimum(np.searchsorted(cumulative, lower, side="right"), last)]
    high = ordered[np.minimum(np.searchsorted(cumulative, lower + 1.0, side="right"), last)]
    between: Floats = low + (high - low) * (position - lower)
    return between


def weighted_mean(values: Floats, counts: Floats) -> Floats:
    """Mean of rows (n, k) with counts (n,): (k,)."""
    mean: Floats = (values * counts[:, None]).sum(axis=0) / counts.sum()
    return mean


def weighted_covariance(values: Floats, counts: Floats) -> Floats:
    """Population covariance of rows (n, k) with counts (n,): (k, k)."""
    centred = values - weighted_mean(values, counts)
    covariance: Floats = (centred * counts[:, None]).T @ centred / counts.sum()
    return covariance
