"""Khan et al., IEEE TBME 2014: each stain's intensities mapped by a smooth curve.

Colours are classified as hematoxylin or eosin; the classes' mean colours are the stain vectors; and each stain's
intensities are mapped by a smooth curve through percentiles of the classes. The paper is "A nonlinear mapping approach
to stain normalization in digital histopathology", IEEE TBME 61(6).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from restain.color.spaces import apply_matrix, density_to_rgb, rgb_to_density
from restain.errors import InputError
from restain.methods.base import Appearance, Floats, Normalizer, Unlearnable
from restain.methods.ruifrok import completed, stain_rows
from restain.methods.stain_classes import (
    EOSIN,
    HEMATOXYLIN,
    Classes,
    bootstrap_classes,
    checked_classifier,
    classify,
)
from restain.methods.stain_vectors import angle_between, check_stains, unit_rows
from restain.methods.statistics import weighted_mean, weighted_percentile

PERCENTILES = (5.0, 50.0, 95.0)
BRIGHTEST = 1000.0
"""Stain intensities are capped here, in the authors' toolbox: negative concentrations are brighter than glass."""

ANCHORS = (-100.0, 1000.0)
"""Points at which the curve is held, in the authors' toolbox."""

SMOOTHING = 9e-6
"""p of the authors' spline: p·Σ(y − f)² + (1 − p)·∫f″²."""

LEAST_POINTS = 5  # that the library's smoothing spline needs


@dataclass(frozen=True, eq=False, kw_only=True)
class KhanAppearance(Appearance):
    """Stain vectors, and where the classes lie in each stain's intensity.

    Attributes:
        stain_matrix: (2, 3), unit rows of optical density, hematoxylin first.
        percentiles: (2, 2, 3), of the intensity 255·e^−c of each stain (first index) over the hematoxylin and the eosin
            class (second): `PERCENTILES`.
        angle: degrees between the two rows.
    """

    stain_matrix: Floats
    percentiles: Floats
    angle: float

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return super()._shapes() | {"stain_matrix": (2, 3), "percentiles": (2, 2, 3)}

    def _check_values(self) -> None:
        super()._check_values()
        if not (np.linalg.norm(self.stain_matrix, axis=1) > 0.5).all() or not angle_between(*self.stain_matrix) > 0.01:
            raise ValueError("stain vectors that cannot be told apart")
        if not ((self.percentiles >= 0) & (self.percentiles <= BRIGHTEST)).all():
            raise ValueError(f"percentiles outside 0..{BRIGHTEST:g}")
        if (np.diff(self.percentiles, axis=2) < 0).any():
            raise ValueError("percentiles that do not rise")
        if any(len(np.unique(curve_points(channel))) < LEAST_POINTS for channel in self.percentiles):
            raise ValueError("percentiles that do not differ")


