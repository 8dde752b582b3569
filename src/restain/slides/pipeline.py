"""The whole story of one slide: estimate once, then decode → map → encode every tile in threads, and write."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from restain import __version__
from restain.color.colormap import ColorMap
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, OutputError, SlideError
from restain.methods.base import Appearance, Normalizer
from restain.methods.windows import WindowMap
from restain.slides.codecs import EncodedTile, PyramidSettings
from restain.slides.folders import is_slide_folder, refuse_output
from restain.slides.forgiving import ForgivingSlide
from restain.slides.glass_tiles import glass_tiles
from restain.slides.icc import Icc, srgb_profile
from restain.slides.mapped_tiles import mapped_tiles, windowed_tiles
from restain.slides.reader import OnError, Slide, open_slide
from restain.slides.sample import SAMPLE_TILE, Kept, estimate_slide, sample_slide
from restain.slides.writer import settings_for, write_pyramid
from restain.strict_json import to_json

Associated = Literal["drop", "keep"]
Progress = Callable[[str, int, int], None]
"""Called with a stage ("estimate", "normalize"), the pixels done and the pixels in all."""

KEPT_PROPERTIES = (
    "openslide.vendor",
    "openslide.objective-power",
    "aperio.AppMag",
    "hamamatsu.SourceLens",
    "restain.icc",
)
"""What of the source's metadata travels. Names, dates, users and barcodes do not: they can identify a patient."""


@dataclass(frozen=True)
class SlideResult:
    """What became of one slide or image: the paths, how it looked, how long it took, and what was warned of."""

    source: Path
    output: Path
    appearance: Appearance
    size: tuple[int, int]
    seconds: float
    warnings: tuple[str, ...]


