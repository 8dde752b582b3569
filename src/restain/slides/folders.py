"""Outputs that are folders (OME-Zarr, DICOM): written whole or not at all."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from restain.errors import OutputError, RestainError
from restain.files import (
    check_before_naming,
    current_umask,
    part_beside,
    refuse_broken_link,
    refuse_overwrite,
    shortened,
    sync_folder,
)
from restain.slides.dicom_folder import instances, series_of
from restain.slides.formats import FORMATS, pyramid_format

ZARR_METADATA = ("zarr.json", ".zattrs", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Whether a folder has Zarr's metadata (version 2 or 3)."""
    return any((path / name).is_file() for name in ZARR_METADATA)


def is_dicom(path: Path) -> bool:
    """Whether a folder holds the instances of one DICOM slide and no other files.

    It does if they are of one series, and either several or in a folder that is named for it (.dcm, .dicom): a lone
    instance elsewhere is a file among others.
    """
    names = [item for item in path.iterdir() if not item.name.startswith(".") and item.name != "DICOMDIR"]
    found = instances(path)
    if not found or len(found) != len(names) or (len(found) == 1 and pyramid_format(path) != "dicom"):
        return False
    first = series_of(found[0])
    return first is not None and all(series_of(item) == first for item in found[1:])


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is one slide: an OME-Zarr, or all instances of a DICOM slide."""
    return path.is_dir() and (is_zarr(path) or is_dicom(path))


def is_output_folder(path: Path) -> bool:
    """Whether a path is a folder to put outputs into: no slide that is one, nor named like one."""
    return path.is_dir() and pyramid_format(path) is None and not is_slide_folder(path)


def checksum(path: Path) -> str:
    """The SHA-256 of a file, or of all files of a folder in the order of their names; hexadecimal."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    whole = hashlib.sha256()
    for item in sorted(item for item in path.rglob("*") if item.is_file()):
        whole.update(os.fsencode(f"{item.relative_to(path).as_posix()}\0{checksum(item)}\n"))
    return whole.hexdigest()


def refuse_output(path: Path, overwrite: bool) -> None:
    """Raise `OutputError` if `path`, whose name says whether it is a file or a folder, may not be written.

    A folder that a killed run had set aside, to replace it, gets its name back first.
    """
    format = pyramid_format(path)
    if format is None or not FORMATS[format].folder:
        refuse_overwrite(path, overwrite)
        return
    refuse_broken_link(path)
    try:
        _recover(path)
        other = _not_ours(path) if path.is_dir() else None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    if other is not None:
        raise OutputError(
            f"{path} is a folder with other things in it than a slide by restain ({other}); name another output"
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass overwrite=True (--overwrite) to replace it, or name another output")


def _not_ours(folder: Path) -> str | None:
    """Something in a folder that is lost if a slide replaces it, though restain did not write it; None if nothing is.

    Of OME-Zarr everything must have been written by restain. A DICOM slide may be another writer's, since its files say
    themselves that they are one slide, but nothing else may be there.
    """
    if not is_zarr(folder):
        found = instances(folder) if pyramid_format(folder) == "dicom" else []
        series = series_of(found[0]) if found else None
        return _first_other(folder, {item.name for item in found if series is not None and series_of(item) == series})
    try:
        ours = json.loads((folder / "zarr.json").read_bytes())["attributes"]["restain"]
        further = [str(name) for name in ours.get("associated", [])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "OME-Zarr that restain did not write"
    levels = [item.name for item in folder.iterdir() if item.name.isdecimal()]
    allowed = {folder: ["zarr.json", *levels, *(["associated"] if further else [])]}
    allowed |= {folder / level: ["zarr.json", "c"] for level in levels}
    if further:
        images = [folder / "associated" / name for name in further]
        allowed |= {folder / "associated": ["zarr.json", *further]}
        allowed |= {image: ["zarr.json", "0"] for image in images} | {
            image / "0": ["zarr.json", "c"] for image in images
        }
    others = (_first_other(place, names) for place, names in allowed.items() if place.is_dir())
    return next((item for item in others if item is not None), None)


def _first_other(folder: Path, names: Iterable[str]) -> str | None:
    """The first thing in a folder, hidden ones included, that has none of these names."""
    return min((item.name for item in folder.iterdir() if item.name not in set(names)), default=None)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success all of it is synced to disk and renamed to `path`.

    A killed process leaves at most a hidden `.NAME.*.part` folder, never a partial `path`; the next run that writes
    this output removes it. A folder cannot be swapped for another in one step everywhere: when one is replaced, there
    is a moment in which the old one has a hidden name (`.NAME.old.part`) and the new one none yet. Whoever is killed in
    that moment leaves it so, and the next run that writes this output gives the old one its name back.

    Raises:
        OutputError: `path` exists and may not be replaced, or its folder is missing, full or not writable.
    """
    refuse_output(path, overwrite)
    with part_beside(path, folder=True) as temporary:
        made = temporary.stat()
        try:
            yield temporary
            if not os.path.samestat(made, temporary.stat()):  # deleted meanwhile, and made anew for what came later
                raise OutputError(f"cannot write {path}: the folder in which it was being written was deleted")
            _sync(temporary)
            temporary.chmod(0o777 & ~current_umask())
            refuse_output(path, overwrite)
            check_before_naming()
            _rename(temporary, path, overwrite)
            sync_folder(path.parent)
        except OSError as error:
            # Errors of reading the source pass through: they are restain's own, or name another file.
            name = error.filename
            ours = name is None or str(name).startswith((str(path), str(temporary), str(_aside(path).parent)))
            if isinstance(error, RestainError) or not ours:
                raise
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _rename(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give a folder its name. What had that name is removed when the new one has it, and not before."""
    old = _aside(path)
    try:
        while True:
            if overwrite and os.path.lexists(path):
                _remove_aside(old)  # `path` is there: what lies aside was replaced long ago
                old.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # set aside by another process, which replaces it too
                    os.rename(path, old)
            try:
                os.rename(temporary, path)
                break
            except OSError as error:
                # Another process's has the name since, and is replaced in its turn: the last one to finish has it.
                if not overwrite or error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
    finally:
        _recover(path)


def _aside(path: Path) -> Path:
    """Where a folder waits while another takes its name: beside it, under its full name in a hidden folder."""
    return path.parent / f".{shortened(path.name)}.old.part" / path.name


def _recover(path: Path) -> None:
    """Give what was set aside its name back if nothing else has it; otherwise it was replaced, and is removed."""
    old = _aside(path)
    if not os.path.lexists(old):
        return
    if os.path.lexists(path):
        _remove_aside(old)
    else:
        with suppress(FileNotFoundError):  # another process was quicker
            os.rename(old, path)
    with suppress(OSError):  # it holds another output, whose name begins alike
        old.parent.rmdir()


def _remove_aside(old: Path) -> None:
    if old.is_symlink() or old.is_file():  # what a link leads to stays
        old.unlink(missing_ok=True)
    else:  # another process may be removing it as well; what is left has a hidden name, and goes the next time
        shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Force every file of a folder to disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb+") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(place))
