"""Many slides: what `restain normalize` does with a folder, on this machine or on a cluster.

A cohort's folder holds, beside the outputs,

    manifest.csv              what became of each slide, written as the work goes on
    normalizer.safetensors    what they were normalized by
    quality.html              a page to look at, the slides that stick out first
    .restain-cohort.lock      held while a process writes here

Each slide is by itself: one that fails, or kills its worker, is a row of the manifest, and the rest goes on. A run that
was stopped, however it was, goes on where the manifest ends.
"""

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from restain.files import load_arrays
from restain.lock import Lock
from restain.methods.base import Normalizer
from restain.slides import manifest, quality_sheet
from restain.slides.batch import BatchSettings, Failure, estimate_together
from restain.slides.cluster import Cluster
from restain.slides.cohort_plan import Pair, SavedNormalizer, plan_cohort, settings_digest
from restain.slides.cohort_threads import Threads
from restain.slides.cohort_work import Done, Job, Load, Work, measure_one, normalize_one
from restain.slides.consensus import Consensus
from restain.slides.manifest import Manifest, Row, key

NORMALIZER = "normalizer.safetensors"
LOCK = ".restain-cohort.lock"
OWN_FILES = (manifest.NAME, NORMALIZER, quality_sheet.NAME, LOCK)
"""What a cohort's folder holds beside the outputs."""

Say = Callable[[str], None]
Progress = Callable[[str, float, int], None]
"""Called with a stage ("measure", "normalize", "quality sheet"), the slides done, with parts of slides, and in all."""


@dataclass(frozen=True)
class CohortResult:
    """What a run did.

    Attributes:
        normalizer: what was applied.
        rows: of the slides of this run, done or failed, with their sources and outputs as they were given; in order.
        kept: how many outputs were there already.
        sheet: the quality sheet; None where there was nothing to do.
    """

    normalizer: Normalizer
    rows: tuple[tuple[Pair, Row], ...]
    kept: int
    sheet: Path | None


def normalize_cohort(
    pairs: Sequence[Pair],
    folder: Path,
    normalizer: Normalizer,
    load: Load,
    settings: BatchSettings | None = None,
    *,
    consensus: bool = False,
    resume: bool = True,
    scheduler: str | None = None,
    say: Say = lambda text: None,
    progress: Progress = lambda stage, done, total: None,
) -> CohortResult:
    """Normalize many slides and images; each ends as a row of the manifest.

    Args:
        pairs: sources and outputs, from `plan_outputs`; the outputs lie below `folder`.
        folder: the cohort's; it exists.
        normalizer: a fitted normalizer; with `consensus`, one to fit.
        load: reads a saved normalizer, `restain.saved.load`.
        settings: how slides are sampled and written, and with how many threads here.
        consensus: fit the normalizer to what the slides look like on the whole (`consensus.py`). A run that is resumed
            keeps the consensus of the one before, also for slides that came later.
        resume: leave what an earlier run finished with the same settings, and do the rest. Without, everything is done
            anew, for which `settings.overwrite` is needed where outputs are there.
        scheduler: of a Dask cluster, tcp://HOST:PORT or a scheduler file; None for threads of this process.
        say: told what a user should know, in lines.
        progress: called from this thread as work advances.

    Raises:
        OutputError: another process works on the folder, outputs may not be replaced or were made with other settings,
            or a file of the cohort's own cannot be written. InputError, FitError: there is no consensus to be found,
            or no cluster.
    """
    settings = settings or BatchSettings()
    with ExitStack() as stack:
        # Each row says its own. Around all threads, as `catch_warnings` is not made for one.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        lock = Lock(folder / LOCK, "written to")
        stack.callback(lock.release)
        book = stack.enter_context(Manifest(folder))
        quality_sheet.refuse_stranger(folder)

        @functools.cache
        def runner() -> Threads | Cluster:
            made = Threads(settings.workers) if scheduler is None else Cluster(scheduler, folder, say)
            stack.callback(made.close)
            return made

        if consensus:
            earlier = None
            if resume and book.path.exists():
                earlier = _earlier_consensus(folder / NORMALIZER, normalizer, load)
            if earlier is None:
                _fit_consensus(pairs, normalizer, settings, runner(), say, progress)
            else:
                normalizer = earlier
                count = normalizer.provenance_["consensus_of"]
                say(f"the consensus of {count} slides in {folder / NORMALIZER} is used; --overwrite measures anew")
        saved = SavedNormalizer(normalizer)
        saved.refuse_stranger(folder / NORMALIZER, ours=book.path.exists())
        digest = settings_digest(saved, settings)
        jobs, kept = plan_cohort(pairs, folder, book, digest, overwrite=settings.overwrite, resume=resume)
        if kept:
            say(f"{kept} outputs exist already and are left as they are")
        if not jobs:
            return CohortResult(normalizer, (), kept, None)
        book.begin()
        saved.write(folder / NORMALIZER)
        work = Work(settings, normalizer, folder.absolute() / NORMALIZER, load, saved.digest)
        if not runner().here:
            # What a worker wrote before it died, another finds there: it has to replace it. And the paths are its own.
            jobs = [Job(Path(os.path.abspath(j.source)), Path(os.path.abspath(j.output)), True) for j in jobs]
            work = replace(work, normalizer=None)
        rows = _normalize(jobs, pairs, normalizer, work, digest, folder, book, runner(), say, progress)
        ordered = [(pair, rows[name]) for pair in pairs if (name := key(pair[1], folder)) in rows]
        shown = [book.rows[name] for _, output in pairs if (name := key(output, folder)) in book.rows]
        sheet = quality_sheet.write(folder, shown, normalizer, workers=settings.workers, progress=progress)
    return CohortResult(normalizer, tuple(ordered), kept, sheet)


