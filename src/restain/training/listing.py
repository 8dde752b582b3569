"""Which pictures are trained on and which are kept for validation: every file is found, opened once, and sorted out."""

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, RestainError
from restain.evaluation.datasets.pairs import Pair, pair_folders, read_pairs
from restain.references import find_files
from restain.slides.batch import Failure, is_image
from restain.slides.reader import open_slide
from restain.slides.sample import sample_slide
from restain.training.data_settings import DataSettings
from restain.training.sampling import choose_validation, stable_order
from restain.training.tiles import Listed, Picture, TileSettings, is_sampled, list_file, list_pair

Role = Literal["source", "target"]
Part = Literal["training", "validation"]
ROLES: tuple[Role, ...] = ("source", "target")
PARTS: tuple[Part, ...] = ("training", "validation")
White = NDArray[np.float64] | None
Progress = Callable[[int, int], None]
Lists = dict[Role, list[Picture]]


@dataclass
class Listing:
    """What was found.

    Attributes:
        training: by role, the pictures to train on; those of pairs correspond.
        validation: by role, the pictures kept for validation, in a fixed order that mixes files.
        failures: files that were left out, and why.
        notes: what a person should know.
        kept: pictures whose pixels were kept; all or none of those of plain images.
    """

    training: Lists = field(default_factory=dict)
    validation: Lists = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: dict[Picture, RGB8] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    """One file or pair to list."""

    roles: tuple[Role, ...]
    part: Part
    path: Path
    group: str | None
    """Its slide or patient, where that is known."""
    run: Callable[[], Listed]