@dataclass(eq=False, kw_only=True)
class Khan(Normalizer):
    """Stain vectors from classified colours, stain intensities by a smoothing spline through nine percentiles.

    The authors' classifier cannot be shared, so by default the classes are bootstrapped from Ruifrok & Johnston's
    vectors on each slide anew (see `restain.methods.stain_classes.bootstrap_classes`); better ones come from labels of
    your own. The percentiles of the third class, background, are those of glass, whose level is known: 255, and with
    `background="none"` it is taken for that.

    Attributes:
        classifier: what `restain.methods.stain_classes.train_classifier` makes of labelled images; None to bootstrap.
        residual: "keep" carries over what the two stains do not explain, negative concentrations too; "drop" does not,
            as the toolbox has it: nuclei, whose eosin comes out negative, then turn too dark.
        least_angle: degrees; vectors nearer than this are one stain, and the estimate falls back.
        luminosity: 0.9: what is lighter is background.
    """

    name: ClassVar[str] = "khan"
    appearance_type: ClassVar[type[Appearance]] = KhanAppearance
    fit_bits: ClassVar[int] = 7

    classifier: Any = None
    residual: Literal["keep", "drop"] = "keep"
    least_angle: float = 5.0
    luminosity: float | None = 0.9

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.residual not in ("keep", "drop"):
            raise InputError(f"got residual={self.residual!r}; wanted keep or drop")
        if not 0 <= self.least_angle <= 90:
            raise InputError(f"got least_angle={self.least_angle}; wanted degrees in 0..90")
        if self.classifier is not None:
            self.classifier = checked_classifier(self.classifier)

    def classes(self, colors: Floats, counts: Floats) -> Classes:
        """The class of each balanced tissue colour (n, 3) with counts (n,): see `restain.methods.stain_classes`."""
        if self.classifier is None:
            return bootstrap_classes(colors, counts)
        return classify(self.classifier, colors, counts)

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        labels = self.classes(colors, counts)
        parts = [labels == label for label in (HEMATOXYLIN, EOSIN)]
        if min(part.sum() for part in parts) < 3:
            raise Unlearnable("fewer than three colours are surely hematoxylin, or surely eosin")
        means = np.stack([weighted_mean(colors[part], counts[part]) for part in parts])
        densities = rgb_to_density(means)
        if (densities.max(axis=1) < 0.01).any():
            raise Unlearnable("a class of stain has the colour of glass")
        matrix = unit_rows(densities)
        check_stains(matrix, self.least_angle)
        intensities = stain_intensities(rgb_to_density(colors), matrix)[0]
        percentiles = np.stack(
            [
                [weighted_percentile(channel[part], counts[part], PERCENTILES) for part in parts]
                for channel in intensities.T
            ]
        )
        for channel in percentiles:
            if len(np.unique(curve_points(channel))) < LEAST_POINTS:
                raise Unlearnable("the classes do not differ in a stain's intensity")
        return {"stain_matrix": matrix, "percentiles": percentiles, "angle": angle_between(matrix[0], matrix[1])}

    def _default_statistics(self) -> dict[str, Any]:
        matrix = stain_rows("he")
        # Of a tissue where each class has concentrations around 1 of its own stain and little of the other.
        own, other = 255.0 * np.exp([-1.5, -1.0, -0.5]), 255.0 * np.exp([-0.3, -0.2, -0.1])
        percentiles = np.array([[own, other], [other, own]])
        return {"stain_matrix": matrix, "percentiles": percentiles, "angle": angle_between(matrix[0], matrix[1])}

    def _restyle(self, colors: Floats, source: KhanAppearance, reference: KhanAppearance) -> Floats:
        intensities, rest = stain_intensities(rgb_to_density(colors), source.stain_matrix)
        concentrations = np.empty((len(colors), 3))
        brightest = 255.0 if self.residual == "drop" else BRIGHTEST
        for stain in range(2):
            mapped = map_intensity(intensities[:, stain], source.percentiles[stain], reference.percentiles[stain])
            # An intensity of 0 has no logarithm; 1 is as dark as a level of 8 bits can be.
            concentrations[:, stain] = -np.log(np.clip(mapped, 1.0, brightest) / 255.0)
        concentrations[:, 2] = rest if self.residual == "keep" else 0.0
        return density_to_rgb(apply_matrix(concentrations, completed(reference.stain_matrix)))


def stain_intensities(density: Floats, matrix: Floats) -> tuple[Floats, NDArray[np.float64]]:
    """Densities (n, 3) deconvolved: each stain's intensity 255·e^−c, capped, (n, 2), and the rest's amount (n,)."""
    concentrations = apply_matrix(density, np.linalg.inv(completed(matrix)))
    # Kept finite: what is far brighter than the cap is capped all the same.
    intensities = 255.0 * np.exp(-np.maximum(concentrations[:, :2], -10.0))
    return np.minimum(intensities, BRIGHTEST), concentrations[:, 2]


def curve_points(percentiles: Floats) -> Floats:
    """The points (11,) of one stain's curve: percentiles (2, 3) of two classes, glass for the third, the anchors."""
    glass = np.full(len(PERCENTILES), 255.0)
    return np.concatenate([[ANCHORS[0]], np.sort(np.concatenate([percentiles.ravel(), glass])), [ANCHORS[1]]])


def map_intensity(intensity: NDArray[np.float64], source: Floats, reference: Floats) -> NDArray[np.float64]:
    """Intensities (n,) on the smoothing spline from the source's percentiles (2, 3) to the reference's."""
    from scipy.interpolate import make_smoothing_spline

    x, y = curve_points(source), curve_points(reference)
    places, group = np.unique(x, return_inverse=True)
    weight = np.bincount(group).astype(np.float64)  # points at one place count as their mean, together as heavy
    mean = np.bincount(group, y) / weight
    spline = make_smoothing_spline(places, mean, w=weight, lam=(1.0 - SMOOTHING) / SMOOTHING)
    mapped: NDArray[np.float64] = spline(intensity)
    return mapped
