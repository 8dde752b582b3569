"""What names a reference or a source becomes its `ColorHistogram`: a path, a folder, several of them, a profile."""

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError
from restain.profiles import load_profile, profile_names
from restain.slides.batch import SLIDE_PIXELS, is_image
from restain.slides.cohort import NORMALIZER
from restain.slides.dicom_folder import one_of_each_series
from restain.slides.folders import checksum, is_slide_folder
from restain.slides.forgiving import ForgivingSlide, check_on_error
from restain.slides.icc import Icc, check_icc, histogram_in_srgb
from restain.slides.image_reader import ImageSlide
from restain.slides.reader import OnError, open_slide
from restain.slides.sample import sample_slide, sample_tiles_of


def read_reference(reference: Any, *, icc: Icc = "keep", on_error: OnError = "stop") -> ColorHistogram:
    """Read and count the colours of a reference.

    Args:
        reference: a profile's name, a path to an image, slide, saved histogram or folder of images, a glob pattern,
            or a list of any of these and of image arrays. A profile's name wins over a file of that name only where
            no such file exists.
        icc: "srgb" converts each part to sRGB by its ICC profile, "keep" does not.
        on_error: of slides with damaged tiles: "stop" raises `SlideError`, "skip" and "fill" do not count these tiles,
            and a `SlideWarning` names them.

    Raises:
        SlideError: a file cannot be read, or nothing of it. InputError: nothing is there under that name.
    """
    check_icc(icc)
    check_on_error(on_error)
    if not isinstance(reference, (list, tuple)):
        return _one(reference, icc, on_error)
    merged = ColorHistogram.merged(_one(item, icc, on_error) for item in reference)
    return replace(merged, provenance=_summary(merged.provenance))


def sample_statistics_tiles(
    source: str | os.PathLike[str], count: int, side: int, *, icc: Icc = "keep", on_error: OnError = "stop"
) -> list[RGB8]:
    """Tiles of the tissue of a slide, or of all files of a folder or pattern: at most `count`, (side, side, 3) uint8.

    None of one image that is hardly larger than a tile: it is a tile, and has its own statistics. `icc` and `on_error`
    as for `read_reference`; no tile is taken where the slide is damaged.
    """
    files = [file for file in find_files(source) if is_image(file)]
    if len(files) == 1:
        with open_slide(files[0]) as slide:
            if not slide.pyramidal and max(slide.dimensions) <= 2 * side:
                return []
    return sample_tiles_of(files, count, side, icc=icc, on_error=on_error) if files else []


def find_files(pattern: str | os.PathLike[str]) -> list[Path]:
    """The files that a path, folder (searched through) or glob pattern names, sorted; hidden ones are left out.

    A folder that is one slide (OME-Zarr, the instances of a DICOM slide) counts as a file, and of several instances of
    one DICOM slide among other files the first stands for all.
    """
    text = os.fspath(pattern)
    path = Path(text)
    if path.is_dir() and not is_slide_folder(path):
        return one_of_each_series(sorted(_below(path)))
    if path.exists():
        return [path]
    found = sorted(map(Path, glob.glob(text, recursive=True)))
    return one_of_each_series(p for p in found if p.is_file() or is_slide_folder(p))


def _below(folder: Path) -> Iterator[Path]:
    """Files, and folders that are slides, at any depth."""
    for place, folders, names in os.walk(folder):
        slides = [name for name in folders if not name.startswith(".") and is_slide_folder(Path(place, name))]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in slides]
        yield from (Path(place, name) for name in slides)
        for name in names:
            if not name.startswith(".") and Path(place, name).is_file():
                yield Path(place, name)


def _one(reference: Any, icc: Icc, on_error: OnError) -> ColorHistogram:
    if not isinstance(reference, (str, os.PathLike)):
        found = reference if isinstance(reference, ColorHistogram) else ColorHistogram.from_image(reference)
        return _converted(found, icc)
    path = Path(reference)
    if not path.exists() and str(reference) in profile_names():
        return _converted(load_profile(str(reference)), icc)
    files = find_files(reference)
    if not files:
        names = ", ".join(profile_names())
        raise InputError(f"{reference} names no file, folder or pattern with files, nor a profile ({names})")
    if len(files) == 1:
        return _file(files[0], icc, on_error)
    # What a cohort was normalized by lies beside its outputs, and is no histogram.
    images = [file for file in files if is_image(file) or (file.suffix == ".safetensors" and file.name != NORMALIZER)]
    if not images:
        raise InputError(f"none of {len(files)} files in {reference} has the extension of an image or slide")
    merged = ColorHistogram.merged(_file(file, icc, on_error) for file in images)
    return replace(merged, provenance=_summary(merged.provenance))


def _converted(histogram: ColorHistogram, icc: Icc) -> ColorHistogram:
    return histogram_in_srgb(histogram) if icc == "srgb" else histogram


def _file(path: Path, icc: Icc, on_error: OnError) -> ColorHistogram:
    if path.suffix == ".safetensors":
        return _converted(ColorHistogram.load(path), icc)
    with open_slide(path, icc=icc, on_error=on_error) as slide:
        if isinstance(slide, ImageSlide) and slide.pixels.size <= 3 * SLIDE_PIXELS:
            histogram = ColorHistogram.from_image(slide.pixels, mask=slide.mask)
            histogram = replace(histogram, icc_profile=slide.icc_profile)
        else:
            histogram = sample_slide(slide)
            if isinstance(slide, ForgivingSlide):
                slide.check_some_left(histogram)
                slide.tell()
    # Not the name, which may be a patient's: provenance travels with every output.
    return replace(histogram, provenance={**histogram.provenance, "sha256": checksum(path)})


def _summary(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Many parts as their number and one digest of all, so that a cohort's provenance stays one line."""
    parts = provenance.get("merged")
    if parts is None:
        return dict(provenance)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return {"parts": len(parts), "sha256_of_parts": digest}
