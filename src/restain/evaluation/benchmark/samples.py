"""The images that methods are compared on: sources, with registered targets where there are pairs.

A sample reads its files when it is asked for pixels and keeps none, so that a thousand of them cost nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.errors import InputError
from restain.evaluation.benchmark.rectangle import largest_rectangle
from restain.evaluation.datasets.pairs import Pair
from restain.evaluation.registration.files import Outcome, read_picture, register_files
from restain.evaluation.registration.result import Registration

Progress = Callable[[int, int, Path], None]


@dataclass(frozen=True)
class Pixels:
    """A sample, read.

    Attributes:
        source: (H, W, 3) uint8.
        target: (H, W, 3) uint8, in the source's frame; None without one that can be compared.
        mask: (H, W) bool, where source and target may be compared; None without a target.
    """

    source: RGB8
    target: RGB8 | None = None
    mask: NDArray[np.bool_] | None = None

    @cached_property
    def rectangle(self) -> tuple[slice, slice]:
        """The largest rectangle inside the mask, for metrics that take none; all of it without one."""
        return np.s_[:, :] if self.mask is None else largest_rectangle(self.mask)


@dataclass(frozen=True)
class Sample:
    """A source image, perhaps with the same tissue in the wanted appearance.

    Attributes:
        name: unique.
        source: its file.
        target: the file of the same tissue by the other lab or scanner; None for unpaired images.
        slide: which slide it is from, where that is known: images of one slide are not independent.
        registration: where the registration of the pair is saved; None for unpaired images.
        reason: why the pair cannot be compared pixel by pixel; empty where it can.
    """

    name: str
    source: Path
    target: Path | None = None
    slide: str | None = None
    registration: Path | None = None
    reason: str = ""

    @property
    def paired(self) -> bool:
        """Whether pixels can be compared with the target's."""
        return self.registration is not None and not self.reason

    def read_source(self) -> RGB8:
        """The source's pixels (H, W, 3) uint8."""
        return np.ascontiguousarray(read_picture(self.source)[..., :3])

    def read_target(self) -> RGB8:
        """The target's pixels (h, w, 3) uint8, as they are in its file."""
        if self.target is None:
            raise InputError(f"{self.name} has no target")
        return np.ascontiguousarray(read_picture(self.target)[..., :3])

    def read(self) -> Pixels:
        """Read the files; the target in the source's frame.

        Raises:
            SlideError, FormatError, InputError: a file cannot be read.
        """
        source = self.read_source()
        if not self.paired:
            return Pixels(source)
        assert self.target is not None
        assert self.registration is not None
        registration = Registration.load(self.registration)
        return Pixels(source, registration.warp(read_picture(self.target)), registration.mask)


def open_samples(
    pairs: Sequence[Pair],
    folder: Path,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[Sample], list[Outcome]]:
    """Register pairs, each once, and keep the registrations in a folder: what is there already is used again.

    A registration that was made from other pictures than are there now is never used.

    Args:
        pairs: from `restain.evaluation.datasets`.
        folder: of the registrations, as `restain register` writes it.
        overwrite: do again the registrations that were made from other pictures or settings, and those only; without,
            their pairs fail.
        workers: threads.
        progress: called after each pair.

    Returns:
        Samples, those of rejected pairs without a target to compare; and the pairs whose files could not be read,
        or whose registrations were made from others.
    """
    samples, failed = [], []
    for outcome in register_files(
        pairs, folder, overwrite=overwrite, keep_fresh=True, workers=workers, progress=progress
    ):
        pair = outcome.pair
        if outcome.status == "failed":
            failed.append(outcome)
            continue
        reason = "" if outcome.status == "accepted" else outcome.reason or "the pair was rejected"
        samples.append(Sample(pair.name, pair.source, pair.target, pair.slide, outcome.outputs.registration, reason))
    return samples, failed
