"""What the stain-vector methods share: the appearance, its checks, and how strengths are matched.

Optical densities mix linearly: OD (n, 3) = C (n, k) · M (k, 3), with unit rows M[0] hematoxylin and M[1] eosin.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from restain.color.colormap import ColorFunction, CompiledColors
from restain.color.glass import glass_weight
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.color.spaces import apply_matrix, balance, rgb_to_density
from restain.errors import InputError
from restain.methods.base import Appearance, Floats, Normalizer, Unlearnable
from restain.methods.flavours import StainFlavour, scaled_by_maxima
from restain.methods.lasso import lasso
from restain.methods.statistics import weighted_percentile

RUIFROK_HE: Floats = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
"""Ruifrok & Johnston 2001, as scikit-image, HistomicsTK and others print them; not of unit length."""

WARWICK_HE: Floats = np.array([[0.644211, 0.716556, 0.266844], [0.092789, 0.954111, 0.283111]])
"""The other published pair, from the Warwick stain normalization toolbox; unit length."""

DAB: Floats = np.array([0.27, 0.57, 0.78])
"""Diaminobenzidine, Ruifrok & Johnston 2001."""

LEAST_CONCENTRATION = 0.05
"""A stain whose robust maximum lies below this density is absent; its strength is then not scaled."""

LARGEST_RATIO = 3.0
"""A stain is made at most three times as strong or as weak: labs differ by up to two; beyond, the vectors do not fit
the tissue, and noise would be blown up to colour."""

TONE_LIMITS = (0.75, 1.5)
"""Exponents that the tone of a stain is matched with. Scanners of one slide need 0.9 to 1.4; beyond, the two images
differ in what they show (all lymphocytes, say), not in tone."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StainAppearance(Appearance):
    """Stain vectors and strengths.

    Attributes:
        stain_matrix: (k, 3), unit rows of optical density; hematoxylin first.
        max_concentrations: (k,), the robust maximum (a high percentile) of each stain's concentration.
        median_concentrations: (k,), the median over tissue.
        angle: degrees between the first two rows.
    """

    stain_matrix: Floats
    max_concentrations: Floats
    median_concentrations: Floats
    angle: float

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        count = 3 if len(self.stain_matrix) == 3 else 2
        each = ("max_concentrations", "median_concentrations")
        return super()._shapes() | {"stain_matrix": (count, 3)} | dict.fromkeys(each, (count,))

    def _check_values(self) -> None:
        super()._check_values()
        if not (np.linalg.norm(self.stain_matrix, axis=1) > 1e-6).all() or np.linalg.cond(self.stain_matrix) > 1e6:
            raise ValueError("stain vectors that cannot be told apart")


