"""`ColorHistogram`: which colours occur, and how often; and the same for a sample of the glass.

Whatever a pixelwise method must learn about a slide depends only on this. Histograms add up, so they are gathered
tile by tile, thread by thread, machine by machine, and fitted once at the end.
"""

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain import files
from restain.color.images import RGB8, as_rgb8, opaque
from restain.color.spaces import balance, lightness_of_linear, linear_light
from restain.errors import FormatError, InputError

Codes = NDArray[np.uint32]
Mask = NDArray[np.bool_]

FLAT_BLOCK = 8
"""Side, in pixels, of the blocks that are judged flat or not: the block of JPEG, so that its ringing stays outside."""

FLAT_DEVIATION = 4.0
"""Largest standard deviation, grey levels, of any channel in a flat block. Measured on glass of fourteen sources:
0 to 3.8 (cameras and sharpened tiles at the upper end); textured tissue is mostly above 6."""


@dataclass(frozen=True, eq=False)
class ColorHistogram:
    """Colours with counts, and beside them those of flat regions, where glass is looked for.

    Attributes:
        codes: (n,) uint32, sorted, unique: R·65536 + G·256 + B.
        counts: (n,) float64 > 0: pixels (or weights) of each colour.
        flat: the colours of flat 8×8 blocks only (a histogram without `flat` of its own), from which the white point
            is estimated; None when positions were never known.
        icc_profile: the ICC profile of the images, None for sRGB.
        provenance: plain facts on where the colours come from; travels with files and outputs.
    """

    codes: Codes
    counts: NDArray[np.float64]
    flat: "ColorHistogram | None" = None
    icc_profile: bytes | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_image(cls, image: Any, *, mask: ArrayLike | None = None) -> "ColorHistogram":
        """Count the colours of one image (anything `as_rgb8` takes), transparent pixels excepted.

        Args:
            image: (H, W, 3) uint8, or another form that `restain.color.images.as_rgb8` accepts.
            mask: (H, W) bool, the pixels to count; None for all.
        """
        return cls.from_images([image], masks=None if mask is None else [mask])

    @classmethod
    def from_images(cls, images: Iterable[Any], *, masks: Iterable[ArrayLike] | None = None) -> "ColorHistogram":
        """Count the colours of several images together, each pixel alike. Streams: one image in memory at a time."""
        if isinstance(images, np.ndarray):
            raise InputError(f"got one array of shape {images.shape}; wanted several images, or from_image for one")
        from restain.color.builder import HistogramBuilder, checked_mask

        builder = HistogramBuilder()
        absent = object()
        for image, mask in itertools.zip_longest(images, masks if masks is not None else (), fillvalue=absent):
            if image is absent or (mask is absent and masks is not None):
                raise InputError("there must be one mask for each image")
            pixels, seen = as_rgb8(image), opaque(image)
            if mask is not absent:
                given = checked_mask(np.asarray(mask), pixels)
                seen = given if seen is None else seen & given
            builder.add(pixels, seen)
        return builder.histogram()

    @classmethod
    def from_colors(cls, colors: ArrayLike, counts: ArrayLike | None = None) -> "ColorHistogram":
        """From colours (n, 3) in 0..255, in any order and repeated at will, with counts (n,) or 1 each."""
        array = np.asarray(colors)
        if array.ndim != 2 or array.shape[1] != 3:
            raise InputError(f"got colours of shape {array.shape}; wanted (n, 3)")
        weights = np.ones(len(array)) if counts is None else np.asarray(counts, np.float64)
        if weights.shape != (len(array),) or not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise InputError("counts must be finite, not negative, and one per colour")
        if array.size and not (array.min() >= 0 and array.max() <= 255):  # NaN fails too
            raise InputError("colours must lie in 0..255")
        return cls._summed(pack(np.rint(array).astype(np.uint8)), weights)

    @classmethod
    def merged(cls, histograms: Iterable["ColorHistogram"], *, equally: bool = False) -> "ColorHistogram":
        """Add histograms up; `equally` gives each the same weight (the mean of their pixels) however large it is."""
        total: ColorHistogram | None = None
        pixels, number = 0.0, 0
        for part in histograms:  # one at a time, so that a long list of files is never in memory whole
            if len(part):
                pixels, number = pixels + part.pixels, number + 1
                part = part * (1 / part.pixels) if equally else part
                total = part if total is None else total + part
        if total is None:
            raise InputError("got no colours to merge; wanted at least one histogram that is not empty")
        return total * (pixels / number) if equally else total

    @classmethod
    def from_slide(cls, slide: Any, **options: Any) -> "ColorHistogram":
        """Sample a slide's tissue and glass at full resolution; options as `restain.slides.sample.sample_slide`."""
        # An upward step, taken only when called: a convenience whose work is done in `slides`.
        from restain.slides.sample import sample_slide

        return sample_slide(slide, **options)

    @property
    def colors(self) -> RGB8:
        """(n, 3) uint8, in the order of `codes`."""
        return unpack(self.codes)

    @property
    def pixels(self) -> float:
        """The sum of all counts."""
        return float(self.counts.sum())

    def __len__(self) -> int:
        return len(self.codes)

    def __add__(self, other: "ColorHistogram") -> "ColorHistogram":
        if not isinstance(other, ColorHistogram):
            return NotImplemented
        merged = self._summed(np.concatenate([self.codes, other.codes]), np.concatenate([self.counts, other.counts]))
        flat = self.flat if other.flat is None else other.flat if self.flat is None else self.flat + other.flat
        # Pixels of two colour spaces do not share a profile; then none is claimed.
        icc = self.icc_profile if self.icc_profile == other.icc_profile else None
        provenance = (
            self.provenance
            if self.provenance == other.provenance
            else {"merged": [*_parts(self.provenance), *_parts(other.provenance)]}
        )
        return replace(merged, flat=flat, icc_profile=icc, provenance=provenance)

    def __mul__(self, weight: float) -> "ColorHistogram":
        """Every count times `weight` > 0; to merge slides as equals, see `merged`."""
        if not 0 < weight < float("inf"):
            raise InputError(f"got weight {weight}; wanted a number above 0, not infinite")
        flat = None if self.flat is None else self.flat * weight
        return replace(self, counts=self.counts * weight, flat=flat)

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ColorHistogram):
            return NotImplemented
        return (
            np.array_equal(self.codes, other.codes)
            and np.array_equal(self.counts, other.counts)
            and self.flat == other.flat
            and self.icc_profile == other.icc_profile
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def binned(self, bits: int = 6) -> "ColorHistogram":
        """Coarser: one colour (the weighted mean, rounded) for each of 2^bits bins a channel.

        Stain vectors of slides move by some 0.1° at 7 bits and 0.3° at 6, of small tiles by more. A profile at 5
        bits takes some tens of KB.
        """
        if not 1 <= bits <= 8:
            raise InputError(f"got {bits} bits a channel; wanted 1 to 8")
        if bits == 8:
            return self
        from restain.color import counting

        codes, counts = counting.bin_colors(self.codes, self.counts, bits)
        coarse = replace(self, codes=codes, counts=counts)
        return coarse if self.flat is None else replace(coarse, flat=self.flat.binned(bits))

    def where(self, keep: Mask) -> "ColorHistogram":
        """Only the colours where `keep` (n,) is true; `flat` and the facts stay."""
        return replace(self, codes=self.codes[keep], counts=self.counts[keep])

    def tissue(self, white: ArrayLike = 255.0, luminosity: float = 0.8) -> "ColorHistogram":
        """Only colours whose CIELAB lightness is below `luminosity` times that of the white point."""
        # Balancing and linear light look at one channel at a time: 256 levels each, not every colour.
        levels = linear_light(balance(np.repeat(np.arange(256.0)[:, None], 3, axis=1), white))
        colors = self.colors
        linear = np.stack([levels[colors[:, channel], channel] for channel in range(3)], axis=1)
        return self.where(lightness_of_linear(linear) < luminosity)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write a small safetensors file, in one step."""
        arrays: dict[str, NDArray[Any]] = {"codes": self.codes, "counts": _compact(self.counts)}
        if self.flat is not None:
            arrays |= {"flat_codes": self.flat.codes, "flat_counts": _compact(self.flat.counts)}
        if self.icc_profile is not None:
            arrays["icc_profile"] = np.frombuffer(self.icc_profile, np.uint8)
        files.save_arrays(path, "histogram", arrays, {"provenance": dict(self.provenance)}, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ColorHistogram":
        """Read what `save` wrote; raises `FormatError` on anything else."""
        kind, arrays, facts = files.load_arrays(path)
        if kind != "histogram":
            raise FormatError(f"{path} holds a {kind}; wanted a colour histogram or profile")
        try:
            flat = None
            if "flat_codes" in arrays:
                flat = cls._checked(arrays["flat_codes"], arrays["flat_counts"])
            icc = arrays["icc_profile"].tobytes() if "icc_profile" in arrays else None
            histogram = cls._checked(arrays["codes"], arrays["counts"])
            return replace(histogram, flat=flat, icc_profile=icc, provenance=dict(facts["provenance"]))
        except (KeyError, ValueError, TypeError) as error:
            raise FormatError(f"{path} is a damaged colour histogram ({files.reason_of(error)})") from None

    @classmethod
    def _summed(cls, codes: Codes, counts: NDArray[np.float64]) -> "ColorHistogram":
        if not len(codes):
            return cls(np.zeros(0, np.uint32), np.zeros(0))
        order = np.argsort(codes, kind="stable")  # which merges what is sorted already in one pass
        ordered = codes[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        totals = np.add.reduceat(np.asarray(counts, np.float64)[order], first)
        keep = totals > 0
        return cls(ordered[first][keep].astype(np.uint32), totals[keep])

    @classmethod
    def _checked(cls, codes: NDArray[Any], counts: NDArray[Any]) -> "ColorHistogram":
        weights = counts.astype(np.float64)
        if codes.ndim != 1 or codes.shape != weights.shape or codes.dtype != np.uint32:
            raise ValueError("codes and counts do not match")
        if len(codes) and (codes.max() >= 1 << 24 or (np.diff(codes.astype(np.int64)) <= 0).any()):
            raise ValueError("codes are not sorted colours")
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError("counts are not positive")
        return cls(codes, weights)


def pack(colors: RGB8) -> Codes:
    """Colours (..., 3) uint8 to codes (...) uint32."""
    wide = colors.astype(np.uint32)
    return (wide[..., 0] << np.uint32(16)) | (wide[..., 1] << np.uint32(8)) | wide[..., 2]


def unpack(codes: Codes) -> RGB8:
    """Codes (...) uint32 to colours (..., 3) uint8."""
    octets = np.ascontiguousarray(codes, "<u4").view(np.uint8).reshape(*codes.shape, 4)  # blue, green, red, none
    return np.ascontiguousarray(octets[..., 2::-1])


def places(codes: Codes) -> Codes:
    """Where tables hold the colours of these codes (n,); as `kernels.place`."""
    green = codes >> np.uint32(8) & np.uint32(255)
    red, blue = (codes >> np.uint32(16)) - green & np.uint32(255), codes - green & np.uint32(255)
    result: Codes = red << np.uint32(16) | blue << np.uint32(8) | green
    return result


def codes_at(places: Codes) -> Codes:
    """The codes of the colours that tables hold at these places (n,): the inverse of `places`."""
    green = places & np.uint32(255)
    red, blue = (places >> np.uint32(16)) + green & np.uint32(255), (places >> np.uint32(8)) + green & np.uint32(255)
    result: Codes = red << np.uint32(16) | green << np.uint32(8) | blue
    return result


def _compact(counts: NDArray[np.float64]) -> NDArray[Any]:
    """Counts as uint32 where that loses nothing."""
    whole = (counts == np.floor(counts)).all() and (len(counts) == 0 or counts.max() < 2**32)
    return counts.astype(np.uint32) if whole else counts


def _parts(provenance: Mapping[str, Any]) -> list[Any]:
    return list(provenance["merged"]) if "merged" in provenance else [dict(provenance)]
