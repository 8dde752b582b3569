"""JPEG tiles read straight from a TIFF: no RGBA, no library's lock, every thread decodes its own.

OpenSlide hands out premultiplied ARGB, which costs a pass over all pixels to make and another to undo, and decodes
within one call at a time what one asks of it. Where a level is nothing but a grid of JPEG tiles, its pixels can be had
by decoding those; the decoder is libjpeg-turbo in both cases, so they are the same. It is called through simplejpeg,
which tells what libjpeg warns of: imagecodecs and Pillow make pixels of most damaged streams without a word.

Memory bound
------------
Tiles of which a request took only a part are kept for the next one, up to a row of the level, at least 16 MiB and at
most 256 MiB in all: that lets a pass over the slide in reading order decode every tile once.
"""

import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.slides.claims import encoded_size, jpeg_has_one_scan, jpeg_is_whole
from restain.slides.reader import JpegPiece, Piece, damaged

LEAST_KEPT, MOST_KEPT = 16 << 20, 256 << 20
_HEADER = 1024  # bytes, at most, of a stream's own tables
_ADOBE = b"\xff\xee\x00\x0eAdobe"
_TRANSFORM = 15  # of Adobe's segment, the byte that says whether colours are YCbCr


def open_jpeg_tiles(path: Path, sizes: tuple[tuple[int, int], ...]) -> "JpegTiles | None":
    """The tiles of a TIFF whose level 0 is nothing but JPEG tiles, else None; `sizes` as `JpegTiles` takes them."""
    try:
        tiles = JpegTiles(path, sizes)
    except (OSError, ValueError, tifffile.TiffFileError):  # what is wrong with the file, its other reader says
        return None
    if tiles.levels[0] is not None:
        return tiles
    tiles.close()
    return None


def jpeg_header(tables: bytes | None, *, ycbcr: bool) -> bytes:
    """What a TIFF knows of its JPEG streams, as the start of a stream: their colours (Adobe's APP14) and tables."""
    adobe = _ADOBE + b"\x00\x64\x00\x00\x00\x00" + bytes([ycbcr])
    return b"\xff\xd8" + adobe + (tables[2:-2] if tables else b"")


def contradicts(data: bytes, *, ycbcr: bool) -> bool:
    """Whether a stream says by a marker of its own that it holds other colours than its TIFF says."""
    adobe = data.find(_ADOBE, 0, 256)
    said = ycbcr if adobe < 0 else data[adobe + _TRANSFORM : adobe + _TRANSFORM + 1] == b"\x01"
    return said != ycbcr or (b"JFIF" in data[:32] and not ycbcr)


def decode_strictly(data: bytes, header: bytes, size: tuple[int, int], out: RGB8 | None = None) -> RGB8 | None:
    """Decode a TIFF's JPEG stream.

    Args:
        data: the stream.
        header: from `jpeg_header`.
        size: (width, height) that it should have.
        out: a contiguous array (height, width, 3) to write to.

    Returns:
        RGB, in `out` where that is given; None where the stream has another size or says of its own that it holds
        other colours.

    Raises:
        ValueError: it is damaged, which includes all that libjpeg warns of. MemoryError: there is too little memory.
    """
    if encoded_size(data) != size or contradicts(data, ycbcr=bool(header[2 + _TRANSFORM])):
        return None
    try:
        pixels: RGB8 = simplejpeg.decode_jpeg(header + data[2:], colorspace="RGB", buffer=out, strict=True)
    except ValueError as error:
        if "Insufficient memory" in str(error):  # libjpeg's words, and the size that the stream claims is true
            raise MemoryError("out of memory while a JPEG tile was decoded") from None
        raise
    return pixels if out is None else out


