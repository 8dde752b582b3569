"""The Numba kernels of the methods: match stains and mix them again, blend with glass.

A slide evaluates some hundred new colours with nearly every tile: in NumPy, the calls would cost more than the
arithmetic, and hold up other threads. Import this module only when colours are at hand (see `restain.color.kernels`).
"""

import numba
import numpy as np
from numpy.typing import NDArray

from restain.color.kernels import kernel, store_levels

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
    result = np.empty(density.shape)
    for row in range(len(density)):
        _remix(density[row], amounts[row], source, strength, reference, keep_rest, result[row])
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
        share = _clipped((-np.log(min(seen[0], seen[1], seen[2])) - glass) / (tissue - glass), 1.0)
        weight = 1.0 - share * share * (3.0 - 2.0 * share)
        for channel in range(3):
            result[row, channel] = _blend(weight, seen[channel], restyled[row, channel], wanted[channel])
    return result


@kernel
def recolor(
    table: NDArray[np.uint32],
    codes: NDArray[np.uint32],
    densities: Floats,
    transmittances: Floats,
    weights: Floats,
    wanted: Floats,
    unmixing: Floats,
    source: Floats,
    strength: Floats,
    reference: Floats,
    keep_rest: bool,
) -> None:
    """Write the entries of `codes` (n,) to a colour map's table: `remix`, then `blend_glass`.

    Args:
        table, codes: as `restain.color.kernels.store` takes them.
        densities, transmittances, weights: (256, 3) of each channel's levels: the balanced optical density, the share
            of the white point, and how much of it is glass, of which the least channel's is a colour's.
        wanted: (3,) the wanted white point.
        unmixing: (3, k), by which densities are multiplied to give amounts.
        source, strength, reference, keep_rest: as `remix` takes them.
    """
    stains = len(source)
    density, amounts, levels = np.empty(3), np.empty(stains), np.empty(3)
    for code in codes:
        red, green, blue = code >> np.uint32(16), code >> np.uint32(8) & np.uint32(255), code & np.uint32(255)
        density[0], density[1], density[2] = densities[red, 0], densities[green, 1], densities[blue, 2]
        weight = min(weights[red, 0], weights[green, 1], weights[blue, 2])
        for stain in range(stains):
            total = density[0] * unmixing[0, stain]
            total += density[1] * unmixing[1, stain]
            total += density[2] * unmixing[2, stain]
            amounts[stain] = total
        _remix(density, amounts, source, strength, reference, keep_rest, levels)
        levels[0] = _blend(weight, transmittances[red, 0], levels[0], wanted[0])
        levels[1] = _blend(weight, transmittances[green, 1], levels[1], wanted[1])
        levels[2] = _blend(weight, transmittances[blue, 2], levels[2], wanted[2])
        store_levels(table, code, levels)


@numba.njit(inline="always")
def _remix(
    density: Floats,
    amounts: Floats,
    source: Floats,
    strength: Floats,
    reference: Floats,
    keep_rest: bool,
    levels: Floats,
) -> None:
    """`remix` of one colour, into `levels` (3,)."""
    for channel in range(3):
        levels[channel] = density[channel] if keep_rest else 0.0
    for stain in range(len(source)):
        amount = amounts[stain]
        share = amount / strength[stain, 0]
        if share > 0.0:
            share **= strength[stain, 2]
        share *= strength[stain, 1]
        for channel in range(3):
            levels[channel] += share * reference[stain, channel]
            if keep_rest:
                levels[channel] -= amount * source[stain, channel]
    for channel in range(3):
        levels[channel] = 256.0 * np.exp(-levels[channel]) - 1.0


@numba.njit(inline="always")
def _blend(weight: float, transmittance: float, restyled: float, wanted: float) -> float:
    """One level: as much as `weight` of what glass becomes, and the rest of what the method makes of it."""
    made = (_clipped(restyled, 255.0) + 1.0) / 256.0
    return (weight * transmittance + (1.0 - weight) * made) * (wanted + 1.0) - 1.0


@numba.njit(inline="always")
def _clipped(value: float, most: float) -> float:
    """To 0..most; NaN stays, for the caller to find."""
    if value < 0.0:
        return 0.0
    return most if value > most else value
