"""What a file claims about its size, looked at before anything is allocated for it.

A few bytes can claim 10^18 pixels. Libraries believe them in different ways: some end the process when there is not
enough memory, others hand out white for days. What cannot be true is refused here, in one line.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from restain.errors import SlideError

MOST_PIXELS = 10**12
"""Of one level. The largest slides, glass and all, have a tenth of that."""

LARGEST_TILE = 2**28
"""Pixels of one tile or strip, which is decoded as a whole: 800 MB as RGB."""

LARGEST_ASSOCIATED = 2**26
"""Pixels of a label, macro or thumbnail, which is read as a whole: 270 MB as RGBA. They have one to ten millions."""

PIXELS_PER_BYTE = 1_000_000
"""A file holds at least a byte for so many pixels: a missing tile of 4096 by 4096 costs two numbers of 8 bytes."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_MOST_PAGES = 10_000


def is_tiff(path: Path) -> bool:
    """Whether a file begins like TIFF or BigTIFF."""
    with path.open("rb") as stream:
        return stream.read(4) in TIFF_MAGIC


def check_size(path: Path, width: int, height: int, *, one_file: bool = True) -> None:
    """Raise `SlideError` for more pixels than a slide can have, or than `path` can hold where it holds all of them."""
    bytes_there = path.stat().st_size if path.is_file() else 0
    if width * height > MOST_PIXELS:
        raise SlideError(f"it claims {width}x{height} pixels, more than any slide has; it is probably damaged")
    if one_file and width * height > PIXELS_PER_BYTE * bytes_there:
        raise SlideError(f"it claims {width}x{height} pixels, which {bytes_there} bytes cannot hold; it is damaged")


def check_tile(width: int, height: int) -> None:
    """Raise `SlideError` for tiles or strips that are too large to be decoded."""
    if width * height > LARGEST_TILE:
        raise SlideError(
            f"it claims tiles or strips of {width}x{height} pixels; restain reads up to {LARGEST_TILE} pixels at a "
            "time, save it in smaller tiles"
        )


def check_associated(name: str, path: Path, width: int, height: int) -> None:
    """Raise `SlideError` for a label, macro or thumbnail with more pixels than one can have."""
    if width * height > LARGEST_ASSOCIATED:
        raise SlideError(
            f"the {name} image of {path.name} claims {width}x{height} pixels; restain reads up to "
            f"{LARGEST_ASSOCIATED}, leave it out (--associated drop)"
        )


def check_tiff(path: Path) -> None:
    """Look at all directories of a TIFF; what is damaged so far that they cannot be read, its reader will say.

    Raises:
        SlideError: a directory claims what cannot be true, or one comes again and again.
    """
    offsets: set[int] = set()
    try:
        with tifffile.TiffFile(path) as handle:
            for page, _ in zip(handle.pages, range(_MOST_PAGES), strict=False):
                if page.offset in offsets:
                    raise SlideError("its list of images has no end: one of them points back to another; it is damaged")
                offsets.add(page.offset)
                check_page(path, page)
    except SlideError:
        raise
    except Exception:  # tifffile raises many types on damaged files
        return


def check_page(path: Path, page: Any) -> None:
    """Raise `SlideError` if one of tifffile's pages claims what cannot be true."""
    width, height = page.imagewidth, page.imagelength
    check_size(path, width, height)
    if page.is_tiled:
        check_tile(page.tilewidth, page.tilelength)
        wanted = math.ceil(width / max(page.tilewidth, 1)) * math.ceil(height / max(page.tilelength, 1))
        listed = min(len(page.dataoffsets), len(page.databytecounts))
        if listed < wanted:
            raise SlideError(
                f"it claims {width}x{height} pixels, and lists {listed} of its {wanted} tiles; it is damaged"
            )
    elif not page.is_ndpi:  # whose levels are one strip each, in which OpenSlide finds its way by restart markers
        check_tile(width, min(page.rowsperstrip or height, height))


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG or JPEG 2000 stream claims; None for other bytes, and where it does not say."""
    if data[:4] == b"\xff\x4f\xff\x51":  # a codestream with its SIZ segment (ITU-T T.800, A.5.1)
        right, bottom, left, top = (int.from_bytes(data[at : at + 4]) for at in range(8, 24, 4))
        return right - left, bottom - top
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header (ITU-T T.81, B.2.2)
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
    return None


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG stream has its end, and nothing but padding behind it; other bytes count as whole.

    Where the end is missing, or comes early, some decoders fill the rest with gray and say nothing.
    """
    if data[:2] != b"\xff\xd8":
        return True
    end = _jpeg_end(data)
    return end >= 0 and (end >= len(data) - 66 or not data[end + 2 :].strip(b"\0\xff"))


def jpeg_has_one_scan(data: bytes) -> bool:
    """Whether a JPEG stream is baseline and its first scan holds all components: its decoder misses what is missing.

    Where there are several scans, one that is lost only blurs the picture, and no decoder says so.
    """
    segments = dict(_jpeg_segments(data))
    frame, scan = segments.get(0xC0), segments.get(0xDA)
    return frame is not None and scan is not None and data[frame + 9] == data[scan + 4]


def _jpeg_end(data: bytes) -> int:
    """Where the end's marker is, behind the headers, which may hold a JPEG of their own; -1 where there is none."""
    scan = next((at for marker, at in _jpeg_segments(data) if marker == 0xDA), 0)
    # Within pixels a byte of 255 is followed by 0 or another marker. So many bytes are 255 that `find` would be slow.
    pixels = np.frombuffer(data, np.uint8, offset=scan)
    ends = (pixels[:-1] == 0xFF) & (pixels[1:] == 0xD9)
    first = int(ends.argmax()) if len(ends) else 0
    return scan + first if len(ends) and ends[first] else -1


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG stream and where they are, up to where the pixels of its first scan begin."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        yield marker, at
        if marker == 0xDA:
            return
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
