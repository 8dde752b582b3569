"""The Numba kernel that maps glass and writes it as a JPEG stream; `restain.slides.glass_kernels` says how."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from restain.color.kernels import READY, code_at, kernel, place
from restain.slides.glass_kernels import FIXED, floats_of, inverse_transform, signed

LONGEST = 3 * 64 * 8
"""More bytes than the three blocks of one place can take."""

_HALF = FIXED // 2  # rounds to nearest; libjpeg takes one less for chroma, so that grey has none


@kernel
def write_blocks(
    means: NDArray[np.float32],
    runs: NDArray[np.int32],
    waves: NDArray[np.int32],
    weights: NDArray[np.float32],
    specks: NDArray[np.bool_],
    table: NDArray[np.uint32],
    to_rgb: NDArray[np.int64],
    change: NDArray[np.float32],
    from_rgb: NDArray[np.int64],
    basis: NDArray[np.float32],
    halved: NDArray[np.float32],
    quant: NDArray[np.float32],
    dc_codes: NDArray[np.uint32],
    ac_codes: NDArray[np.uint32],
    stream: NDArray[np.uint8],
    half: NDArray[np.uint8],
    missing: NDArray[np.uint32],
) -> int:
    """Change the colours of a grid of blocks, and write them as a stream and as pixels of half the size.

    Args:
        means, runs, waves, weights, specks: from `read_blocks`.
        table: of the colour map, by which specks are mapped.
        to_rgb: (3, 4), affine in `FIXED`, from the components that were read to RGB levels.
        change: (3, 4), affine, what the map does to RGB levels of glass.
        from_rgb: (3, 4), affine in `FIXED`, from RGB levels to the components that are written.
        basis, halved: `BASIS`, `HALVED`.
        quant, dc_codes, ac_codes: from the `JpegStream` that is to be written.
        stream: (n,), written: the blocks, without header and end.
        half: (4 · rows, 4 · columns, 3), written.
        missing: (64 · specks + rows · columns,), written: codes that are not in the table yet.

    Returns:
        How many bytes were written, 0 if `stream` is too short; or −n, where n codes are missing, and nothing is right.
    """
    rows, columns = means.shape[0], means.shape[1]
    bits, held, at = np.uint64(0), 0, 0
    unknown = 0
    sizes = np.zeros(2048, np.uint8)  # bits of a number
    for i in range(1, 2048):
        sizes[i] = sizes[i >> 1] + 1
    previous = np.zeros(3, np.int64)
    level = np.zeros(3, np.float32)
    changed = np.zeros((3, 64), np.float32)
    small, pixels = np.empty((3, 16), np.float32), np.zeros((3, 64), np.float32)
    floats_to, floats_from = floats_of(to_rgb), floats_of(from_rgb)
    whole_rgb = _after(change, floats_to)
    whole = _after(floats_from, whole_rgb)
    for row in range(rows):
        for column in range(columns):
            if at + LONGEST > len(stream):
                return 0
            block = runs[row, column]
            flat = block[0] == block[3]
            if flat:
                last = 0
                first, second, third = (
                    int(means[row, column, 0]),
                    int(means[row, column, 1]),
                    int(means[row, column, 2]),
                )
                entry = place(
                    _fixed(to_rgb, 0, first, second, third, _HALF),
                    _fixed(to_rgb, 1, first, second, third, _HALF),
                    _fixed(to_rgb, 2, first, second, third, _HALF),
                )
                mapped = table[entry]
                if not mapped & READY:
                    missing[unknown] = code_at(entry)
                    unknown += 1
                red, green, blue = np.uint8(mapped >> 16 & 255), np.uint8(mapped >> 8 & 255), np.uint8(mapped & 255)
                level[0] = _fixed(from_rgb, 0, red, green, blue, _HALF)
                level[1] = _fixed(from_rgb, 1, red, green, blue, _HALF - 1)
                level[2] = _fixed(from_rgb, 2, red, green, blue, _HALF - 1)
                for y in range(4 * row, 4 * row + 4):
                    for x in range(4 * column, 4 * column + 4):
                        half[y, x, 0], half[y, x, 1], half[y, x, 2] = red, green, blue
            elif specks[row, column]:
                last = 63
                inverse_transform(means[row, column], block, waves, weights, basis, pixels)
                unknown = _map_pixels(table, floats_to, pixels, missing, unknown)
                _transform(pixels, floats_from, basis, level, changed)
                for i in range(16):
                    j = 16 * (i >> 2) + 2 * (i & 3)
                    for channel in range(3):
                        total = pixels[channel, j] + pixels[channel, j + 1]
                        total += pixels[channel, j + 8] + pixels[channel, j + 9]
                        half[4 * row + (i >> 2), 4 * column + (i & 3), channel] = np.uint8((total + 2) / 4)
            else:
                last = 0
                for component in range(3):
                    level[component] = whole[component, 3]
                    for source in range(3):
                        level[component] += whole[component, source] * means[row, column, source]
                    for i in range(block[component], block[component + 1]):
                        last = max(last, int(waves[i]))
                        for into in range(3):
                            changed[into, waves[i]] += whole[into, component] * weights[i]
                inverse_transform(means[row, column], block, waves, weights, halved, small)
                for j in range(16):
                    for channel in range(3):
                        rounded = _level(whole_rgb, channel, small, j)
                        half[4 * row + (j >> 2), 4 * column + (j & 3), channel] = rounded
            for component in range(3):
                mean = min(max(level[component], np.float32(0)), np.float32(255))
                number = _quantized((mean - 128) * 8, quant[component, 0], 1024)
                value = number - previous[component]
                previous[component] = number
                zeros = 0
                for k in range(last + 1):
                    if k:
                        value = 0
                        if changed[component, k] != 0:  # few are not
                            value = _quantized(changed[component, k], quant[component, k], 1023)
                            changed[component, k] = 0
                        if value == 0:
                            zeros += 1
                            continue
                    while zeros > 15:
                        code = ac_codes[component, 0xF0]
                        bits = (bits << np.uint64(code & 31)) | np.uint64(code >> 5)
                        held += signed(code & 31)
                        zeros -= 16
                        held, at = _flush(bits, held, stream, at)
                    size = int(sizes[abs(value)])
                    code = ac_codes[component, zeros << 4 | size] if k else dc_codes[component, size]
                    zeros = 0
                    value += (value >> 63) & ((1 << size) - 1)  # of a negative one, the complement
                    bits = (bits << np.uint64(code & 31)) | np.uint64(code >> 5)
                    bits = (bits << np.uint64(size)) | np.uint64(value)
                    held += signed(code & 31) + size
                    held, at = _flush(bits, held, stream, at)  # 64 bits hold 31, and the next 27
                if zeros or last < 63:
                    code = ac_codes[component, 0]
                    bits = (bits << np.uint64(code & 31)) | np.uint64(code >> 5)
                    held += signed(code & 31)
                    held, at = _flush(bits, held, stream, at)
    bits = (bits << np.uint64(8)) | np.uint64(255)  # the last byte is filled with ones
    while held > 0:
        at = _write_byte(np.uint8((bits >> np.uint64(held)) & np.uint64(255)), stream, at)
        held -= 8
    return -unknown if unknown else at


@numba.njit(inline="always")
def _quantized(coefficient: float, step: float, most: int) -> int:
    """A coefficient in steps, halves away from zero, at most what a baseline stream can hold."""
    number = min(int(abs(coefficient) / step + np.float32(0.5)), most)
    return number if coefficient >= 0 else -number


@numba.njit(inline="always")
def _flush(bits: np.uint64, held: int, stream: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Write four bytes if the `held` lowest bits are as many."""
    if held >= 32:
        for _ in range(4):
            held -= 8
            at = _write_byte(np.uint8((bits >> np.uint64(held)) & np.uint64(255)), stream, at)
    return held, at


