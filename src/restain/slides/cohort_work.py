"""What is done for one slide of a cohort, in a thread here or by a worker of a cluster: the same functions.

To a worker travel paths and settings, from it a few numbers: never pixels. Each function returns a `Failure` instead of
raising, so that one slide's error stays that slide's.
"""

import functools
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from restain import __version__
from restain.color.histogram import ColorHistogram
from restain.errors import OutputError, RestainError, SlideError
from restain.files import checked_before_naming
from restain.lock import read_words
from restain.methods.base import Appearance, Normalizer
from restain.slides.batch import BatchSettings, Failure, is_sampled, normalize_file
from restain.slides.consensus import Share
from restain.slides.folders import checksum
from restain.slides.pipeline import Progress, describe
from restain.slides.reader import Slide, open_slide
from restain.slides.sample import SamplePlan, count_tiles, finish_sample, plan_sample, sample_slide

LOCK = ".restain-cohort.lock"
"""In a cohort's folder: who writes there, and in which run."""

Result = TypeVar("Result")
Load = Callable[[Path], Normalizer]
"""Reads a saved normalizer: `restain.saved.load`, which knows the trained ones too."""


@dataclass(frozen=True)
class Job:
    """One slide to normalize: absolute paths, and whether an output that is there may be replaced."""

    source: Path
    output: Path
    replace: bool = False


@dataclass(frozen=True)
class Work:
    """What is the same for all slides of a cohort.

    Attributes:
        settings: how slides are sampled and written; `workers` threads each.
        normalizer: the normalizer itself, where the work is done in this process; else None, and
        saved, load, digest: its file, what reads it, and the file's checksum.
        appearance: one for all slides, where they are estimated together.
        folder, run: the cohort's, absolute, and what its lock says in this run; None where there is no such folder.
        version: of the restain that sends the work.
    """

    settings: BatchSettings
    normalizer: Normalizer | None = None
    saved: Path | None = None
    load: Load | None = None
    digest: str = ""
    appearance: Appearance | None = None
    folder: Path | None = None
    run: str = ""
    version: str = __version__

    def check_run(self) -> None:
        """Raise `OutputError` unless the cohort's folder is there, and no other run has begun in it since.

        A worker whose run was stopped goes on with its slide; what a later run wrote meanwhile must stay.
        """
        if self.folder is None:
            return
        if not self.folder.is_dir():
            raise OutputError(f"the cohort's folder {self.folder} is gone")
        if read_words(self.folder / LOCK) != self.run:
            raise OutputError(f"another run writes in {self.folder} since; what it wrote is left as it is")

    def fitted(self) -> Normalizer:
        """The normalizer, read once by each process."""
        if self.normalizer is not None:
            return self.normalizer
        assert self.load is not None
        assert self.saved is not None
        return _loaded(self.load, self.saved, self.digest)


@functools.lru_cache(maxsize=2)
def _loaded(load: Load, path: Path, digest: str) -> Normalizer:
    if checksum(path) != digest:
        raise OutputError(f"{path} is not the normalizer of this run; it was replaced meanwhile")
    return load(path)


@dataclass(frozen=True)
class Done:
    """What is told of a slide that was normalized; see `manifest.Row`."""

    size: tuple[int, int]
    seconds: float
    appearance: Mapping[str, Any]
    warnings: tuple[str, ...]
    input_sha256: str
    output_sha256: str


_NETWORKS = threading.Semaphore(2)
"""A network takes all cores or the one GPU, and much memory: in one process one is read or written beside another's."""


Plan = SamplePlan | Failure | None
Part = ColorHistogram | Failure | None


