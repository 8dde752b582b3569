"""The slides of a cohort in threads of this process, a bounded number at a time."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from restain.slides.cohort_work import Job, Work

Function = Callable[..., Any]
"""`normalize_one` or `measure_one`."""
Started = Callable[[Job], None]
Moved = Callable[[float], None]


class Threads:
    """Runs jobs in threads; what `cluster.Cluster` does with workers.

    Attributes:
        here: whether work is done in this process, with the objects that are at hand.
    """

    here = True

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1

    def run(
        self, function: Function, jobs: Sequence[Job], work: Work, *, started: Started, moved: Moved
    ) -> Iterator[tuple[Job, Any]]:
        """Call `function` for every job; yield each with its result as soon as it is there, in any order.

        Args:
            function: `normalize_one` or `measure_one`.
            jobs: what to do; in this order they are begun.
            work: how, the same for all.
            started: called with each job before it is begun.
            moved: called with the part, 0..1, of the jobs under way that is done, as it grows.

        An exception in the caller, Ctrl-C above all, ends the slides that are under way at their next tile; they leave
        nothing behind.
        """
        at_once = min(self.workers, max(len(jobs), 1))
        if work.normalizer is not None and work.normalizer.neighbourhood:
            at_once = min(at_once, 2)  # see `cohort_work`
        # The threads are shared out between slides and, where these are few, the tiles of each.
        work = replace(work, settings=replace(work.settings, workers=max(1, self.workers // at_once)))
        stop = threading.Event()
        parts: dict[Job, float] = {}

        def call(job: Job) -> Any:
            def progress(stage: str, done: int, total: int) -> None:
                if stop.is_set():
                    raise KeyboardInterrupt
                parts[job] = done / max(total, 1)

            return function(job, work, progress=progress)

        flying: dict[Future[Any], Job] = {}
        waiting = iter(jobs)
        with ThreadPoolExecutor(at_once) as pool:
            try:
                while True:
                    # One more for each thread: it is there while the one before is entered into the manifest.
                    while len(flying) < 2 * at_once and (job := next(waiting, None)) is not None:
                        started(job)
                        flying[pool.submit(call, job)] = job
                    if not flying:
                        return
                    done, _ = wait(flying, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in [future for future in flying if future in done]:  # the first begun first
                        job = flying.pop(future)
                        parts.pop(job, None)
                        yield job, future.result()
                    moved(sum(list(parts.values())))
            finally:
                stop.set()
                for future in flying:
                    future.cancel()

    def close(self) -> None:
        """Nothing is held."""