@dataclass(eq=False, kw_only=True)
class StainNormalizer(Normalizer):
    """Separate into stains, match each stain's strength, mix again with the reference's vectors.

    Attributes:
        percentile: of a stain's concentrations over tissue, taken as its robust maximum, to be matched. 95 by
            default: at 99, where the papers have it, saturated nuclei decide (I = 0 has no definite density), and two
            scans of one slide differed by a factor of two.
        tone: match each stain's median as well, by a power of its concentration within `TONE_LIMITS`, because
            scanners differ in tone curve too; False scales by the ratio of maxima alone, as the papers do.
        residual: "keep" carries over what the stains do not explain (blood's red, pigment, pen); "drop" projects
            every colour on the plane of the stains, as the papers do.
        darkest: colours with a channel below this level (0..255, glass at 255) take no part in finding the stain
            vectors: there, one level of noise turns the vector by degrees.
        off_plane: how far off the plane of the two stains a colour may lie, as a share of its density (the sine of the
            angle), to count as stained. Blood, pigment and ink lie off it: 3 % of blood turned the eosin vector of
            synthetic tissue by 20 degrees. 1 lets every colour count, as the papers do.
        least_angle: degrees; vectors nearer than this are one stain, and the estimate falls back.
        luminosity: 0.9: faint stain too, so that thin cytology has enough of it.
    """

    appearance_type: ClassVar[type[Appearance]] = StainAppearance
    fit_bits: ClassVar[int] = 7  # moves the vectors of a slide by some 0.1 degrees

    percentile: float = 95.0
    tone: bool = True
    residual: Literal["keep", "drop"] = "keep"
    darkest: float = 10.0
    off_plane: float = 0.15
    least_angle: float = 5.0
    luminosity: float | None = 0.9

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.residual not in ("keep", "drop"):
            raise InputError(f"got residual={self.residual!r}; wanted keep or drop")
        if self.tone not in (True, False):
            raise InputError(f"got tone={self.tone!r}; wanted True or False")
        if not 0 < self.percentile <= 100:
            raise InputError(f"got percentile={self.percentile}; wanted one above 0 and up to 100")
        if not 0 <= self.darkest < 255:
            raise InputError(f"got darkest={self.darkest}; wanted a level in 0..255")
        if not 0 < self.off_plane <= 1:
            raise InputError(f"got off_plane={self.off_plane}; wanted a share above 0 and up to 1")
        if not 0 <= self.least_angle <= 90:
            raise InputError(f"got least_angle={self.least_angle}; wanted degrees in 0..90")

    def _find_stains(self, density: Floats, counts: Floats) -> Floats:
        """The (2, 3) unit rows, hematoxylin first, from optical densities (n, 3) with counts (n,)."""
        raise NotImplementedError

    def _near_stains(self, density: Floats, counts: Floats) -> NDArray[np.bool_]:
        """Which of the densities (n, 3) the stains can explain; see `off_plane`."""
        return on_plane(density, counts, self.off_plane)

    def _as_package(self) -> StainFlavour | None:
        """Whose computation to follow; None for restain's own."""
        return None

    def _unmixing(self, matrix: Floats) -> Floats:
        """(3, k), by which densities are multiplied to give concentrations: least squares."""
        return pseudo_inverse(matrix)

    def _concentrations(self, density: Floats, matrix: Floats) -> Floats:
        """How much of each stain: (n, 3) densities to (n, k); linear unless a method knows better."""
        return apply_matrix(density, self._unmixing(matrix))

    def _concentrations_as(self, flavour: StainFlavour, density: Floats, matrix: Floats) -> Floats:
        """`_concentrations` as a package computes them: least squares, which may be negative, or the lasso."""
        if flavour.sparsity is None:
            return apply_matrix(density, pseudo_inverse(matrix))
        return lasso(density, matrix, flavour.sparsity)

    def _tissue(self, histogram: ColorHistogram, white: Floats) -> ColorHistogram:
        # The packages measure strengths over all pixels, and pick those for the vectors themselves.
        return super()._tissue(histogram, white) if self._as_package() is None else histogram

    def _bits(self) -> int:
        return self.fit_bits if self._as_package() is None else 8

    def _learn_as(self, flavour: StainFlavour, colors: Floats, counts: Floats) -> dict[str, Any]:
        density = flavour.density(colors)
        tissue = flavour.tissue(colors, counts)
        if tissue.sum() < 3:
            raise Unlearnable(f"{tissue.sum()} colours of tissue")
        matrix = self._find_stains(density[tissue], counts[tissue])
        if not np.isfinite(matrix).all():
            raise Unlearnable("the stain vectors are not finite")
        angle = angle_between(matrix[0], matrix[1])
        if angle < self.least_angle:
            raise Unlearnable(f"the stain vectors are {angle:.1f} degrees apart: one stain")
        concentrations = self._concentrations_as(flavour, density, matrix)
        medians, maxima = np.transpose([weighted_percentile(c, counts, [50.0, 99.0]) for c in concentrations.T])
        return {
            "stain_matrix": matrix,
            "max_concentrations": maxima,
            "median_concentrations": medians,
            "angle": angle,
        }

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        flavour = self._as_package()
        if flavour is not None:
            return self._learn_as(flavour, colors, counts)
        density = rgb_to_density(colors)
        sure: NDArray[np.bool_] = np.all(colors >= self.darkest, axis=1)
        if sure.sum() < 3:
            raise Unlearnable(f"{sure.sum()} colours with every channel at {self.darkest:g} or above")
        # Dark colours cannot be told on or off the plane; they count for the strengths all the same.
        stained: NDArray[np.bool_] = np.logical_not(sure)
        stained[sure] = self._near_stains(density[sure], counts[sure])
        if (sure & stained).sum() < 3:
            raise Unlearnable(f"{(sure & stained).sum()} colours that the stains explain")
        matrix = self._find_stains(density[sure & stained], counts[sure & stained])
        check_stains(matrix, self.least_angle)
        concentrations = self._concentrations(density[stained], matrix)
        medians, maxima = np.transpose(
            [weighted_percentile(stain, counts[stained], [50.0, self.percentile]) for stain in concentrations.T]
        )
        return {
            "stain_matrix": matrix,
            "max_concentrations": maxima,
            "median_concentrations": medians,
            "angle": angle_between(matrix[0], matrix[1]),
        }

    def _default_statistics(self) -> dict[str, Any]:
        return published_statistics(unit_rows(RUIFROK_HE))

    def _restyle(self, colors: Floats, source: StainAppearance, reference: StainAppearance) -> Floats:
        flavour = self._as_package()
        if flavour is not None:
            concentrations = self._concentrations_as(flavour, flavour.density(colors), source.stain_matrix)
            scaled = scaled_by_maxima(concentrations, source.max_concentrations, reference.max_concentrations)
            return flavour.levels(apply_matrix(scaled, reference.stain_matrix))
        from restain.methods import kernels

        density = rgb_to_density(colors)
        concentrations = self._concentrations(density, source.stain_matrix)
        # Copies, since Numba compiles anew for arrays that are read-only.
        restyled: Floats = kernels.remix(
            density,
            np.ascontiguousarray(concentrations),
            np.array(source.stain_matrix),
            strength_change(source, reference, self.tone),
            np.array(reference.stain_matrix),
            self.residual == "keep",
        )
        return restyled

    def _color_function(self, appearance: StainAppearance) -> ColorFunction:
        reference = self._fitted()
        # A subclass may have ways of its own in any of these steps.
        usual = all(getattr(type(self), step) is getattr(StainNormalizer, step) for step in _COMPILED)
        if not usual or self._as_package() is not None or self.background == "none" or appearance.fallback:
            return super()._color_function(appearance)
        assert isinstance(reference, StainAppearance)
        white = np.asarray(appearance.white_point, np.float64)
        levels = np.repeat(np.arange(256.0)[:, None], 3, axis=1)
        weights = [glass_weight(levels[:, :1], level) for level in white]
        # Copies, since Numba compiles anew for arrays that are read-only.
        settings = (
            rgb_to_density(balance(levels, white)),
            (levels + 1.0) / (white + 1.0),
            np.stack(weights, axis=1),
            np.array(self._wanted_white(appearance), np.float64),
            np.array(self._unmixing(appearance.stain_matrix)),
            np.array(appearance.stain_matrix),
            strength_change(appearance, reference, self.tone),
            np.array(reference.stain_matrix),
            self.residual == "keep",
        )
        if not all(np.isfinite(each).all() for each in settings):  # which map_colors tells of, colour by colour
            return super()._color_function(appearance)
        return _Recoloring(lambda colors: self.map_colors(colors, appearance), settings)


