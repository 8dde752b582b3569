"""Images and slides, one by one: where their outputs go, and how each is normalized. `cohort` does many."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restain.color.histogram import ColorHistogram
from restain.errors import InputError, OutputError, RestainError
from restain.files import write_atomically
from restain.methods.base import Appearance, Normalizer
from restain.slides.codecs import PyramidSettings
from restain.slides.folders import is_slide_folder
from restain.slides.forgiving import ForgivingSlide
from restain.slides.formats import FORMATS, pyramid_format, stem_of
from restain.slides.icc import Icc
from restain.slides.image_reader import WRITTEN, ImageSlide, encode_image, writes_alpha
from restain.slides.mapped_tiles import map_known
from restain.slides.pipeline import (
    Associated,
    Progress,
    SlideResult,
    check_paths,
    describe,
    normalize_slide,
    notes,
    output_profile,
)
from restain.slides.reader import Mask, OnError, Slide, open_slide
from restain.strict_json import to_json

Estimate = Literal["image", "folder"]

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".jp2"])
SLIDE_SUFFIXES = frozenset([".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm"])

SLIDE_PIXELS = 32_000_000
"""A plain image above this many pixels is sampled, and written, like a slide."""


@dataclass(frozen=True)
class BatchSettings:
    """How many files are normalized; the fields are the options of `normalize_slide` and `estimate`."""

    estimate: Estimate = "image"
    max_pixels: int = 64_000_000
    seed: int = 0
    pyramid: PyramidSettings = field(default_factory=PyramidSettings)
    associated: Associated = "drop"
    icc: Icc = "keep"
    on_error: OnError = "stop"
    overwrite: bool = False
    workers: int | None = None


@dataclass(frozen=True)
class Failure:
    """A file that could not be normalized, and why, in one line."""

    source: Path
    error: str


def is_image(path: Path) -> bool:
    """Whether a file's extension is one of an image or slide, or a folder is a slide."""
    return path.suffix.lower() in IMAGE_SUFFIXES | SLIDE_SUFFIXES or is_slide_folder(path)


def is_sampled(slide: Slide, output: Path) -> bool:
    """Whether `normalize_file` samples a slide and writes a pyramid, rather than a plain image from all its pixels."""
    large = slide.dimensions[0] * slide.dimensions[1] > SLIDE_PIXELS
    format = pyramid_format(output)
    return slide.pyramidal or (format is not None and (large or format != "tiff"))


def plan_outputs(sources: Iterable[Path], root: Path, folder: Path, format: str = "tiff") -> list[tuple[Path, Path]]:
    """Pair each source below `root` with its output below `folder`: same name, slides ending as their `format` does.

    Plain images keep their format, and so do all TIFF where the format is "tiff"; else they count as slides.

    Raises:
        OutputError: two sources would be written to one output.
    """
    pairs: dict[Path, Path] = {}
    for source in sources:
        relative = source.relative_to(root) if source.is_relative_to(root) else Path(source.name)
        kind, ending = source.suffix.lower(), FORMATS[format].suffixes[0]
        is_tiff = kind in FORMATS["tiff"].suffixes
        if source.is_dir() or (is_tiff and format != "tiff"):  # whose name may have dots, or two endings
            output = folder / relative.with_name(stem_of(relative) + ending)
        elif kind in WRITTEN:
            output = folder / relative
        else:
            output = folder / relative.with_name(relative.stem + (".png" if kind in IMAGE_SUFFIXES else ending))
        if output in pairs:
            raise OutputError(f"{pairs[output]} and {source} would both be written to {output}; rename one of them")
        pairs[output] = source
    return [(source, output) for output, source in pairs.items()]


def normalize_file(
    source: Path,
    output: Path,
    normalizer: Normalizer,
    settings: BatchSettings,
    *,
    appearance: Appearance | None = None,
    histogram: ColorHistogram | None = None,
    progress: Progress | None = None,
) -> SlideResult:
    """Normalize one image or slide to `output`, in the format that its extension names.

    Slides are written as pyramids and need a .tif output, which for plain images of more than 32 megapixels is a
    pyramid too. `histogram` is a slide's sample, where it is at hand already.

    Raises:
        SlideError, OutputError: as `normalize_slide`; also for a slide that is to be written as a plain image.
    """
    check_paths(source, output, settings.overwrite)
    with open_slide(source, icc=settings.icc, on_error=settings.on_error) as slide:
        if not is_sampled(slide, output):
            return _normalize_image(slide, output, normalizer, settings, appearance)
        return normalize_slide(
            slide,
            output,
            normalizer,
            appearance=appearance,
            histogram=histogram,
            max_pixels=settings.max_pixels,
            seed=settings.seed,
            settings=settings.pyramid,
            associated=settings.associated,
            overwrite=settings.overwrite,
            workers=settings.workers,
            progress=progress,
        )


