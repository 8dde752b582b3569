"""Distillation: any normalizer's work, learned by a colour map or a StainNet that can be applied at once.

StainNet's three steps (Kang et al. 2021, PAPERS §4.2) are: train a teacher; let it normalize all source tiles, and keep
them as 8-bit images; train the student on these pairs. Here the last two are one call, the teacher may be any network
or method, and the student may also be a lattice that is fitted to the pairs' colours without any training.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from restain import files
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.color.regression import SIZES, PairedColors, fit_lattice
from restain.errors import InputError, OutputError
from restain.evaluation.metrics.pixel_errors import psnr
from restain.evaluation.metrics.structural import ssim
from restain.methods.base import Appearance, Normalizer
from restain.methods.lattice import Lattice
from restain.saved import load
from restain.slides.image_reader import encode_image
from restain.slides.reader import open_slide
from restain.training.data import DataSettings, TrainingData
from restain.training.loop import train
from restain.training.run_folder import is_run
from restain.training.settings import Recipe, make_recipe, merged, read_recipe
from restain.training.tiles import Picture, Shelf

Student = Literal["stainnet", "colormap"]
Progress = Callable[[int, int, Path], None]
"""Called with how many tiles the teacher has normalized, of how many, and the file of the latest."""


LEAST_JUDGED = 11
"""Least side, pixels, of the tiles that a student is judged on: the window of SSIM."""


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """How a teacher is distilled."""

    student: Student = "stainnet"
    """"stainnet", the trained network, or "colormap", a lattice fitted to the pairs' colours."""

    kernels: tuple[int, ...] | None = None
    """Of StainNet: 1×1 convolutions alone make a colour map; with 3×3 ones (Table 4) it is a network. None for the
    recipe's."""

    recipe: str = "stainnet-small"
    """Of StainNet's training: "stainnet" for the paper's 300 epochs of SGD."""

    overrides: dict[str, Any] | None = None
    """Settings that go before the recipe's, nested as in its file."""

    tile: int = 256
    """Side of the tiles that the teacher normalizes, pixels."""

    tiles: int = 0
    """Most tiles of training, of validation and of test each; 0 for all whole tiles of images, and a slide's sample."""

    estimate: Literal["image", "folder"] = "image"
    """Whether the teacher sees each tile by itself, as the paper has it, or all of them as one slide's."""

    validation_share: float = 0.1
    """Share of the tiles that the student is judged on, and its best weights chosen by."""

    select_on: Literal["validation", "test"] = "validation"
    """"test" chooses the student's weights on the test tiles, as the paper's code does: a leak, for parity alone."""

    group_pattern: str = ""
    """Regular expression whose first group, in a file's path, names its slide or patient: none is on both sides."""

    training_data_license: str | None = None
    """Licence of the images, to be kept with the student; None for what the teacher says of its own."""

    lattice: int = 33
    """Points along each side of the lattice of "colormap"."""

    seed: int = 0
    """Of the split, the tiles and the student."""


@dataclass(frozen=True)
class DistillResult:
    """A student, and how near its teacher it comes.

    Attributes:
        student: fitted, and saved.
        psnr: mean over the tiles judged on, student against teacher, dB; without those that are the same to the last
            level, and infinite where all are.
        ssim: the same, mean over channels.
        judged: how many tiles; on_test whether they are test tiles, and no validation tiles.
        unexplained: share of the variance of the teacher's outputs that no map of colours could give (by tissue, not
            colour); None where it was not measured.
    """

    student: Normalizer
    psnr: float
    ssim: float
    judged: int
    on_test: bool
    unexplained: float | None = None


def distill(
    teacher: Normalizer,
    images: Sequence[str],
    output: str | Path,
    settings: DistillSettings | None = None,
    *,
    test: Sequence[str] = (),
    run: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
) -> DistillResult:
    """Distill a teacher.

    Args:
        teacher: any fitted normalizer.
        images: files, folders, patterns and slides of the source: what the student shall know.
        output: the student's file, .safetensors.
        settings: see `DistillSettings`.
        test: images that the student is judged on at the end, never shown in training.
        run: a new folder that keeps the teacher's work and the student's training; None to keep neither.
        device: where StainNet is trained.
        overwrite: whether an `output` or a run that is there is replaced.
        quiet: whether StainNet's training shows no progress.
        progress: called while the teacher works.

    Raises:
        InputError: settings or images that cannot be, or several processes that would do the same work.
        OutputError: an output that may not be written.
    """
    _refuse_company()
    settings = settings or DistillSettings()
    output = Path(output)
    _check(settings, test)
    if settings.student == "stainnet":  # mistakes are told before the teacher works, which may take hours
        _recipe(teacher, settings, {"source": ["taught"], "target": ["taught"], "pairs": "names"})
    if output.suffix != ".safetensors":
        raise OutputError(f"{output} should end in .safetensors, the format of saved normalizers")
    files.refuse_overwrite(output, overwrite)
    with _folder(run, output, overwrite) as folder:
        work = _teach(teacher, images, test, folder / "teacher", settings, progress)
        judged = work.test or work.validation
        if settings.student == "colormap":
            student, unexplained = _fit_colormap(teacher, work, settings)
        else:
            student, unexplained = _train_stainnet(teacher, work, folder / "student", settings, device, quiet), None
        provenance: dict[str, Any] = {"teacher": teacher.name, "teacher_settings": teacher.settings(brief=True)}
        provenance |= {"teacher_provenance": dict(teacher.provenance_), "tiles": len(work.training)}
        provenance["training_data_license"] = _license(teacher, settings)
        student.provenance_ = {**student.provenance_, "distilled": provenance}
        scores = [_judge(student, pair) for pair in judged]
    student.save(output, overwrite=overwrite)
    # A tile that is the same to the last level has no finite PSNR, and would hide all others.
    finite = [value for value, _ in scores if np.isfinite(value)]
    decibels = float(np.mean(finite)) if finite else float("inf")
    similar = float(np.mean([value for _, value in scores]))
    return DistillResult(student, decibels, similar, len(judged), bool(work.test), unexplained)


