"""The slides of a cohort on a Dask cluster: one task a slide, sent a few at a time.

What travels
------------
To a worker: two paths, the settings, and where the saved normalizer lies, which each process reads once. Back: a few
numbers and the appearance. Source, output and normalizer are files that every machine sees; no pixel is ever sent.

Where there are fewer slides than threads, a slide's sample is counted by several workers: the histograms of its parts,
some megabytes, go from these to the one that maps the slide. Mapping stays on one worker, because the tiles of a
pyramid would have to travel to whoever writes its file.

Memory bound
------------
At most `AHEAD` tasks for each thread of the cluster are known to the scheduler, however many slides there are.

When a worker dies
------------------
The scheduler gives its tasks to others. A task that was there at so many deaths (Dask's setting
`distributed.scheduler.allowed-failures`) is taken for the cause. Where several are, all but one may have been
bystanders, so at the end each is tried once more alone.
"""

import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restain import __version__
from restain.errors import InputError, MissingExtraError, OutputError, RestainError, RestainWarning
from restain.slides.batch import Failure
from restain.slides.cohort_threads import Function, Moved, Started
from restain.slides.cohort_work import Job, Work, count_one, plan_one

if TYPE_CHECKING:
    from distributed import Future

AHEAD = 2
"""Tasks for each thread that are with the scheduler: one is done, the next is there when it ends."""

LEAST_AHEAD = 4
"""Of the tasks that are with the scheduler, so that a cluster that grows with its work has a reason to."""

MOST_PARTS = 16
"""Of a slide's sample: beyond, each part is but a few tiles."""

LOOK = 5.0
"""Seconds between looks at how many workers there are."""


