"""Generic tiled pyramidal BigTIFF, levels as pages, and OME-TIFF, levels as SubIFDs of the first page."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from restain.slides.codecs import PREDICTED, SUBSAMPLINGS, PyramidSettings
from restain.slides.formats import Travelling


def write_tiff(
    path: Path,
    levels: Iterable[tuple[int, int, Iterator[bytes]]],
    count: int,
    settings: PyramidSettings,
    travelling: Travelling,
) -> None:
    """Write `count` levels, from `stream_levels`, into one file, as `settings.format` says."""
    ome = settings.format == "ome-tiff"
    described: str | bytes = travelling.description
    if ome:
        from restain.slides.ome_xml import ome_xml  # with it comes all of urllib

        described = ome_xml(path, travelling)
    options = _tile_options(settings) | {"software": travelling.software, "iccprofile": travelling.icc_profile}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level, (width, height, tiles) in enumerate(levels):
            tiff.write(
                tiles,
                shape=(height, width, 3),
                subfiletype=0 if level == 0 else 1,
                subifds=count - 1 if ome and level == 0 else None,
                description=None if level else described,
                **_resolution(travelling.mpp, 2**level),
                **options,
            )
        for name, pixels in travelling.associated.items():
            # Strips, so that no reader takes them for a level of the pyramid.
            tiff.write(pixels, photometric="rgb", compression="deflate", description=name, metadata=None)


def _tile_options(settings: PyramidSettings) -> dict[str, Any]:
    """What tifffile must be told of tiles that `compress` has made."""
    options: dict[str, Any] = {"tile": (settings.tile, settings.tile), "dtype": np.uint8, "metadata": None}
    if settings.codec == "jpeg":
        # `outcolorspace` names what is in the tiles, `photometric` what they were made of. A wrong name opens in every
        # reader, in wrong colours.
        held = {"outcolorspace": "ycbcr" if settings.ycbcr else "rgb"}
        subsampling = SUBSAMPLINGS[settings.subsampling]
        return options | {
            "photometric": "rgb", "compression": "jpeg", "compressionargs": held, "subsampling": subsampling
        }  # fmt: skip
    compression = None if settings.codec == "none" else settings.codec
    return options | {"photometric": "rgb", "compression": compression, "predictor": settings.codec in PREDICTED}


def _resolution(mpp: tuple[float, float] | None, scale: int) -> dict[str, Any]:
    """Of a level; exactly its scale, since a last odd row or column of the level above is left out, not squeezed in."""
    if mpp is None:
        return {}
    return {
        "resolution": (10_000 / (mpp[0] * scale), 10_000 / (mpp[1] * scale)),
        "resolutionunit": "CENTIMETER",
    }
