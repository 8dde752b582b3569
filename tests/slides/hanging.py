"""A bound on time for what must not hang."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

IN_TIME = 60
"""Seconds; every case takes a small part of that, and a hang takes all."""


@contextmanager
def in_time() -> Iterator[None]:
    """Raise where something hangs, also in a system call. Needs POSIX signals."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {IN_TIME} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(IN_TIME)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