def list_data(settings: DataSettings, workers: int, progress: Progress | None = None) -> Listing:
    """Find, open and split everything that `settings` names; the same whatever the order of files on disk.

    Args:
        settings: what to look for.
        workers: threads that open files.
        progress: called with the number of files opened and of all.

    Raises:
        InputError: nothing is there under a name, nothing can be read, or a split is impossible.
        RestainError: a file cannot be read and `skip_bad` is False.
    """
    listing = Listing()
    jobs = _jobs(settings, listing)
    kept: dict[Picture, RGB8] | None = {}
    room = settings.cache_bytes
    # `warnings.catch_warnings` is not thread-safe, so it is around all of it; slides note their own warnings.
    with warnings.catch_warnings(), ThreadPoolExecutor(max(workers, 1)) as pool:
        warnings.simplefilter("ignore")
        for done, (job, result) in enumerate(_attempts(pool, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
            if isinstance(result, Exception):
                if not settings.skip_bad:
                    raise result
                listing.failures.append(Failure(job.path, str(result)))
                continue
            listing.notes += result.notes
            for k, pictures in enumerate(result.pictures):
                for role, picture in zip(job.roles, pictures, strict=True):
                    getattr(listing, job.part).setdefault(role, []).append(picture)
                if kept is not None and result.pixels is not None:
                    kept |= dict(zip(pictures, result.pixels[k], strict=True))
                    room -= sum(pixels.nbytes for pixels in result.pixels[k])
                    kept = kept if room >= 0 else None
    listing.kept = kept or {}
    _check_found(settings, jobs, listing)
    _split(settings, listing)
    _summarize(settings, listing, len(jobs))
    return listing


def group_of(path: Path, pattern: str) -> str | None:
    """What a file belongs to: the first group that `pattern` finds in its path, None where it finds none."""
    match = re.search(pattern, path.as_posix()) if pattern else None
    return None if match is None else match.group(1)


# ---- finding ----------------------------------------------------------------------------------------------------


def _attempts(pool: ThreadPoolExecutor, jobs: Sequence[_Job]) -> Iterator[tuple[_Job, Listed | Exception]]:
    try:
        yield from zip(jobs, pool.map(_attempt, jobs), strict=True)
    finally:  # else an interrupt would wait until every file was opened
        pool.shutdown(cancel_futures=True)


def _attempt(job: _Job) -> Listed | Exception:
    try:
        return job.run()
    except (RestainError, OSError, MemoryError) as error:
        return error
    except Exception as error:  # whatever a library makes of a damaged file, it must not cost the other files
        return InputError(f"{job.path}: unforeseen {type(error).__name__}: {error}")


def _jobs(settings: DataSettings, listing: Listing) -> list[_Job]:
    jobs: list[_Job] = []
    tiles = TileSettings(
        count=settings.slide_tiles,
        side=settings.slide_tile or settings.crop,
        mpp=settings.mpp,
        downsample=settings.slide_downsample,
        blank_share=settings.blank_share,
        seed=settings.seed,
        keep_bytes=settings.cache_bytes // 8,  # as several slides are listed at a time
    )
    if settings.pairs:
        pairs = _pairs(settings.pairs, settings.source, settings.target, listing.notes)
        held: list[Pair] = []
        if settings.validation_pairs:
            source, target = (
                settings.validation_source or settings.source,
                settings.validation_target or settings.target,
            )
            held = _pairs(settings.validation_pairs, source, target, listing.notes)
            known = {(pair.source.resolve(), pair.target.resolve()) for pair in held}
            pairs = [pair for pair in pairs if (pair.source.resolve(), pair.target.resolve()) not in known]
        white = _white(settings, [pair.source for pair in pairs])
        shares: tuple[tuple[Part, list[Pair], White], ...] = (("training", pairs, white), ("validation", held, None))
        for part, some, level in shares:
            for pair in some:
                group = pair.patient or pair.slide or group_of(pair.source, settings.group_pattern)
                run = partial(list_pair, pair, group or pair.name, tiles, level)
                jobs.append(_Job(ROLES, part, pair.source, group, run))
        return jobs
    for role in ROLES:
        files, held_files = _files(getattr(settings, role)), _files(getattr(settings, f"validation_{role}"))
        apart = {path.resolve() for path in held_files}
        files = {path: name for path, name in files.items() if path.resolve() not in apart}
        white = _white(settings, list(files))
        parts: tuple[tuple[Part, Mapping[Path, str], White], ...]
        parts = (("training", files, white), ("validation", held_files, None))
        for part, found, level in parts:
            for path, name in sorted(found.items(), key=lambda item: (item[1], item[0])):
                group = group_of(path, settings.group_pattern)
                run = partial(list_file, path, name, group or name, tiles, level)
                jobs.append(_Job((role,), part, path, group, run))
    return jobs


def _files(patterns: Sequence[str]) -> dict[Path, str]:
    """The images that folders, files and patterns name, each once, with their names.

    A name is the path below the folder that was given; where two would be the same, below the folder of all files.
    """
    found: dict[Path, str] = {}
    seen: set[Path] = set()
    for pattern in patterns:
        files = find_files(pattern)
        folder = Path(pattern)
        alone = files == [folder]
        images = files if alone else [path for path in files if is_image(path)]
        if not images:
            what = f"{len(files)} files, none of them an image or slide" if files else "no file, folder or pattern"
            raise InputError(f"{pattern} names {what}")
        for path in images:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                below = path.relative_to(folder) if folder.is_dir() else Path(path.name)
                found[path] = below.with_suffix("").as_posix()
    if len(set(found.values())) < len(found):
        above = Path(os.path.commonpath([path.absolute().parent for path in found]))
        found = {path: path.absolute().relative_to(above).with_suffix("").as_posix() for path in found}
    return found


def _pairs(table: str, source: Sequence[str], target: Sequence[str], notes: list[str]) -> list[Pair]:
    if table == "names":
        if len(source) != 1 or len(target) != 1:
            raise InputError('pairs = "names" needs one source and one target folder')
        pairs, alone = pair_folders(source[0], target[0])
        if alone:
            notes.append(f"{len(alone)} images have no partner of their name, such as {alone[0]}; left out")
        return pairs
    beside = Path(table).parent
    return read_pairs(table, source[0] if source else beside, target[0] if target else beside)


def _white(settings: DataSettings, files: Sequence[Path]) -> White:
    """The white point against which crops of these files are called blank; None where nobody asks for that."""
    if settings.blank_share is None or not files:
        return None
    histogram = sample_colors(files, settings.seed)
    return None if histogram is None else find_white_point(histogram).level


def sample_colors(files: Sequence[Path], seed: int, most: int = 32) -> ColorHistogram | None:
    """The colours of at most `most` files, chosen by seed: images whole, slides sampled; None if none can be read."""
    parts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in stable_order([path.as_posix() for path in files], seed):
            try:
                with open_slide(files[i]) as slide:
                    if is_sampled(slide):
                        parts.append(sample_slide(slide, max_pixels=4_000_000, max_glass_pixels=1_000_000, seed=seed))
                    else:
                        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
                        parts.append(ColorHistogram.from_image(pixels, mask=known))
            except (RestainError, OSError):
                continue
            if len(parts) == most:
                break
    return ColorHistogram.merged(parts) if parts else None


# ---- splitting --------------------------------------------------------------------------------------------------


def _check_found(settings: DataSettings, jobs: Sequence[_Job], listing: Listing) -> None:
    for part in PARTS:
        lists: Lists = getattr(listing, part)
        for role in ROLES:
            tried = [job for job in jobs if role in job.roles and job.part == part]
            if tried and not lists.get(role):
                first = next((f.error for f in listing.failures if f.source in {job.path for job in tried}), "")
                raise InputError(f"none of {len(tried)} files of the {role} can be used for {part}; the first: {first}")
    if settings.pairs and not listing.training:
        raise InputError("every pair is kept for validation; nothing is left to train on")
    for role in () if settings.pairs else ROLES:
        if getattr(settings, role) and not listing.training.get(role):
            raise InputError(f"every file of the {role} is kept for validation; nothing is left to train on")
    for role in ROLES:
        known = [{job.group for job in jobs if role in job.roles and job.part == part} for part in PARTS]
        both = sorted(group for group in known[0] & known[1] if group is not None)
        if both:
            raise InputError(
                f"{both[0]} is among the {role} to train on and among that for validation, which would look too good; "
                "keep it in one of them"
            )


def _split(settings: DataSettings, listing: Listing) -> None:
    """Keep a share of each list for validation, unless files were named for it."""
    lists = listing.training
    free = [role for role in lists if role not in listing.validation]
    leading = free[:1] if settings.pairs else free
    if settings.validation_share > 0:
        for role in leading:
            _check_groups(settings, listing, role)
    groups: dict[str, list[str]] = {role: [picture.group for picture in lists[role]] for role in leading}
    chosen = choose_validation(groups, settings.validation_share, settings.seed)
    for role in free:
        held = [picture.group in chosen for picture in lists[role]]
        listing.validation[role] = [picture for picture, kept in zip(lists[role], held, strict=True) if kept]
        lists[role] = [picture for picture, kept in zip(lists[role], held, strict=True) if not kept]
    unordered = dict(listing.validation)
    for role, pictures in unordered.items():
        same = unordered["source"] if settings.pairs else pictures  # pairs stay side by side
        order = stable_order([f"{picture.name} {picture.location}" for picture in same], settings.seed)
        listing.validation[role] = [pictures[i] for i in order]


def _check_groups(settings: DataSettings, listing: Listing, role: Role) -> None:
    """Where there is one group only: of one slide the tiles are split; of one image nothing can be kept."""
    pictures = listing.training[role]
    if len({picture.group for picture in pictures}) > 1:
        return
    if len(pictures) == 1:
        listing.notes.append(f"the {role} is one picture; none is kept for validation")
    elif len({picture.path for picture in pictures}) > 1:
        raise InputError(
            f"all {len(pictures)} pictures of the {role} belong to one slide or patient ({pictures[0].group}), so none "
            "can be kept for validation; name files for it, or set validation_share = 0"
        )
    else:
        listing.notes.append(f"the {role} is one slide: tiles of it are kept for validation, from among the others")
        for other in ROLES if settings.pairs else (role,):
            listing.training[other] = [
                replace(p, group=f"{p.group} {first.location}")
                for p, first in zip(listing.training[other], pictures, strict=True)
            ]


def _summarize(settings: DataSettings, listing: Listing, files: int) -> None:
    if listing.failures:
        first = listing.failures[0].error
        listing.notes.append(f"{len(listing.failures)} of {files} files were left out; the first: {first}")
    for role, pictures in listing.training.items():
        held = listing.validation.get(role, [])
        both = [*pictures, *held]
        small = sum(min(picture.size) < settings.crop for picture in both)
        if small:
            listing.notes.append(
                f"{small} of {len(both)} pictures of the {role} are smaller than the crop of {settings.crop} pixels "
                "and mirrored to it"
            )
        named = getattr(settings, f"validation_{role}") or settings.validation_pairs
        if not named and len(held) > 1.5 * settings.validation_share * len(both) + 1:
            groups = [len({picture.group for picture in some}) for some in (held, both)]
            listing.notes.append(
                f"{len(held)} of {len(both)} pictures of the {role} are kept for validation, more than the share of "
                f"{settings.validation_share:g}: whole slides or patients are, here {groups[0]} of {groups[1]}"
            )