_COMPILED = ("map_colors", "_restyle_levels", "_restyle", "_concentrations")
"""The steps that `restain.methods.kernels.recolor` does as one."""


class _Recoloring(CompiledColors):
    """`map_colors` of one appearance, and the same compiled as a whole: `restain.methods.kernels.recolor`."""

    def __init__(self, function: ColorFunction, settings: tuple[Any, ...]) -> None:
        self._function, self._settings = function, settings

    def __call__(self, colors: RGB8) -> Floats:
        return self._function(colors)

    def write(self, table: NDArray[np.uint32], codes: NDArray[np.uint32]) -> None:
        from restain.methods import kernels

        kernels.recolor(table, codes, *self._settings)


def published_statistics(matrix: Floats) -> dict[str, Any]:
    """Fields of `StainAppearance` for published vectors (k, 3); strengths of one, since none were measured."""
    return {
        "stain_matrix": matrix,
        "max_concentrations": np.ones(len(matrix)),
        "median_concentrations": np.full(len(matrix), 0.5),
        "angle": angle_between(matrix[0], matrix[1]),
    }


def pseudo_inverse(matrix: Floats) -> Floats:
    """Of (k, 3), as numpy.linalg.pinv gives it; colours that come in parts ask for the same one again."""
    return _pseudo_inverse(np.ascontiguousarray(matrix, np.float64).tobytes(), len(matrix))


