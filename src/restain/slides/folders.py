"""Outputs that are folders (OME-Zarr, DICOM): written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restain.errors import OutputError, RestainError
from restain.files import current_umask, refuse_overwrite, shortened, sync_folder
from restain.slides.formats import FORMATS, pyramid_format

ZARR_METADATA = ("zarr.json", ".zattrs", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Whether a folder has Zarr's metadata (version 2 or 3)."""
    return any((path / name).is_file() for name in ZARR_METADATA)


def is_dicom(path: Path) -> bool:
    """Whether a folder has DICOM instances, or an index of them."""
    return path.is_dir() and ((path / "DICOMDIR").exists() or any(path.glob("*.dcm")))


def is_slide_folder(path: Path) -> bool:
    """Whether a folder is one slide: an OME-Zarr, or a folder named .dcm or .dicom that holds DICOM."""
    return path.is_dir() and (is_zarr(path) or (pyramid_format(path) == "dicom" and is_dicom(path)))


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

    A killed process leaves at most a hidden `.NAME.*.part` folder, never a partial `path`. A folder cannot be swapped
    for another in one step everywhere: when one is replaced, there is a moment in which the old one has a hidden name
    and the new one none yet.

    Raises:
        OutputError: `path` exists and may not be replaced, or its folder is missing, full or not writable.
    """
    refuse_output(path, overwrite)
    prefix = f".{shortened(path.name)}."
    try:
        temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o777 & ~current_umask())
        refuse_output(path, overwrite)
        _rename(temporary, path, prefix)
        sync_folder(path.parent)
    except OSError as error:
        # Errors of reading the source pass through: they are restain's own, or name another file.
        name = error.filename
        ours = name is None or str(name) == str(path) or str(name).startswith(str(temporary))
        if isinstance(error, RestainError) or not ours:
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    if hasattr(os, "sync"):
        os.sync()  # all at once; what follows then has nothing to wait for, and reports what failed
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb+") as stream:
                os.fsync(stream.fileno())
        sync_folder(Path(place))
