"""The Numba kernel that reads glass out of a JPEG stream; `restain.slides.glass_kernels` says how."""

import numba
import numpy as np
from numpy.typing import NDArray

from restain.color.kernels import kernel
from restain.slides.glass_kernels import floats_of, inverse_transform, signed
from restain.slides.jpeg_stream import HUFFMAN_WIDTH, LOOKAHEAD

_LARGEST = 1 << LOOKAHEAD
_SHIFT = _LARGEST + 18
_SYMBOLS = _SHIFT + 18
_LOOKED_AT = np.uint64(_LARGEST - 1)


@kernel
def read_blocks(
    stream: NDArray[np.uint8],
    start: int,
    across: int,
    down: int,
    quant: NDArray[np.float32],
    tables: NDArray[np.int32],
    window: NDArray[np.int64],
    to_rgb: NDArray[np.int64],
    lowest: NDArray[np.float32],
    highest: NDArray[np.float32],
    basis: NDArray[np.float32],
    means: NDArray[np.float32],
    runs: NDArray[np.int32],
    waves: NDArray[np.int32],
    weights: NDArray[np.float32],
    specks: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> bool:
    """Read the blocks of a stream into a grid, as long as nearly all that are wanted are glass.

    Args:
        stream: the bytes, (n,).
        start: where the first block begins.
        across, down: blocks in a row, and rows.
        quant, tables: from `JpegStream`.
        window: (left, top, right, bottom, column, row): which blocks are wanted, and where the first goes in the grid.
        to_rgb: (3, 4), affine in `FIXED`, from components to RGB levels.
        lowest, highest: (3,) RGB levels between which glass is; blocks of one colour may be of any.
        basis: `BASIS`.
        means: (rows, columns, 3), written: the mean level of each component, rounded and within 0..255, as decoders
            have it, where it is the level of all pixels.
        runs: (rows, columns, 4), written: where in the list the other coefficients of each component begin, and the
            last one's end.
        waves: the list, written from `counts[0]`: which coefficient,
        weights: and what it is.
        specks: (rows, columns), written: which blocks are neither of one colour nor glass.
        counts: (2,) the length of the list, and how many specks there still may be; both are kept up.

    Returns:
        False if this is no glass, or damaged.
    """
    left, top, right, bottom = window[0], window[1], window[2], window[3]
    bits, held, at = np.uint64(0), 0, start  # the lowest `held` bits of `bits` come next
    borrowed = 0  # bits of nothing behind the end
    previous = np.zeros(3, np.int64)
    pixels = np.empty((3, 64), np.float32)
    floats = floats_of(to_rgb)
    count = counts[0]
    for row in range(down):
        for column in range(across):
            wanted = left <= column < right and top <= row < bottom
            y, x = row - top + window[5], column - left + window[4]
            begin = count
            for component in range(3):
                if wanted:
                    runs[y, x, component] = count
                k = 0
                while k < 64:
                    if held <= 32:  # a code has up to 16 bits, and up to 15 follow it
                        for _ in range(4):
                            byte = np.uint64(0)
                            if at < len(stream) and (
                                stream[at] != 255 or (at + 1 < len(stream) and stream[at + 1] == 0)
                            ):
                                byte = np.uint64(stream[at])
                                at += 2 if stream[at] == 255 else 1
                            else:
                                borrowed += 8
                            bits = (bits << np.uint64(8)) | byte
                            held += 8
                    table = (2 * component + (k > 0)) * HUFFMAN_WIDTH
                    code = int(tables[table + signed((bits >> np.uint64(held - LOOKAHEAD)) & _LOOKED_AT)])
                    length, symbol = code >> 8, code & 255
                    if length == 0:
                        length = LOOKAHEAD + 1
                        while length <= 16:
                            code = signed((bits >> np.uint64(held - length)) & np.uint64((1 << length) - 1))
                            if code <= tables[table + _LARGEST + length]:
                                break
                            length += 1
                        if length > 16:
                            return False
                        symbol = int(tables[table + _SYMBOLS + ((code + tables[table + _SHIFT + length]) & 255)])
                    held -= length
                    size = symbol & 15
                    value = 0
                    if size:
                        held -= size
                        value = signed((bits >> np.uint64(held)) & np.uint64((1 << size) - 1))
                        if value < 1 << (size - 1):
                            value -= (1 << size) - 1
                    if k == 0:
                        previous[component] += value
                        k = 1
                    elif size:
                        k += symbol >> 4
                        if k > 63:
                            return False
                        if wanted:
                            if count >= len(waves):
                                return False
                            waves[count] = k
                            weights[count] = value * quant[component, k]
                            count += 1
                        k += 1
                    elif symbol == 0xF0:
                        k += 16
                    else:
                        k = 64
            if not wanted:
                continue
            runs[y, x, 3] = count
            for component in range(3):
                mean = previous[component] * quant[component, 0] * np.float32(0.125) + 128
                flat = runs[y, x, component] == runs[y, x, component + 1]
                if flat:
                    mean = np.floor(min(max(mean, np.float32(0)), np.float32(255)) + np.float32(0.5))
                means[y, x, component] = mean
            specks[y, x] = False
            if count > begin and not _surely_inside(means[y, x], runs[y, x], weights, floats, lowest, highest):
                inverse_transform(means[y, x], runs[y, x], waves, weights, basis, pixels)
                inside = True
                for channel in range(3):
                    for j in range(64):
                        level = floats[channel, 3]
                        for component in range(3):
                            level += floats[channel, component] * pixels[component, j]
                        inside &= lowest[channel] <= level <= highest[channel]
                specks[y, x] = not inside
                counts[1] -= not inside
                if counts[1] < 0:
                    return False
    counts[0] = count
    ended = at + 1 < len(stream) and stream[at] == 255 and stream[at + 1] == 0xD9
    return ended and 0 <= held - borrowed < 8


@numba.njit(inline="always")
def _surely_inside(
    means: NDArray[np.float32],
    runs: NDArray[np.int32],
    weights: NDArray[np.float32],
    to_rgb: NDArray[np.float32],
    lowest: NDArray[np.float32],
    highest: NDArray[np.float32],
) -> bool:
    """Whether the pixels of a block cannot be outside, whatever its waves, none of which is above 1/4 anywhere."""
    inside = True
    for channel in range(3):
        level, swing = to_rgb[channel, 3], np.float32(0)
        for component in range(3):
            level += to_rgb[channel, component] * means[component]
            total = np.float32(0)
            for i in range(runs[component], runs[component + 1]):
                total += abs(weights[i])
            swing += abs(to_rgb[channel, component]) * total * np.float32(0.25)
        inside &= lowest[channel] <= level - swing and level + swing <= highest[channel]
    return inside
