"""Ctrl-C and SIGTERM during a training: heard at once, obeyed between two updates, so that nothing learned is lost."""

import signal
import threading
import time
from types import FrameType
from typing import Any

ECHO = 0.5
"""Seconds within which more signals count as the first one's echo: launchers pass a terminal's Ctrl-C on to processes
that have heard it themselves."""


class Interrupt:
    """Holds back the first SIGINT or SIGTERM; a later one ends the process as it always does.

    A context manager. In other threads than the main one, where signals cannot be handled, it does nothing. A signal
    that was ignored before (`nohup`) stays so.

    Attributes:
        signal: the number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._heard = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: somebody's, in C
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            self.signal, self._heard = number, time.monotonic()
        elif time.monotonic() - self._heard >= ECHO:
            self.__exit__()
            signal.raise_signal(number)