# ---- the teacher's work ---------------------------------------------------------------------------------------------

Place = tuple[Picture, int, int, int, int]
"""A picture, and x, y, width, height in it."""
Pair = tuple[Path, Path]
"""The files of a source tile, and of what the teacher made of it."""


@dataclass(frozen=True)
class _Work:
    """The teacher's work: pairs, by what they are for."""

    training: list[Pair]
    validation: list[Pair]
    test: list[Pair]


def _teach(
    teacher: Normalizer,
    images: Sequence[str],
    test: Sequence[str],
    folder: Path,
    settings: DistillSettings,
    progress: Progress | None,
) -> _Work:
    """Let the teacher normalize every tile, and write the pairs as PNG."""
    common = DataSettings(
        source=tuple(images),
        crop=settings.tile,
        batch=1,
        workers=0,
        seed=settings.seed,
        group_pattern=settings.group_pattern,
    )
    with ExitStack() as stack:
        share = settings.validation_share
        data = stack.enter_context(TrainingData(replace(common, validation_share=share)))
        parts = {"training": data.training["source"], "validation": data.validation.get("source", [])}
        if test:
            tested = stack.enter_context(TrainingData(replace(common, source=tuple(test), validation_share=0.0)))
            parts["test"] = tested.training["source"]
        places = {part: _places(pictures, settings) for part, pictures in parts.items()}
        trained = settings.student == "stainnet" and settings.select_on == "validation"
        for part in [part for part in places if part != "training"]:
            places[part] = [place for place in places[part] if min(place[3:]) >= LEAST_JUDGED]
        if test and not places["test"]:
            raise InputError(f"no test image has sides of {LEAST_JUDGED} pixels or more")
        if not places["validation"] and (trained or not test):
            raise InputError("no tile is left to judge the student on; give more images or a larger validation share")
        shelf = Shelf()
        stack.callback(shelf.close)
        common_look = _common_appearance(teacher, places["training"], shelf) if settings.estimate == "folder" else None
        total, done = sum(map(len, places.values())), 0
        work = _Work([], [], [])
        for part, wanted in places.items():
            for number, (picture, *window) in enumerate(wanted):
                tile = shelf.read(picture, *window)
                appearance = common_look or teacher.estimate_image(tile)
                pair = [folder / part / side / f"{number:06d}.png" for side in ("source", "target")]
                for path, pixels in zip(pair, (tile, teacher.transform(tile, appearance)), strict=True):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(encode_image(pixels, ".png", None))
                getattr(work, part).append((pair[0], pair[1]))
                done += 1
                if progress is not None:
                    progress(done, total, picture.path)
    return work


def _places(pictures: Sequence[Picture], settings: DistillSettings) -> list[Place]:
    """All whole tiles of pictures, edge to edge; of those smaller than a tile, all there is. Evenly thinned."""
    side = settings.tile
    places: list[Place] = []
    for picture in pictures:
        width, height = picture.size
        wide, high = min(side, width), min(side, height)
        rows, columns = range(0, height - high + 1, side), range(0, width - wide + 1, side)
        places += [(picture, x, y, wide, high) for y in rows for x in columns]
    if settings.tiles and len(places) > settings.tiles:
        places = [places[i] for i in np.linspace(0, len(places) - 1, settings.tiles).astype(int)]
    return places


def _common_appearance(teacher: Normalizer, places: Sequence[Place], shelf: Shelf) -> Appearance:
    """How all tiles together look to the teacher, as tiles of one slide."""
    histogram = ColorHistogram.from_images([shelf.read(picture, *window) for picture, *window in places])
    count = min(teacher.statistics_tiles, len(places))
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, count).astype(int)]
    tiles = [shelf.read(picture, *window) for picture, *window in chosen]
    side = min((min(tile.shape[:2]) for tile in tiles), default=0)
    return teacher.estimate(histogram, tiles=[tile[:side, :side] for tile in tiles])


# ---- the students ---------------------------------------------------------------------------------------------------


