"""OpenSlide's interface to a slide that is normalized while it is read: `NormalizedSlide`. Nothing is written."""

import operator
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from restain.color.colormap import ColorMap
from restain.color.images import RGB8
from restain.errors import InputError, SlideError
from restain.methods.base import Appearance, Normalizer
from restain.methods.window_grid import WindowCache
from restain.methods.windows import apply_region, apply_windows
from restain.slides.forgiving import ForgivingSlide
from restain.slides.icc import Icc
from restain.slides.openslide_reader import OpenSlideSlide
from restain.slides.pipeline import output_profile
from restain.slides.reader import Mask, OnError, Slide, open_slide
from restain.slides.rgba import read_on_white
from restain.slides.sample import estimate_slide, sample_slide

BAND = 16_000_000
"""Pixels that a thumbnail is made from at a time."""


class NormalizedSlide(openslide.AbstractSlide):
    """A slide in the reference's appearance, behind openslide-python's interface; pixels are mapped as they are read.

    Give it to what takes an `openslide.OpenSlide`: patch loaders, viewers, `DeepZoomGenerator`::

        with restain.NormalizedSlide("slide.svs", restain.Macenko().fit("he")) as slide:
            region = slide.read_region((1000, 2000), 0, (512, 512))

    The slide's appearance is estimated once, when it is opened, as `normalize_slide` estimates it. Level 0 is thus,
    pixel by pixel, what `normalize_slide` hands to its JPEG encoder.

    Lower levels are the source's own levels, mapped, which costs no more than reading them. `normalize_slide` averages
    the mapped level 0 instead. The two differ a little where one pixel covers several colours, because a map of
    colours is not linear: the map of a mean is not the mean of what was mapped. Flat areas agree. Besides, a scanner's
    lower levels keep what its own averaging and compression did to them. A model that reads from lower levels should
    be trained and run on one of the two, not on both.

    Padding (missing tiles, outside the slide) is transparent, as OpenSlide has it; partly transparent pixels are
    mapped and keep their alpha. Reading is safe from many threads; close it when they are done. Every process needs
    one of its own: pass on `appearance`, and only the first estimates. An open one holds a table of up to 64 MiB.

    A method that looks at neighbourhoods (a network) is applied in the windows of the slide's own grid, so a region
    has the same pixels whoever asks for it, and those of `normalize_slide` at level 0. Each level has a grid in pixels
    of its own, to which locations between its pixels are rounded. The 64 windows used last are kept (200 MB where
    their side is 512).

    Args:
        source: a path of anything that `open_slide` reads, or what it returned; the caller then closes that.
        normalizer: a fitted normalizer.
        appearance: the slide's, from `normalizer.estimate`; None to estimate it from a sample of the slide.
        max_pixels: most tissue pixels to sample for the estimate.
        seed: of the sample.
        icc: "srgb" converts a path's slide to sRGB by its ICC profile first; the reference should have been too.
        on_error: of damaged tiles: "stop" raises an error where one is read, "skip" makes them transparent, "fill"
            makes them glass; a slide that is given opened is read as it was opened.

    Attributes:
        appearance: how the source looks.
        color_map: the map that is applied, of methods that look at one pixel at a time.

    Raises:
        NotFittedError: the normalizer is not fitted. SlideError: the source cannot be read.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Slide,
        normalizer: Normalizer,
        *,
        appearance: Appearance | None = None,
        max_pixels: int = 64_000_000,
        seed: int = 0,
        icc: Icc = "keep",
        on_error: OnError = "stop",
    ) -> None:
        super().__init__()
        if not isinstance(normalizer, Normalizer):
            raise InputError(f"got {type(normalizer).__name__}; wanted a normalizer, such as Macenko().fit('he')")
        normalizer._fitted()  # before minutes are spent on a sample
        with ExitStack() as opened:
            slide = (
                source
                if isinstance(source, Slide)
                else opened.enter_context(open_slide(source, icc=icc, on_error=on_error))
            )
            if appearance is None:
                histogram = sample_slide(slide, max_pixels=max_pixels, seed=seed, workers=os.cpu_count())
                if isinstance(slide, ForgivingSlide):
                    slide.check_some_left(histogram)
                appearance, _ = estimate_slide(slide, normalizer, histogram, seed=seed, workers=os.cpu_count())
            if isinstance(slide, ForgivingSlide):
                slide.glass = appearance.white_point
            self._pixel_map = normalizer.pixel_map(appearance, lazy=True)
            self._opened = opened.pop_all()
        self.appearance = appearance
        self._windows = WindowCache()
        self._source: Slide | None = slide
        self._name = str(slide.path)
        self._profile = output_profile(normalizer)
        self._level_dimensions = tuple(slide.level_dimensions)
        self._level_downsamples = tuple(slide.level_downsamples)
        self._properties = MappingProxyType(_properties(slide, self._profile))
        self._associated_images = _ReadOnDemand(
            {name: partial(self._read_associated, name) for name in slide.associated_images}
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @classmethod
    def detect_format(cls, filename: str | bytes | os.PathLike[Any]) -> str | None:
        """What a file is: OpenSlide's name of the vendor, "generic-tiff", "PNG", …; None if it cannot be opened."""
        path = os.fsdecode(filename)
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor is not None:
            return vendor
        try:
            with open_slide(path) as slide:
                return _vendor(slide)
        except SlideError:
            return None

    def close(self) -> None:
        """Release the file, unless an open slide was given: that is its owner's to close. Twice does no harm."""
        self._source = None
        self._opened.close()

    @property
    def color_map(self) -> ColorMap:
        """The map that is applied; lazy, so it meets only the colours that were read.

        Raises:
            AttributeError: the normalizer looks at neighbourhoods; there is no map of colours.
        """
        if not isinstance(self._pixel_map, ColorMap):
            raise AttributeError(f"{self!r} is normalized in windows; there is no colour map")
        return self._pixel_map

    @property
    def level_count(self) -> int:
        """The number of levels."""
        return len(self._level_dimensions)

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level, the full one first."""
        return self._level_dimensions

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """How many level-0 pixels one pixel of each level spans."""
        return self._level_downsamples

    @property
    def properties(self) -> Mapping[str, str]:
        """The source's properties, and OpenSlide's standard ones where the source was not read by OpenSlide.

        Different from the source's: `openslide.icc-size` is that of `color_profile`, associated images that are
        passed on as they are have none, and `openslide.mpp-x` and `-y` are left out where they are implausible. The
        vendor's own properties (`aperio.…`) and `openslide.quickhash-1` describe the source.
        """
        return self._properties

    @property
    def associated_images(self) -> Mapping[str, Image.Image]:
        """Label, macro and others by name, RGBA, read when asked for.

        The thumbnail, which the slide's own scanner made of the tissue, is normalized; the others are photographs by
        another camera, and given as they are. Labels carry patients' names.
        """
        return self._associated_images

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """The smallest level that is not smaller than wanted; OpenSlide's rule."""
        for level, own in enumerate(self._level_downsamples[1:], start=1):
            if downsample < own:
                return level - 1
        return self.level_count - 1

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """Read and normalize a rectangle.

        Args:
            location: (x, y) of its top left corner in level-0 pixels; may lie outside the slide.
            level: the level to read.
            size: (width, height) in pixels of that level.

        Returns:
            An RGBA image; `color_profile` is in its `info["icc_profile"]`.

        Raises:
            InputError: no such level, a negative size, or not whole numbers.
            SlideError: the file is damaged there, or the slide was closed.
        """
        source = self._open_source()
        x, y = _whole_numbers("location", location)
        width, height = _whole_numbers("size", size)
        (level,) = _whole_numbers("level", (level,), count=1)
        if not 0 <= level < self.level_count:
            raise InputError(f"got level={level}; wanted 0 to {self.level_count - 1}")
        if width < 0 or height < 0:
            raise InputError(f"got size={(width, height)}; wanted no negative width or height")
        if not width or not height:  # OpenSlide allows it
            return self._tagged(Image.new("RGBA", (width, height)))
        if isinstance(self._pixel_map, ColorMap):
            pixels = source.read_opaque((x, y), level, (width, height))
            if pixels is None:
                rgba = source.read_rgba((x, y), level, (width, height))
                self._pixel_map(rgba[..., :3], out=rgba[..., :3])
            else:
                rgba = np.empty((height, width, 4), np.uint8)
                rgba[..., :3], rgba[..., 3] = self._pixel_map(pixels, out=pixels), 255
        else:
            rgba = self._read_windows(source, (x, y), level, (width, height))
        transparent = rgba[..., 3] == 0
        if transparent.any():
            rgba[transparent] = 0
        return self._tagged(Image.fromarray(rgba))

    def get_thumbnail(self, size: tuple[int, int]) -> Image.Image:
        """The whole slide as an RGB image of at most `size` (width, height), from the best normalized level.

        Padding gets the slide's background colour, white where it names none. A slide without small levels is read in
        bands, never whole.
        """
        wide, high = _whole_numbers("size", size)
        if wide < 1 or high < 1:
            raise InputError(f"got size={(wide, high)}; wanted a width and a height of 1 or more")
        level = self.get_best_level_for_downsample(max(self.dimensions[0] / wide, self.dimensions[1] / high))
        width, height = self.level_dimensions[level]
        # Averaged to no less than twice the size wanted, so that the filter below still decides how it looks.
        step = max(1, int(max(width / wide, height / high) / 2)) if width * height > BAND else 1
        rows = max(BAND // (width * step), 1) * step
        background = "#" + self.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        thumbnail = Image.new("RGB", (-(-width // step), -(-height // step)))
        for top in range(0, height, rows):
            start = round(top * self.level_downsamples[level])
            region = self.read_region((0, start), level, (width, min(rows, height - top)))
            band = Image.new("RGB", region.size, background)
            band.paste(region, None, region)
            thumbnail.paste(band.reduce(step), (0, top // step))
        if step == 1:
            thumbnail.thumbnail((wide, high), Image.Resampling.LANCZOS)
            return self._tagged(thumbnail)
        scale = max(width / wide, height / high)
        fitting = (max(round(width / scale), 1), max(round(height / scale), 1))
        seen = (0, 0, width / step, height / step)  # the last averages are of fewer pixels
        return self._tagged(thumbnail.resize(fitting, Image.Resampling.LANCZOS, box=seen))

    def set_cache(self, cache: openslide.OpenSlideCache) -> None:
        """Keep the source's decoded tiles in `cache`; does nothing for sources that OpenSlide does not read."""
        source = self._open_source()
        if isinstance(source, OpenSlideSlide):
            source._handle.set_cache(cache)

    def _open_source(self) -> Slide:
        if self._source is None:
            raise SlideError(f"{self._name} was closed; open it again to read from it")
        return self._source

    def _read_windows(
        self, source: Slide, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """A rectangle in windows, (H, W, 4), an array of the caller's own."""
        assert not isinstance(self._pixel_map, ColorMap)
        scale, whole = self._level_downsamples[level], self._level_dimensions[level]

        def place(x: int, y: int) -> tuple[int, int]:
            return round(x * scale), round(y * scale)

        def read(x: int, y: int, width: int, height: int) -> tuple[RGB8, Mask | None]:
            return read_on_white(source, place(x, y), level, (width, height))

        x, y = (round(at / scale) for at in location)
        out = np.zeros((size[1], size[0], 4), np.uint8)
        left, top = max(x, 0), max(y, 0)
        width, height = min(x + size[0], whole[0]) - left, min(y + size[1], whole[1]) - top
        if width <= 0 or height <= 0:
            return out
        inside = out[top - y : top - y + height, left - x : left - x + width]
        rectangle = (left, top, width, height)
        inside[..., :3] = apply_region(read, whole, rectangle, self._pixel_map, cache=self._windows, key=level)
        inside[..., 3] = source.read_rgba(place(left, top), level, (width, height))[..., 3]
        return out

    def _read_associated(self, name: str) -> Image.Image:
        pixels = self._open_source().associated_images[name]()
        if name != "thumbnail":
            return Image.fromarray(pixels).convert("RGBA")
        pixel_map = self._pixel_map
        mapped = pixel_map(pixels) if isinstance(pixel_map, ColorMap) else apply_windows(pixels, pixel_map)
        return self._tagged(Image.fromarray(mapped).convert("RGBA"))

    def _tagged(self, image: Image.Image) -> Image.Image:
        image.info["icc_profile"] = self._profile
        return image


class _ReadOnDemand(Mapping[str, Image.Image]):
    """Images by name, each read anew whenever it is asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], Image.Image]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> Image.Image:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __repr__(self) -> str:
        return f"<images {', '.join(self)}>"


def _vendor(slide: Slide) -> str:
    """As in `openslide.vendor`: what stands behind the colon of "openslide: aperio" and "image: PNG"."""
    return slide.format.partition(": ")[2] or "generic-tiff"


def _properties(slide: Slide, icc_profile: bytes) -> dict[str, str]:
    """OpenSlide's standard properties as they are known; the file's own words for them, where they are believed."""
    known = {openslide.PROPERTY_NAME_VENDOR: _vendor(slide), "openslide.level-count": str(len(slide.level_dimensions))}
    for level, (width, height) in enumerate(slide.level_dimensions):
        known[f"openslide.level[{level}].width"] = str(width)
        known[f"openslide.level[{level}].height"] = str(height)
        known[f"openslide.level[{level}].downsample"] = _number(slide.level_downsamples[level])
    if slide.objective_power is not None:
        known[openslide.PROPERTY_NAME_OBJECTIVE_POWER] = _number(slide.objective_power)
    resolution = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    if slide.mpp is not None:
        known |= {key: _number(value) for key, value in zip(resolution, slide.mpp, strict=True)}
    for key, value in slide.properties.items():
        of_profile = key.startswith("openslide.") and key.endswith("icc-size")
        if not of_profile and not (slide.mpp is None and key in resolution):
            known[key] = value
    known["openslide.icc-size"] = str(len(icc_profile))
    if "thumbnail" in slide.associated_images:
        known["openslide.associated.thumbnail.icc-size"] = str(len(icc_profile))
    return known


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _whole_numbers(name: str, values: Any, count: int = 2) -> tuple[int, ...]:
    """Python's own integers, from NumPy's too."""
    try:
        numbers = tuple(operator.index(value) for value in values)
    except TypeError:
        numbers = ()
    if len(numbers) != count:
        raise InputError(f"got {name}={values!r}; wanted {count} whole number{'s' if count > 1 else ''}")
    return numbers
