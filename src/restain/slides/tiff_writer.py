"""A generic tiled pyramidal BigTIFF: levels as pages, resolution, ICC profile."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from restain.color.images import RGB8
from restain.slides.codecs import SUBSAMPLINGS, PyramidSettings


def write_tiff(
    path: Path,
    levels: Iterable[tuple[int, int, Iterator[bytes]]],
    *,
    settings: PyramidSettings,
    mpp: tuple[float, float] | None,
    icc_profile: bytes | None,
    description: str,
    software: str,
    associated: Mapping[str, RGB8],
) -> None:
    """Write the levels, from `stream_levels`, into one file; other arguments as `write_pyramid`."""
    options: dict[str, Any] = {
        "photometric": "ycbcr",
        "compression": "jpeg",
        "subsampling": SUBSAMPLINGS[settings.subsampling],
        "tile": (settings.tile, settings.tile),
        "dtype": np.uint8,
        "metadata": None,
        "software": software,
        "iccprofile": icc_profile,
    }
    full: tuple[int, int] | None = None
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for width, height, tiles in levels:
            first = full is None
            full = full or (width, height)
            tiff.write(
                tiles,
                shape=(height, width, 3),
                subfiletype=0 if first else 1,
                description=description if first else None,
                **_resolution(mpp, (full[0] / width, full[1] / height)),
                **options,
            )
        for name, pixels in associated.items():
            # Strips, so that no reader takes them for a level of the pyramid.
            tiff.write(pixels, photometric="rgb", compression="deflate", description=name, metadata=None)


def _resolution(mpp: tuple[float, float] | None, scale: tuple[float, float]) -> dict[str, Any]:
    if mpp is None:
        return {}
    return {
        "resolution": (10_000 / (mpp[0] * scale[0]), 10_000 / (mpp[1] * scale[1])),
        "resolutionunit": "CENTIMETER",
    }
