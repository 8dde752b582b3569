"""JPEG streams of any coefficients in any Huffman code, for what no library writes but many could have written."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LONG_DC = dict.fromkeys(range(12), 16)
"""Lengths of codes, bits, by symbol: all as long as they can be (the least that decoders must cope with)."""

LONG_AC = dict.fromkeys([0x00, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 11))], 16)


def write_jpeg(
    coefficients: NDArray[np.int64],
    size: tuple[int, int],
    *,
    dc: Mapping[int, int] = LONG_DC,
    ac: Mapping[int, int] = LONG_AC,
) -> bytes:
    """A baseline stream, 4:4:4, whose steps of quantization are all 1 (ITU-T T.81, annexes B, C and F).

    Args:
        coefficients: (blocks, 3, 64) in zigzag order.
        size: (width, height), multiples of 8.
        dc, ac: length of each symbol's code.
    """
    dc_table, dc_codes = _huffman(0x00, dc)
    ac_table, ac_codes = _huffman(0x10, ac)
    bits: list[str] = []
    previous = np.zeros(3, np.int64)
    for block in coefficients:
        for component, levels in enumerate(block):
            difference, previous[component] = int(levels[0] - previous[component]), levels[0]
            bits += [dc_codes[_size(difference)], _magnitude(difference)]
            run = 0
            for level in map(int, levels[1:]):
                if level == 0:
                    run += 1
                    continue
                bits += [ac_codes[0xF0]] * (run // 16)
                bits += [ac_codes[run % 16 << 4 | _size(level)], _magnitude(level)]
                run = 0
            bits += [ac_codes[0]] if run else []
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)).replace(b"\xff", b"\xff\x00")
    width, height = size
    frame = b"\x08" + height.to_bytes(2) + width.to_bytes(2) + b"\x03" + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    segments = [
        _segment(0xDB, b"\x00" + bytes([1] * 64)),
        _segment(0xC0, frame),
        _segment(0xC4, dc_table + ac_table),
        _segment(0xDA, b"\x03" + bytes([1, 0, 2, 0, 3, 0]) + b"\x00\x3f\x00"),
    ]
    return b"\xff\xd8" + b"".join(segments) + scan + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body


def _huffman(kind: int, lengths: Mapping[int, int]) -> tuple[bytes, dict[int, str]]:
    """The table as a segment holds it, and each symbol's code."""
    symbols = sorted(lengths, key=lambda symbol: (lengths[symbol], symbol))
    counts = [list(lengths.values()).count(length) for length in range(1, 17)]
    codes, code, before = {}, 0, 0
    for symbol in symbols:
        code <<= lengths[symbol] - before
        codes[symbol] = format(code, f"0{lengths[symbol]}b")
        code, before = code + 1, lengths[symbol]
    return bytes([kind, *counts, *symbols]), codes


def _size(value: int) -> int:
    return abs(value).bit_length()


def _magnitude(value: int) -> str:
    size = _size(value)
    return format(value if value >= 0 else value + (1 << size) - 1, f"0{size}b") if size else ""
