"""Small files: written whole or not at all, and arrays with their JSON in one safetensors file."""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from restain.errors import FormatError, OutputError, RestainError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("check before outputs get their names", default=None)


@contextmanager
def checked_before_naming(check: Callable[[], None]) -> Iterator[None]:
    """Within, outputs of this thread get their names only if `check`, called just before, raises nothing."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_before_naming() -> None:
    """What an output does just before it gets its name: see `checked_before_naming`."""
    check = _CHECK.get()
    if check is not None:
        check()


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Raise `OutputError` if `path` exists and may not be replaced."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write")
    refuse_broken_link(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass overwrite=True (--overwrite) to replace it, or name another output")


def refuse_broken_link(path: Path) -> None:
    """Raise `OutputError` if `path` is a link to nothing."""
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a link to {os.readlink(path)}, which does not exist; remove the link")


@contextmanager
def atomic_output(path: str | os.PathLike[str], *, overwrite: bool = False, replaced: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and renamed to `path`.

    A killed process leaves at most a hidden `.NAME.*.part` file, never a partial `path`; the next run that writes this
    output removes it. The name is checked again just before the rename, so that two writers of one output do not
    silently replace each other. So is that the temporary file is still this process's: its folder may have vanished,
    and another process have made both anew. Pass `replaced` for a writer that puts another file in its place itself.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or its folder is missing, full, not writable or replaced.
    """
    path = Path(path)
    refuse_overwrite(path, overwrite)
    with _held_part(path) as (temporary, held):
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~current_umask())
            check_before_naming()
            if held is not None and not replaced and not _is(temporary, held):
                raise OutputError(f"cannot write {path}: its folder, or {temporary.name} in it, was replaced meanwhile")
            if overwrite:
                os.replace(temporary, path)
            else:
                _rename_without_replacing(temporary, path)
            sync_folder(path.parent)
        except OSError as error:
            # Errors of reading the source pass through: they are restain's own, or name another file.
            if isinstance(error, RestainError) or error.filename not in (None, str(temporary), str(path)):
                raise
            raise OutputError(f"cannot write {path}: {_reason(error, path)}") from error


@contextmanager
def part_beside(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a new hidden `.NAME.*.part` beside `path`, a file or a folder, and remove it at the end if it is there.

    It is locked as long as its process lives. One that nobody has locked was left by a process that was killed, and is
    removed when the next one wants its name: nothing is searched for, and no clock is asked. Where files cannot be
    locked (Windows, some network file systems) such a part stays until it is deleted by hand.

    Raises:
        OutputError: the folder of `path` is missing, full or not writable.
    """
    with _held_part(path, folder) as (temporary, _):
        yield temporary


@contextmanager
def _held_part(path: Path, folder: bool = False) -> Iterator[tuple[Path, int | None]]:
    """As `part_beside`, with the descriptor that holds the lock; None where files cannot be locked."""
    try:
        temporary, descriptor = _new_part(path, folder)
    except OSError as error:
        raise OutputError(f"cannot write in {path.parent}: {error.strerror}") from error
    try:
        yield temporary, descriptor
    finally:
        # Once it is renamed, its old name may be another process's.
        if descriptor is None or _is(temporary, descriptor):
            _remove(temporary)
        if descriptor is not None:
            os.close(descriptor)


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
        raise FormatError(f"{path} is damaged or not a safetensors file ({reason_of(error)})") from error
    return str(kind), arrays, facts


def reason_of(error: Exception) -> str:
    """What an error says, in one line and bounded: a damaged file may have put anything into it."""
    return " ".join(str(error).split())[:200]


def shortened(name: str) -> str:
    """The start of a name, so short that the temporary one keeps to the 255 bytes of common file systems."""
    return os.fsencode(name)[:100].decode(errors="ignore")


def _new_part(path: Path, folder: bool) -> tuple[Path, int | None]:
    """A new part of `path`, and the descriptor that holds its lock; None where files cannot be locked."""
    prefix = f".{shortened(path.name)}."
    number = 0
    while fcntl is not None:
        number += 1
        part = path.parent / f"{prefix}{number}.part"
        try:
            if folder:
                part.mkdir(0o700)
            else:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            number -= _removed_stale(part)  # then the same name once more
            continue
        try:
            descriptor = _locked(part, wait=True)
        except FileNotFoundError:  # taken for stale before it was locked
            number -= 1
            continue
        except OSError:
            _remove(part)
            break
        if _is(part, descriptor):
            return part, descriptor
        os.close(descriptor)
        number -= 1
    if folder:
        return Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=path.parent)), None
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=path.parent)
    os.close(handle)
    return Path(name), None


def _removed_stale(part: Path) -> bool:
    """Remove a part if no process holds its lock; whether it is gone."""
    try:
        descriptor = _locked(part, wait=False)
    except FileNotFoundError:
        return True
    except OSError:  # held, another user's, a link, or locks are not to be had
        return False
    try:
        if _is(part, descriptor):
            _remove(part)
        return not os.path.lexists(part)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _locked(part: Path, *, wait: bool) -> int:
    """A descriptor of a part that has its lock; `OSError` where it cannot be had."""
    # Network file systems lock only what is open for writing, which a folder cannot be. No link is followed.
    flags = os.O_RDONLY if part.is_dir() else os.O_RDWR
    descriptor = os.open(part, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is(path: Path, descriptor: int) -> bool:
    """Whether a path still names what is open."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _reason(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return f"its folder {path.parent} is gone"
    return error.strerror or str(error)


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
