"""How glass is read out of JPEG streams and written back without making pixels of it; what reading and writing share.

Most blocks of glass are one colour, and need one look into a colour map's table. The others are their mean and a little
noise, and a colour map is affine there. An affine map of colours is one of coefficients, too (the DCT is linear), so
that inverse transform, map and transform can be left out, and with them most of the time. What is left is to read and
write Huffman codes (ITU-T T.81, F.1.2 and F.2.2). Blocks with a speck of dust are decoded, mapped by the table and
transformed again, as long as they are few.

Coefficients are in zigzag order and in units of quantization 1: the first is 8 · (mean − 128).
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

FIXED = 1 << 16
"""One, in colour conversions: libjpeg's are in whole numbers, and so are these where blocks have one colour."""


def _zigzag() -> NDArray[np.int64]:
    """(64, 2): vertical and horizontal frequency of each coefficient (T.81, figure A.6)."""
    order = sorted(((v, u) for v in range(8) for u in range(8)), key=lambda f: (sum(f), f[sum(f) % 2 == 0]))
    return np.array(order)


def _basis() -> NDArray[np.float32]:
    """(64, 8, 8): what a coefficient of 1 adds to the pixels of its block (T.81, A.3.3)."""
    place = np.arange(8) + 0.5
    wave = 0.5 * np.cos(np.pi / 8 * np.arange(8)[:, None] * place)
    wave[0] = 8**-0.5
    return np.stack([np.outer(wave[v], wave[u]) for v, u in _zigzag()]).astype(np.float32)


BASIS = _basis().reshape(64, 64)
HALVED = _basis().reshape(64, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(64, 16)


@numba.njit(inline="always")
def signed(bits: Any) -> int:
    """Unsigned to signed, which Numba makes a float of where they meet."""
    return np.int64(bits)  # type: ignore[return-value]


@numba.njit(inline="always")
def inverse_transform(
    means: NDArray[np.float32],
    runs: NDArray[np.int32],
    waves: NDArray[np.int32],
    weights: NDArray[np.float32],
    basis: NDArray[np.float32],
    pixels: NDArray[np.float32],
) -> None:
    """The components (3, n) of a block, from its coefficients and what each adds to them, (64, n)."""
    size = pixels.shape[1]
    for component in range(3):
        for j in range(size):
            pixels[component, j] = means[component]
        for i in range(runs[component], runs[component + 1]):
            wave, weight = waves[i], weights[i]
            for j in range(size):
                pixels[component, j] += weight * basis[wave, j]


@numba.njit(inline="always")
def floats_of(affine: NDArray[np.int64]) -> NDArray[np.float32]:
    """From `FIXED`."""
    return (affine / np.float32(FIXED)).astype(np.float32)
