"""A colour map as a .cube file (Iridas, Adobe, DaVinci Resolve), for programs that know nothing of restain.

DaVinci Resolve, OBS, ffmpeg (`-vf lut3d=he.cube`) and plugins of Photoshop, GIMP and ImageJ apply such files. A cube
holds the colours of a coarse grid and leaves those between to the program, so unlike a `ColorMap` it is approximate.

Format: Adobe Systems, Cube LUT Specification 1.0 (2013).
"""

import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from restain.color.colormap import ColorMap
from restain.color.trilinear import grid_colors, interpolate
from restain.errors import FormatError, InputError, OutputError
from restain.files import write_atomically

SIZES = range(2, 130)
"""Grid points a channel, written and read: two make the smallest grid, 129 is the most that OpenColorIO reads."""

MOST_BYTES = 256 << 20
"""Largest file that is opened: 129³ lines take 60 MB as they are usually written."""

_LARGEST = 1000.0  # of a file's numbers, where 1 is white
_ROWS = 1 << 16  # lines that are turned into numbers at a time
_LONGEST_TITLE = 200  # characters: the specification's own reader refuses a first line of more than 250 bytes


def save_cube(
    color_map: ColorMap,
    path: str | os.PathLike[str],
    size: int = 33,
    *,
    title: str = "restain",
    overwrite: bool = True,
) -> None:
    """Write a colour map as a .cube file of `size`³ grid points.

    The file maps sRGB values as they stand in images, full range 0..1, without linearisation: apply it with the
    program's colour management off, or in sRGB.

    How far an 8-bit image mapped through the file (trilinear, rounded at the end) is from the exact map, in grey
    levels of a channel; maps of a synthetic H&E image to the shipped profile "he", each colour counted once:

    ========= ==== =============== =============== =============== ===============
    map       size tissue, mean    tissue, largest all, mean       all, largest
    ========= ==== =============== =============== =============== ===============
    reinhard  33   0.08            1               0.14            9
    reinhard  65   0.06            1               0.07            5
    macenko   33   0.22            6               0.45            37
    macenko   65   0.11            3               0.17            23
    histogram 33   1.58            6               0.96            7
    histogram 65   1.07            4               0.58            5
    ========= ==== =============== =============== =============== ===============

    Differences are largest where a map bends within one step of the grid, 8 levels for 33: where results clip, and,
    for methods that work on optical density, at colours with a channel near 0, which tissue hardly has. The curves of
    histogram matching are made of steps. For exact bytes use the `ColorMap` itself.

    Args:
        color_map: the map; a lazy one is compiled.
        path: where to write, ending in .cube.
        size: grid points a channel, 2..129; the file has about 27·size³ bytes (1 MB for 33, 7 MB for 65).
        title: what programs show, printable ASCII without double quotes.
        overwrite: whether a file of this name may be replaced.

    Raises:
        InputError: a size or title that the format does not allow.
        OutputError: another suffix, the file exists and `overwrite` is false, or it cannot be written.
    """
    size, title, path = _checked_size(size), _checked_title(title), Path(path)
    if path.suffix.lower() != ".cube":
        raise OutputError(f"{path} does not end in .cube; other programs know the format by its name")
    write_atomically(path, lambda stream: _write(stream, color_map.table, size, title), overwrite=overwrite)


def load_cube(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Read a 3D table from a .cube file, of any program.

    Where the file's domain is not 0..1 the table is interpolated at the points of a grid that is, of as many points:
    exact there, approximate between. Colours outside the domain become what its nearest edge does.

    Args:
        path: a .cube file with LUT_3D_SIZE; comments, blank lines and any ends of lines are fine.

    Returns:
        (size, size, size, 3) levels, 0..255 and beyond where the file's values are beyond 0..1; indexed by red, green
        and blue, of which point i is the level 255·i/(size−1). For `restain.Lattice`.

    Raises:
        FormatError: the file is missing, damaged, too large, or holds something else (a 1D table, ranges of video).
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path} is not a file; wanted a .cube file")
    if (length := path.stat().st_size) > MOST_BYTES:
        raise FormatError(f"{path} has {length >> 20} MiB; a .cube file has at most {MOST_BYTES >> 20}")
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from None
    lines = re.split("\r\n|\r|\n", text)
    rows = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    start = next((i for i, row in enumerate(rows) if not row[0].isalpha()), len(rows))
    try:
        size, low, high = _read_header(rows[:start])
        values = _read_numbers(rows[start:], size)
    except ValueError as error:
        raise FormatError(f"{path} is damaged or no .cube file: {error}") from None
    levels = np.ascontiguousarray(values.reshape(size, size, size, 3).transpose(2, 1, 0, 3)) * 255.0
    if (low == 0).all() and (high == 1).all():
        return levels
    places = (grid_colors(size) / 255.0 - low) / (high - low) * 255.0
    return np.concatenate([interpolate(levels, plane) for plane in np.split(places, size)]).reshape(levels.shape)


