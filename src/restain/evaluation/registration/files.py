"""Register many pairs into a folder: what `restain register` does. One bad pair is reported, the rest completes.

Of a pair NAME the folder gets `NAME.safetensors`, its registration, and, where it is accepted, `NAME.png`, the target
in the source's frame, and `NAME.mask.png`, white where the two may be compared. The registration is written first and
each file in one step, so that a run that was stopped goes on where it was. It holds a digest of what it was made from:
names say nothing of what is in the files, and a registration of other pictures would give plausible wrong numbers.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restain.errors import FormatError, InputError, OutputError, RestainError, SlideError
from restain.evaluation.datasets.pairs import Pair, pair_folders, read_pairs
from restain.evaluation.registration.opencv import opencv
from restain.evaluation.registration.quality import Quality
from restain.evaluation.registration.register import register
from restain.evaluation.registration.result import Registration
from restain.evaluation.registration.settings import RegistrationSettings
from restain.files import write_atomically
from restain.slides.image_reader import encode_image
from restain.slides.reader import open_slide

MOST_PIXELS = 25_000_000
"""Pictures are registered whole, in memory, and a pair takes 130 to 160 bytes a pixel (optical flow the most):
measured, a process peaks at 0.7 GB for 4 million pixels and at 3.3 GB for this many. A larger picture is
a slide, of which tiles should be registered."""

LARGE_PIXELS = MOST_PIXELS // 8
"""Pairs with a larger picture are registered one at a time, or a worker a core would fill the memory; up to it a worker
needs 0.5 GB."""

Status = Literal["accepted", "rejected", "failed"]


@dataclass(frozen=True)
class Outputs:
    """The files of one pair."""

    registration: Path
    aligned: Path
    mask: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a pair."""

    pair: Pair
    outputs: Outputs
    status: Status
    reason: str = ""
    """Why it was rejected or failed, in one line."""
    quality: Quality = field(default_factory=Quality)
    shift: tuple[float, float] = (0.0, 0.0)
    """(x, y) pixels of the target: how far it shows the source's middle from where scale alone would put it."""
    kept: bool = False
    """Whether all of it was there already."""
    seconds: float = 0.0


def plan_pairs(source: Path, target: Path, output: Path, table: Path | None = None) -> tuple[list[Pair], list[Path]]:
    """The pairs to register, by name or by a csv, and the images without a partner.

    Raises:
        InputError: as `pair_folders` and `read_pairs`. OutputError: the output is or holds an input folder.
    """
    for folder in (source, target):
        if folder.resolve().is_relative_to(output.resolve()):
            raise OutputError(f"{output} is, or holds, the input folder {folder}; name another folder")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; name a folder, as every pair gets files of its own")
    alone: list[Path] = []
    if table is not None:
        pairs = read_pairs(table, source, target)
    else:
        pairs, alone = pair_folders(source, target, without=output)
    written: set[Path] = set()
    for pair in pairs:
        for path in vars(outputs_of(pair, output)).values():
            if path in written:
                raise OutputError(f"two pairs would be written to {path}; give them other names in a csv")
            written.add(path)
    return pairs, alone


def outputs_of(pair: Pair, folder: Path) -> Outputs:
    """Where a pair is written."""
    return Outputs(*(folder / f"{pair.name}{suffix}" for suffix in (".safetensors", ".png", ".mask.png")))


def register_files(
    pairs: Sequence[Pair],
    output: Path,
    settings: RegistrationSettings | None = None,
    *,
    overwrite: bool = False,
    keep_fresh: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int, Path], None] | None = None,
) -> Iterator[Outcome]:
    """Register pairs into a folder, in order; one that fails gives an outcome that says so, and the rest goes on.

    What is there already is used again where it was made from the same files, known shift and settings. Where it was
    made from others, or does not say from what, the pair fails unless `overwrite` is given.

    Args:
        pairs: from `plan_pairs`.
        output: the folder to write to; made where it is missing.
        settings: how; None for the defaults.
        overwrite: do again what is there already.
        keep_fresh: with `overwrite`, do again only what was made from something else, or cannot be read.
        workers: threads; None for one a core. The result does not depend on it. Pairs of large pictures
            (`LARGE_PIXELS`) are registered one at a time all the same.
        progress: called with how many are done, of how many, and the last one's source.
    """
    opencv()  # a missing extra is one error, not one a pair
    settings = settings or RegistrationSettings()
    alone = threading.Lock()

    def job(pair: Pair) -> Outcome:
        try:
            return _register_file(pair, outputs_of(pair, output), settings, overwrite, keep_fresh, alone)
        except (RestainError, OSError, MemoryError) as error:
            return Outcome(pair, outputs_of(pair, output), "failed", str(error) or type(error).__name__)
        except Exception as error:  # whatever it is, it must not cost the other pairs
            return Outcome(pair, outputs_of(pair, output), "failed", f"unforeseen {type(error).__name__}: {error}")

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, outcome in enumerate(pool.map(job, pairs), start=1):
            if progress is not None:
                progress(done, len(pairs), outcome.pair.source)
            yield outcome


