"""ICC profiles: which one an output carries, and what is sRGB already before anything is normalized.

An output carries the reference's profile, or sRGB where it has none, since that is the space that mapped pixels are in.
With `icc="srgb"` source and reference are both converted to sRGB first: exactly as Little CMS does it, colorimetric
relative to white, one 8-bit colour to one 8-bit colour, so that a conversion is a `ColorMap` too.
"""

import functools
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restain.color.colormap import ColorMap
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8, as_rgb8
from restain.errors import InputError, SlideError
from restain.slides.image_reader import ImageSlide
from restain.slides.reader import Mask, Slide

Icc = Literal["keep", "srgb"]

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
# Without shortcuts that cost a grey level, and without a cache that threads would share.
_FLAGS = ImageCms.Flags.NOOPTIMIZE | ImageCms.Flags.NOCACHE
CONVERTED = {"restain.icc": "converted to sRGB"}
"""Among the properties of a slide that was."""
_NOT_OF_IMAGES = {"link": "a link of two devices", "abst": "an abstract effect", "nmcl": "named colours"}


@functools.cache
def srgb_profile() -> bytes:
    """An sRGB profile as Little CMS makes it, without the date of its making, so that equal runs give equal files."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes(12)  # creation date and time (ICC.1, 7.2)
    data[84:100] = bytes(16)  # profile ID: a checksum, zero for "not computed"
    return bytes(data)


def profile_error(profile: bytes) -> str | None:
    """Why a profile cannot be that of RGB pixels, in some words; None where it can."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
        space, kind = opened.xcolor_space.strip(), opened.device_class.strip()
    except (OSError, ImageCms.PyCMSError, ValueError, AttributeError):
        return "damaged"
    if kind in _NOT_OF_IMAGES:
        return f"one of {_NOT_OF_IMAGES[kind]}"
    return None if space == "RGB" else f"one for {space} pixels, and these are RGB"


def check_icc(icc: str) -> None:
    """Raise `InputError` unless `icc` is "keep" or "srgb"."""
    if icc not in get_args(Icc):
        raise InputError(f"got icc={icc!r}; wanted keep or srgb")


@functools.lru_cache(maxsize=2)  # of the reference and of the scanner; each has a table of up to 64 MiB
def to_srgb(profile: bytes) -> ColorMap:
    """The map from a profile's colours to sRGB's; colours are converted when they first occur.

    Raises:
        InputError: the profile is damaged, or not one of RGB pixels.
    """
    reason = profile_error(profile)
    try:
        if reason is not None:
            raise ImageCms.PyCMSError(reason)
        source, target = (ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (profile, srgb_profile()))
        transform = ImageCms.buildTransform(source, target, "RGB", "RGB", _INTENT, _FLAGS)
    except ImageCms.PyCMSError as error:
        raise InputError(
            f"the ICC profile cannot be converted to sRGB: it is {reason or f'damaged ({error})'}"
        ) from None

    def convert(colors: RGB8) -> NDArray[np.float64]:
        image = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(colors)[None]), transform)
        converted: NDArray[np.float64] = np.asarray(image)[0].astype(np.float64)
        return converted

    return ColorMap.from_function(convert, lazy=True)


def histogram_in_srgb(histogram: ColorHistogram) -> ColorHistogram:
    """The colours of a histogram converted to sRGB, if it has a profile; provenance says so.

    Raises:
        InputError: the profile is damaged, or not one of RGB pixels.
    """
    if histogram.icc_profile is None:
        return histogram
    convert = to_srgb(histogram.icc_profile)

    def converted(part: ColorHistogram) -> ColorHistogram:
        if not len(part.codes):  # a reference without glass, say
            return part
        return ColorHistogram.from_colors(convert(part.colors[None])[0], part.counts)

    flat = None if histogram.flat is None else converted(histogram.flat)
    provenance = {**histogram.provenance, "icc": CONVERTED["restain.icc"]}
    return replace(converted(histogram), flat=flat, icc_profile=None, provenance=provenance)


def slide_in_srgb(slide: Slide) -> Slide:
    """A slide whose pixels are converted to sRGB as they are read; itself where it has no profile.

    Padding stays white, and further images (label, macro) as they are.

    Raises:
        SlideError: the profile is damaged, or not one of RGB pixels.
    """
    if slide.icc_error is not None:
        raise SlideError(
            f"{slide.path} cannot be converted to sRGB: its ICC profile is {slide.icc_error}; use --icc keep "
            '(icc="keep") to take its pixels as they are'
        )
    if slide.icc_profile is None:
        return slide
    try:
        convert = to_srgb(slide.icc_profile)
    except InputError as error:
        raise SlideError(f"{slide.path}: {error}") from None
    if isinstance(slide, ImageSlide):
        return _image_in_srgb(slide, convert)
    return SrgbSlide(slide, convert)


class SrgbSlide(Slide):
    """Another slide, its pixels converted to sRGB. Closing it closes the other."""

    def __init__(self, slide: Slide, convert: ColorMap) -> None:
        super().__init__(slide.path, slide.format)
        self._slide, self._convert = slide, convert
        self._measure_as(slide)
        self.properties: Mapping[str, str] = {**slide.properties, **CONVERTED}
        self.associated_images = slide.associated_images
        self.notes = slide.notes

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        pixels, known = self._slide.read_region(location, level, size)
        converted = self._convert(pixels)
        if known is not None:
            converted[~known] = pixels[~known]
        return converted, known

    def read_rgba(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        rgba = self._slide.read_rgba(location, level, size)
        converted = self._convert(np.ascontiguousarray(rgba[..., :3]))
        rgba[..., :3] = np.where(rgba[..., 3:] > 0, converted, rgba[..., :3])
        return rgba

    def close(self) -> None:
        self._slide.close()


def _image_in_srgb(slide: ImageSlide, convert: ColorMap) -> ImageSlide:
    """The same object, which holds its pixels, with these converted."""
    if slide.rgba is None:
        slide.pixels = convert(slide.pixels)
    else:
        slide.rgba = np.dstack([convert(np.ascontiguousarray(slide.rgba[..., :3])), slide.rgba[..., 3]])
        slide.pixels = as_rgb8(slide.rgba)
    slide.icc_profile = None
    slide.properties = {**slide.properties, **CONVERTED}
    return slide
