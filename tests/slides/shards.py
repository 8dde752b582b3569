"""Where in a Zarr array's files a chunk lies, for tests that damage one or look for one that should not be there."""

import json
import struct
from pathlib import Path


def place_of(array: Path, row: int, column: int) -> tuple[Path, int, int] | None:
    """File, offset and length of a chunk of an array in shards, by the specification; None where there is none."""
    metadata = json.loads((array / "zarr.json").read_text())
    (codec,) = metadata["codecs"]
    assert codec["name"] == "sharding_indexed"
    outer, inner = (
        part["configuration"]["chunk_shape"] if "configuration" in part else part
        for part in (metadata["chunk_grid"], codec)
    )
    tall, wide = outer[1] // inner[1], outer[2] // inner[2]
    path = array / "c" / "0" / str(row // tall) / str(column // wide)
    if not path.exists():
        return None
    data = path.read_bytes()
    begin = len(data) - 16 * tall * wide - 4  # the checksum
    offset, length = struct.unpack_from("<QQ", data, begin + 16 * (row % tall * wide + column % wide))
    return None if offset == length == 2**64 - 1 else (path, offset, length)


def overwrite(array: Path, row: int, column: int, *, kept: int = 16) -> None:
    """Zero a chunk but for its first bytes."""
    found = place_of(array, row, column)
    assert found is not None
    path, offset, length = found
    with path.open("r+b") as stream:
        stream.seek(offset + kept)
        stream.write(bytes(length - kept))
