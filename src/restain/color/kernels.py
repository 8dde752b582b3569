"""The Numba kernels: apply a table or a lattice of colours, halve images. All run without the GIL.

Compiled code is cached in the user's cache folder (`platformdirs.user_cache_dir("restain")`, or `NUMBA_CACHE_DIR`
where that is set), the one place that restain writes without being told to; if it cannot be written, each process
compiles anew. Import this module only when pixels are at hand: importing Numba takes longer than all of restain.

A colour's code is R·65536 + G·256 + B. A table entry holds a result's code in bits 0..23 and two flags. Entries are
ordered by R − G and B − G (mod 256), then G: stained tissue goes from dark to light with little change of these
differences, so that its colours share fewer cache lines than in the order of their codes (a third, on H&E).
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import platformdirs
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

READY = np.uint32(1 << 24)  # the entry holds a result
WANTED = np.uint32(1 << 25)  # the entry is on the list of colours to be evaluated
AHEAD = 64  # pixels whose entries are asked for before they are needed


def _cache_folder() -> str | None:
    folder = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_dir("restain")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


_CACHE = _cache_folder()


def kernel(function: Callable[..., Any]) -> Any:
    # Numba chooses the cache folder when it decorates; the setting is put back so that other users of Numba in
    # this process keep theirs.
    config: Any = numba.config
    before = config.CACHE_DIR
    if _CACHE is not None:
        config.CACHE_DIR = _CACHE
    try:
        return numba.njit(nogil=True, cache=_CACHE is not None)(function)
    finally:
        config.CACHE_DIR = before


@numba.njit(inline="always")
def place(red: np.uint8, green: np.uint8, blue: np.uint8) -> np.uint32:
    """Where a table holds a colour."""
    level = np.uint32(green)
    return (
        (((np.uint32(red) - level) & np.uint32(255)) << np.uint32(16))
        | (((np.uint32(blue) - level) & np.uint32(255)) << np.uint32(8))
        | level
    )


@numba.njit(inline="always")
def code_at(entry: np.uint32) -> np.uint32:
    """The code of the colour whose entry is there: the inverse of `place`."""
    level = entry & np.uint32(255)
    red = ((entry >> np.uint32(16)) + level) & np.uint32(255)
    blue = ((entry >> np.uint32(8)) + level) & np.uint32(255)
    return (red << np.uint32(16)) | (level << np.uint32(8)) | blue


@intrinsic
def _prefetch(_context: Any, table: Any, _index: Any) -> Any:
    """Ask for the cache line of `table[index]`, to be written to or not, and go on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(ask, [address, number(0), number(3), number(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(table, types.intp), generate


@numba.njit(inline="always")
def look_ahead(table: NDArray[np.uint32], pixels: NDArray[np.uint8], start: int, entries: NDArray[np.uint32]) -> None:
    """Where `table` has the colours of up to `AHEAD` pixels from `start`, and ask for those lines.

    A table does not fit into the near caches, and a core that meets one pixel after the other waits for most lines.
    """
    count = min(len(pixels) // 3 - start, AHEAD)
    for j in range(count):
        at = np.uint64(3 * (start + j))  # unsigned, or Numba asks whether to count from the end
        entries[j] = place(pixels[at], pixels[at + np.uint64(1)], pixels[at + np.uint64(2)])
    for j in range(count):
        _prefetch(table, entries[j])  # type: ignore[call-arg]  # Numba gives the first argument


@kernel
def apply_table(
    table: NDArray[np.uint32], pixels: NDArray[np.uint8], out: NDArray[np.uint8], waiting: NDArray[np.uint32]
) -> int:
    """Write each pixel's entry to `out`; both are (3n,), and may be the same.

    Where an entry is not ready, `out` gets the pixel as it is, and `waiting` its number; returns how many wait. Of a
    table that is known to be ready, `waiting` may be empty.
    """
    count = 0
    total = len(pixels) // 3
    entries = np.empty((2, AHEAD), np.uint32)
    values = np.empty(AHEAD, np.uint32)
    look_ahead(table, pixels, 0, entries[0])
    for block in range((total + AHEAD - 1) // AHEAD):
        start = block * AHEAD
        now = entries[block & 1]
        look_ahead(table, pixels, start + AHEAD, entries[1 - (block & 1)])
        ready = READY
        size = min(total - start, AHEAD)
        for j in range(size):
            values[j] = table[now[j]]
            ready &= values[j]
        if not ready:
            for j in range(size):
                if not values[j] & READY:
                    values[j] = code_at(now[j])
                    waiting[count] = start + j
                    count += 1
        for j in range(size):
            at = np.uint64(3 * (start + j))
            out[at] = np.uint8((values[j] >> np.uint32(16)) & np.uint32(255))
            out[at + np.uint64(1)] = np.uint8((values[j] >> np.uint32(8)) & np.uint32(255))
            out[at + np.uint64(2)] = np.uint8(values[j] & np.uint32(255))
    return count


@kernel
def list_missing(table: NDArray[np.uint32], pixels: NDArray[np.uint8], missing: NDArray[np.uint32]) -> int:
    """Write the codes that occur in `pixels` (3n,) but are not ready to `missing`, each once; return how many."""
    count = 0
    for at in range(0, len(pixels) - 2, 3):
        entry = place(pixels[at], pixels[at + 1], pixels[at + 2])
        if table[entry] == 0:
            table[entry] = WANTED
            missing[count] = code_at(entry)
            count += 1
    return count


@kernel
def store(table: NDArray[np.uint32], codes: NDArray[np.uint32], levels: NDArray[np.float64]) -> bool:
    """Write what the colours of `codes` (n,) become: levels (n, 3), clipped and rounded; False if one is NaN."""
    for i in range(len(codes)):
        if np.isnan(levels[i, 0]) or np.isnan(levels[i, 1]) or np.isnan(levels[i, 2]):
            return False
        store_levels(table, codes[i], levels[i])
    return True


@numba.njit(inline="always")
def store_levels(table: NDArray[np.uint32], code: np.uint32, levels: NDArray[np.float64]) -> None:
    """Write what one colour becomes: levels (3,), which are not NaN."""
    result = np.uint32(0)
    for channel in range(3):
        result = result << np.uint32(8) | np.uint32(np.rint(min(max(levels[channel], 0.0), 255.0)))
    table[place(np.uint8(code >> 16), np.uint8(code >> 8 & 255), np.uint8(code & 255))] = result | READY


def load() -> None:
    """Let Numba prepare what it prepares at the first call of a kernel, rather than then."""
    is_uniform(np.zeros((1, 1, 3), np.uint8))


@kernel
def is_uniform(image: NDArray[np.uint8]) -> bool:
    """Whether all pixels (H, W, 3) are alike; found out at the first that is not."""
    red, green, blue = image[0, 0, 0], image[0, 0, 1], image[0, 0, 2]
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            if image[row, column, 0] != red or image[row, column, 1] != green or image[row, column, 2] != blue:
                return False
    return True


@kernel
def halve(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Average 2×2 pixels, rounding half up; `out` is (H//2, W//2, 3). Both are contiguous."""
    levels, halves = image.reshape(-1), out.reshape(-1)
    line = np.uint64(3 * image.shape[1])  # unsigned, or Numba asks of each index whether to count from the end
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            above = np.uint64(2 * row) * line + np.uint64(6 * column)
            below = above + line
            into = np.uint64(3 * (row * out.shape[1] + column))
            for channel in range(3):
                k = np.uint64(channel)
                total = np.uint32(levels[above + k]) + np.uint32(levels[above + k + np.uint64(3)])
                total += np.uint32(levels[below + k]) + np.uint32(levels[below + k + np.uint64(3)])
                halves[into + k] = np.uint8((total + np.uint32(2)) >> np.uint32(2))


@kernel
def affine(
    channels: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64], rectify: bool
) -> NDArray[np.float64]:
    """weight (m, k) · channels (k, n) + bias (m,), then max(·, 0) if `rectify`: one 1×1 convolution, (m, n).

    Column by column and in one order: a matrix product of BLAS may differ in its last bit with the number of columns.
    """
    outputs, inputs = weight.shape
    count = channels.shape[1]
    result = np.empty((outputs, count))
    for start in range(0, count, 256):  # columns that stay in the cache between inputs
        end = min(start + 256, count)
        for j in range(outputs):
            into = result[j, start:end]
            into[:] = bias[j]
            for i in range(inputs):
                scale = weight[j, i]
                values = channels[i, start:end]
                for column in range(end - start):
                    into[column] += scale * values[column]
            if rectify:
                for column in range(end - start):
                    into[column] = max(into[column], 0.0)
    return result


@kernel
def trilinear(levels: NDArray[np.float64], colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """A lattice (k, k, k, 3), C-ordered, at colours (n, 3): (n, 3); colours outside 0..255 are taken as its ends."""
    size = levels.shape[0]
    scale = (size - 1) / 255.0
    result = np.empty((colors.shape[0], 3))
    for row in range(colors.shape[0]):
        red, green, blue = colors[row, 0] * scale, colors[row, 1] * scale, colors[row, 2] * scale
        # Written so that a NaN, too, stays inside the lattice.
        red = min(red, size - 1.0) if red > 0.0 else 0.0
        green = min(green, size - 1.0) if green > 0.0 else 0.0
        blue = min(blue, size - 1.0) if blue > 0.0 else 0.0
        i, j, k = min(int(red), size - 2), min(int(green), size - 2), min(int(blue), size - 2)
        red, green, blue = red - i, green - j, blue - k
        near, far = (1.0 - green) * (1.0 - blue), (1.0 - green) * blue
        above, across = green * (1.0 - blue), green * blue
        for channel in range(3):
            low = near * levels[i, j, k, channel] + far * levels[i, j, k + 1, channel]
            low += above * levels[i, j + 1, k, channel] + across * levels[i, j + 1, k + 1, channel]
            high = near * levels[i + 1, j, k, channel] + far * levels[i + 1, j, k + 1, channel]
            high += above * levels[i + 1, j + 1, k, channel] + across * levels[i + 1, j + 1, k + 1, channel]
            result[row, channel] = (1.0 - red) * low + red * high
    return result
