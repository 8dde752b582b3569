"""What a person sees while training: a bar with time left on a terminal, a line now and then elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TextIO

EVERY = 60.0
"""Seconds between two lines where stderr is no terminal."""

_MOST_LOSSES = 4


class Pace:
    """Steps a second over the last minute or so, and the time left."""

    def __init__(self, total: int, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self._clock = total, clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), step)], maxlen=120)

    def update(self, step: int) -> None:
        """Take note of `step` updates done."""
        now = self._clock()
        # One note per half second: the deque then reaches back a minute however fast the steps are.
        if len(self._seen) > 1 and now - self._seen[-2][0] < 0.5:
            self._seen.pop()
        self._seen.append((now, step))

    @property
    def rate(self) -> float | None:
        """Steps a second, None before the first."""
        (start, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - start) if last > first and now > start else None

    @property
    def left(self) -> float | None:
        """Seconds until `total` at this pace, None while it is not known."""
        return None if self.rate is None else max(self.total - self._seen[-1][1], 0) / self.rate


class TrainingProgress:
    """Shows progress; made by `training_progress`."""

    def __init__(self, total: int, start: int, every: float, clock: Callable[[], float], stream: TextIO) -> None:
        self._pace = Pace(total, start, clock)
        self._total, self._every, self._clock, self._stream = total, every, clock, stream
        self._shown = clock()
        self._first = True

    def update(self, step: int, losses: Mapping[str, float]) -> None:
        """Show that `step` updates are done, and the first few of the losses."""
        self._pace.update(step)
        now = self._clock()
        # The first line comes early, to show that it runs and how long it will take.
        if step >= self._total or now - self._shown >= (min(self._every, 10.0) if self._first else self._every):
            self._shown, self._first = now, False
            self.say(_line(self._pace, step, losses))

    def say(self, message: str) -> None:
        """Show a line that stays, such as that a checkpoint was written."""
        with suppress(OSError):  # a terminal that is gone is no reason to stop
            print(message, file=self._stream, flush=True)


@contextmanager
def training_progress(
    total: int,
    start: int = 0,
    *,
    every: float = EVERY,
    clock: Callable[[], float] = time.monotonic,
    quiet: bool = False,
) -> Iterator[TrainingProgress]:
    """Progress of a run on stderr: a bar where that is a terminal, else a line every so often.

    Args:
        total: updates of the whole run.
        start: updates done before this start of it.
        every: seconds between two lines where there is no terminal.
        clock: seconds, for tests.
        quiet: show nothing (all processes of a distributed run but the first).
    """
    if quiet:
        yield _Quiet(total, start, every, clock, sys.stderr)
        return
    if not sys.stderr.isatty():
        yield TrainingProgress(total, start, every, clock, sys.stderr)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(stderr=True)
    facts = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = [BarColumn(bar_width=24), MofNCompleteColumn(), facts]
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=total, completed=start)

        class Bar(TrainingProgress):
            def update(self, step: int, losses: Mapping[str, float]) -> None:
                self._pace.update(step)
                bar.update(task, completed=step, description=_facts(self._pace, losses))

            def say(self, message: str) -> None:
                console.print(message, highlight=False, markup=False)

        yield Bar(total, start, every, clock, sys.stderr)


class _Quiet(TrainingProgress):
    def update(self, step: int, losses: Mapping[str, float]) -> None:
        pass

    def say(self, message: str) -> None:
        pass


def _line(pace: Pace, step: int, losses: Mapping[str, float]) -> str:
    facts = _facts(pace, losses)
    return f"step {step}/{pace.total}" + (f", {facts}" if facts else "")


def _facts(pace: Pace, losses: Mapping[str, float]) -> str:
    """Pace, time left and losses in a few words."""
    parts = []
    if pace.rate is not None:
        parts.append(f"{pace.rate:.3g} steps/s" if pace.rate >= 1 else f"{1 / pace.rate:.3g} s/step")
    if pace.left:
        parts.append(f"{duration(pace.left)} left")
    parts += [f"{name} {value:.3g}" for name, value in list(losses.items())[:_MOST_LOSSES]]
    if len(losses) > _MOST_LOSSES:
        parts.append("…")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "12 min", "3 h 05 min", "2 d 4 h"."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"
