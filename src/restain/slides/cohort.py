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
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from restain.errors import OutputError
from restain.files import load_arrays
from restain.lock import Lock
from restain.methods.base import Normalizer
from restain.slides import manifest, quality_sheet
from restain.slides.batch import BatchSettings, Failure, estimate_together
from restain.slides.cluster import Cluster
from restain.slides.cohort_entries import Entering, Meter, Progress
from restain.slides.cohort_plan import Pair, SavedNormalizer, plan_cohort, settings_digest
from restain.slides.cohort_threads import Threads
from restain.slides.cohort_work import LOCK, Job, Load, Work, measure_one, normalize_one
from restain.slides.consensus import Consensus
from restain.slides.manifest import Manifest, Row, key

NORMALIZER = "normalizer.safetensors"
OWN_FILES = (manifest.NAME, NORMALIZER, quality_sheet.NAME, LOCK)
"""What a cohort's folder holds beside the outputs."""

MEASURING = "interrupted while the slides were measured; the same command measures them again"
DRAWING = "interrupted while the quality sheet was drawn; the outputs are there, and the same command draws it"
Say = Callable[[str], None]


@dataclass(frozen=True)
class CohortResult:
    """What a run did.

    Attributes:
        normalizer: what was applied.
        rows: of the slides of this run, done or failed, with their sources and outputs as they were given; in order.
        kept: how many an earlier run had finished.
        found: how many outputs were there of which nothing is known.
        sheet: the quality sheet; None where nothing changed, or where it could not be written.
    """

    normalizer: Normalizer
    rows: tuple[tuple[Pair, Row], ...]
    kept: int
    found: int
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
        KeyboardInterrupt: Ctrl-C; its message says what is there, and what the same call does.
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
        place = Path(os.path.abspath(folder))  # a relative one means something else to a worker
        work = Work(settings, folder=place, run=lock.words)
        book = stack.enter_context(Manifest(folder))
        quality_sheet.refuse_stranger(folder)

        @functools.cache
        def runner() -> Threads | Cluster:
            made = Threads(settings.workers) if scheduler is None else Cluster(scheduler, place, say)
            stack.callback(made.close)
            return made

        if consensus:
            earlier = None
            if resume and book.path.exists():
                earlier = _earlier_consensus(folder / NORMALIZER, normalizer, load, _sampling(settings))
            if earlier is None:
                _fit_consensus(pairs, normalizer, work, runner(), say, progress)
            else:
                normalizer = earlier
                count = normalizer.provenance_["consensus_of"]
                say(
                    f"the consensus of {count} slides in {folder / NORMALIZER} is used; --overwrite without --resume "
                    "measures anew"
                )
        saved = SavedNormalizer(normalizer)
        saved.refuse_stranger(folder / NORMALIZER, ours=book.path.exists())
        unreadable: dict[Path, Failure] = {}
        if settings.estimate == "folder":
            with _interruptible(MEASURING):
                appearance, failed = estimate_together([source for source, _ in pairs], normalizer, settings)
            unreadable = {Path(os.path.abspath(source)): failure for source, failure in failed.items()}
            work = replace(work, appearance=appearance)
        digest = settings_digest(saved, settings, work.appearance)
        jobs, kept, found = plan_cohort(
            pairs,
            folder,
            book,
            digest,
            overwrite=settings.overwrite,
            resume=resume,
            together=work.appearance is not None,
        )
        if kept:
            say(f"{kept} outputs are finished and left as they are")
        if found:
            say(f"{found} outputs exist that no run of this folder made, and are left as they are")
        rows: dict[str, Row] = {}
        if jobs:
            if not settings.overwrite:
                saved.refuse_other(folder / NORMALIZER, book, digest)
            book.begin()
            saved.write(folder / NORMALIZER)
            if runner().here:
                work = replace(work, normalizer=normalizer)
            else:
                # What a worker wrote before it died, another finds there: it has to replace it.
                jobs = [replace(job, replace=True) for job in jobs]
                work = replace(work, saved=place / NORMALIZER, load=load, digest=saved.digest)
            enter = Entering(book, lock, folder, normalizer.name, digest)
            _normalize(jobs, unreadable, work, enter, runner(), progress)
            rows = enter.rows
        elif book.path.exists() and not quality_sheet.is_current(folder):
            book.begin()  # a run was killed before it had put the rows in order and drawn the sheet
        else:
            return CohortResult(normalizer, (), kept, found, None)
        ordered = [(pair, rows[name]) for pair in pairs if (name := key(pair[1], folder)) in rows]
        shown = [book.rows[name] for _, output in pairs if (name := key(output, folder)) in book.rows]
        sheet = None
        try:
            book.close()
            with _interruptible(DRAWING):
                sheet = quality_sheet.write(folder, shown, normalizer, workers=settings.workers, progress=progress)
        except OutputError as error:  # the outputs are there, and so are their rows, if not in order
            say(f"{error}; the outputs are complete, and the same command writes what is missing")
    return CohortResult(normalizer, tuple(ordered), kept, found, sheet)


@contextmanager
def _interruptible(message: str) -> Iterator[None]:
    """Within, Ctrl-C says this."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(message) from None


def _sampling(settings: BatchSettings) -> str:
    """A digest of how slides are sampled for a consensus."""
    facts = [settings.icc, settings.on_error, settings.max_pixels, settings.seed]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _earlier_consensus(path: Path, wanted: Normalizer, load: Load, sampling: str) -> Normalizer | None:
    """The consensus that an earlier run left in the folder, if it is of the same method and settings."""
    if not path.is_file():
        return None
    provenance = load_arrays(path)[2].get("provenance", {})
    if "consensus_of" not in provenance or provenance.get("sampling") != sampling:
        return None
    found = load(path)
    return found if type(found) is type(wanted) and found.settings(brief=True) == wanted.settings(brief=True) else None


def _fit_consensus(
    pairs: Sequence[Pair],
    normalizer: Normalizer,
    work: Work,
    runner: Threads | Cluster,
    say: Say,
    progress: Progress,
) -> None:
    """Measure every slide, and fit the normalizer to all of them together."""
    consensus = Consensus()
    unreadable = blank = 0
    jobs = [Job(Path(os.path.abspath(source)), Path(os.path.abspath(output))) for source, output in pairs]
    meter = Meter("measure", len(jobs), progress)
    with _interruptible(MEASURING):
        for _, share in runner.run(measure_one, jobs, work, started=lambda job: None, moved=meter.moved):
            if isinstance(share, Failure):
                unreadable += 1
            elif not consensus.add(share):
                blank += 1
            meter.count()
    if unreadable:
        say(f"{unreadable} of {len(jobs)} slides cannot be read and have no part in the consensus")
    if blank:
        say(f"{blank} of {len(jobs)} slides show no tissue and have no part in the consensus")
    histogram = consensus.histogram()
    sampling = _sampling(work.settings)
    facts = {**histogram.provenance, "sampling": sampling}
    normalizer.fit(replace(histogram, provenance=dict(sorted(facts.items()))))  # as they are read from its file


def _normalize(
    jobs: Sequence[Job],
    unreadable: Mapping[Path, Failure],
    work: Work,
    enter: Entering,
    runner: Threads | Cluster,
    progress: Progress,
) -> None:
    """Do the jobs, and enter each into the manifest."""
    meter = Meter("normalize", len(jobs), progress)
    readable = []
    for job in jobs:
        if (failure := unreadable.get(job.source)) is None:
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
        entered = f"{len(enter.rows)} of {len(jobs)} slides are entered"
        raise KeyboardInterrupt(f"interrupted; {entered}, and the same command goes on from there") from None
