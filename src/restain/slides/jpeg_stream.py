"""What the header of a baseline JPEG stream says: its size, its tables, and where its blocks begin (ITU-T T.81)."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOOKAHEAD = 9
"""Bits of a Huffman code that are looked up at once; longer codes are rare."""

HUFFMAN_WIDTH = (1 << LOOKAHEAD) + 18 + 18 + 256
"""Numbers of a decoding table: what the next bits mean, the largest code and the shift of each length, the symbols."""

LONGEST_HEADER = 1 << 16
"""Bytes in which the first block begins; usual are 200 to 700."""

_DHT, _DQT, _DRI, _SOF0, _SOS = 0xC4, 0xDB, 0xDD, 0xC0, 0xDA
_SILENT = {*range(0xE0, 0xF0), 0xFE}  # what programs add for each other, and comments


@dataclass(frozen=True)
class JpegStream:
    """A stream whose blocks can be read one after the other: baseline, three components of one size, no restarts.

    Attributes:
        size: (width, height) in pixels.
        start: where the first block begins, in the stream's bytes.
        quant: (3, 64) float32, steps of quantization by component, in zigzag order.
        tables: (6 · `HUFFMAN_WIDTH`,) int32, decoding tables: of each component the first coefficient's, the others'.
        dc_codes, ac_codes: (3, 256) uint32 encoding tables by component: code · 32 + its length; 0 where none.
    """

    size: tuple[int, int]
    start: int
    quant: NDArray[np.float32]
    tables: NDArray[np.int32]
    dc_codes: NDArray[np.uint32]
    ac_codes: NDArray[np.uint32]


def parse_stream(data: bytes, tables: bytes = b"") -> JpegStream | None:
    """Parse the header of a JPEG stream; None where it is not of the plain kind that `JpegStream` is, or damaged.

    What colours the components are is not looked at.

    Args:
        data: a stream, from its first byte.
        tables: segments that the stream does not repeat, as a TIFF keeps them, without SOI and EOI.
    """
    scan = data.find(b"\xff\xda", 0, LONGEST_HEADER)
    if scan < 0 or data[:2] != b"\xff\xd8" or scan + 14 > len(data):
        return None
    return _parsed(tables, data[2 : scan + 14], scan + 14)


@functools.lru_cache(maxsize=64)  # the tiles of a slide have a handful of different headers
def _parsed(tables: bytes, header: bytes, start: int) -> JpegStream | None:
    quants: dict[int, NDArray[np.float32]] = {}
    huffman: dict[int, tuple[NDArray[np.int32], NDArray[np.uint32]]] = {}
    frame: bytes | None = None
    whole = tables + header
    at = 0
    while at + 4 <= len(whole):
        marker, length = whole[at + 1], int.from_bytes(whole[at + 2 : at + 4])
        body = whole[at + 4 : at + 2 + length]
        if whole[at] != 0xFF or len(body) != length - 2:
            return None
        if marker == _SOS:
            ends_there = at + 2 + length == len(whole)  # else the two bytes that were found were something else's
            return _stream(frame, body, quants, huffman, start) if frame is not None and ends_there else None
        if marker == _DQT:
            if not _read_quants(body, quants):
                return None
        elif marker == _DHT:
            if not _read_huffman(body, huffman):
                return None
        elif marker == _SOF0 and frame is None:
            frame = body
        elif marker not in _SILENT and not (marker == _DRI and not any(body)):
            return None
        at += 2 + length
    return None


def _stream(
    frame: bytes,
    scan: bytes,
    quants: dict[int, NDArray[np.float32]],
    huffman: dict[int, tuple[NDArray[np.int32], NDArray[np.uint32]]],
    start: int,
) -> JpegStream | None:
    plain = len(frame) == 15 and frame[0] == 8 and frame[5] == 3 and len(scan) == 10 and scan[0] == 3
    if not plain or scan[7:] != b"\x00\x3f\x00":
        return None
    components = [frame[6 + 3 * i : 9 + 3 * i] for i in range(3)]
    selected = [scan[1 + 2 * i : 3 + 2 * i] for i in range(3)]
    if any(c[0] != s[0] or c[1] != 0x11 for c, s in zip(components, selected, strict=True)):
        return None
    try:
        quant = np.stack([quants[c[2]] for c in components])
        dc = [huffman[s[1] >> 4] for s in selected]
        ac = [huffman[0x10 | s[1] & 15] for s in selected]
    except KeyError:
        return None
    if any(codes[16:].any() for _, codes in dc):  # lengths of differences, which have 15 bits at most
        return None
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    decoding = np.concatenate([table for pair in zip(dc, ac, strict=True) for table, _ in pair])
    encoding = [np.stack([codes for _, codes in tables]) for tables in (dc, ac)]
    return JpegStream((width, height), start, quant, decoding, *encoding)


def _read_quants(body: bytes, quants: dict[int, NDArray[np.float32]]) -> bool:
    for at in range(0, len(body), 65):
        if body[at] > 3 or at + 65 > len(body):  # 16-bit steps are for 12-bit pixels
            return False
        quants[body[at]] = np.frombuffer(body, np.uint8, 64, at + 1).astype(np.float32)
    return True


def _read_huffman(body: bytes, huffman: dict[int, tuple[NDArray[np.int32], NDArray[np.uint32]]]) -> bool:
    at = 0
    while at + 17 <= len(body):
        counts = list(body[at + 1 : at + 17])
        symbols = body[at + 17 : at + 17 + sum(counts)]
        if len(symbols) != sum(counts) or len(symbols) > 256:
            return False
        tables = _huffman_tables(counts, symbols)
        if tables is None or body[at] & 0xEC:  # class 0 or 1, number 0 to 3
            return False
        huffman[body[at]] = tables
        at += 17 + len(symbols)
    return at == len(body)


def _huffman_tables(counts: list[int], symbols: bytes) -> tuple[NDArray[np.int32], NDArray[np.uint32]] | None:
    """The decoding and the encoding table of a Huffman code, given by its lengths (T.81, C.2 and F.2.2.3)."""
    table = np.zeros(HUFFMAN_WIDTH, np.int32)
    looked_up, largest = table[: 1 << LOOKAHEAD], table[1 << LOOKAHEAD :][:18]
    shift, meaning = table[(1 << LOOKAHEAD) + 18 :][:18], table[(1 << LOOKAHEAD) + 36 :]
    codes = np.zeros(256, np.uint32)
    meaning[: len(symbols)] = list(symbols)
    largest[:] = -1
    code = number = 0
    for length, count in enumerate(counts, start=1):
        shift[length] = number - code
        for symbol in symbols[number : number + count]:
            if code >= 1 << length:
                return None
            codes[symbol] = code << 5 | length
            if length <= LOOKAHEAD:
                first = code << LOOKAHEAD - length
                looked_up[first : first + (1 << LOOKAHEAD - length)] = length << 8 | symbol
            code += 1
        number += count
        if count:
            largest[length] = code - 1
        code <<= 1
    return table, codes
