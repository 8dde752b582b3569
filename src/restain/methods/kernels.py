"""The Numba kernels of the methods: match stains and mix them again, blend with glass.

A slide evaluates some hundred new colours with nearly every tile: in NumPy, the calls would cost more than the
arithmetic. Import this module only when colours are at hand (see `restain.color.kernels`).
"""

import numba
import numpy as np
from numpy.typing import NDArray

from restain.color.kernels import kernel

Floats = NDArray[np.float64]


@kernel
def remix(
    density: Floats, amounts: Floats, source: Floats, strength: Floats, reference: Floats, keep_rest: bool
) -> Floats:
    """Levels (n, 3), glass at 255, of stains whose strengths are matched and whose vectors are replaced.

    Args:
        density: (n, 3) optical densities.
        amounts: (n, k) concentrations of the stains in them.
        source: (k, 3) the stains' vectors.
        strength: (k, 3) of each stain (m, w, p): an amount c becomes w·(c/m)^p, a negative one w·c/m.
        reference: (k, 3) the vectors to mix with.
        keep_rest: add what the stains do not explain.
    """
    stains = amounts.shape[1]
    result = np.empty(density.shape)
    mixed, rest = np.empty(3), np.empty(3)
    for row in range(len(density)):
        for channel in range(3):
            mixed[channel], rest[channel] = 0.0, density[row, channel]
        for stain in range(stains):
            amount = amounts[row, stain]
            share = amount / strength[stain, 0]
            if share > 0.0:
                share **= strength[stain, 2]
            share *= strength[stain, 1]
            for channel in range(3):
                mixed[channel] += share * reference[stain, channel]
                rest[channel] -= amount * source[stain, channel]
        for channel in range(3):
            total = mixed[channel] + rest[channel] if keep_rest else mixed[channel]
            result[row, channel] = 256.0 * np.exp(-total) - 1.0
    return result


@kernel
def blend_glass(
    levels: Floats, restyled: Floats, source: Floats, wanted: Floats, glass: float, tissue: float
) -> Floats:
    """`restain.methods.glass.match_glass`: (n, 3) as scanned and as restyled, the white points (3,), to (n, 3).

    `glass`, `tissue`: the densities between which glass fades into tissue.
    """
    result = np.empty(levels.shape)
    seen = np.empty(3)
    for row in range(len(levels)):
        for channel in range(3):
            seen[channel] = (levels[row, channel] + 1.0) / (source[channel] + 1.0)
        density = -np.log(min(seen[0], seen[1], seen[2]))
        share = _clipped((density - glass) / (tissue - glass), 1.0)
        weight = 1.0 - share * share * (3.0 - 2.0 * share)
        for channel in range(3):
            made = (_clipped(restyled[row, channel], 255.0) + 1.0) / 256.0
            result[row, channel] = (weight * seen[channel] + (1.0 - weight) * made) * (wanted[channel] + 1.0) - 1.0
    return result


@numba.njit(inline="always")
def _clipped(value: float, most: float) -> float:
    """To 0..most; NaN stays, for the caller to find."""
    if value < 0.0:
        return 0.0
    return most if value > most else value
