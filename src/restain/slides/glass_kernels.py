"""Numba kernels that read glass out of JPEG streams and write it back without making pixels of it.

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

from restain.color.kernels import READY, code_at, kernel, place
from restain.slides.jpeg_stream import HUFFMAN_WIDTH, LOOKAHEAD

LONGEST = 3 * 64 * 8
"""More bytes than the three blocks of one place can take."""

_LARGEST = 1 << LOOKAHEAD
_SHIFT = _LARGEST + 18
_SYMBOLS = _SHIFT + 18
_LOOKED_AT = np.uint64(_LARGEST - 1)


FIXED = 1 << 16
"""One, in colour conversions: libjpeg's are in whole numbers, and so are these where blocks have one colour."""

_HALF = FIXED // 2  # rounds to nearest; libjpeg takes one less for chroma, so that grey has none


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
    floats = _floats(to_rgb)
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
                    code = int(tables[table + _int((bits >> np.uint64(held - LOOKAHEAD)) & _LOOKED_AT)])
                    length, symbol = code >> 8, code & 255
                    if length == 0:
                        length = LOOKAHEAD + 1
                        while length <= 16:
                            code = _int((bits >> np.uint64(held - length)) & np.uint64((1 << length) - 1))
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
                        value = _int((bits >> np.uint64(held)) & np.uint64((1 << size) - 1))
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
                _inverse_transform(means[y, x], runs[y, x], waves, weights, basis, pixels)
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
def _int(bits: Any) -> int:
    """Unsigned to signed, which Numba makes a float of where they meet."""
    return np.int64(bits)  # type: ignore[return-value]


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


@numba.njit(inline="always")
def _inverse_transform(
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
    floats_to, floats_from = _floats(to_rgb), _floats(from_rgb)
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
                _inverse_transform(means[row, column], block, waves, weights, basis, pixels)
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
                _inverse_transform(means[row, column], block, waves, weights, halved, small)
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
                        held += _int(code & 31)
                        zeros -= 16
                        held, at = _flush(bits, held, stream, at)
                    size = int(sizes[abs(value)])
                    code = ac_codes[component, zeros << 4 | size] if k else dc_codes[component, size]
                    zeros = 0
                    value += (value >> 63) & ((1 << size) - 1)  # of a negative one, the complement
                    bits = (bits << np.uint64(code & 31)) | np.uint64(code >> 5)
                    bits = (bits << np.uint64(size)) | np.uint64(value)
                    held += _int(code & 31) + size
                    held, at = _flush(bits, held, stream, at)  # 64 bits hold 31, and the next 27
                if zeros or last < 63:
                    code = ac_codes[component, 0]
                    bits = (bits << np.uint64(code & 31)) | np.uint64(code >> 5)
                    held += _int(code & 31)
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
def _floats(affine: NDArray[np.int64]) -> NDArray[np.float32]:
    """From `FIXED`."""
    return (affine / np.float32(FIXED)).astype(np.float32)


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
