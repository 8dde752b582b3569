"""LZW tiles of a TIFF, decoded by libtiff.

tifffile has them decoded by imagecodecs, which trusts the first code after each table: where it is damaged, it reads
from addresses that were never set, and the process ends. libtiff, which imagecodecs has too, takes whole files only; so
each tile is given to it as a TIFF of one strip.
"""

import struct
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

_SHORT, _LONG = 3, 4


def decode_lzw(page: tifffile.TiffPage, data: bytes, rows: int) -> NDArray[Any]:
    """The pixels of one tile or strip, (rows, columns, samples), uint8 or uint16.

    Args:
        page: whose tile it is: contiguous, gray or RGB, with or without alpha.
        data: the tile as it is stored.
        rows: that it has; its columns are the page's `chunks`.

    Raises:
        imagecodecs.TiffError: it is damaged. ValueError: it has a predictor that is not for whole numbers.
    """
    if page.predictor not in (1, 2):
        raise ValueError(f"its predictor is {page.predictor}; wanted 1 or 2")
    shape = rows, page.chunks[1], page.samplesperpixel
    stream = _as_tiff(data, shape, page)
    return np.asarray(imagecodecs.tiff_decode(stream)).reshape(shape)


def _as_tiff(data: bytes, shape: tuple[int, int, int], page: tifffile.TiffPage) -> bytes:
    """A TIFF of one strip (TIFF 6.0, section 2): header, bits of each sample, data, directory."""
    order = page.parent.byteorder
    rows, columns, samples = shape
    bits = struct.pack(f"{order}{samples}H", *[page.bitspersample] * samples)
    bits += bytes(8 - len(bits))  # four at most
    entries = [
        (256, _LONG, 1, columns),
        (257, _LONG, 1, rows),
        (258, _SHORT, samples, 8),
        (259, _SHORT, 1, tifffile.COMPRESSION.LZW),
        (262, _SHORT, 1, tifffile.PHOTOMETRIC.RGB if samples > 2 else tifffile.PHOTOMETRIC.MINISBLACK),
        (266, _SHORT, 1, page.fillorder),
        (273, _LONG, 1, 16),
        (277, _SHORT, 1, samples),
        (278, _LONG, 1, rows),
        (279, _LONG, 1, len(data)),
        (284, _SHORT, 1, tifffile.PLANARCONFIG.CONTIG),
        (317, _SHORT, 1, page.predictor),
    ]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        # A value of two bytes, or the bits of up to two samples, stand in the entry itself, to the left.
        field = struct.pack(f"{order}I", value)
        if kind == _SHORT and count == 1:
            field = struct.pack(f"{order}HH", page.bitspersample if tag == 258 else value, 0)
        directory += struct.pack(f"{order}HHI", tag, kind, count) + field
    magic = b"II*\0" if order == "<" else b"MM\0*"
    padding = bytes(len(data) % 2)
    return magic + struct.pack(f"{order}I", 16 + len(data + padding)) + bits + data + padding + directory + bytes(4)
