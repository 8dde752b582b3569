"""The Numba kernels that count colours: of pixels, of flat blocks, of bins. See `restain.color.kernels`."""

import numba
import numpy as np
from numpy.typing import NDArray

from restain.color.kernels import AHEAD, kernel, look_ahead, place


@kernel
def count_colors(
    counts: NDArray[np.uint32], pixels: NDArray[np.uint8], mask: NDArray[np.bool_], seen: NDArray[np.uint32]
) -> int:
    """Add the colours of `pixels` (3n,) where `mask` (n,) to `counts`, which is ordered as tables are.

    The places of new colours are listed in `seen`; returns how many. A mask of shape (0,) means every pixel.
    """
    count = 0
    total = len(pixels) // 3
    entries = np.empty((2, AHEAD), np.uint32)
    if len(mask):  # few are set, or most in long runs
        for i in range(total):
            if mask[i]:
                entry = place(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2])
                if counts[entry] == 0:
                    seen[count] = entry
                    count += 1
                counts[entry] += np.uint32(1)
        return count
    look_ahead(counts, pixels, 0, entries[0])
    for block in range((total + AHEAD - 1) // AHEAD):
        start = block * AHEAD
        now = entries[block & 1]
        look_ahead(counts, pixels, start + AHEAD, entries[1 - (block & 1)])
        for j in range(min(total - start, AHEAD)):
            if counts[now[j]] == 0:
                seen[count] = now[j]
                count += 1
            counts[now[j]] += np.uint32(1)
    return count


@kernel
def move_counts(
    source: NDArray[np.uint32], target: NDArray[np.uint32], entries: NDArray[np.uint32], seen: NDArray[np.uint32]
) -> int:
    """Add the counts at `entries` (n,) of a table to another, and leave 0; `seen` and the result as `count_colors`."""
    count = 0
    for entry in entries:
        if target[entry] == 0:
            seen[count] = entry
            count += 1
        target[entry] += source[entry]
        source[entry] = np.uint32(0)
    return count


@kernel
def flat_blocks(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int, max_deviation: float, flat: NDArray[np.bool_]
) -> None:
    """Mark the pixels of `size`² blocks whose channels all deviate by at most `max_deviation` (sd, grey levels).

    Blocks that `mask` does not cover wholly are never flat; a mask of shape (0, 0) means every pixel.
    """
    everywhere = mask.shape[0] == 0
    pixels = float(size * size)
    limit = max_deviation * max_deviation
    for top in range(0, image.shape[0] - size + 1, size):
        for left in range(0, image.shape[1] - size + 1, size):
            is_flat = True
            for channel in range(3):
                total = 0
                squares = 0
                for row in range(top, top + size):
                    for column in range(left, left + size):
                        value = int(image[row, column, channel])
                        total += value
                        squares += value * value
                        if not everywhere and not mask[row, column]:
                            is_flat = False
                mean = total / pixels
                if squares / pixels - mean * mean > limit:
                    is_flat = False
                if not is_flat:
                    break
            if is_flat:
                flat[top : top + size, left : left + size] = True


@kernel
def bin_colors(
    codes: NDArray[np.uint32], counts: NDArray[np.float64], bits: int
) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """The codes (m,) and counts (m,) of the mean colours, rounded, in bins of 2^bits a channel; none is empty.

    `codes` (n,) are ordered, and so are the result's: a mean stays in its bin when it is rounded.
    """
    number = np.zeros(1 << 3 * bits, np.int32)
    for i in range(len(codes)):
        number[_bin_of(codes[i], bits)] = 1
    bins = 0
    for i in range(len(number)):
        if number[i]:
            number[i] = bins
            bins += 1
    sums = np.zeros((bins, 4))
    for i in range(len(codes)):
        into = number[_bin_of(codes[i], bits)]
        for channel in range(3):
            sums[into, channel] += counts[i] * (codes[i] >> np.uint32(16 - 8 * channel) & np.uint32(255))
        sums[into, 3] += counts[i]
    means, weights = np.zeros(bins, np.uint32), sums[:, 3].copy()
    for i in range(bins):
        for channel in range(3):
            means[i] = means[i] << np.uint32(8) | np.uint32(np.rint(sums[i, channel] / weights[i]))
    return means, weights


@numba.njit(inline="always")
def _bin_of(code: np.uint32, bits: int) -> int:
    """The number of a colour's bin, red first."""
    shift = np.uint32(8 - bits)
    red, green, blue = code >> np.uint32(16), code >> np.uint32(8) & np.uint32(255), code & np.uint32(255)
    return int(red >> shift) << 2 * bits | int(green >> shift) << bits | int(blue >> shift)
