"""Chunks of Zarr arrays, found and decoded without the zarr package: in every thread, and several times as fast.

The zarr package reads everything; what is here serves passes over whole slides, and knows which chunks are there. It
knows shards, and decodes what restain writes: Zarr version 3, 8-bit RGB in planes, all three in a chunk, compressed by
zstd, gzip or not at all.
"""

import functools
import math
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restain.slides.zarr_shards import ABSENT, read_index

CACHED_INDEXES = 2**26
"""Bytes of shards' indexes that are kept."""

_DECODERS = {"zstd": imagecodecs.zstd_decode, "gzip": imagecodecs.gzip_decode}


class Chunks:
    """The chunks of one array, by their (row, column).

    Attributes:
        decodable: whether `read` knows how they are encoded.
    """

    def __init__(self, folder: Path, array: Any, axes: list[str]) -> None:
        """Args:
        folder: the array's.
        array: as the zarr package opened it.
        axes: their names in order.
        """
        self._folder, self._array, self._axes = folder, array, axes
        self._y, self._x = axes.index("y"), axes.index("x")
        self._shape: tuple[int, ...] = array.chunks
        self._room = tuple(
            shard // chunk for shard, chunk in zip(array.shards or array.chunks, array.chunks, strict=True)
        )
        most = max(CACHED_INDEXES // (16 * math.prod(self._room)), 4)
        self._index = functools.lru_cache(most)(self._read_index)
        codecs = [codec.to_dict() for codec in getattr(array.metadata, "codecs", ())]
        self._sharding: dict[str, Any] = codecs[0].get("configuration", {}) if array.shards is not None else {}
        names = [codec["name"] for codec in self._sharding.get("codecs", codecs)]
        self._decode = _DECODERS.get(names[-1]) if names else None
        self.decodable = (
            axes == ["c", "y", "x"]
            and array.dtype == np.uint8
            and array.shape[0] == self._shape[0] == 3
            and names[:1] == ["bytes"]
            and names[1:] in ([], ["zstd"], ["gzip"])
            and (array.shards is None or self._index_codecs() is not None)
        )

    def has(self, row: int, column: int) -> bool:
        """Whether a chunk is stored, in a file of its own or in a shard. One whose shard has a damaged index counts as
        stored: reading it tells."""
        if self._array.shards is None:
            return self._file(row, column).exists()
        tall, wide = self._room[self._y], self._room[self._x]
        found = self._index(row // tall, column // wide)
        if found is None:
            return self._file(row // tall, column // wide).exists()
        place: list[Any] = [slice(None)] * len(self._axes)
        place[self._y], place[self._x] = row % tall, column % wide
        return bool((found[tuple(place)] != ABSENT).all(axis=-1).any())

    def read(self, row: int, column: int) -> NDArray[np.uint8] | None:
        """The pixels of a chunk, (3, height, width), also beyond the array's edges; None for one that is not stored.

        To be called only if `decodable`. Whatever it raises, but `OSError`, means that the chunk is damaged.
        """
        data = self._bytes(row, column)
        if data is None:
            return None
        size = math.prod(self._shape)
        # Into an array of the size that it must have: whatever a damaged stream claims, no more memory is taken.
        pixels = data if self._decode is None else self._decode(data, out=np.empty(size, np.uint8))  # type: ignore[arg-type]
        if len(pixels) != size:
            raise ValueError(f"{len(pixels)} bytes where {size} were to be")
        return np.frombuffer(pixels, np.uint8).reshape(self._shape)

    def _bytes(self, row: int, column: int) -> bytes | None:
        if self._array.shards is None:
            path = self._file(row, column)
            try:
                return self._bytes_of(path, 0, path.stat().st_size)
            except FileNotFoundError:
                return None
        tall, wide = self._room[self._y], self._room[self._x]
        path = self._file(row // tall, column // wide)
        index = self._index(row // tall, column // wide)
        if index is None:
            raise ValueError(f"the index of its shard {path.relative_to(self._folder)} is damaged")
        offset, length = (int(number) for number in index[0, row % tall, column % wide])
        if offset == length == ABSENT:
            return None
        if offset + length > path.stat().st_size:
            raise ValueError(f"its shard {path.relative_to(self._folder)} ends before it")
        return self._bytes_of(path, offset, length)

    def _bytes_of(self, path: Path, offset: int, length: int) -> bytes:
        if length > 2 * math.prod(self._shape) + 1024:  # no codec makes so much of so few pixels
            raise ValueError(f"it claims {length} bytes, which its {math.prod(self._shape)} levels cannot take")
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)

    def _file(self, row: int, column: int) -> Path:
        """The file of a chunk or shard, which need not be there."""
        place = {"y": row, "x": column}
        key: str = self._array.metadata.encode_chunk_key(tuple(place.get(axis, 0) for axis in self._axes))
        return self._folder / key

    def _index_codecs(self) -> list[str] | None:
        """How a shard's index is encoded; None for ways that are not known here."""
        codecs = self._sharding.get("index_codecs", [{"name": "bytes"}])
        names = [codec["name"] for codec in codecs]
        little = (codecs[0].get("configuration") or {}).get("endian", "little") == "little"
        return names if names in (["bytes"], ["bytes", "crc32c"]) and little else None

    def _read_index(self, row: int, column: int) -> NDArray[np.uint64] | None:
        """Where a shard's chunks are, (…, 2) with one axis for each of the array's; None where that cannot be known."""
        codecs = self._index_codecs()
        if codecs is None:
            return None
        at_end = self._sharding.get("index_location", "end") == "end"
        found = read_index(self._file(row, column), math.prod(self._room), at_end=at_end, checked=len(codecs) == 2)
        return None if found is None else found.reshape(*self._room, 2)
