"""Shards of Zarr version 3: files that hold many chunks, and at their end an index of where each one is.

A file for each chunk is what many file systems, copying and archives dislike most about Zarr. Chunks come encoded and
in reading order, so each is appended to its shard as it comes, and the index when the shard's last row has passed:
memory holds the chunks of one row of one shard, and the indexes of one row of shards.

Specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/, and RFC 3720, B.4 (CRC32C).
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_SIDE = 4096
"""Pixels along a shard's side: 64 tiles of 512, 20 to 50 MB. Larger ones would serve stores on networks little, and
smaller ones leave more files."""

MOST_CHUNKS = 16
"""Chunks along a shard's side: readers fetch a shard's whole index, 16 bytes a chunk, before they read from it."""

ABSENT = 2**64 - 1
"""Offset and length of a chunk that is not there."""

INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def shard_shape(grid: tuple[int, int], tile: int) -> tuple[int, int]:
    """How many chunks a shard holds: (rows, columns), for a level of that many (rows, columns) of tiles."""
    most = max(1, min(MOST_CHUNKS, LARGEST_SIDE // tile))
    return min(most, grid[0]), min(most, grid[1])


def sharding(chunk: tuple[int, ...], codecs: list[dict[str, Any]]) -> dict[str, Any]:
    """The codec as an array's metadata name it; `chunk` is the shape of a chunk, `codecs` those of its bytes."""
    configuration = {
        "chunk_shape": list(chunk),
        "codecs": codecs,
        "index_codecs": INDEX_CODECS,
        "index_location": "end",
    }
    return {"name": "sharding_indexed", "configuration": configuration}


def write_shards(folder: Path, columns: int, shape: tuple[int, int], chunks: Iterator[bytes]) -> None:
    """Write the encoded chunks of a level into shards, `folder`/ROW/COLUMN.

    Args:
        folder: where the level's shards lie.
        columns: how many chunks are side by side.
        shape: (rows, columns) of chunks in a shard, from `shard_shape`.
        chunks: all of them in reading order; b"" for one that is not there. A shard without any is no file.
    """
    tall, wide = shape
    widths = [min(wide, columns - start) for start in range(0, columns, wide)]
    band: list[_Shard] = []
    row = 0
    while True:
        for number, width in enumerate(widths):
            run = list(islice(chunks, width))
            if not run:
                for shard in band:
                    shard.finish()
                return
            if row % tall == 0:
                band.append(_Shard(folder / str(row // tall) / str(number), shape))
            band[number].append(row % tall, run)
        row += 1
        if row % tall == 0:
            for shard in band:
                shard.finish()
            band = []


class _Shard:
    """A shard that is being written. No file is kept open: a wide slide has thousands of shards side by side."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._path = path
        self._index = np.full((*shape, 2), ABSENT, "<u8")
        self._size = 0

    def append(self, row: int, chunks: Iterable[bytes]) -> None:
        """Add the chunks of a row of the shard, from its first column on."""
        kept = []
        for column, chunk in enumerate(chunks):
            if chunk:
                self._index[row, column] = self._size, len(chunk)
                self._size += len(chunk)
                kept.append(chunk)
        if kept:
            self._write(b"".join(kept))

    def finish(self) -> None:
        """Write the index; nothing where no chunk came."""
        if self._size:
            index = self._index.tobytes()
            self._write(index + crc32c(index).to_bytes(4, "little"))

    def _write(self, data: bytes) -> None:
        if not self._path.parent.is_dir():
            self._path.parent.mkdir(parents=True)
        with self._path.open("ab") as stream:
            stream.write(data)


def read_index(path: Path, count: int, *, at_end: bool, checked: bool) -> NDArray[np.uint64] | None:
    """Where a shard has its chunks.

    Args:
        path: of the shard.
        count: how many chunks it has room for.
        at_end: whether the index is at its end; else it is at its beginning.
        checked: whether the index has a checksum.

    Returns:
        Offset and length of each chunk in C order, (count, 2), `ABSENT` for those that are not there, as all are of a
        shard that is no file; None for an index that is damaged.
    """
    size = 16 * count
    try:
        with path.open("rb") as stream:
            whole = stream.seek(0, os.SEEK_END)
            stream.seek(max(whole - size - 4 * checked, 0) if at_end else 0)
            data = stream.read(size + 4 * checked)
    except FileNotFoundError:
        return np.full((count, 2), ABSENT, np.uint64)
    if len(data) < size + 4 * checked or (checked and crc32c(data[:size]) != int.from_bytes(data[size:], "little")):
        return None
    return np.frombuffer(data[:size], "<u8").astype(np.uint64).reshape(count, 2)


def crc32c(data: bytes) -> int:
    """The checksum of indexes, byte by byte: they are small."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # Castagnoli's polynomial, reversed
        table.append(value)
    return table


_CRC = _table()
