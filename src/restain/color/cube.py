"""A colour map as a .cube file (Iridas, Adobe, DaVinci Resolve), for programs that know nothing of restain.

DaVinci Resolve, OBS, ffmpeg (`-vf lut3d=he.cube`) and plugins of Photoshop, GIMP and ImageJ apply such files. A cube
holds the colours of a coarse grid and leaves those between to the program, so unlike a `ColorMap` it is approximate.

Format: Adobe Systems, Cube LUT Specification 1.0 (2013).
"""

import operator
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from restain.color.colormap import ColorMap
from restain.errors import InputError, OutputError
from restain.files import write_atomically

SIZES = range(2, 130)
"""Grid points a channel that can be written: two make the smallest grid, 129 is the most that OpenColorIO reads."""

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