def is_done(pair: Pair, outputs: Outputs, settings: RegistrationSettings | None = None) -> bool:
    """Whether all of a pair's files are there, made from what it is now; a rejected pair has only its registration."""
    if not outputs.registration.exists():
        return False
    try:
        saved = Registration.load(outputs.registration)
        return _is_whole(saved, outputs) and saved.made_from == digest_of(pair, settings or RegistrationSettings())
    except (FormatError, SlideError):  # told when it is this pair's turn
        return False


def digest_of(pair: Pair, settings: RegistrationSettings) -> str:
    """What a registration is made from: SHA-256 of both files' bytes, the shift that is known, and the settings.

    Raises:
        SlideError: a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps([pair.shift, asdict(settings)], sort_keys=True).encode())
    for path in (pair.source, pair.target):
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise SlideError(f"{path} cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def read_picture(path: Path) -> NDArray[np.uint8]:
    """An image at full resolution: (H, W, 3), or (H, W, 4) where some of it is padding.

    Raises:
        SlideError: it cannot be read. InputError: it is too large to be taken whole.
    """
    with open_slide(path) as slide:
        width, height = slide.dimensions
        if width * height > MOST_PIXELS:
            raise InputError(f"{path} has {width}x{height} pixels; wanted at most {MOST_PIXELS:,}: cut it into tiles")
        pixels, known = slide.read_region((0, 0), 0, (width, height))
    return pixels if known is None else np.dstack([pixels, known.astype(np.uint8) * np.uint8(255)])


def _register_file(
    pair: Pair,
    outputs: Outputs,
    settings: RegistrationSettings,
    overwrite: bool,
    keep_fresh: bool,
    alone: threading.Lock,
) -> Outcome:
    start = time.perf_counter()
    result = None if overwrite and not keep_fresh else _saved(pair, outputs, settings, overwrite)
    kept = result is not None and _is_whole(result, outputs)
    if result is None or not kept:
        source = read_picture(pair.source) if result is None else None
        target = read_picture(pair.target)
        large = any(len(each) * each.shape[1] > LARGE_PIXELS for each in (source, target) if each is not None)
        with alone if large else nullcontext():
            if result is None:
                result = register(source, target, settings, shift=pair.shift)
                result = replace(result, made_from=digest_of(pair, settings))
                _save(result, outputs, overwrite)
            if result.accepted:
                _write_pictures(result, target, outputs)
    seconds = time.perf_counter() - start
    status: Status = "accepted" if result.accepted else "rejected"
    return Outcome(pair, outputs, status, result.reason, result.quality, _shift_of(result), kept, seconds)


def _save(result: Registration, outputs: Outputs, overwrite: bool) -> None:
    outputs.registration.parent.mkdir(parents=True, exist_ok=True)
    if overwrite:  # first, or a run stopped in between would leave the new registration beside the old pictures
        for path in (outputs.aligned, outputs.mask):
            path.unlink(missing_ok=True)
    result.save(outputs.registration, overwrite=overwrite)


def _write_pictures(result: Registration, target: NDArray[np.uint8], outputs: Outputs) -> None:
    """Write the registered target and its mask, where they are not there yet."""
    if not outputs.aligned.exists():
        _write_png(outputs.aligned, result.warp(target))
    if not outputs.mask.exists():
        _write_png(outputs.mask, result.mask.astype(np.uint8) * np.uint8(255))


def _saved(pair: Pair, outputs: Outputs, settings: RegistrationSettings, overwrite: bool) -> Registration | None:
    """The registration that is there, if it may be used; None where it is to be made.

    Raises:
        OutputError: it was made from something else, and may not be replaced. FormatError: it is damaged, likewise.
    """
    if not outputs.registration.exists():
        return None
    try:
        saved = Registration.load(outputs.registration)
    except FormatError:
        if overwrite:
            return None
        raise
    if saved.made_from == digest_of(pair, settings):
        return saved
    if overwrite:
        return None
    raise OutputError(
        f"{outputs.registration} was made from other pictures or settings; pass --overwrite to do it again"
    )


def _is_whole(saved: Registration, outputs: Outputs) -> bool:
    return not saved.accepted or (outputs.aligned.exists() and outputs.mask.exists())


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    data = encode_image(pixels, ".png", None)
    write_atomically(path, lambda stream: stream.write(data), overwrite=False)


def _shift_of(result: Registration) -> tuple[float, float]:
    """How far the target shows the middle of the source from where scale alone would put it, (x, y) target pixels."""
    scale = float(np.sqrt(abs(np.linalg.det(result.matrix[:, :2]))))
    middle = (np.array(result.source_size) - 1) / 2
    x, y = result.matrix[:, :2] @ middle + result.matrix[:, 2] - (scale * (middle + 0.5) - 0.5)
    return float(x), float(y)
