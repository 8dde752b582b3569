"""Ctrl-C and SIGTERM during a training: heard at once, obeyed between two updates, so that nothing learned is lost."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """Holds back the first SIGINT or SIGTERM; a second one ends the process as it always does.

    A context manager. In other threads than the main one, where signals cannot be handled, it does nothing.

    Attributes:
        signal: the number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._before[number])  # the next one is not held back