class JpegTiles:
    """The tiles of all levels of a TIFF that are nothing but JPEG; None in `levels` for the others.

    Args:
        path: the TIFF.
        sizes: (width, height) of each level, as another reader has them: a level is found by its size.
    """

    def __init__(self, path: Path, sizes: tuple[tuple[int, int], ...]) -> None:
        self._path = path
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
            self.levels = tuple(_grid(pages, size, first=index == 0) for index, size in enumerate(sizes))
        self._file: _Descriptor | None = _Descriptor(path)
        row = max((grid.columns * grid.side[0] * grid.side[1] * 3 for grid in self.levels if grid), default=0)
        self._budget = min(max(row, LEAST_KEPT), MOST_KEPT)
        self._kept: OrderedDict[tuple[int, int], RGB8] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._local = threading.local()

    def read(self, level: int, left: int, top: int, width: int, height: int, out: RGB8 | None = None) -> RGB8 | None:
        """A rectangle in pixels of the level, (height, width, 3) uint8; None where this reader does not serve.

        It does not where the rectangle reaches beyond the level, where a tile is missing, or of another size than the
        TIFF says: what is to be done then is for the slide's first reader to say. `out` is a contiguous array to write
        to.

        Raises:
            SlideError: a tile is damaged, which includes all that libjpeg warns of.
        """
        grid = self.levels[level]
        if grid is None or left < 0 or top < 0 or left + width > grid.size[0] or top + height > grid.size[1]:
            return None
        wide, tall = grid.side
        if left % wide == 0 and top % tall == 0 and (width, height) == grid.side:
            return self._decode(grid, top // tall * grid.columns + left // wide, out)
        if out is None:
            out = np.empty((height, width, 3), np.uint8)
        for row in range(top // tall, -(-(top + height) // tall)):
            for column in range(left // wide, -(-(left + width) // wide)):
                x, y = column * wide, row * tall
                x0, x1 = max(x, left), min(x + wide, left + width, grid.size[0])
                y0, y1 = max(y, top), min(y + tall, top + height, grid.size[1])
                whole = x1 - x0 == min(wide, grid.size[0] - x) and y1 - y0 == min(tall, grid.size[1] - y)
                pixels = self._tile(level, row * grid.columns + column, keep=not whole)
                if pixels is None:
                    return None
                out[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0 - y : y1 - y, x0 - x : x1 - x]
        return out

    def pieces(
        self, level: int, left: int, top: int, width: int, height: int, longest: float
    ) -> list[JpegPiece] | None:
        """The streams of a rectangle, in pixels of the level, if none has more than `longest` bytes a pixel.

        None, too, if one is missing, cut, or contradicts its TIFF.
        """
        grid = self.levels[level]
        if grid is None or left < 0 or top < 0 or left + width > grid.size[0] or top + height > grid.size[1]:
            return None
        (wide, tall), found = grid.side, []
        for row in range(top // tall, -(-(top + height) // tall)):
            for column in range(left // wide, -(-(left + width) // wide)):
                offset, count = grid.places[row * grid.columns + column]
                if not 0 < count <= longest * wide * tall + _HEADER:
                    return None
                data = self._bytes_at(offset, count)
                if len(data) < count or contradicts(data, ycbcr=grid.ycbcr):
                    return None
                x, y = column * wide, row * tall
                window = (max(left - x, 0), max(top - y, 0), min(left + width - x, wide), min(top + height - y, tall))
                place = (x + window[0] - left, y + window[1] - top)
                found.append(JpegPiece(data, grid.tables, grid.ycbcr, grid.side, window, place))
        return found

    def close(self) -> None:
        """Let go of the file, which is closed when no other thread is reading it any more."""
        self._file = None

    def _tile(self, level: int, index: int, *, keep: bool) -> RGB8 | None:
        """A decoded tile; one of which more will be asked is kept."""
        key = (level, index)
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        grid = self.levels[level]
        pixels = None if grid is None else self._decode(grid, index, None if keep else self._scratch(grid))
        if pixels is not None and keep:
            with self._lock:
                if key not in self._kept:
                    self._kept[key] = pixels
                    self._bytes += pixels.nbytes
                while self._bytes > self._budget:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels

    def _scratch(self, grid: "_Grid") -> RGB8:
        """An array for one tile that is copied from at once; each thread has its own."""
        shape = (grid.side[1], grid.side[0], 3)
        scratch: RGB8 | None = getattr(self._local, "scratch", None)
        if scratch is None or scratch.shape != shape:
            scratch = self._local.scratch = np.empty(shape, np.uint8)
        return scratch

    def _decode(self, grid: "_Grid", index: int, out: RGB8 | None) -> RGB8 | None:
        offset, count = grid.places[index]
        if count == 0:
            return None
        data = self._bytes_at(offset, count)
        if len(data) < count or not (jpeg_has_one_scan(data) or jpeg_is_whole(data)):
            raise SlideError(self._damaged(grid, index, "its JPEG is not whole"))
        try:
            return decode_strictly(data, grid.header, grid.side, out)
        except ValueError as error:
            raise SlideError(self._damaged(grid, index, str(error))) from None

    def _damaged(self, grid: "_Grid", index: int, reason: str) -> str:
        level = self.levels.index(grid)
        whole = self.levels[0]
        scale = 1.0 if whole is None else whole.size[0] / grid.size[0]
        row, column = divmod(index, grid.columns)
        place = (round(column * grid.side[0] * scale), round(row * grid.side[1] * scale))
        return damaged(self._path.name, Piece(place, grid.side, place), level, reason)

    def _bytes_at(self, offset: int, count: int) -> bytes:
        file = self._file
        if file is None:
            raise SlideError(f"{self._path.name} was closed")
        count = max(min(count, file.size - offset), 0)  # a damaged list of tiles can claim any number
        offset = min(offset, file.size)
        if hasattr(os, "pread"):
            return os.pread(file.number, count, offset)
        with self._lock:  # where a file has but one position
            os.lseek(file.number, offset, os.SEEK_SET)
            return os.read(file.number, count)


class _Descriptor:
    """A file that is open for as long as someone holds on to it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self.number).st_size

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _Grid:
    """Where the tiles of a level are, and how they were encoded."""

    def __init__(self, page: tifffile.TiffPage) -> None:
        self.size = (page.imagewidth, page.imagelength)
        self.side = (page.tilewidth, page.tilelength)
        self.columns = -(-page.imagewidth // page.tilewidth)
        self.places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        self.ycbcr = page.photometric == tifffile.PHOTOMETRIC.YCBCR
        self.tables = page.jpegtables[2:-2] if page.jpegtables else b""
        self.header = jpeg_header(page.jpegtables, ycbcr=self.ycbcr)


def _grid(pages: list[tifffile.TiffPage], size: tuple[int, int], *, first: bool) -> _Grid | None:
    """The grid of the one page of this size, if it is nothing but JPEG tiles of three channels."""
    found = [page for page in pages if (page.imagewidth, page.imagelength) == size and page.is_tiled]
    if len(found) != 1 or (first and found[0] is not pages[0]):
        return None
    page = found[0]
    plain = (
        page.compression == tifffile.COMPRESSION.JPEG
        and page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
        and page.bitspersample == 8
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and page.imagedepth == 1
    )
    if not plain:
        return None
    grid = _Grid(page)
    rows = -(-page.imagelength // page.tilelength)
    return grid if len(grid.places) == grid.columns * rows else None
