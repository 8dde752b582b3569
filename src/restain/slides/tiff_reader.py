"""Tiled or pyramidal TIFF that OpenSlide does not read: OME-TIFF with SubIFDs, other compressions, 16 bits, gray."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from restain.color.images import RGB8, as_rgb8, opaque
from restain.errors import SlideError
from restain.slides.claims import check_page, check_tile, encoded_size, is_tiff, jpeg_is_whole
from restain.slides.jpeg_tiles import decode_strictly, jpeg_header
from restain.slides.lzw import decode_lzw
from restain.slides.openslide_reader import written_objective_power
from restain.slides.reader import Mask, Piece, Slide, damaged
from restain.slides.shortage import is_shortage

_MICROMETRES = {1: None, 2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}  # TIFF's ResolutionUnit
_DIRECTORY = 1_000_000  # bytes; few have as many
_FOR_PILLOW = ("PALETTE", "SEPARATED", "MINISWHITE", "CIELAB", "MASK")  # colours that it converts


def open_tiff(path: Path) -> Slide | None:
    """Open with tifffile; None for what is not TIFF, `SlideError` for TIFF that cannot be read."""
    if not is_tiff(path):
        return None
    try:
        handle = tifffile.TiffFile(path)
    except Exception as error:  # tifffile raises many types on damaged files; each means the same here
        raise _damaged_header(error) from None
    try:
        if _for_pillow(handle.pages.first):
            handle.close()
            return None
        return TiffSlide(path, handle)
    except Exception as error:
        handle.close()
        raise error if isinstance(error, SlideError) else _damaged_header(error) from None


def _damaged_header(error: Exception) -> SlideError:
    if is_shortage(error, _DIRECTORY, bounded=False):
        raise MemoryError("out of memory while a TIFF was opened") from None
    if isinstance(error, tifffile.TiffFileError):
        return SlideError(f"tifffile: {error}")
    return SlideError(f"its directory is damaged (tifffile: {type(error).__name__}: {error})")


def _for_pillow(page: Any) -> bool:
    """Whether Pillow reads it better: 1 bit, or 8 bits of other colours, in planes, or in strips with alpha."""
    if page.dtype != np.uint8:
        return bool(page.dtype == np.bool_)
    alpha_in_strips = page.samplesperpixel == 4 and not page.is_tiled
    return bool(page.planarconfig != 1 or alpha_in_strips or page.photometric.name in _FOR_PILLOW)


LARGE_CHUNK = 4_000_000
"""Pixels of a tile or strip from which the last one decoded is kept."""


class TiffSlide(Slide):
    """A TIFF read tile by tile (or strip by strip) through tifffile."""

    def __init__(self, path: Path, handle: tifffile.TiffFile) -> None:
        super().__init__(path, "tiff")
        self._handle = handle
        self._lock, self._file_lock = threading.Lock(), threading.Lock()
        self._last: tuple[tuple[int, int], tuple[RGB8, Mask | None] | None] = ((-1, -1), None)
        if not handle.series:
            raise SlideError("the TIFF holds no image")
        self._pages = [_page(level) for level in handle.series[0].levels]
        first = self._pages[0]
        for page in self._pages:
            _check(page)
            check_page(path, page)
            _check_chunks(page)
            check_tile(page.chunks[1], page.chunks[0])
        images = 1 if handle.series[0].is_pyramidal else len(handle.series)
        images = max(images, len(handle.series[0].levels[0].pages))
        if images > 1:
            self._note(f"{path.name} has {images} images; only the first is used")
        if not first.is_tiled and len(self._pages) == 1:
            self.pyramidal = False
        self.level_dimensions = tuple((page.imagewidth, page.imagelength) for page in self._pages)
        width, height = self.level_dimensions[0]
        self.level_downsamples = tuple((width / w + height / h) / 2 for w, h in self.level_dimensions)
        self.tile_sizes = tuple((page.chunks[1], page.chunks[0]) for page in self._pages)
        self._believe_profile(first.iccprofile)
        description = first.description if isinstance(first.description, str) else ""
        self.properties = {"tiff.ImageDescription": description, "tiff.Software": str(first.software)}
        self._believe_power(_ome_power(handle) if handle.is_ome else written_objective_power(description))
        self._believe_mpp(*_resolution(first, handle))

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        page = self._pages[level]
        scale = self.level_downsamples[level]
        left, top = round(location[0] / scale), round(location[1] / scale)
        width, height = size
        out = np.full((height, width, 3), 255, np.uint8)
        known = np.zeros((height, width), np.bool_)
        tall, wide = page.chunks[0], page.chunks[1]
        across = -(-page.imagewidth // wide)
        for row in range(max(top, 0) // tall, -(-min(top + height, page.imagelength) // tall)):
            for column in range(max(left, 0) // wide, -(-min(left + width, page.imagewidth) // wide)):
                chunk = self._chunk(level, row * across + column)
                if chunk is None:
                    continue
                pixels, seen = chunk
                y, x = row * tall, column * wide
                bottom = min(y + pixels.shape[0], page.imagelength, top + height)
                right = min(x + pixels.shape[1], page.imagewidth, left + width)
                y0, x0 = max(y, top), max(x, left)
                if bottom <= y0 or right <= x0:
                    continue
                out[y0 - top : bottom - top, x0 - left : right - left] = pixels[y0 - y : bottom - y, x0 - x : right - x]
                known[y0 - top : bottom - top, x0 - left : right - left] = (
                    True if seen is None else seen[y0 - y : bottom - y, x0 - x : right - x]
                )
        return out, None if known.all() else known

    def close(self) -> None:
        self._handle.close()

    def _chunk(self, level: int, index: int) -> tuple[RGB8, Mask | None] | None:
        """One tile or strip, with where it is opaque; None where the file has none."""
        page = self._pages[level]
        if page.chunks[0] * page.chunks[1] < LARGE_CHUNK:
            return self._decode(level, index)
        with self._lock:  # a large strip serves many regions: decode it once, and one at a time
            if self._last[0] != (level, index):
                self._last = ((level, index), self._decode(level, index))
            return self._last[1]

    def _decode(self, level: int, index: int) -> tuple[RGB8, Mask | None] | None:
        page = self._pages[level]
        try:
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            if count == 0:
                return None
            with self._file_lock:
                self._handle.filehandle.seek(offset)
                data = self._handle.filehandle.read(count)
            if len(data) < count:  # some decoders would fill the rest with gray
                raise SlideError(f"{len(data)} of {count} bytes are there")
            claimed = encoded_size(data) or (0, 0)  # of which the decoder would make an array
            if claimed[0] > page.chunks[1] + 16 or claimed[1] > page.chunks[0] + 16:
                raise SlideError(f"what is encoded there claims {claimed[0]}x{claimed[1]} pixels")
            if not jpeg_is_whole(data):
                raise SlideError("its JPEG is not whole")
            if page.compression == tifffile.COMPRESSION.JPEG and page.samplesperpixel == 3 and page.dtype == np.uint8:
                header = jpeg_header(page.jpegtables, ycbcr=page.photometric == tifffile.PHOTOMETRIC.YCBCR)
                pixels = decode_strictly(data, header, (page.chunks[1], page.chunks[0]))
                if pixels is not None:
                    return pixels, None
            if page.compression == tifffile.COMPRESSION.LZW:
                decoded = decode_lzw(page, data, _rows(page, index))
            else:
                decoded = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0][0]
            return as_rgb8(decoded), opaque(decoded)
        except Exception as error:  # codecs raise many types
            wide, tall = self.tile_sizes[level] or (1, 1)
            # tifffile says how large a result may be. What decodes images takes their size from the stream, by NumPy.
            if is_shortage(error, wide * tall * page.samplesperpixel * page.dtype.itemsize):
                raise MemoryError(f"out of memory while a tile of {self.path.name} was decoded") from None
            row, column = divmod(index, -(-page.imagewidth // wide))
            scale = self.level_downsamples[level]
            place = (round(column * wide * scale), round(row * tall * scale))
            raise SlideError(damaged(self.path.name, Piece(place, (wide, tall), place), level, error)) from None


def _rows(page: Any, index: int) -> int:
    """How many rows a tile or strip holds; the last strip ends with the image."""
    tall: int = page.chunks[0]
    return tall if page.is_tiled else min(tall, page.imagelength - index * tall)


def _page(level: Any) -> Any:
    page = level.pages[0]
    return page.aspage() if hasattr(page, "aspage") else page


def _check(page: Any) -> None:
    wanted = "8 or 16 bits, gray or RGB, contiguous"
    if page.photometric.name not in ("RGB", "YCBCR", "MINISBLACK"):
        raise SlideError(f"the TIFF is {page.photometric.name}; wanted {wanted}")
    if page.dtype not in (np.uint8, np.uint16) or page.planarconfig != 1 or page.samplesperpixel not in (1, 3, 4):
        raise SlideError(
            f"the TIFF has {page.samplesperpixel} samples of {page.dtype}, planar {page.planarconfig}; wanted {wanted}"
        )
    if min(page.chunks[:2], default=0) < 1 or min(page.imagewidth, page.imagelength) < 1:
        raise SlideError(f"the TIFF has {page.imagewidth}x{page.imagelength} pixels in tiles of {page.chunks}")
    if page.imagedepth != 1:
        raise SlideError(f"the TIFF is a volume of depth {page.imagedepth}; wanted {wanted}")


def _check_chunks(page: Any) -> None:
    wanted = math.ceil(page.imagelength / page.chunks[0]) * math.ceil(page.imagewidth / page.chunks[1])
    listed = min(len(page.dataoffsets), len(page.databytecounts))
    if listed < wanted:
        raise SlideError(f"the TIFF lists {listed} of its {wanted} tiles or strips; it is damaged")


def _ome_power(handle: tifffile.TiffFile) -> float | None:
    """The nominal magnification of the first objective in OME-XML."""
    try:
        instrument = _first(tifffile.xml2dict(handle.ome_metadata or "")["OME"]["Instrument"])
        return float(_first(instrument["Objective"])["NominalMagnification"])
    except (KeyError, TypeError, ValueError, SyntaxError):  # absent, or no number; XML's ParseError is the last
        return None


def _first(item: Any) -> Any:
    """`xml2dict` makes a list of what occurs more than once."""
    return item[0] if isinstance(item, list) else item


def _resolution(page: Any, handle: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """Micrometres per pixel from OME-XML or else the resolution tags; None where unknown."""
    if handle.is_ome and handle.ome_metadata:
        try:
            pixels = _first(tifffile.xml2dict(handle.ome_metadata)["OME"]["Image"])["Pixels"]
            if pixels.get("PhysicalSizeXUnit", "µm") == "µm":
                return float(pixels["PhysicalSizeX"]), float(pixels["PhysicalSizeY"])
        except (KeyError, TypeError, ValueError):  # absent or not a number: the tags may know
            pass
    unit = _MICROMETRES.get(int(page.tags.valueof("ResolutionUnit", default=2)))
    x, y = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))
    # 72 and 96 dots an inch are what image programs write when nobody measured anything.
    if (
        unit is None
        or not x
        or not y
        or not (x[0] and x[1] and y[0] and y[1])
        or (unit == 25_400.0 and x[0] / x[1] in (1, 72, 96))
    ):
        return None, None
    return unit * x[1] / x[0], unit * y[1] / y[0]
