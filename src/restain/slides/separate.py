"""Separate files into their stains: images into renderings and concentrations, slides into one pyramid per stain.

A rendering is a map of colours, so a slide's is written by the same streaming writer as a normalized slide: memory
does not grow with the slide. Concentrations are floats and take twelve bytes a pixel; they are written for
images alone.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from restain import __version__
from restain.color.histogram import ColorHistogram
from restain.errors import InputError, OutputError, RestainError
from restain.files import atomic_output, write_atomically
from restain.methods.separation import Separation, Separator
from restain.slides.batch import SLIDE_PIXELS, Failure
from restain.slides.codecs import PyramidSettings
from restain.slides.forgiving import ForgivingSlide
from restain.slides.icc import Icc
from restain.slides.image_reader import ImageSlide, encode_image
from restain.slides.pipeline import Progress, check_paths, slide_facts, write_mapped
from restain.slides.reader import OnError, Slide, open_slide
from restain.slides.sample import sample_slide
from restain.strict_json import to_json

CONCENTRATIONS = "concentrations"
"""In the name of the file of floats, where renderings have the stain's name."""


@dataclass(frozen=True)
class SeparationSettings:
    """How files are separated.

    Attributes:
        stains: as `restain.separate`: a name, rows of optical density, or an appearance with stain vectors.
        names: of the stains; they become part of file names.
        white_point: level of glass, one number or (R, G, B); None to estimate it from each file.
        luminosity: colours below this share of the white point's lightness count as tissue; None for all.
        max_pixels: most tissue pixels of a slide to sample.
        seed: of the sample.
        pyramid: tile size and JPEG options of slides.
        icc: "srgb" converts the file to sRGB by its ICC profile first, "keep" does not.
        on_error: of damaged tiles of slides, as for `normalize_slide`.
        overwrite: replace existing outputs.
        workers: threads; None for one a core. Pixels are the same whatever their number.
    """

    stains: Any = "he"
    names: Sequence[str] | None = None
    white_point: Any = None
    luminosity: float | None = 0.9
    max_pixels: int = 64_000_000
    seed: int = 0
    pyramid: PyramidSettings = field(default_factory=PyramidSettings)
    icc: Icc = "keep"
    on_error: OnError = "stop"
    overwrite: bool = False
    workers: int | None = None


@dataclass(frozen=True)
class SeparationResult:
    """What became of one file.

    Attributes:
        source: the file.
        outputs: for each stain its rendering, and for images the file of "concentrations".
        kept: those of the outputs that were there already and were left as they are.
        facts: what was measured, as plain values: names, stain matrix, white point, percentiles; empty where all
            outputs were there already.
        size: (width, height).
        seconds: how long it took.
        warnings: what a user should know.
    """

    source: Path
    outputs: Mapping[str, Path]
    kept: tuple[Path, ...]
    facts: Mapping[str, Any]
    size: tuple[int, int]
    seconds: float
    warnings: tuple[str, ...]


