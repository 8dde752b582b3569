"""Pairs of pictures of the same tissue: files of one name in two folders, or the rows of a csv.

A csv has a header and, in any order,

- `source` and `target`: files, in the two folders unless they are absolute; or `tile` alone: the name, without
  extension, that a file has in both;
- optionally `name` (what the outputs are called; the source's name by default), `slide` and `patient` (for splits);
- optionally `dy` and `dx`, a shift that is known already: the source's pixel (y, x) shows what the target shows at
  (y − dy, x − dx).

Other columns are let be.
"""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from restain.errors import InputError
from restain.files import write_atomically
from restain.references import find_files
from restain.slides.batch import is_image


@dataclass(frozen=True)
class Pair:
    """Two pictures of one piece of tissue; nothing of them has been read."""

    name: str
    """What the pair is called: a relative path without extension, with `/` between folders; unique in a list."""
    source: Path
    target: Path
    slide: str | None = None
    patient: str | None = None
    shift: tuple[float, float] | None = None
    """(x, y) pixels from where something is in the source to where it is in the target; None where unknown."""


def pair_folders(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, without: Path | None = None
) -> tuple[list[Pair], list[Path]]:
    """Pair the images of two folders by their names, whatever their extensions; subfolders correspond.

    Args:
        source: folder of sources, searched through.
        target: folder of targets.
        without: a folder to leave out, such as that of earlier outputs.

    Returns:
        Pairs by name, and the images that have no partner.

    Raises:
        InputError: one is no folder, two images of a folder differ by extension only, or no name is in both.
    """
    first, second = _by_name(Path(source), without), _by_name(Path(target), without)
    pairs = [Pair(name, path, second[name]) for name, path in first.items() if name in second]
    if not pairs:
        raise InputError(
            f"no image of {source} ({len(first)}) has the name of one in {target} ({len(second)}); "
            "name the pairs in a csv with the columns source,target"
        )
    alone = [path for name, path in (first | second).items() if (name in first) != (name in second)]
    return pairs, alone


def single_images(folder: str | os.PathLike[str], *, without: Path | None = None) -> list[Pair]:
    """The images of a folder without partners, each paired with itself, named as `pair_folders` names pairs.

    Args:
        folder: searched through.
        without: a folder to leave out, such as that of earlier outputs.

    Raises:
        InputError: it is no folder, holds no images, or two of them differ by extension only.
    """
    pairs = [Pair(name, path, path) for name, path in _by_name(Path(folder), without).items()]
    if not pairs:
        raise InputError(f"{folder} holds no images")
    return pairs


def read_pairs(
    table: str | os.PathLike[str], source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> list[Pair]:
    """The pairs that a csv names; this module's first lines say which columns it has.

    Args:
        table: the csv, UTF-8.
        source: folder that its sources are in.
        target: folder that its targets are in.

    Raises:
        InputError: the csv cannot be read, lacks columns, has no rows, or one of its rows is wrong; names the line.
    """
    table, source, target = Path(table), Path(source), Path(target)
    try:
        text = table.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
        columns = set(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a csv of pairs ({error})") from None
    if not {"source", "target"} <= columns and "tile" not in columns:
        found = ", ".join(sorted(map(str, columns))) or "nothing"
        raise InputError(f"{table} has the columns {found}; wanted source and target, or tile")
    if not rows:
        raise InputError(f"{table} has no rows")
    by_name = {} if {"source", "target"} <= columns else {folder: _by_name(folder, None) for folder in (source, target)}
    pairs = []
    for line, row in rows:
        try:
            pairs.append(_pair(row, source, target, by_name))
        except ValueError as error:
            raise InputError(f"{table}, line {line}: {error}") from None
    _check_names(pairs, str(table))
    return pairs


def write_pairs(path: str | os.PathLike[str], pairs: Iterable[Pair], *, overwrite: bool = False) -> None:
    """Write pairs, whose paths become absolute, as a csv that `read_pairs` and `restain register` take."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", "source", "target", "slide", "patient", "dy", "dx"])
    for pair in pairs:
        shift = ("", "") if pair.shift is None else (-pair.shift[1], -pair.shift[0])
        files = [os.fspath(file.absolute()) for file in (pair.source, pair.target)]
        writer.writerow([pair.name, *files, pair.slide or "", pair.patient or "", *shift])
    data = stream.getvalue().encode()
    write_atomically(path, lambda out: out.write(data), overwrite=overwrite)


def _by_name(folder: Path, without: Path | None) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; wanted a folder of images")
    found: dict[str, Path] = {}
    for path in find_files(folder):
        if not is_image(path) or (without is not None and path.resolve().is_relative_to(without.resolve())):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise InputError(f"{found[name]} and {path} have one name; keep one of them, or name the pairs in a csv")
        found[name] = path
    return found


def _pair(
    row: Mapping[str, str | None], source: Path, target: Path, by_name: Mapping[Path, Mapping[str, Path]]
) -> Pair:
    cells = {name: (value or "").strip() for name, value in row.items() if isinstance(value, str | None)}
    tile = cells.get("tile", "")
    files = []
    for role, folder in (("source", source), ("target", target)):
        if not by_name:
            if not cells[role]:
                raise ValueError(f"the {role} is missing")
            files.append(folder / cells[role])
        else:
            if not tile:
                raise ValueError("the tile is missing")
            files.append(by_name[folder].get(tile, folder / tile))
    name = cells.get("name") or (tile if by_name else _name(files[0], source))
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"got the name {name!r}; wanted a relative path, as outputs are called so")
    return Pair(name, files[0], files[1], cells.get("slide") or None, cells.get("patient") or None, _shift(cells))


def _name(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)).with_suffix("").as_posix()


def _shift(cells: Mapping[str, str]) -> tuple[float, float] | None:
    dy, dx = cells.get("dy", ""), cells.get("dx", "")
    if not dy and not dx:
        return None
    try:
        x, y = -float(dx), -float(dy)
    except ValueError:
        raise ValueError(f"got dy={dy!r} and dx={dx!r}; wanted two numbers, pixels") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"got dy={dy!r} and dx={dx!r}; wanted finite numbers, pixels")
    return x, y


def _check_names(pairs: Sequence[Pair], where: str) -> None:
    seen: set[str] = set()
    for pair in pairs:
        if pair.name in seen:
            raise InputError(f"{where} has two pairs called {pair.name!r}; add a column name that tells them apart")
        seen.add(pair.name)