@functools.lru_cache(maxsize=64)
def _pseudo_inverse(matrix: bytes, rows: int) -> Floats:
    inverse = np.asarray(np.linalg.pinv(np.frombuffer(matrix).reshape(rows, -1)), np.float64)
    inverse.flags.writeable = False
    return inverse


def unit_rows(matrix: Any) -> Floats:
    """Rows scaled to Euclidean length 1."""
    rows = np.asarray(matrix, np.float64)
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def angle_between(first: Floats, second: Floats) -> float:
    """Degrees between two vectors, 0..180."""
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def order_stains(first: Floats, second: Floats) -> Floats:
    """The (2, 3) unit matrix with hematoxylin, the vector with the larger red density, first."""
    rows = unit_rows([first, second])
    return rows if rows[0, 0] >= rows[1, 0] else rows[::-1].copy()


def check_stains(matrix: Floats, least_angle: float) -> None:
    """Raise `Unlearnable` unless the first two rows are finite, not negative, and `least_angle` degrees apart."""
    if not np.isfinite(matrix).all():
        raise Unlearnable("the stain vectors are not finite")
    if (matrix < 0).any():
        raise Unlearnable("a stain vector has negative densities")
    angle = angle_between(matrix[0], matrix[1])
    if angle < least_angle:
        raise Unlearnable(f"the stain vectors are {angle:.1f} degrees apart, wanted {least_angle:g} or more: one stain")


def on_plane(density: Floats, counts: Floats, limit: float) -> NDArray[np.bool_]:
    """Which colours lie near the plane through the origin that most of the stain lies in.

    Args:
        density: (n, 3) optical densities, not zero.
        counts: (n,).
        limit: largest sine of the angle to the plane; 1 keeps all.

    Returns:
        (n,) bool. The plane is fitted to what is kept, until that rests.
    """
    keep = np.ones(len(density), np.bool_)
    if limit >= 1:
        return keep
    axes = np.ascontiguousarray(density.T)
    limits = np.einsum("ai,ai->i", axes, axes)  # first the squared lengths: no arrays of products, new memory is dear
    weight = counts / np.sqrt(np.maximum(limits, 1e-18))  # by direction and length: a dense colour's direction is surer
    limits *= limit**2
    line, off = np.empty_like(weight), np.empty_like(weight)
    for _ in range(5):
        spread = np.empty((3, 3))
        for row in range(3):
            np.multiply(weight, axes[row], out=line)
            line *= keep
            spread[row] = [np.einsum("i,i->", line, axis) for axis in axes]
        normal = np.linalg.eigh(spread)[1][:, 0]
        np.multiply(axes[0], normal[0], out=off)
        for axis, length in zip(axes[1:], normal[1:], strict=True):
            off += np.multiply(axis, length, out=line)
        off *= off
        near = off <= limits
        if near.sum() < 3 or np.array_equal(near, keep):
            break
        keep = near
    return keep


def strength_change(source: StainAppearance, reference: StainAppearance, tone: bool) -> Floats:
    """What gives each stain the reference's strength: (k, 3) of m, w, p, with which c becomes w·(c/m)^p.

    A stain's robust maximum m becomes the reference's, w, as far as `LARGEST_RATIO` lets it. With `tone`, its median
    does too, as far as an exponent within `TONE_LIMITS` takes it. A stain that is absent from the source or the
    reference is left as it is, so that noise is never blown up to a stain.
    """
    changes = np.ones((len(source.max_concentrations), 3))
    each = (source.max_concentrations, source.median_concentrations)
    wanted_each = (reference.max_concentrations, reference.median_concentrations)
    stains = zip(*(map(float, values) for values in (*each, *wanted_each)), strict=True)
    for change, (maximum, median, wanted, wanted_median) in zip(changes, stains, strict=True):
        if min(maximum, wanted) < LEAST_CONCENTRATION:
            continue
        wanted = min(max(wanted, maximum / LARGEST_RATIO), maximum * LARGEST_RATIO)
        exponent = 1.0
        if tone and 0 < median < maximum and 0 < wanted_median < wanted:
            exponent = np.log(wanted / wanted_median) / np.log(maximum / median)
            exponent = min(max(exponent, TONE_LIMITS[0]), TONE_LIMITS[1])
        change[:] = maximum, wanted, exponent
    return changes