@numba.njit(inline="always")
def _write_byte(byte: np.uint8, stream: NDArray[np.uint8], at: int) -> int:
    """0 follows 255 (T.81, F.1.2.3)."""
    stream[at] = byte
    if byte == 255:
        stream[at + 1] = 0
        return at + 2
    return at + 1


@numba.njit(inline="always")
def _map_pixels(
    table: NDArray[np.uint32],
    to_rgb: NDArray[np.float32],
    pixels: NDArray[np.float32],
    missing: NDArray[np.uint32],
    count: int,
) -> int:
    """From components (3, 64) to mapped RGB levels, in place; codes that are not ready are added to `missing`."""
    for j in range(64):
        for component in range(3):  # waves reach beyond what levels can be, and decoders cut that off
            pixels[component, j] = min(max(pixels[component, j], np.float32(0)), np.float32(255))
        entry = place(_level(to_rgb, 0, pixels, j), _level(to_rgb, 1, pixels, j), _level(to_rgb, 2, pixels, j))
        value = table[entry]
        if not value & READY:
            missing[count] = code_at(entry)
            count += 1
        for channel in range(3):
            pixels[channel, j] = (value >> np.uint32(16 - 8 * channel)) & np.uint32(255)
    return count


@numba.njit(inline="always")
def _fixed(affine: NDArray[np.int64], channel: int, first: Any, second: Any, third: Any, half: int) -> np.uint8:
    """One channel of a pixel of whole levels, as libjpeg computes it."""
    total = affine[channel, 0] * np.int64(first) + affine[channel, 1] * np.int64(second)
    total += affine[channel, 2] * np.int64(third) + affine[channel, 3] + half
    return np.uint8(min(max(total >> 16, 0), 255))


@numba.njit(inline="always")
def _level(affine: NDArray[np.float32], channel: int, pixels: NDArray[np.float32], j: int) -> np.uint8:
    """One channel of a pixel (3, n), rounded."""
    level = affine[channel, 3] + np.float32(0.5)
    for component in range(3):
        level += affine[channel, component] * pixels[component, j]
    return np.uint8(min(max(level, np.float32(0)), np.float32(255)))


@numba.njit(inline="always")
def _transform(
    rgb: NDArray[np.float32],
    from_rgb: NDArray[np.float32],
    basis: NDArray[np.float32],
    level: NDArray[np.float32],
    changed: NDArray[np.float32],
) -> None:
    """The mean level and the other coefficients of a block's components, from its RGB levels (3, 64)."""
    for component in range(3):
        total = np.float32(0)
        for k in range(1, 64):
            changed[component, k] = 0
        for j in range(64):
            value = from_rgb[component, 3]
            for channel in range(3):
                value += from_rgb[component, channel] * rgb[channel, j]
            total += value
            for k in range(1, 64):
                changed[component, k] += value * basis[k, j]
        level[component] = total / 64


@numba.njit(inline="always")
def _after(second: NDArray[np.float32], first: NDArray[np.float32]) -> NDArray[np.float32]:
    """The affine map (3, 4) that is `first`, and then `second`."""
    result = second.copy()
    for i in range(3):
        for j in range(4):
            total = second[i, 3] if j == 3 else np.float32(0)
            for k in range(3):
                total += second[i, k] * first[k, j]
            result[i, j] = total
    return result
