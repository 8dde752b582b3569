"""ICC profiles for the tests, made byte by byte."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

D50 = (0.9642, 1.0, 0.8249)
WIDE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
"""Columns: red, green and blue of Adobe RGB (1998), XYZ relative to D50. Its gamut is wider than sRGB's."""


def matrix_profile(
    matrix: Floats = WIDE, gamma: float = 2.2, *, space: bytes = b"RGB ", kind: bytes = b"mntr"
) -> bytes:
    """An ICC version 2 profile of three primaries and one gamma, by the specification (ICC.1:2001-04), byte by byte."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(fixed(value) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"planted\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = [
        (b"desc", description), (b"cprt", b"text\0\0\0\0none\0\0\0\0"), (b"wtpt", xyz(D50)),
        (b"rXYZ", xyz(matrix[:, 0])), (b"gXYZ", xyz(matrix[:, 1])), (b"bXYZ", xyz(matrix[:, 2])),
        (b"rTRC", curve), (b"gTRC", curve), (b"bTRC", curve),
    ]  # fmt: skip
    table, data = b"", b""
    offset = 128 + 4 + 12 * len(tags)
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    size = offset + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, kind, space, b"XYZ ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(fixed(value) for value in D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data