class _Meter:
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


def _earlier_consensus(path: Path, wanted: Normalizer, load: Load) -> Normalizer | None:
    """The consensus that an earlier run left in the folder, if it is of the same method and settings."""
    if not path.is_file() or "consensus_of" not in load_arrays(path)[2].get("provenance", {}):
        return None
    found = load(path)
    return found if type(found) is type(wanted) and found.settings(brief=True) == wanted.settings(brief=True) else None


def _fit_consensus(
    pairs: Sequence[Pair],
    normalizer: Normalizer,
    settings: BatchSettings,
    runner: Threads | Cluster,
    say: Say,
    progress: Progress,
) -> None:
    """Measure every slide, and fit the normalizer to all of them together."""
    consensus = Consensus()
    unreadable = blank = 0
    jobs = [Job(Path(os.path.abspath(source)), Path(os.path.abspath(output))) for source, output in pairs]
    meter = _Meter("measure", len(jobs), progress)
    for _, share in runner.run(measure_one, jobs, Work(settings), started=lambda job: None, moved=meter.moved):
        if isinstance(share, Failure):
            unreadable += 1
        elif not consensus.add(share):
            blank += 1
        meter.count()
    if unreadable:
        say(f"{unreadable} of {len(jobs)} slides cannot be read and have no part in the consensus")
    if blank:
        say(f"{blank} of {len(jobs)} slides show no tissue and have no part in the consensus")
    normalizer.fit(consensus.histogram())


def _normalize(
    jobs: Sequence[Job],
    pairs: Sequence[Pair],
    normalizer: Normalizer,
    work: Work,
    digest: str,
    folder: Path,
    book: Manifest,
    runner: Threads | Cluster,
    say: Say,
    progress: Progress,
) -> dict[str, Row]:
    """Do the jobs, and enter each into the manifest; the rows of this run by output."""
    rows: dict[str, Row] = {}
    unreadable: dict[Path, Failure] = {}
    if work.settings.estimate == "folder":
        appearance, failed = estimate_together([source for source, _ in pairs], normalizer, work.settings)
        work = replace(work, appearance=appearance)
        unreadable = {Path(os.path.abspath(source)): failure for source, failure in failed.items()}

    def enter(job: Job, outcome: Done | Failure | None) -> None:
        row = Row(
            input=Path(os.path.abspath(job.source)),
            output=key(job.output, folder),
            status="started" if outcome is None else "failed" if isinstance(outcome, Failure) else "done",
            method=normalizer.name,
            settings=digest,
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
        book.add(row, sync=outcome is not None)
        if outcome is not None:
            rows[row.output] = row

    meter = _Meter("normalize", len(jobs), progress)
    readable = []
    for job in jobs:
        if (failure := unreadable.get(Path(os.path.abspath(job.source)))) is None:
            readable.append(job)
        else:
            enter(job, failure)
            meter.count()
    try:
        for job, outcome in runner.run(
            normalize_one, readable, work, started=lambda job: enter(job, None), moved=meter.moved
        ):
            enter(job, outcome)
            meter.count()
    except KeyboardInterrupt:
        say(f"interrupted; {len(rows)} of {len(jobs)} slides are entered, and the same command goes on from there")
        raise
    return rows