def _normalize_image(
    slide: Slide, output: Path, normalizer: Normalizer, settings: BatchSettings, appearance: Appearance | None
) -> SlideResult:
    start = time.perf_counter()
    width, height = slide.dimensions
    pixels, known = slide.read_region((0, 0), 0, (width, height))
    if appearance is None:
        histogram = ColorHistogram.from_image(pixels, mask=known)
        appearance = normalizer.estimate_image(pixels, histogram=histogram)
    result: NDArray[np.uint8]
    rgba = slide.rgba if isinstance(slide, ImageSlide) and writes_alpha(output.suffix) else None
    if normalizer.neighbourhood:
        result = _transform(normalizer, appearance, pixels, known, rgba)
    else:
        color_map = normalizer.color_map(appearance, lazy=True, workers=settings.workers)
        colors = None if rgba is None else np.ascontiguousarray(rgba[..., :3])
        result = map_known(color_map, pixels, known) if colors is None else color_map(colors)
    if rgba is not None:
        result = np.dstack([result, rgba[..., 3]])
    elif known is not None and writes_alpha(output.suffix):
        result = np.dstack([result, known.astype(np.uint8) * np.uint8(255)])
    data = encode_image(
        result,
        output.suffix,
        output_profile(normalizer),
        description=to_json(describe(normalizer, appearance)),
        dpi=slide.dpi if isinstance(slide, ImageSlide) else _dpi(slide),
    )
    write_atomically(output, lambda stream: stream.write(data), overwrite=settings.overwrite)
    seconds = time.perf_counter() - start
    return SlideResult(slide.path, output, appearance, (width, height), seconds, notes(slide, appearance))


def _transform(
    normalizer: Normalizer,
    appearance: Appearance,
    pixels: NDArray[np.uint8],
    known: Mask | None,
    rgba: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """RGB by a method that looks at neighbourhoods: it sees padding as white, and does not change it.

    With `rgba`, colours are mapped as they are below a transparency that stays, instead of on white.
    """
    if rgba is not None:
        pixels, known = rgba[..., :3], rgba[..., 3] > 0
        seen = np.where(known[..., None], pixels, np.uint8(255))
    else:
        seen = pixels
    mapped = normalizer.transform(seen, appearance)
    return mapped if known is None else np.where(known[..., None], mapped, pixels)


def _dpi(slide: Slide) -> tuple[float, float] | None:
    return None if slide.mpp is None else (25_400 / slide.mpp[0], 25_400 / slide.mpp[1])


def estimate_together(
    sources: list[Path], normalizer: Normalizer, settings: BatchSettings
) -> tuple[Appearance, dict[Path, Failure]]:
    """One appearance for all files; those that cannot be read are told apart and left out."""
    from restain.slides.sample import sample_slide, sample_tiles_of

    failed: dict[Path, Failure] = {}
    share = max(settings.max_pixels // max(len(sources), 1), 1)

    def count(source: Path) -> ColorHistogram:
        with open_slide(source, icc=settings.icc, on_error=settings.on_error) as slide:
            if isinstance(slide, ImageSlide):
                return ColorHistogram.from_image(slide.pixels, mask=slide.mask)
            sampled = sample_slide(slide, max_pixels=share, seed=settings.seed, workers=settings.workers)
            if isinstance(slide, ForgivingSlide):
                slide.check_some_left(sampled)
            return sampled

    def parts() -> Iterator[ColorHistogram]:
        for source in sources:
            try:
                yield count(source)
            except (RestainError, OSError, MemoryError) as error:
                failed[source] = Failure(source, str(error) or type(error).__name__)
            except Exception as error:  # whatever it is, it must not cost the other files
                failed[source] = Failure(source, f"unforeseen {type(error).__name__}: {error}")
        if len(failed) == len(sources):
            raise InputError("none of the files could be read; the first: " + next(iter(failed.values())).error)

    histogram = ColorHistogram.merged(parts())  # which adds them up one by one
    if not normalizer.statistics_tiles:
        return normalizer.estimate(histogram), failed
    readable = [source for source in sources if source not in failed]
    tiles = sample_tiles_of(
        readable,
        normalizer.statistics_tiles,
        normalizer.statistics_side,
        seed=settings.seed,
        icc=settings.icc,
        on_error=settings.on_error,
        workers=settings.workers,
    )
    return normalizer.estimate(histogram, tiles=tiles), failed