def _fit_colormap(teacher: Normalizer, work: _Work, settings: DistillSettings) -> tuple[Normalizer, float]:
    """A lattice, by regression of the teacher's mean output for each source colour."""
    paired = PairedColors.merged(PairedColors.from_images(*map(_read, pair)) for pair in work.training)
    fitted = fit_lattice(paired, size=settings.lattice)
    student = Lattice(table={"levels": fitted.levels}, background=teacher.background)
    _take_glass(student, teacher)
    return student, fitted.unexplained


def _train_stainnet(
    teacher: Normalizer, work: _Work, run: Path, settings: DistillSettings, device: str, quiet: bool
) -> Normalizer:
    """StainNet, by the loop that trains every system."""
    judged = work.test if settings.select_on == "test" else work.validation
    folders = {"": work.training[0], "validation_": judged[0]}
    data: dict[str, Any] = {}
    for prefix, pair in folders.items():
        data |= {f"{prefix}source": [str(pair[0].parent)], f"{prefix}target": [str(pair[1].parent)]}
        data[f"{prefix}pairs"] = "names"
    result = train(_recipe(teacher, settings, data), run, device=device, quiet=quiet)
    student = load(result.normalizer)
    _take_glass(student, teacher)
    return student


def _recipe(teacher: Normalizer, settings: DistillSettings, data: Mapping[str, Any]) -> Recipe:
    """How StainNet is trained: a recipe, what is known here, and the overrides."""
    values: dict[str, Any] = {
        "system": "stainnet",
        "background": teacher.background,
        # Of tiles larger than the crop, all is learned from.
        "config": {"crop_position": "random"},
        "data": dict(data),
        "training": {
            "seed": settings.seed,
            "select": "best",
            "training_data_license": _license(teacher, settings),
        },
    }
    if settings.kernels is not None:
        values["config"]["kernels"] = list(settings.kernels)
    return make_recipe(merged(read_recipe(settings.recipe), values, settings.overrides or {}), settings.recipe)


def _license(teacher: Normalizer, settings: DistillSettings) -> str:
    """The licence of what the student has seen."""
    if settings.training_data_license is not None:
        return settings.training_data_license
    facts = [teacher.provenance_.get(key) for key in ("training", "weights", "distilled")]
    known = [fact.get("training_data_license") for fact in facts if isinstance(fact, Mapping)]
    return next((str(licence) for licence in known if licence), "unknown")


def _take_glass(student: Normalizer, teacher: Normalizer) -> None:
    """The student's glass is to become what the teacher's does."""
    reference, own = teacher.reference_, student.reference_
    assert reference is not None
    if student.background != "none" and own is not None:
        student.reference_ = replace(own, white_point=reference.white_point, white_origin=reference.white_origin)


def _judge(student: Normalizer, pair: Pair) -> tuple[float, float]:
    source, wanted = map(_read, pair)
    made = student.transform(source, student.estimate_image(source))
    return psnr(wanted, made), ssim(wanted, made)


def _read(path: Path) -> RGB8:
    with open_slide(path) as image:
        return image.read_region((0, 0), 0, image.dimensions)[0]


def _refuse_company() -> None:
    """Refuse to be one of several processes, by the variables by which accelerate knows them."""
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        count = os.environ.get(name, "")
        if count.isdecimal() and int(count) > 1:
            raise InputError(f"distilling is the work of one process, and this is one of {count}; start it by itself")


def _check(settings: DistillSettings, test: Sequence[str]) -> None:
    if settings.student not in get_args(Student):
        raise InputError(f"got student={settings.student!r}; wanted one of {', '.join(get_args(Student))}")
    if settings.select_on == "test" and not test:
        raise InputError("select_on is test, but no test images are given; give --test")
    if settings.tile < 16 or settings.tiles < 0 or not 0 <= settings.validation_share < 1:
        raise InputError(
            f"got tile={settings.tile}, tiles={settings.tiles}, validation_share={settings.validation_share}; "
            "wanted 16 or more, 0 or more, and 0 to below 1"
        )
    if settings.lattice not in SIZES:
        raise InputError(f"got lattice={settings.lattice}; wanted {SIZES[0]} to {SIZES[-1]}")


@contextmanager
def _folder(run: str | Path | None, output: Path, overwrite: bool) -> Iterator[Path]:
    """Where the teacher's work and the student's training go: a folder that stays, or one beside the output."""
    if run is None:
        try:
            made = tempfile.mkdtemp(prefix=f".{output.stem[:60]}.", dir=output.parent)
        except OSError as error:
            raise OutputError(f"cannot write in {output.parent}: {error.strerror}") from error
        try:
            yield Path(made)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    folder = Path(run)
    there = [part for part in (folder / "teacher", folder / "student") if part.exists()]
    for part in there:
        if not (_is_teachers_work(part) if part.name == "teacher" else is_run(part)):
            raise OutputError(f"{part} is not of an earlier distillation; name a new folder")
    if there and not overwrite:
        raise OutputError(f"{folder} holds an earlier distillation; --overwrite replaces it")
    for part in there:
        shutil.rmtree(part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _is_teachers_work(folder: Path) -> bool:
    """Whether a folder holds pairs of tiles and nothing else."""
    return folder.is_dir() and all(part.name in ("training", "validation", "test") for part in folder.iterdir())
