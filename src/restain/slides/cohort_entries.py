"""What is told and entered as the slides of a cohort end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from restain.errors import OutputError
from restain.lock import Lock
from restain.slides.batch import Failure
from restain.slides.cohort_work import LOCK, Done, Job
from restain.slides.manifest import Manifest, Row, key

Progress = Callable[[str, float, int], None]
"""Called with a stage ("measure", "normalize", "quality sheet"), the slides done, with parts of slides, and in all."""


class Meter:
    """Tells how many slides of a stage are done, and what parts of others; never less than it told before."""

    def __init__(self, stage: str, total: int, progress: Progress) -> None:
        self._stage, self._total, self._progress = stage, total, progress
        self._done, self._told = 0, 0.0
        self.moved(0.0)

    def count(self) -> None:
        """One more is done."""
        self._done += 1
        self.moved(0.0)

    def moved(self, parts: float) -> None:
        """So much of those under way is done."""
        self._told = max(self._told, self._done + parts)
        self._progress(self._stage, self._told, self._total)


class Entering:
    """Enters what became of slides into the manifest.

    Attributes:
        rows: of the slides that are done or failed, by output.
    """

    def __init__(self, book: Manifest, lock: Lock, folder: Path, method: str, digest: str) -> None:
        self._book, self._lock, self._folder = book, lock, folder
        self._method, self._digest = method, digest
        self.rows: dict[str, Row] = {}

    def __call__(self, job: Job, outcome: Done | Failure | None) -> None:
        """Enter a slide; None for one that is begun.

        Raises:
            OutputError: the manifest cannot be written, or the cohort's folder has vanished or was replaced.
        """
        if not self._lock.in_place():
            self._book.leave()
            raise OutputError(
                f"{self._folder} was removed or replaced while it was written to, or its {LOCK} was; nothing more is "
                "written there"
            )
        row = Row(
            input=job.source,
            output=key(job.output, self._folder),
            status="started" if outcome is None else "failed" if isinstance(outcome, Failure) else "done",
            method=self._method,
            settings=self._digest,
        )
        if isinstance(outcome, Failure):
            row = replace(row, error=outcome.error)
        elif outcome is not None:
            row = replace(
                row,
                seconds=outcome.seconds,
                width=outcome.size[0],
                height=outcome.size[1],
                input_sha256=outcome.input_sha256,
                output_sha256=outcome.output_sha256,
                appearance=outcome.appearance,
                warnings=outcome.warnings,
            )
        # That a slide was begun is news only after a kill, which leaves what was written to the system to be written.
        self._book.add(row, sync=outcome is not None)
        if outcome is not None:
            self.rows[row.output] = row
