"""What a file is, in plain facts: for `restain info`."""

import re
import warnings
from pathlib import Path
from typing import Any

from restain import files
from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.errors import SlideWarning
from restain.profiles import load_profile, profile_names
from restain.saved import WEIGHTS, load
from restain.slides.image_reader import ImageSlide
from restain.slides.pipeline import describe
from restain.slides.reader import open_slide


def describe_path(path: str) -> dict[str, Any]:
    """Facts on a slide, image, saved histogram or normalizer, or a shipped profile, by name; all plain values."""
    if not Path(path).exists() and path in profile_names():
        return {"profile": path, **_histogram(load_profile(path))}
    if (Path(path) / WEIGHTS).is_file():
        return _normalizer(path)
    if Path(path).suffix == ".safetensors":
        kind, _, _ = files.load_arrays(path)
        return _histogram(ColorHistogram.load(path)) if kind == "histogram" else _normalizer(path)
    return _slide(path)


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, without its full stop."""
    flat = " ".join((text or "").split())
    match = re.match(r"(.+?)(?:\.(?:\s+[A-Z]|$)|$)", flat)
    # A citation's "et al." ends no sentence: the pattern wants a capital behind the stop.
    return match.group(1) if match else flat


def _histogram(histogram: ColorHistogram) -> dict[str, Any]:
    white = find_white_point(histogram)
    return {
        "kind": "colour histogram",
        "colours": len(histogram),
        "pixels": histogram.pixels,
        "white_point": [round(float(level), 2) for level in white.level],
        "white_origin": white.origin,
        "icc_profile": "embedded" if histogram.icc_profile else "none (sRGB)",
        "provenance": dict(histogram.provenance),
    }


def _normalizer(path: str) -> dict[str, Any]:
    normalizer = load(path)
    assert normalizer.reference_ is not None
    facts = describe(normalizer, normalizer.reference_)
    return {
        "kind": "normalizer",
        "method": normalizer.name,
        "settings": facts["settings"],
        "reference": facts["reference"],
        "reference_appearance": facts["appearance"],
    }


def _slide(path: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlideWarning)  # told as notes
        slide = open_slide(path)
    with slide:
        facts: dict[str, Any] = {
            "kind": "slide" if slide.pyramidal else "image",
            "format": slide.format,
            "size": "{}x{}".format(*slide.dimensions),
            "levels": ["{}x{}".format(*size) for size in slide.level_dimensions],
            "mpp": list(slide.mpp) if slide.mpp else None,
            "objective_power": slide.objective_power,
            "icc_profile": "embedded" if slide.icc_profile else "none (sRGB)",
            "associated_images": list(slide.associated_images),
        }
        if isinstance(slide, ImageSlide):
            facts["mode"] = slide.mode
        thumbnail, known = slide.thumbnail()
        white = find_white_point(ColorHistogram.from_image(thumbnail, mask=known))
        facts["white_point"] = [round(float(level), 1) for level in white.level]
        facts["white_origin"] = white.origin
        if slide.notes:
            facts["notes"] = slide.notes
        return facts
