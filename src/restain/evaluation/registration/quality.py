"""How well a registered pair lies together, and whether that is good enough to compare pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from restain.color.images import RGB8
from restain.errors import MissingExtraError
from restain.evaluation.registration.contrast import Float32, Mask, correlation
from restain.evaluation.registration.flow import Positions, pixel_grid, sample
from restain.evaluation.registration.settings import RegistrationSettings

SSIM_SIDE = 11
"""Side, pixels, of the window of SSIM; smaller pictures have none."""

BAND = 256
"""Rows whose SSIM is held at a time, at some 200 bytes a pixel."""


@dataclass(frozen=True)
class Quality:
    """Figures of a pair, over the pixels of its mask; all finite."""

    ssim_before: float = 0.0
    """Mean SSIM of source and target as they came, RGB per channel (the target scaled where the sizes say so)."""
    ssim_after: float = 0.0
    """The same of source and registered target. Stains and scanners still differ, so it is far below 1."""
    correlation_before: float = 0.0
    """Correlation of local contrast, -1..1, as they came."""
    correlation_after: float = 0.0
    """The same after registration."""
    consistency: float = 0.0
    """Median distance, pixels, between where a pixel started and where it lands, there and back."""
    inconsistent: float = 0.0
    """Share of pixels for which that distance is above the settings' tolerance, 0..1."""
    covered: float = 0.0
    """Share of the source's pixels that the mask keeps, 0..1."""


def return_errors(there: Positions, back: Positions) -> Float32:
    """Distance (H, W) between each pixel and where it lands when it goes to the target and comes back, pixels.

    A flow invented between unlike pictures does not find its way back; one that follows tissue does.

    Args:
        there: (H, W, 2) positions in the target, in the source's scale.
        back: (h, w, 2) positions in the source.
    """
    returned = sample(back, there, outside="nearest")
    apart = returned - pixel_grid(*there.shape[:2])
    distance: Float32 = np.hypot(apart[..., 0], apart[..., 1])
    return distance


def measure_quality(
    pictures: tuple[RGB8, RGB8, RGB8],
    contrasts: tuple[Float32, Float32, Float32],
    errors: Float32,
    mask: Mask,
    settings: RegistrationSettings,
) -> Quality:
    """The figures of a pair.

    Args:
        pictures: (H, W, 3) source, target as it came in the source's frame, and registered target.
        contrasts: (H, W) local contrast of the same three.
        errors: (H, W) from `return_errors`.
        mask: (H, W) the pixels that count.
        settings: `tolerance`.
    """
    if not mask.any():
        return Quality()
    source, before, after = pictures
    return Quality(
        ssim_before=masked_ssim(source, before, mask),
        ssim_after=masked_ssim(source, after, mask),
        correlation_before=correlation(contrasts[0], contrasts[1], mask),
        correlation_after=correlation(contrasts[0], contrasts[2], mask),
        consistency=float(np.median(errors[mask])),
        inconsistent=float((errors[mask] > settings.tolerance).mean()),
        covered=float(mask.mean()),
    )


def judge(quality: Quality, settings: RegistrationSettings) -> str:
    """Why a pair must not be compared pixel by pixel, in a few words; empty where it may."""
    if quality.covered < settings.least_covered:
        return f"only {quality.covered:.0%} of the source is covered (wanted {settings.least_covered:.0%})"
    if quality.correlation_after < settings.least_correlation:
        found, wanted = quality.correlation_after, settings.least_correlation
        return f"local contrast correlates by {found:.2f} only (wanted {wanted:.2f}): other tissue, or out of focus"
    if quality.inconsistent > settings.most_inconsistent:
        found, wanted = quality.inconsistent, settings.most_inconsistent
        return f"{found:.0%} of the pixels do not find their way back (wanted at most {wanted:.0%})"
    return ""


def masked_ssim(a: RGB8, b: RGB8, mask: Mask) -> float:
    """Mean over `mask` of SSIM: RGB per channel, Gaussian window of 11 with sigma 1.5, data range 255.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    if min(a.shape[:2]) < SSIM_SIDE:
        return 0.0
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingExtraError(
            f"registration needs scikit-image ({error}); install it with: pip install 'restain[evaluation]'"
        ) from error
    ssim: Any = structural_similarity
    total, height = np.float64(0), len(mask)
    for top in range(0, height, BAND):  # in bands: scikit-image's maps of it all are the most that a pair would take
        bottom = min(top + BAND, height)
        above = min(top, SSIM_SIDE - 1)  # a window that reaches up from the band's rows, and a band that is no thinner
        rows = slice(top - above, bottom + SSIM_SIDE // 2)
        _, values = ssim(
            a[rows], b[rows], gaussian_weights=True, sigma=1.5, win_size=SSIM_SIDE, data_range=255, channel_axis=-1,
            full=True,
        )  # fmt: skip
        total += values[above : above + bottom - top][mask[top:bottom]].sum()
    return float(total / (mask.sum() * 3))
