"""Scores of colour distributions, which no registration is needed for: NMI, Bhattacharyya and Hellinger distance."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError
from restain.evaluation.metrics.inputs import Floats, Mask, checked_image, checked_mask, checked_rgb

LEAST_LEVEL = 50
"""Pixels with a channel at or below this are no tissue to NMI (ink, folds)."""


def nmi(image: Any, mask: Any = None) -> float:
    """Normalised median intensity of the tissue: median / 95th percentile of the pixels' mean of R, G and B.

    Not mutual information, which has the same letters. Neither high nor low is good in itself: it is how the value
    varies over a cohort that counts, see `nmi_cv`. Basavanhally & Madabhushi, "EM-based segmentation-driven color
    standardization of digitized histopathology", 2013; tissue as CAGAN's script finds it (Cong et al. 2022).

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, the tissue; None to find it by `nmi_tissue`.

    Returns:
        A value in 0..1; NaN where there is no tissue.

    Raises:
        InputError: the image or mask is not what was wanted.
    """
    pixels = checked_rgb(image)
    tissue = nmi_tissue(pixels) if mask is None else checked_mask(mask, pixels.shape[:2])
    level = pixels[tissue].mean(axis=1)
    if not level.size or not level.any():
        return float("nan")
    return float(np.median(level) / np.percentile(level, 95))


def nmi_sd(images: Iterable[Any]) -> float:
    """Standard deviation of `nmi` over images (population, ddof 0); lower is more consistent. As `nmi_cv`."""
    return float(np.std(_nmi_values(images)))


def nmi_cv(images: Iterable[Any]) -> float:
    """Coefficient of variation of `nmi` over images, sd / mean; lower is more consistent.

    It says nothing of whether the tissue survived: a normalizer that returns one picture for all has a CV of 0.

    Args:
        images: of (H, W, 3) uint8, or values of `nmi` that were computed before; streamed. Images without tissue are
            left out.

    Raises:
        InputError: fewer than two of the images have tissue.
    """
    values = _nmi_values(images)
    return float(np.std(values) / np.mean(values))


def nmi_tissue(image: NDArray[np.uint8]) -> Mask:
    """CAGAN's tissue mask, (H, W): not all channels above their Otsu thresholds, saturation above its own, and all
    channels above 50. Saturation is (max − min)/max in 0..255, cut to whole numbers as Pillow does."""
    high, low = image.max(axis=2), image.min(axis=2)
    spread = (high - low).astype(np.float64)
    saturation = np.divide(255 * spread, high, out=np.zeros_like(spread), where=high > 0).astype(np.uint8)
    bright = np.logical_and.reduce([image[..., c] > otsu(image[..., c]) for c in range(3)])
    tissue: Mask = ~bright & (saturation > otsu(saturation)) & (low > LEAST_LEVEL)
    return tissue


def otsu(levels: NDArray[np.uint8]) -> int:
    """Otsu's threshold: the level that parts the values with the largest variance between the two parts.

    Values above it are the upper part. Of equal maxima the lowest level. Otsu, "A threshold selection method from
    gray-level histograms", 1979.
    """
    counts = np.bincount(levels.ravel(), minlength=256).astype(np.float64)
    level = np.arange(256.0)
    below, total = np.cumsum(counts)[:-1], counts.sum()
    sum_below = np.cumsum(counts * level)[:-1]
    above, sum_above = total - below, (counts * level).sum() - sum_below
    both = (below > 0) & (above > 0)
    if not both.any():
        return int(levels.flat[0])
    between = np.zeros(255)
    difference = sum_below[both] / below[both] - sum_above[both] / above[both]
    between[both] = below[both] * above[both] * difference**2
    return int(np.argmax(between))


def bhattacharyya(reference: Any, image: Any, *, bins: int = 256) -> float:
    """Bhattacharyya distance −ln Σ√(p·q) of the histograms of each channel, mean over channels; lower is better.

    0 for equal histograms, infinite where those of a channel do not overlap. Images may differ in size and content.
    OpenCV calls by this name what `hellinger` is; CHEN does not say which of the two it reports. Bhattacharyya, "On a
    measure of divergence between two statistical populations", 1943.

    Args:
        reference: (H, W, 3) or (H, W) uint8.
        image: the same channels, any size.
        bins: over 0..255, a divisor of 256; fewer bins give smaller distances.

    Raises:
        InputError: an image or `bins` is not what was wanted.
    """
    with np.errstate(divide="ignore"):
        return float(-np.log(_coefficients(reference, image, bins)).mean()) + 0.0


def hellinger(reference: Any, image: Any, *, bins: int = 256) -> float:
    """Hellinger distance √(1 − Σ√(p·q)) of the histograms of each channel, mean over channels; lower is better.

    In 0..1. What OpenCV's `HISTCMP_BHATTACHARYYA` computes. Arguments as for `bhattacharyya`.
    """
    return float(np.sqrt(1 - _coefficients(reference, image, bins)).mean())


def _coefficients(reference: Any, image: Any, bins: int) -> Floats:
    """Σ√(p·q) of each channel, (C,), 0..1."""
    if bins not in (2, 4, 8, 16, 32, 64, 128, 256):
        raise InputError(f"got bins={bins}; wanted a power of two from 2 to 256, so that bins hold equally many levels")
    first, second = checked_image(reference, "reference"), checked_image(image)
    if first.ndim != second.ndim:
        raise InputError("got one image in colour and one in gray; wanted both alike")
    p, q = (_shares(pixels, bins) for pixels in (first, second))
    overlap: Floats = np.minimum(np.sqrt(p * q).sum(axis=1), 1.0)
    return overlap


def _shares(image: NDArray[np.uint8], bins: int) -> Floats:
    levels = image.reshape(image.shape[0] * image.shape[1], -1) // (256 // bins)
    return np.stack([np.bincount(channel, minlength=bins) for channel in levels.T]) / len(levels)


def _nmi_values(images: Iterable[Any]) -> Floats:
    values = np.array([float(item) if np.ndim(item) == 0 else nmi(item) for item in images])
    known: Floats = values[np.isfinite(values)]
    if len(known) < 2:
        raise InputError(f"got {len(known)} images with tissue; wanted two or more to see how they vary")
    return known