def normalize_one(
    job: Job, work: Work, plan: Plan = None, parts: Sequence[Part] = (), progress: Progress | None = None
) -> Done | Failure:
    """Normalize a slide or image to its output.

    Args:
        job, work: which, and how.
        plan, parts: of its sample, from `plan_one` and `count_one`, where it is counted already.
        progress: as `normalize_slide`.
    """

    def normalize() -> Done:
        normalizer = work.fitted()
        _make_folders(job.output.parent, work.folder)
        with _NETWORKS if normalizer.neighbourhood else nullcontext(), checked_before_naming(work.check_run):
            result = normalize_file(
                job.source,
                job.output,
                normalizer,
                replace(work.settings, overwrite=job.replace),
                appearance=work.appearance,
                histogram=_counted(job, work.settings, plan, parts),
                progress=progress,
            )
        sums, troubles = [], []
        for path in (job.source, job.output):
            try:
                sums.append(checksum(path))
            except OSError as error:  # the output is there all the same
                sums.append("")
                troubles.append(f"there is no checksum of {path}: {error.strerror or error}")
        looks = describe(normalizer, result.appearance)["appearance"]
        return Done(result.size, result.seconds, looks, (*result.warnings, *troubles), sums[0], sums[1])

    return _or_failure(job, normalize)


def measure_one(
    job: Job, work: Work, plan: Plan = None, parts: Sequence[Part] = (), progress: Progress | None = None
) -> Share | Failure:
    """A slide's share of the cohort's consensus; arguments as `normalize_one`."""

    def measure() -> Share:
        histogram = _counted(job, work.settings, plan, parts)
        return Share.of(_sampled(job, work.settings, progress) if histogram is None else histogram)

    return _or_failure(job, measure)


def plan_one(job: Job, work: Work) -> Plan:
    """Which tiles a slide's sample has; None for a plain image, which is counted whole where it is mapped."""

    def plan() -> SamplePlan | None:
        with _opened(job, work.settings) as slide:
            if not is_sampled(slide, job.output):
                return None
            return plan_sample(slide, max_pixels=work.settings.max_pixels, seed=work.settings.seed)

    return _or_failure(job, plan)


def count_one(job: Job, work: Work, plan: Plan, part: int, of: int) -> Part:
    """One part of a slide's sample: colours and their counts, which are added up."""
    if not isinstance(plan, SamplePlan):
        return plan

    def count() -> ColorHistogram:
        with _opened(job, work.settings) as slide:
            return count_tiles(slide, plan.tiles[part::of], plan.tile, workers=1)

    return _or_failure(job, count)


def _counted(job: Job, settings: BatchSettings, plan: Plan, parts: Sequence[Part]) -> ColorHistogram | None:
    """The sample that was counted in parts; None where none was."""
    for item in (plan, *parts):
        if isinstance(item, Failure):
            raise SlideError(item.error)
    if not isinstance(plan, SamplePlan):
        return None
    counts = [part for part in parts if isinstance(part, ColorHistogram)]
    with _opened(job, settings) as slide:
        return finish_sample(slide, plan, functools.reduce(operator.add, counts))


def _sampled(job: Job, settings: BatchSettings, progress: Progress | None = None) -> ColorHistogram:
    """The colours that `normalize_file` estimates from; `progress` is told of the tiles that are counted."""
    with _opened(job, settings) as slide:
        if is_sampled(slide, job.output):
            return sample_slide(
                slide,
                max_pixels=settings.max_pixels,
                seed=settings.seed,
                workers=settings.workers,
                progress=progress and functools.partial(progress, "measure"),
            )
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        return replace(ColorHistogram.from_image(pixels, mask=known), icc_profile=slide.icc_profile)


def _make_folders(place: Path, root: Path | None) -> None:
    """Make a folder below the cohort's, which itself is not made anew where it has vanished."""
    if root is None:
        return
    for name in place.relative_to(root).parts:
        root = root / name
        root.mkdir(exist_ok=True)


def _opened(job: Job, settings: BatchSettings) -> Slide:
    """As `normalize_file` opens it."""
    return open_slide(job.source, icc=settings.icc, on_error=settings.on_error)


def _or_failure(job: Job, work: Callable[[], Result]) -> Result | Failure:
    try:
        return work()
    except (RestainError, OSError, MemoryError) as error:
        return Failure(job.source, str(error) or type(error).__name__)
    except Exception as error:  # whatever it is, it must not cost the other slides
        return Failure(job.source, f"unforeseen {type(error).__name__}: {error}")