def separate_file(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    settings: SeparationSettings | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> SeparationResult:
    """Write what each stain of an image or slide looks like alone.

    An image gives `STEM.hematoxylin.png` and so on, one for each of its three stains (the residual of two is the
    third), and `STEM.concentrations.tif`: one page of float32 for each stain, with names, vectors, white point and
    percentiles as JSON in its ImageDescription, NaN where the image is not opaque. A slide, or an image of more than
    32 megapixels, gives one pyramid `STEM.hematoxylin.tif` for each stain and no concentrations.

    Args:
        source: anything that `open_slide` reads; the file is never changed.
        folder: where to write; it is made where it is missing. Each file appears only when it is complete.
        settings: stains, white point, and how to write.
        resume: leave outputs that exist as they are and write those that are missing.
        progress: called from this thread as work advances, with the stage, pixels done, and pixels in all.

    Raises:
        InputError: the stains, names or white point are not what was wanted.
        SlideError: the source cannot be read. OutputError: an output exists, is the source, or cannot be written.
    """
    settings = settings or SeparationSettings()
    start = time.perf_counter()
    labels = _file_labels(settings)
    with open_slide(source, icc=settings.icc, on_error=settings.on_error) as slide:
        as_slide = slide.pyramidal or slide.dimensions[0] * slide.dimensions[1] > SLIDE_PIXELS
        outputs = _plan(Path(folder) / slide.path.stem, labels, as_slide)
        kept = tuple(path for path in outputs.values() if resume and not settings.overwrite and path.exists())
        missing = {name: path for name, path in outputs.items() if path not in kept}
        _make_folder(Path(folder))
        for path in missing.values():
            check_paths(slide.path, path, settings.overwrite)
        facts: Mapping[str, Any] = {}
        further = []
        if missing and as_slide:
            facts = _separate_slide(slide, missing, settings, progress)
            further = ["a slide's concentrations are not written; separate a region of it to have them"]
        elif missing:
            facts = _separate_image(slide, missing, settings)
        notes = [*slide.notes, *further]  # now that damage has been met
        return SeparationResult(
            slide.path, outputs, kept, facts, slide.dimensions, time.perf_counter() - start, tuple(notes)
        )


def separate_files(
    sources: Iterable[Path],
    root: Path,
    folder: Path,
    settings: SeparationSettings | None = None,
    *,
    resume: bool = False,
    progress: Callable[[int, int, Path], None] | None = None,
) -> Iterator[SeparationResult | Failure]:
    """Separate many files, in order, into a folder of the same shape; one that fails gives a `Failure`.

    Args:
        sources: the files.
        root: the folder that they lie in; what is below it is kept below `folder`.
        folder: where to write.
        settings: as `separate_file`.
        resume: as `separate_file`.
        progress: called with the files done, the files in all, and the file.

    Raises:
        OutputError: two sources would be written to outputs of the same names. InputError: as `separate_file`.
    """
    settings = settings or SeparationSettings()
    _file_labels(settings)  # what is wrong for all is no failure of each
    pairs = _pair(sources, root, folder)
    workers = settings.workers or os.cpu_count() or 1
    # The threads are shared out between files and, where there are few, the tiles of each.
    shared = replace(settings, workers=max(1, workers // max(len(pairs), 1)))
    stop = threading.Event()

    def stopped(stage: str, done: int, total: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    def job(pair: tuple[Path, Path]) -> SeparationResult | Failure:
        source, where = pair
        try:
            return separate_file(source, where, shared, resume=resume, progress=stopped)
        except (RestainError, OSError, MemoryError) as error:
            return Failure(source, str(error) or type(error).__name__)
        except Exception as error:  # whatever it is, it must not cost the other files
            return Failure(source, f"unforeseen {type(error).__name__}: {error}")

    def results() -> Iterator[SeparationResult | Failure]:
        # `warnings.catch_warnings` is not thread-safe, so warnings are collected around all of it, not per thread.
        with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
            warnings.simplefilter("ignore")  # each result says its own
            try:
                for done, result in enumerate(pool.map(job, pairs), start=1):
                    if progress is not None:
                        progress(done, len(pairs), result.source)
                    yield result
            finally:  # Ctrl-C, say: slides that are under way end at their next tile
                stop.set()
                pool.shutdown(cancel_futures=True)

    return results()


def _measure(histogram: ColorHistogram, settings: SeparationSettings) -> Separator:
    return Separator.measure(
        histogram,
        settings.stains,
        white_point=settings.white_point,
        names=settings.names,
        luminosity=settings.luminosity,
    )


def _separate_image(slide: Slide, outputs: Mapping[str, Path], settings: SeparationSettings) -> dict[str, Any]:
    pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    if isinstance(slide, ImageSlide) and slide.rgba is not None:
        image = slide.rgba
    else:
        image = pixels if known is None else np.dstack([pixels, known.astype(np.uint8) * np.uint8(255)])
    separation = _measure(ColorHistogram.from_image(image), settings).separate(image)
    facts = separation.facts()
    dpi = slide.dpi if isinstance(slide, ImageSlide) else _dpi(slide)
    for name, path in outputs.items():
        if name == CONCENTRATIONS:
            _write_concentrations(path, separation, dpi, settings.overwrite)
            continue
        rendering = separation.render(name)
        if image.shape[2] == 4:  # padding stays padding
            rendering = np.dstack([rendering, image[..., 3]])
        data = encode_image(rendering, ".png", slide.icc_profile, description=_description(facts, stain=name), dpi=dpi)
        _write(path, data, settings.overwrite)
    return facts


def _separate_slide(
    slide: Slide, outputs: Mapping[str, Path], settings: SeparationSettings, progress: Progress | None
) -> dict[str, Any]:
    def estimating(*_: int) -> None:
        if progress is not None:  # which may end it
            progress("estimate", 0, 1)

    estimating()
    histogram = sample_slide(
        slide, max_pixels=settings.max_pixels, seed=settings.seed, workers=settings.workers, progress=estimating
    )
    separator = _measure(histogram, settings)
    if isinstance(slide, ForgivingSlide):
        slide.check_some_left(histogram)
        slide.glass = separator.white_point
    facts = separator.facts()
    for number, (name, path) in enumerate(outputs.items()):

        def report(_: str, done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress("separate", number * total + done, len(outputs) * total)

        write_mapped(
            slide,
            path,
            separator.color_map(name, workers=settings.workers),
            icc_profile=slide.icc_profile,  # the colours are still the source's
            description=_description(facts, stain=name, slide=slide_facts(slide), sample=dict(histogram.provenance)),
            settings=settings.pyramid,
            overwrite=settings.overwrite,
            workers=settings.workers or os.cpu_count() or 1,
            report=report,
        )
    return facts


def _write_concentrations(path: Path, separation: Separation, dpi: tuple[float, float] | None, overwrite: bool) -> None:
    """One page of float32 for each stain; every page says which and how it was measured."""
    facts = separation.facts()
    resolution: dict[str, Any] = {} if dpi is None else {"resolution": dpi, "resolutionunit": "INCH"}
    with atomic_output(path, overwrite=overwrite) as temporary, tifffile.TiffWriter(temporary) as tiff:
        for index, name in enumerate(separation.names):
            tiff.write(
                np.ascontiguousarray(separation.concentrations[..., index]),
                photometric="minisblack",
                compression="deflate",
                metadata=None,
                software=f"restain {__version__}",
                description=_description(facts, stain=name),
                **resolution,
            )


def _write(path: Path, data: bytes, overwrite: bool) -> None:
    write_atomically(path, lambda stream: stream.write(data), overwrite=overwrite)


def _description(facts: Mapping[str, Any], **more: Any) -> str:
    return to_json({"software": f"restain {__version__}", "method": "separation", **more, **facts})  # ASCII


def _plan(stem: Path, labels: Mapping[str, str], as_slide: bool) -> dict[str, Path]:
    """The outputs by name; `stem` is the folder and the source's name without its extension."""
    suffix = ".tif" if as_slide else ".png"
    outputs = {name: stem.with_name(f"{stem.name}.{label}{suffix}") for name, label in labels.items()}
    if not as_slide:
        outputs[CONCENTRATIONS] = stem.with_name(f"{stem.name}.{CONCENTRATIONS}.tif")
    return outputs


def _pair(sources: Iterable[Path], root: Path, folder: Path) -> list[tuple[Path, Path]]:
    """Each source with the folder that its outputs go to."""
    pairs: dict[Path, tuple[Path, Path]] = {}
    for source in sources:
        relative = source.relative_to(root) if source.is_relative_to(root) else Path(source.name)
        stem = folder / relative.with_suffix("")
        if stem in pairs:
            raise OutputError(f"{pairs[stem][0]} and {source} would both be written to {stem}.*; rename one of them")
        pairs[stem] = (source, stem.parent)
    return list(pairs.values())


def _file_labels(settings: SeparationSettings) -> dict[str, str]:
    """Each stain's name as part of a file name: letters, digits, "-" and "_"; everything else becomes "-".

    Raises `InputError` for whatever in the settings would fail on every file, before anything is read or made.
    """
    nothing = ColorHistogram.from_colors(np.zeros((0, 3)))
    names = _measure(nothing, settings).names
    labels = {name: "".join(c if c.isalnum() or c in "-_" else "-" for c in name) for name in names}
    folded = {label.casefold() for label in labels.values()} | {CONCENTRATIONS}  # as some file systems compare them
    if len(folded) != len(names) + 1 or not all(any(c.isalnum() for c in label) for label in labels.values()):
        raise InputError(
            f"got names {', '.join(names)}; wanted names that stay different as parts of file names, "
            f"and none that is {CONCENTRATIONS!r}"
        )
    return labels


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from error


def _dpi(slide: Slide) -> tuple[float, float] | None:
    return None if slide.mpp is None else (25_400 / slide.mpp[0], 25_400 / slide.mpp[1])
