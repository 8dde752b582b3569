"""One process at a time writes into a folder: a lock that its death releases, however it dies."""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from restain.errors import OutputError


class Lock:
    """An exclusive lock on a file, held until `release` or until the process ends, `kill -9` included.

    It is the system's own lock on the open file (`flock`; on Windows `msvcrt.locking`), so a file that a dead process
    left behind is no lock. Worker processes that are forked do not keep it. The file stays: removing it would let two
    processes lock two files of one name.

    Attributes:
        path: the file.
        words: what it says of its holder, which no two holders have in common.
    """

    def __init__(self, path: Path, doing: str) -> None:
        """Take the lock.

        Args:
            path: the file, in the folder that is to be kept from others.
            doing: what the holder does to the folder, for whom it is refused: "trained into".

        Raises:
            OutputError: another process holds it, or the file cannot be written.
        """
        self.path = path
        try:
            # Not truncated: the holder's words must stay readable for the one who is refused.
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write in {path.parent}: {error.strerror}") from error
        if not _try_lock(self._descriptor):
            holder = self._holder()
            os.close(self._descriptor)
            raise OutputError(f"{path.parent} is being {doing} by {holder}; wait for it or end it")
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        words = json.dumps({**facts, "run": os.urandom(8).hex()})
        try:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, words.encode())
            os.fsync(self._descriptor)  # other machines read them too
        except OSError:
            pass  # a full disk: the lock holds all the same, only its words are missing
        self.words = read_words(path)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def in_place(self) -> bool:
        """Whether the file that is locked is still where it was, and so its folder."""
        try:
            return self._descriptor is not None and os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor is not None:
            _unlock(self._descriptor)  # for a worker too that was forked just now and has not let go of it yet
        self._forget()

    def _forget(self) -> None:
        # A lock belongs to the open file: a fork's closing leaves it with the parent, who is then its only holder.
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _holder(self) -> str:
        try:
            words = json.loads(self.path.read_text())
            return f"process {words['pid']} on {words['host']} (since {words['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


def read_words(path: Path) -> str:
    """What a lock's file says; "" where there is none."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the words, which stay readable
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        """Closing does it."""

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks: better an unguarded run than none
        return True

    def _unlock(descriptor: int) -> None:
        with suppress(OSError):  # no locks, nothing to undo
            fcntl.flock(descriptor, fcntl.LOCK_UN)
