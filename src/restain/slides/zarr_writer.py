"""OME-Zarr 0.5 (Zarr version 3): one array (c, y, x) a level, one chunk a tile, many chunks a file (`zarr_shards`).

Metadata are a few lines of JSON and chunks arrive encoded, so nothing but the standard library is needed.

Specifications: Zarr core version 3, https://zarr-specs.readthedocs.io; OME-Zarr 0.5, https://ngff.openmicroscopy.org.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from restain.color.images import RGB8
from restain.slides.codecs import PyramidSettings, compress
from restain.slides.formats import Travelling
from restain.slides.zarr_shards import shard_shape, sharding, write_shards

CODECS: dict[str, list[dict[str, Any]]] = {
    "zstd": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}],
    "deflate": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 6}}],
    "none": [{"name": "bytes"}],
}


def write_zarr(
    folder: Path,
    levels: Iterable[tuple[int, int, Iterator[bytes]]],
    settings: PyramidSettings,
    travelling: Travelling,
) -> None:
    """Write levels, from `stream_levels`, into an empty folder. Missing tiles are missing chunks: white."""
    side = settings.tile
    count = 0
    for level, (width, height, tiles) in enumerate(levels):
        rows, columns = -(-height // side), -(-width // side)
        shape = shard_shape((rows, columns), side)
        _array(folder / str(level), (height, width), (side, side), settings.codec, shape)
        write_shards(folder / str(level) / "c" / "0", columns, shape, tiles)
        count += 1
    facts: dict[str, Any] = {"software": travelling.software, "description": travelling.description}
    if travelling.icc_profile is not None:  # OME-Zarr has no place for it
        facts["icc_profile"] = base64.b64encode(travelling.icc_profile).decode()
    if travelling.objective_power is not None:
        facts["objective_power"] = travelling.objective_power
    if travelling.associated:
        facts["associated"] = list(travelling.associated)
    _group(folder, "slide", count, travelling.mpp, {"restain": facts})
    if travelling.associated:
        _write(folder / "associated", {"zarr_format": 3, "node_type": "group", "attributes": {}})
    for name, pixels in travelling.associated.items():
        _associated(folder / "associated" / name, name, pixels, settings)


def _associated(folder: Path, name: str, pixels: RGB8, settings: PyramidSettings) -> None:
    """An image of its own, of one level and one chunk."""
    height, width = pixels.shape[:2]
    _array(folder / "0", (height, width), (height, width), settings.codec)
    chunk = folder / "0" / "c" / "0" / "0" / "0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(compress(np.ascontiguousarray(pixels), settings))
    _group(folder, name, 1, None, {})


def _group(folder: Path, name: str, levels: int, mpp: tuple[float, float] | None, more: dict[str, Any]) -> None:
    """The metadata of a multiscale image whose arrays are named 0, 1, 2, …, each half as large as the one before."""
    unit = {} if mpp is None else {"unit": "micrometer"}
    step = mpp or (1.0, 1.0)
    space = [{"name": axis, "type": "space"} | unit for axis in "yx"]
    multiscale = {
        "name": name,
        "type": "mean",
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, step[1] * 2**level, step[0] * 2**level]}
                ],
            }
            for level in range(levels)
        ],
    }
    channels = [
        {"label": label, "color": color, "active": True, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for label, color in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ]
    ome = {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": channels, "rdefs": {"model": "color"}}}
    _write(folder, {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome, **more}})


def _array(
    folder: Path, size: tuple[int, int], chunk: tuple[int, int], codec: str, shard: tuple[int, int] | None = None
) -> None:
    """The metadata of an array of (height, width) in chunks of (height, width), all channels in each.

    With `shard`, so many (rows, columns) of chunks are in one file.
    """
    codecs, file = CODECS[codec], chunk
    if shard is not None:
        codecs, file = [sharding((3, *chunk), codecs)], (shard[0] * chunk[0], shard[1] * chunk[1])
    _write(
        folder,
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [3, *size],
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, *file]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 255,
            "codecs": codecs,
            "dimension_names": ["c", "y", "x"],
            "attributes": {},
        },
    )


def _write(folder: Path, metadata: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps(metadata, indent=1, allow_nan=False))
