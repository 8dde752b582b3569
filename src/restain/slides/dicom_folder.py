"""Folders of DICOM instances: which of them are one slide, found without a DICOM library."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

MOST_ELEMENTS = 100_000
"""Elements that may come before the series; more are no header of an image."""

_SERIES = (0x0020, 0x000E)
_ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_IMPLICIT = b"1.2.840.10008.1.2"
_LONG = frozenset([b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"])
"""Types of values whose length is written in four bytes, behind two unused ones."""
_UNKNOWN_LENGTH = 0xFFFFFFFF


def series_of(path: Path) -> str | None:
    """The SeriesInstanceUID (0020,000E) of a DICOM file; None where it is no DICOM file, or names none.

    Only that of the file itself: those of other series that it refers to lie in sequences, which are passed over. All
    whole-slide images are little endian.
    """
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return None
        depth, implicit = 0, False
        for _ in range(MOST_ELEMENTS):
            head = stream.read(8)
            if len(head) < 8:
                return None
            group, element, count = struct.unpack("<HHI", head)
            if depth == 0 and (group, element) > _SERIES:
                return None
            if group != 0xFFFE and not (implicit and group != 2):  # items have no type
                long = head[4:6] in _LONG
                count = int.from_bytes(stream.read(4) if long else head[6:8], "little")
            if (group, element) in (_ITEM_END, _SEQUENCE_END):
                depth -= 1
            elif count == _UNKNOWN_LENGTH:
                depth += 1
            elif depth == 0 and (group, element) in (_SERIES, (0x0002, 0x0010)):
                value = stream.read(min(count, 64)).rstrip(b"\0 ")
                if group != 2:
                    return value.decode("ascii", errors="replace")
                implicit = value == _IMPLICIT
            else:
                stream.seek(count, os.SEEK_CUR)
    return None


def instances(folder: Path) -> list[Path]:
    """The .dcm files of a folder, sorted; hidden ones are left out."""
    return sorted(
        path for path in folder.iterdir()
        if path.suffix.lower() == ".dcm" and not path.name.startswith(".") and path.is_file()
    )  # fmt: skip


def one_of_each_series(paths: Iterable[Path]) -> list[Path]:
    """`paths` with one file for each series of DICOM instances in a folder; other files stay as they are."""
    seen: set[tuple[Path, str]] = set()
    kept = []
    for path in paths:
        readable = path.suffix.lower() == ".dcm" and path.is_file() and os.access(path, os.R_OK)
        series = series_of(path) if readable else None
        if series is not None:
            if (path.parent, series) in seen:
                continue
            seen.add((path.parent, series))
        kept.append(path)
    return kept
