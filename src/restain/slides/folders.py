"""Outputs that are folders (OME-Zarr, DICOM): written whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restain.errors import OutputError, RestainError
from restain.files import current_umask, part_beside, refuse_overwrite, shortened, sync_folder
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
    return len({series_of(item) for item in found}) == 1 and series_of(found[0]) is not None


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is one slide: an OME-Zarr, or all instances of a DICOM slide."""
    return path.is_dir() and (is_zarr(path) or is_dicom(path))


def is_folder(path: Path) -> bool:
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
    """Raise `OutputError` if `path`, whose name says whether it is a file or a folder, may not be written."""
    format = pyramid_format(path)
    if format is None or not FORMATS[format].folder:
        refuse_overwrite(path, overwrite)
    elif path.is_dir() and not is_slide_folder(path) and any(path.iterdir()):
        raise OutputError(f"{path} is a folder with other things in it; name another output")
    elif path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass overwrite=True (--overwrite) to replace it, or name another output")


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success all of it is synced to disk and renamed to `path`.

    A killed process leaves at most a hidden `.NAME.*.part` folder, never a partial `path`; the next run that writes
    this output removes it. A folder cannot be swapped for another in one step everywhere: when one is replaced, there
    is a moment in which the old one has a hidden name and the new one none yet.

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
            _rename(temporary, path, f".{shortened(path.name)}.")
            sync_folder(path.parent)
        except OSError as error:
            # Errors of reading the source pass through: they are restain's own, or name another file.
            name = error.filename
            ours = name is None or str(name) == str(path) or str(name).startswith(str(temporary))
            if isinstance(error, RestainError) or not ours:
                raise
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _rename(temporary: Path, path: Path, prefix: str) -> None:
    old = None
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=prefix, suffix=".old.part", dir=path.parent)) / path.name
        os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        if old is not None:
            os.rename(old, path)
        raise
    finally:
        if old is not None:
            shutil.rmtree(old.parent)


def _sync(folder: Path) -> None:
    """Force every file of a folder to disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb+") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(place))
