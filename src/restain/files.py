"""Small files: written whole or not at all, and arrays with their JSON in one safetensors file."""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from restain.errors import FormatError, OutputError, RestainError


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Raise `OutputError` if `path` exists and may not be replaced."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass overwrite=True (--overwrite) to replace it, or name another output")


@contextmanager
def atomic_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and renamed to `path`.

    A killed process leaves at most a hidden `.NAME.*.part` file, never a partial `path`. The name is checked again
    just before the rename, so that two writers of one output do not silently replace each other.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or its folder is missing or not writable.
    """
    path = Path(path)
    refuse_overwrite(path, overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{shortened(path.name)}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OutputError(f"cannot write in {path.parent}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~current_umask())
        if overwrite:
            os.replace(temporary, path)
        else:
            _rename_without_replacing(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        # Errors of reading the source pass through: they are restain's own, or name another file.
        if isinstance(error, RestainError) or error.filename not in (None, name, str(path)):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], object], *, overwrite: bool) -> None:
    """Call `write` with a binary stream whose contents become `path` in one step."""
    with atomic_output(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
        write(stream)


def save_arrays(
    path: str | os.PathLike[str],
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
    *,
    overwrite: bool = True,
) -> None:
    """Write arrays and JSON `facts` as one safetensors file of the given `kind`."""
    from safetensors.numpy import save

    metadata = {"restain": json.dumps({"kind": kind, **facts}, sort_keys=True)}
    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata=metadata)
    write_atomically(path, lambda stream: stream.write(data), overwrite=overwrite)


def load_arrays(path: str | os.PathLike[str]) -> tuple[str, dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `save_arrays` wrote.

    Returns:
        The kind, the arrays by name, and the facts.

    Raises:
        FormatError: the file is missing, damaged, or was not written by restain.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path} is not a file; wanted a .safetensors file saved by restain")
    try:
        with safe_open(path, framework="np") as stream:
            metadata = stream.metadata() or {}
            facts = json.loads(metadata["restain"])
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
        kind = facts.pop("kind")
    except KeyError:
        raise FormatError(f"{path} is a safetensors file, but not one saved by restain") from None
    except (SafetensorError, ValueError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise FormatError(f"{path} is damaged or not a safetensors file ({error})") from error
    return str(kind), arrays, facts


def shortened(name: str) -> str:
    """The start of a name, so short that the temporary one keeps to the 255 bytes of common file systems."""
    return os.fsencode(name)[:100].decode(errors="ignore")


_UMASK_LOCK = threading.Lock()


def current_umask() -> int:
    with _UMASK_LOCK:  # it can only be read by setting it, and that for the whole process
        mask = os.umask(0)
        os.umask(mask)
    return mask


def _rename_without_replacing(temporary: Path, path: Path) -> None:
    """Rename, unless `path` has come into being meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise OutputError(f"{path} was written by another process meanwhile; nothing was replaced") from None
    except OSError:  # a file system without hard links: the check and the rename are two steps
        refuse_overwrite(path, overwrite=False)
        os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable where the system can sync a folder."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError:
            pass  # some network file systems refuse; the file itself is on disk and has its name
        finally:
            os.close(descriptor)
