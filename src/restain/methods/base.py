"""The contract that every normalizer answers: `fit`, `estimate`, `color_map`, `transform`, `save`, `==`.

A pixelwise method is written on *balanced* colours: RGB in 0..255 scaled so that glass is 255 in every channel,
T = (I+1)/(W+1). It says what it learns from tissue colours (`_learn`) and how it changes colours (`_restyle`); the
white point, the fade into glass, fallbacks, tables and files are written here, once.

A method that looks at neighbourhoods (a network) answers the same verbs; it has a `WindowMap` in place of a colour map,
and may want tiles beside the colours to estimate from.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from restain import files
from restain.color.colormap import ColorFunction, ColorMap
from restain.color.glass import WhitePoint, find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8, as_rgb8, opaque
from restain.color.spaces import balance
from restain.errors import EstimateWarning, FitError, InputError, NotFittedError
from restain.methods.glass import GlassRule, match_glass
from restain.methods.saving import digest, is_table, plain, to_arrays
from restain.methods.windows import WindowMap, apply_windows

Background = Literal["match", "keep", "white", "none"]
Icc = Literal["keep", "srgb"]
OnError = Literal["stop", "skip", "fill"]
Floats = NDArray[np.float64]

LEAST_COLORS = 20
"""Fewest different tissue colours from which an appearance is estimated; below, a covariance is an accident."""

MOST_COLORS = 100_000
"""Most colours that statistics are computed on as they are; a histogram of more (a slide has millions) is binned
first, to `Normalizer.fit_bits`, so that an estimate takes less than a second."""


class Unlearnable(Exception):
    """Raised by `_learn`: these colours do not determine the statistics; the message says why."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """How one slide (or image, or reference) looks to one method: what `estimate` returns.

    Methods add their statistics as further fields.

    Attributes:
        white_point: (3,) level of glass, 0..255.
        white_origin: "glass" (measured), "prior" (no glass seen), "assumed" (255; `background="none"`).
        tissue_pixels: pixels (weights) that the statistics come from.
        fallback: why the statistics could not be measured and what stands in for them; "" when they were.
        icc_profile: the ICC profile of the pixels, None for sRGB.
    """

    long_fields: ClassVar[tuple[str, ...]] = ("icc_profile",)
    """Fields too long to be shown, and to be written into the description of every output."""

    white_point: Floats
    white_origin: str
    tissue_pixels: float
    fallback: str = ""
    icc_profile: bytes | None = None

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape that each array must have, by name: what a file is checked against."""
        return {"white_point": (3,)}

    def _check_values(self) -> None:
        """Raise `ValueError` for numbers that cannot be applied: what a file is checked against, after the shapes."""

    def _kind(self) -> tuple[Any, ...]:
        """What two appearances must share to be mapped to one another."""
        return ("white assumed" if self.white_origin == "assumed" else "white measured", self._shapes())