class Cluster:
    """Runs jobs on the workers of a Dask scheduler; what `cohort_threads.Threads` does with threads."""

    here = False

    def __init__(self, address: str, folder: Path, say: Callable[[str], None], *, timeout: float = 30.0) -> None:
        """Connect.

        Args:
            address: of the scheduler, tcp://HOST:PORT, or the file that `dask scheduler --scheduler-file` wrote.
            folder: the cohort's, which every worker must see.
            say: told in a line what a user should know.
            timeout: seconds to wait for the scheduler.

        Raises:
            MissingExtraError: `distributed` is not installed. InputError: no scheduler answers, or its workers cannot
            do the work. OutputError: a worker does not see the folder.
        """
        try:
            from distributed import Client
        except ImportError as error:
            message = f"--scheduler needs Dask's distributed ({error}); install it: pip install 'restain[cluster]'"
            raise MissingExtraError(message) from error
        self.address = address
        self._say = say
        self._deserted = False
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it logs, an error says in one line
        try:
            self._client = Client(_address(address), timeout=timeout, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"no Dask scheduler answers at {address} ({reason}); start one with `dask scheduler` and name its "
                "address, as in tcp://host:8786"
            ) from None
        try:
            self._check_workers(folder)
        except BaseException:
            self.close()
            raise

    def run(
        self, function: Function, jobs: Sequence[Job], work: Work, *, started: Started, moved: Moved
    ) -> Iterator[tuple[Job, Any]]:
        """As `Threads.run`; `moved` is not called, and Ctrl-C cannot end what workers are in the midst of."""
        flying: dict[Future, Job] = {}
        blamed: list[Job] = []
        waiting = iter(jobs)
        try:
            while True:
                limit = self._limit()
                while len(flying) < limit and (job := next(waiting, None)) is not None:
                    started(job)
                    flying[self._submit(function, job, work, len(jobs))] = job
                if not flying:
                    break
                for future in self._wait(flying):
                    job = flying.pop(future)
                    result = self._result(future, job)
                    if result is None:
                        blamed.append(job)
                    else:
                        yield job, result
            for job in blamed:
                result = None
                if len(blamed) > 1:
                    flying[self._submit(function, job, work, len(jobs))] = job
                    while not (done := self._wait(flying)):
                        pass
                    flying.clear()
                    result = self._result(done[0], job)
                yield (
                    job,
                    result
                    if result is not None
                    else Failure(
                        job.source, "every worker that took it died (killed from outside, or for the memory it wanted)"
                    ),
                )
        finally:
            if flying:
                self._client.cancel(list(flying), force=True)

    def close(self) -> None:
        """Leave the cluster, which goes on without this process."""
        self._client.close()

    # ---- steps ------------------------------------------------------------------------------------------------

    def _check_workers(self, folder: Path) -> None:
        """Look at those that are there; others, which come later, look at themselves (`_on_worker`)."""
        self._threads()
        for worker, seen in self._client.run(_look, folder, on_error="return").items():
            if isinstance(seen, ImportError):
                raise InputError(f"{worker} lacks what restain needs ({seen}); install it there")
            if isinstance(seen, BaseException):
                continue  # it is dying, or not up yet
            version, sees = seen
            if version != __version__:
                raise InputError(f"{worker} has restain {version}, this process {__version__}; results might differ")
            if not sees:
                raise OutputError(f"{worker} does not see {folder}; name a folder that all machines share")

    def _threads(self) -> None:
        """Count the threads of all workers, and tell when there are none."""
        try:
            nthreads: dict[str, int] = self._client.nthreads()
        except OSError:  # the connection was closed
            raise self._lost() from None
        self._looked = time.monotonic()
        self._most = max(nthreads.values(), default=1)
        self._total = sum(nthreads.values())
        if not self._total and not self._deserted:
            self._say(f"{self.address} has no workers; waiting for them")
        self._deserted = not self._total

    def _limit(self) -> int:
        if time.monotonic() - self._looked > LOOK:
            self._threads()
        return max(AHEAD * self._total, LEAST_AHEAD)

    def _submit(self, function: Function, job: Job, work: Work, count: int) -> "Future":
        """Send one slide: in one task, or with its sample in parts where there are threads enough for that."""
        spare = self._total // max(count, 1)
        work = replace(work, settings=replace(work.settings, workers=max(1, min(spare, self._most))))
        parts = min(spare, MOST_PARTS)
        submit = self._client.submit
        if parts < 2 or work.appearance is not None:
            return submit(_on_worker, function, job, work, pure=False, key=_key(function, job))
        plan = submit(_on_worker, plan_one, job, work, pure=False, key=_key(plan_one, job))
        counts = [
            submit(_on_worker, count_one, job, work, plan, part, parts, pure=False, key=_key(count_one, job))
            for part in range(parts)
        ]
        return submit(_on_worker, function, job, work, plan, counts, pure=False, key=_key(function, job))

    def _wait(self, flying: "dict[Future, Job]") -> "list[Future]":
        """Those that are done, within a few seconds."""
        from distributed import wait

        try:
            with self._client.as_current():
                done = wait(list(flying), timeout=LOOK, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            if self._client.status != "running":
                raise self._lost() from None
            return []
        except CancelledError:  # by the client, which lost the scheduler
            raise self._lost() from None
        return list(done)

    def _result(self, future: "Future", job: Job) -> Any:
        """What a task returned, a `Failure`, or None where the workers died that took it."""
        from distributed.scheduler import KilledWorker

        if future.status == "cancelled" or self._client.status != "running":
            raise self._lost()
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, KilledWorker):
            return None
        if isinstance(error, UnfitWorker):
            raise error
        if isinstance(error, RestainError):
            return Failure(job.source, str(error))
        return Failure(job.source, f"unforeseen {type(error).__name__}: {' '.join(str(error).split())}")

    def _lost(self) -> RestainError:
        return InputError(
            f"the scheduler at {self.address} is gone; what is finished is kept, and the same command goes on where it "
            "stopped"
        )


def _address(text: str) -> str:
    """An address, also of the scheduler that wrote this file; raises `ValueError` for a file that none wrote."""
    if not Path(text).is_file():
        return text
    facts = json.loads(Path(text).read_bytes())
    if not isinstance(facts, dict) or not isinstance(facts.get("address"), str):
        raise ValueError("the file has no address in it, so no scheduler wrote it")
    return str(facts["address"])


def _key(function: Function, job: Job) -> str:
    """A name for a task that says what it is on the dashboard, but not the file's, and is never used twice."""
    return f"{function.__name__}-{os.urandom(8).hex()}"


class UnfitWorker(InputError):
    """A worker must not do the work: it would do it otherwise than the others, or cannot see the folder."""


def _on_worker(function: Callable[..., Any], job: Job, work: Work, *arguments: Any) -> Any:
    """Call a function in a worker, which is quiet: each result says its own warnings.

    Raises:
        UnfitWorker: it is none for this work; or the run has ended, and another has begun.
    """
    host = socket.gethostname()
    if work.version != __version__:
        raise UnfitWorker(
            f"a worker on {host} has restain {__version__}, this run {work.version}; start the same there"
        )
    try:
        work.check_run()
    except OSError as error:
        raise UnfitWorker(f"a worker on {host}: {error}") from None
    warnings.simplefilter("ignore", RestainWarning)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    return function(job, work, *arguments)


def _look(folder: Path) -> tuple[str, bool]:
    """Which restain a worker has, and whether it sees a folder."""
    return __version__, folder.is_dir()
