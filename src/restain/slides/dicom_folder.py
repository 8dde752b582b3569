"""Folders of DICOM instances: which of them are one slide, found without a DICOM library."""

import os
from collections.abc import Iterable
from pathlib import Path

HEAD = 65_536
"""Bytes in which a whole-slide instance names its series; what may be longer (optics, pixels) comes behind."""

_SERIES = b"\x20\x00\x0e\x00"
"""The tag of SeriesInstanceUID, (0020,000E), in little endian as all whole-slide images are."""


def series_of(path: Path) -> str | None:
    """The SeriesInstanceUID of a DICOM file; None where it is no DICOM file, or names none."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if head[128:132] != b"DICM":
        return None
    for explicit in (b"UI", b""):  # with its type and two bytes of length, or without and four
        place = head.find(_SERIES + explicit)
        if place >= 0:
            start = place + 8
            count = int.from_bytes(head[start - 2 : start] if explicit else head[start - 4 : start], "little")
            return head[start : start + count].rstrip(b"\0 ").decode("ascii", errors="replace")
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