@dataclass(eq=False, kw_only=True)
class Normalizer:
    """Base of all methods. The constructor stores settings; `fit` learns; learned names end in `_`.

    Attributes:
        background: what becomes of glass. "match": it takes the reference's white point; "keep": its own stays;
            "white": it becomes 255; "none": the bare method, white point assumed at 255 and nothing done about glass,
            for parity with papers and other packages.
        luminosity: colours below this share of the white point's CIELAB lightness count as tissue (0..1), None for
            all colours.
        reference_: the fitted reference's appearance.
        provenance_: plain facts on the reference.
    """

    name: ClassVar[str]
    """The key in `restain.METHODS`."""
    appearance_type: ClassVar[type[Appearance]]
    fit_bits: ClassVar[int] = 8
    """Bits a channel of the colours that statistics are computed on, where there are very many; 8 for all."""
    fixed: ClassVar[bool] = False
    """Whether the map is given beforehand: `fit` and `estimate` then measure the white point alone, on any image."""
    neighbourhood: ClassVar[bool] = False
    """Whether a pixel's result depends on the pixels around it: there is then a `WindowMap`, and no colour map."""
    statistics_tiles: ClassVar[int] = 0
    """How many tiles of tissue, `statistics_side` pixels square, `estimate` wants beside the colours of a slide."""
    statistics_side: ClassVar[int] = 256

    background: Background = "match"
    luminosity: float | None = 0.8
    reference_: Appearance | None = field(default=None, init=False, repr=False)
    provenance_: Mapping[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self._check_settings()
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"a setting of {type(self).__name__} is of the wrong type: {error}") from None

    def _check_settings(self) -> None:
        """Raise `InputError` for a setting that cannot be; a `TypeError` becomes one."""
        if self.background not in get_args(Background):
            raise InputError(f"got background={self.background!r}; wanted one of {', '.join(get_args(Background))}")
        if self.luminosity is not None and not 0 < self.luminosity <= 1:
            raise InputError(f"got luminosity={self.luminosity}; wanted a share above 0 and up to 1, or None")

    # ---- what a method says of itself -------------------------------------------------------------------------

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        """The method's own fields of its `appearance_type`, from balanced tissue colours (n, 3) with counts (n,).

        Raises `Unlearnable` where the colours do not determine them.
        """
        raise NotImplementedError

    def _default_statistics(self) -> dict[str, Any] | None:
        """Published statistics to fall back to while nothing is fitted, None where there are none."""
        return None

    def _restyle(self, colors: Floats, source: Any, reference: Any) -> Floats:
        """Balanced colours (n, 3) of the source in the reference's appearance, balanced, neither clipped nor rounded.

        Each row must depend on that row alone.
        """
        raise NotImplementedError

    # ---- the verbs --------------------------------------------------------------------------------------------

    def fit(self, reference: Any, *, icc: Icc = "keep", on_error: OnError = "stop") -> Self:
        """Learn the wanted appearance; a `fixed` map learns the wanted glass alone.

        Args:
            reference: an image, a list of images, a path or list of paths (images, folders, slides, saved
                histograms), a `ColorHistogram`, or the name of a shipped profile ("he", "pap").
            icc: "srgb" converts what has an ICC profile to sRGB first, "keep" does not; as in `normalize_slide`.
            on_error: of damaged tiles of slides that are named by paths: "stop" raises `SlideError`, "skip" and "fill"
                do not count them.

        Raises:
            FitError: the reference holds too little stained tissue to learn from.
            SlideError: a file that is named cannot be read. InputError: nothing is there under that name.
        """
        histogram = _as_histogram(reference, icc, on_error)
        white = self._white_point(histogram)
        try:
            self.reference_ = self._measure(histogram, white)
        except Unlearnable as reason:
            raise FitError(f"cannot fit {self.name} to this reference: {reason}") from None
        self.provenance_ = dict(histogram.provenance)
        return self

    def estimate(
        self,
        source: Any,
        *,
        tiles: Sequence[RGB8] | None = None,
        icc: Icc = "keep",
        on_error: OnError = "stop",
    ) -> Appearance:
        """Learn how one slide looks, once.

        Args:
            source: as in `fit`.
            tiles: of the slide's tissue, (side, side, 3) uint8 each, for methods that have `statistics_tiles`; others
                ignore them. None for one image by itself; empty where a slide shows no tissue.
            icc, on_error: as in `fit`; give what the slide is to be normalized with.

        Raises:
            SlideError, InputError: as `fit`.

        Where the tissue does not determine the statistics, the fitted reference's (or else published ones) stand in;
        the result says so in `fallback`, an `EstimateWarning` is issued, and its map matches the glass alone.
        """
        histogram = _as_histogram(source, icc, on_error)
        white = self._white_point(histogram)
        try:
            return self._measure(histogram, white)
        except Unlearnable as reason:
            return self._fall_back(str(reason), white, histogram)

    def estimate_image(self, image: Any, *, histogram: ColorHistogram | None = None) -> Appearance:
        """Learn how one image looks by itself: not as a part of a slide.

        Args:
            image: as in `transform`.
            histogram: its colours, where they are counted already.
        """
        return self.estimate(ColorHistogram.from_image(image) if histogram is None else histogram)

    def pixel_map(
        self, appearance: Appearance, *, lazy: bool = False, workers: int | None = None
    ) -> ColorMap | WindowMap:
        """What maps the pixels of one slide: its `color_map`, or a `WindowMap` where the method has `neighbourhood`."""
        return self.color_map(appearance, lazy=lazy, workers=workers)

    def color_map(self, appearance: Appearance, *, lazy: bool = False, workers: int | None = None) -> ColorMap:
        """The exact map from one slide's colours to the reference's; see `ColorMap.from_function`.

        Raises:
            InputError: the method looks at neighbourhoods, so no map of colours can do what it does.
        """
        self._refuse_neighbourhood()
        self._check_appearance(appearance)
        return ColorMap.from_function(self._color_function(appearance), lazy=lazy, workers=workers)

    def transform(self, image: Any, appearance: Appearance | None = None) -> RGB8:
        """Normalize one image; estimates from this image unless an `appearance` is given.

        Args:
            image: (H, W, 3) uint8 or another form that `restain.color.images.as_rgb8` accepts; never changed. Where
                it is transparent it is padding: composited on white, and not mapped.
            appearance: the slide's, from `estimate`; give it for tiles, or every tile gets colours of its own.

        Returns:
            (H, W, 3) uint8.
        """
        self._fitted()
        pixels = as_rgb8(image)
        if appearance is None:
            appearance = self.estimate_image(image)
        self._check_appearance(appearance)
        out = self._transform_pixels(pixels, appearance)
        known = opaque(image)
        if known is not None:  # padding stays padding
            out[~known] = pixels[~known]
        return out

    def map_colors(self, colors: NDArray[Any], appearance: Appearance) -> Floats:
        """The map itself: colours (n, 3) in 0..255 to (n, 3) float64, neither clipped nor rounded.

        Colours far from glass get the method's formula; colours near glass are scaled from the source's white point
        to the wanted one, channel by channel; between, the two are blended by `glass_weight`.
        """
        self._refuse_neighbourhood()
        reference = self._fitted()
        levels = np.asarray(colors, np.float64)
        restyled = self._restyle_levels(levels, appearance, reference)
        if self.background == "none":
            return restyled
        return match_glass(levels, restyled, appearance.white_point, self._wanted_white(appearance))

    def glass_rule(self, appearance: Appearance) -> GlassRule:
        """What becomes of glass, for methods that look at neighbourhoods: theirs is to apply it to their results."""
        reference = self._fitted()
        if self.background == "none":
            return GlassRule(None)
        return GlassRule(appearance.white_point, reference.white_point, self._wanted_white(appearance))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write settings and reference as one safetensors file; read it with `restain.load`."""
        arrays, values = to_arrays(self._fitted())
        settings = {}
        for name, value in self._settings().items():
            if is_table(value):
                arrays |= {f"settings.{name}.{key}": array for key, array in value.items()}
            else:
                settings[name] = plain(value)
        facts = {
            "method": self.name,
            "settings": settings,
            "reference": values,
            "provenance": dict(self.provenance_),
        }
        files.save_arrays(path, "normalizer", arrays, facts, overwrite=overwrite)

    def settings(self, *, brief: bool = False) -> dict[str, Any]:
        """The constructor's arguments, as plain values; `brief` has digests in place of arrays, for provenance."""
        return {name: digest(v) if brief and is_table(v) else plain(v) for name, v in self._settings().items()}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Normalizer)
        return self.settings(brief=True) == other.settings(brief=True) and self.reference_ == other.reference_

    __hash__ = None  # type: ignore[assignment]  # changes with fit

    # ---- steps ------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    def _transform_pixels(self, pixels: RGB8, appearance: Appearance) -> RGB8:
        """`transform` of an RGB image, transparency aside."""
        if not self.neighbourhood:
            return ColorMap.apply_once(self._color_function(appearance), pixels)
        window_map = self.pixel_map(appearance)
        assert isinstance(window_map, WindowMap)
        whole = window_map.whole(pixels)
        return apply_windows(pixels, window_map) if whole is None else whole

    def _color_function(self, appearance: Any) -> ColorFunction:
        """`map_colors` of one appearance, for colour maps."""
        return lambda colors: self.map_colors(colors, appearance)

    def _refuse_neighbourhood(self) -> None:
        if self.neighbourhood:
            raise InputError(
                f"{self.name} looks at the pixels around each pixel, so no map of colours does what it does; use "
                "pixel_map, or distill it to a colour map first"
            )

    def _wanted_white(self, appearance: Appearance) -> Floats:
        """What the source's glass is to become; not for `background="none"`."""
        wanted = {
            "match": self._fitted().white_point,
            "keep": appearance.white_point,
            "white": np.full(3, 255.0),
        }
        return wanted[self.background]

    def _restyle_levels(self, levels: Floats, appearance: Any, reference: Any) -> Floats:
        """Colours (n, 3) as scanned in the reference's appearance, scaled so that the reference's glass is 255."""
        balanced = balance(levels, appearance.white_point)
        # Where nothing could be measured, nothing but the glass is changed.
        return balanced if appearance.fallback else self._restyle(balanced, appearance, reference)

    def _bits(self) -> int:
        return self.fit_bits

    def _white_point(self, histogram: ColorHistogram) -> WhitePoint:
        return WhitePoint(np.full(3, 255.0), "assumed") if self.background == "none" else find_white_point(histogram)

    def _tissue(self, histogram: ColorHistogram, white: Floats) -> ColorHistogram:
        """The stained colours."""
        return histogram if self.luminosity is None else histogram.tissue(white, self.luminosity)

    def _measure(self, histogram: ColorHistogram, white: WhitePoint) -> Appearance:
        if len(histogram) > MOST_COLORS:
            histogram = histogram.binned(self._bits())
        tissue = self._tissue(histogram, white.level)
        if self.fixed and len(histogram):
            return self.appearance_type(white.level, white.origin, tissue.pixels, icc_profile=histogram.icc_profile)
        if len(tissue) < LEAST_COLORS:
            raise Unlearnable(f"{len(tissue)} different colours of stained tissue, wanted {LEAST_COLORS} or more")
        statistics = self._learn(balance(tissue.colors, white.level), tissue.counts)
        return self.appearance_type(
            white_point=white.level,
            white_origin=white.origin,
            tissue_pixels=tissue.pixels,
            icc_profile=histogram.icc_profile,
            **statistics,
        )

    def _fall_back(self, reason: str, white: WhitePoint, histogram: ColorHistogram) -> Appearance:
        if self.reference_ is not None:
            stand_in, whose = self.reference_, "the reference's statistics"
        else:
            defaults = self._default_statistics()
            if defaults is None:
                raise NotFittedError(
                    f"{reason}, and {self.name} is not fitted, so nothing can stand in; call fit first"
                )
            stand_in = self.appearance_type(white.level, white.origin, 0.0, **defaults)
            whose = "published statistics"
        message = f"{reason}; {whose} stand in"
        warnings.warn(f"{self.name}: {message}", EstimateWarning, stacklevel=3)
        return replace(
            stand_in,
            white_point=white.level,
            white_origin=white.origin,
            tissue_pixels=0.0,
            fallback=message,
            icc_profile=histogram.icc_profile,
        )

    def _fitted(self) -> Appearance:
        if self.reference_ is None:
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit(reference), or fit('he') for H&E")
        return self.reference_

    def _check_appearance(self, appearance: Appearance) -> None:
        reference = self._fitted()
        if not isinstance(appearance, self.appearance_type):
            wanted = self.appearance_type.__name__
            raise InputError(f"got {type(appearance).__name__}; wanted the {wanted} that {self.name}.estimate returns")
        if appearance._kind() != reference._kind():
            raise InputError(
                f"the appearance was estimated with other settings ({appearance._kind()}) than the reference's "
                f"({reference._kind()}); estimate it with this normalizer"
            )


def _as_histogram(reference: Any, icc: Icc, on_error: OnError) -> ColorHistogram:
    if isinstance(reference, ColorHistogram) and (icc, on_error) == ("keep", "stop"):
        return reference
    # Paths, profile names and ICC profiles are understood above this room, where slides are known.
    named = isinstance(reference, (str, os.PathLike)) or (
        isinstance(reference, (list, tuple)) and any(isinstance(item, (str, os.PathLike)) for item in reference)
    )
    if named or (icc, on_error) != ("keep", "stop"):
        from restain.references import read_reference

        return read_reference(reference, icc=icc, on_error=on_error)
    if isinstance(reference, (list, tuple)) and not all(np.isscalar(item) for item in reference):
        return ColorHistogram.from_images(reference)
    return ColorHistogram.from_image(reference)