def sample_grid(table: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """The map at regular grid points, by trilinear interpolation of its table.

    Grid point i of a channel is the level 255·i/(size−1), which is mostly not whole.

    Args:
        table: (256, 256, 256, 3) uint8, indexed by red, green and blue.
        size: grid points a channel, 2 or more.

    Returns:
        (size, size, size, 3) levels 0..255, indexed by blue, green and red: the order of a .cube file.
    """
    # In whole numbers as long as possible, so that grid points on whole levels get the table's values exactly.
    scaled = np.arange(size) * 255
    low = np.minimum(scaled // (size - 1), 254)
    share = (scaled - low * (size - 1)) / (size - 1)

    def interpolate(values: NDArray[Any], axis: int) -> NDArray[np.float64]:
        weight = share.reshape([-1 if dimension == axis else 1 for dimension in range(values.ndim)])
        mixed: NDArray[np.float64] = values.take(low, axis) * (1 - weight) + values.take(low + 1, axis) * weight
        return mixed

    grid = np.empty((size, size, size, 3))
    for red in range(size):  # a plane at a time: the table as floats would take 400 MB
        plane = table[low[red]] * (1 - share[red]) + table[low[red] + 1] * share[red]
        grid[:, :, red] = interpolate(interpolate(plane, 0), 1).swapaxes(0, 1)
    return grid


def _write(stream: BinaryIO, table: NDArray[np.uint8], size: int, title: str) -> None:
    header = f'TITLE "{title}"\nLUT_3D_SIZE {size}\nDOMAIN_MIN 0.0 0.0 0.0\nDOMAIN_MAX 1.0 1.0 1.0\n'
    stream.write(header.encode("ascii"))
    lines = "%.6f %.6f %.6f\n" * size**2  # one format for a whole plane is several times as fast as one a line
    for plane in sample_grid(table, size) / 255.0:
        stream.write((lines % tuple(plane.ravel().tolist())).encode("ascii"))


def _read_header(rows: Sequence[str]) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """The size and the domain's ends, (3,) each; `ValueError` for anything that would change what the numbers mean."""
    found: dict[str, list[str]] = {}
    for row in rows:
        word, *rest = row.split()
        if word in found:
            raise ValueError(f"it has two lines {_shown(word)}")
        found[word] = rest
    if "LUT_1D_SIZE" in found or "LUT_3D_SIZE" not in found:
        raise ValueError("wanted LUT_3D_SIZE, and no 1D table")
    ends = {"DOMAIN_MIN": np.zeros(3), "DOMAIN_MAX": np.ones(3)}
    if "LUT_3D_INPUT_RANGE" in found:  # DaVinci Resolve's
        both = _read_numbers([" ".join(found["LUT_3D_INPUT_RANGE"])], columns=2)[0]
        ends = dict(zip(ends, (np.full(3, end) for end in both), strict=True))
    ends |= {word: _read_numbers([" ".join(found[word])])[0] for word in ends if word in found}
    known = {"TITLE", "LUT_3D_SIZE", "LUT_3D_INPUT_RANGE", *ends}
    if unknown := sorted(set(found) - known):
        raise ValueError(f"a line {_shown(unknown[0])} is not known")
    number = " ".join(found["LUT_3D_SIZE"])
    if not re.fullmatch("[0-9]{1,3}", number) or int(number) not in SIZES:
        raise ValueError(f"LUT_3D_SIZE is {_shown(number)}; wanted {SIZES[0]}..{SIZES[-1]}")
    low, high = ends["DOMAIN_MIN"], ends["DOMAIN_MAX"]
    if not (low < high).all():
        raise ValueError(f"its domain ends at {high.tolist()}, and begins at {low.tolist()}")
    return int(number), low, high


def _read_numbers(rows: Sequence[str], size: int | None = None, columns: int = 3) -> NDArray[np.float64]:
    """Finite numbers, `columns` a row, in `size`³ rows where that is given: (rows, columns)."""
    if size is not None and len(rows) != size**3:
        raise ValueError(f"it has {len(rows):,} lines of numbers; wanted {size}³ = {size**3:,}")
    values = np.empty((len(rows), columns))
    for start in range(0, len(rows), _ROWS):
        words = [row.split() for row in rows[start : start + _ROWS]]
        odd = next((row for row in words if len(row) != columns), None)
        if odd is not None:
            raise ValueError(f"a line {_shown(' '.join(odd))!r} has {len(odd)} words; wanted {columns} numbers")
        try:
            values[start : start + _ROWS] = np.array(words, np.float64)
        except ValueError:
            raise ValueError("a line of numbers holds something else") from None
    if not (np.abs(values) <= _LARGEST).all():  # NaN fails too
        raise ValueError(f"a number is not finite, or beyond ±{_LARGEST:.0f}")
    return values


def _shown(text: str) -> str:
    """Text from a file, short and without characters that move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:40])


def _checked_size(size: Any) -> int:
    wanted = f"a whole number in {SIZES[0]}..{SIZES[-1]}, usually 33 or 65"
    if isinstance(size, bool | np.bool_):
        raise InputError(f"got size={size!r}; wanted {wanted}")
    try:
        number = operator.index(size)
    except TypeError:
        raise InputError(f"got size={size!r}; wanted {wanted}") from None
    if number not in SIZES:
        raise InputError(f"got size={number}; wanted {wanted}")
    return number


def _checked_title(title: Any) -> str:
    if not isinstance(title, str) or not (title.isascii() and title.isprintable()) or '"' in title:
        raise InputError(f"got title={title!r}; wanted printable ASCII text without double quotes")
    if len(title) > _LONGEST_TITLE:
        raise InputError(f"got a title of {len(title)} characters; wanted {_LONGEST_TITLE} or fewer")
    return title