def normalize_slide(
    source: str | os.PathLike[str] | Slide,
    output: str | os.PathLike[str],
    normalizer: Normalizer,
    *,
    appearance: Appearance | None = None,
    histogram: ColorHistogram | None = None,
    max_pixels: int = 64_000_000,
    seed: int = 0,
    settings: PyramidSettings | None = None,
    associated: Associated = "drop",
    icc: Icc = "keep",
    on_error: OnError = "stop",
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SlideResult:
    """Normalize a slide or image of any size into a pyramid: BigTIFF, OME-TIFF, OME-Zarr or DICOM.

    Args:
        source: a path of anything that `open_slide` reads, or what it returned; the file is never changed.
        output: what to write, .tif, .ome.tif, .ome.zarr or .dcm, the last two folders. It appears only when complete.
        normalizer: a fitted normalizer.
        appearance: the slide's, from `normalizer.estimate`; None to estimate it from a sample of the slide.
        histogram: that sample, from `sample_slide`, where it is at hand already.
        max_pixels: most tissue pixels to sample for the estimate.
        seed: of the sample.
        settings: tile size and compression of the output.
        associated: "keep" copies label and macro images (labels carry patients' names), "drop" does not.
        icc: "srgb" converts the slide to sRGB by its ICC profile first (a slide that is open is taken as it is); the
            reference should have been too. "keep" does not.
        on_error: of damaged tiles: "stop" raises `SlideError`, "skip" leaves them out as padding, "fill" makes them
            glass; in a slide that is given opened, as it was opened.
        overwrite: replace an existing output.
        workers: threads; None for one a core. Pixels are the same whatever their number.
        progress: called from this thread as work advances.

    Returns:
        The slide's appearance, size, time and warnings.

    Raises:
        SlideError: the source cannot be read. OutputError: the output exists, is the source, or cannot be written.
    """
    if associated not in get_args(Associated):
        raise InputError(f"got associated={associated!r}; wanted drop or keep")
    if not isinstance(source, Slide):
        with open_slide(source, icc=icc, on_error=on_error) as slide:
            return normalize_slide(
                slide,
                output,
                normalizer,
                appearance=appearance,
                histogram=histogram,
                max_pixels=max_pixels,
                seed=seed,
                settings=settings,
                associated=associated,
                overwrite=overwrite,
                workers=workers,
                progress=progress,
            )
    output = Path(output)
    settings = settings_for(output, settings, size=source.dimensions, mpp=source.mpp)
    check_paths(source.path, output, overwrite)
    workers = workers or os.cpu_count() or 1
    report = progress or _silent
    start = time.perf_counter()
    sample: Mapping[str, Any] = {}
    kept: Kept | None = {} if settings.tile == SAMPLE_TILE and not normalizer.neighbourhood else None
    if appearance is None:
        report("estimate", 0, 1)
        if histogram is None:
            histogram = sample_slide(
                source,
                max_pixels=max_pixels,
                seed=seed,
                workers=workers,
                kept=kept,
                progress=lambda *_: report("estimate", 0, 1),  # which may end it
            )
        if isinstance(source, ForgivingSlide):
            source.check_some_left(histogram)
        appearance, sample = estimate_slide(source, normalizer, histogram, seed=seed, workers=workers)
    if isinstance(source, ForgivingSlide):
        source.glass = appearance.white_point
    # Lazily: a slide shows some percent of all colours.
    pixel_map = normalizer.pixel_map(appearance, lazy=True, workers=workers)
    if histogram is not None and isinstance(pixel_map, ColorMap):
        pixel_map.evaluate(histogram.codes)  # all threads at once, rather than each one in the others' way
    write_mapped(
        source,
        output,
        pixel_map,
        kept=kept,
        icc_profile=output_profile(normalizer),
        description=_description(source, normalizer, appearance, sample),
        settings=settings,
        white=appearance.white_point,
        associated=_associated(source) if associated == "keep" else {},
        overwrite=overwrite,
        workers=workers,
        report=report,
    )
    if isinstance(source, ForgivingSlide):
        source.tell()
    return SlideResult(
        source.path, output, appearance, source.dimensions, time.perf_counter() - start, notes(source, appearance)
    )


def write_mapped(
    slide: Slide,
    output: Path,
    pixel_map: ColorMap | WindowMap,
    *,
    kept: Kept | None = None,
    icc_profile: bytes | None,
    description: str,
    settings: PyramidSettings,
    white: NDArray[np.float64] | None = None,
    associated: Mapping[str, RGB8] | None = None,
    overwrite: bool,
    workers: int,
    report: Progress,
) -> None:
    """Map every pixel of a slide into a pyramid of the same size and resolution; arguments as `write_pyramid`.

    `kept` holds tiles of the slide that were read before, of the output's size; it is emptied. `report` is told of the
    stage "normalize". Padding stays padding. With `white`, the slide's white point, tiles of glass may be mapped
    without being decoded (`restain.slides.glass_tiles`).
    """
    with ThreadPoolExecutor(workers) as pool:
        if isinstance(pixel_map, ColorMap):
            glass = None if white is None else glass_tiles(slide, pixel_map, white, settings)
            tiles = mapped_tiles(slide, pixel_map, kept or {}, glass, settings, pool, workers)
        else:
            tiles = windowed_tiles(slide, pixel_map, settings, pool, workers)
        write_pyramid(
            output,
            slide.dimensions,
            _counted(tiles, slide, settings, report),
            settings=settings,
            mpp=slide.mpp,
            icc_profile=icc_profile,
            description=description,
            software=f"restain {__version__}",
            associated=associated or {},
            pool=pool,
            overwrite=overwrite,
            objective_power=slide.objective_power,
        )


def notes(slide: Slide, appearance: Appearance) -> tuple[str, ...]:
    """What a user should know of a result: metadata that was not believed, statistics that were stood in for."""
    return (*slide.notes, *([appearance.fallback] if appearance.fallback else []))


def check_paths(source: Path, output: Path, overwrite: bool) -> None:
    """Raise `OutputError` unless `output` may be written and is not `source`."""
    if not output.parent.is_dir():
        raise OutputError(f"cannot write in {output.parent}: there is no such folder")
    if output.exists() and source.exists() and os.path.samefile(source, output):
        raise OutputError(f"{output} is the input itself; name another output, the input is never changed")
    whole, wanted = source.resolve(), output.resolve()
    if wanted in whole.parents:  # slides can be folders
        raise OutputError(f"{output} holds the input {source}; name another output, the input is never changed")
    if source.suffix.lower() == ".dcm" and source.is_file():  # a file of a DICOM slide stands for its folder
        source, whole = source.parent, whole.parent
    if whole in wanted.parents and is_slide_folder(whole):
        raise OutputError(f"{output} lies in the input {source}; name another output, the input is never changed")
    refuse_output(output, overwrite)


def output_profile(normalizer: Normalizer) -> bytes:
    """The ICC profile of normalized pixels: the reference's, sRGB when it has none."""
    reference = normalizer.reference_
    return (reference.icc_profile if reference is not None else None) or srgb_profile()


def describe(normalizer: Normalizer, appearance: Appearance) -> dict[str, Any]:
    """Plain facts on how something was normalized, for provenance and summaries."""
    return {
        "software": f"restain {__version__}",
        "method": normalizer.name,
        "settings": normalizer.settings(brief=True),
        "reference": dict(normalizer.provenance_),
        "appearance": {
            item.name: _rounded(getattr(appearance, item.name))
            for item in fields(appearance)
            if item.name not in appearance.long_fields
        },
    }


def slide_facts(slide: Slide) -> dict[str, Any]:
    """What of a slide's metadata travels into the description of an output."""
    kept = {key: slide.properties[key] for key in KEPT_PROPERTIES if key in slide.properties}
    return {"objective_power": slide.objective_power, "mpp": slide.mpp, **kept}


def _counted(
    tiles: Iterable[EncodedTile], slide: Slide, settings: PyramidSettings, report: Progress
) -> Iterator[EncodedTile]:
    """The tiles, each reported."""
    area = slide.dimensions[0] * slide.dimensions[1]
    for done, tile in enumerate(tiles, start=1):
        report("normalize", min(done * settings.tile**2, area), area)
        yield tile


def _associated(slide: Slide) -> dict[str, RGB8]:
    images = {}
    for name in ("label", "macro"):
        if name in slide.associated_images:
            try:
                images[name] = slide.associated_images[name]()
            except SlideError as error:
                if not isinstance(slide, ForgivingSlide):
                    raise
                slide.leave_out(name, str(error))
    return images


def _description(slide: Slide, normalizer: Normalizer, appearance: Appearance, sample: Mapping[str, Any]) -> str:
    facts = describe(normalizer, appearance) | {"slide": slide_facts(slide), "sample": dict(sample)}
    return to_json(facts)  # ASCII, as TIFF wants it


def _rounded(value: Any) -> Any:
    return np.round(value, 6).tolist() if isinstance(value, (np.ndarray, float)) else value


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""
