"""Three scores as the scripts of STST compute them: to compare with that paper's tables.

Salehi & Chalechale, "Pix2Pix-based Stain-to-Stain Translation", 2020. Its other scores are plain ones, or sewar's.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.color.spaces import apply_matrix
from restain.errors import InputError
from restain.evaluation.metrics.inputs import Floats, checked_pair, checked_rgb
from restain.evaluation.metrics.multiscale import LEAST_SIDE, SCALE_WEIGHTS, halved
from restain.evaluation.metrics.structural import C1, C2
from restain.evaluation.metrics.windows import gaussian_means, gaussian_weights
from restain.methods.ruifrok import completed
from restain.methods.stain_vectors import WARWICK_HE, unit_rows

MATLAB_LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)
"""Weights of R, G, B in MATLAB's `rgb2gray`."""

StainImage = Literal["hematoxylin", "eosin", "background"]


def ssim_volume(reference: Any, image: Any) -> float:
    """SSIM of an RGB image taken as a volume of H × W × 3, which is what MATLAB's `ssim` does; higher is better.

    Window: 11 × 11 × 11, Gaussian of σ = 1.5, the image repeated at its borders (so neighbouring channels are mixed,
    and every pixel counts); plain variances; range 0..255. It differs from `ssim` either way: on
    phantom tissue it is 0.03 lower (`benchmarks/metrics.py`).

    Args:
        reference: (H, W, 3) uint8.
        image: the same shape.

    Raises:
        InputError: an image is not what was wanted.
    """
    pair = checked_pair(reference, image, need_rgb=True)
    x, y = pair.reference, pair.image
    mean_x, mean_y, squares, product = (_volume_means(m) for m in (x, y, x * x + y * y, x * y))
    mean_product, mean_squares = mean_x * mean_y, mean_x**2 + mean_y**2
    luminance = (2 * mean_product + C1) / (mean_squares + C1)
    structure = (2 * (product - mean_product) + C2) / (squares - mean_squares + C2)
    return float((luminance * structure).mean())


def ms_ssim_stst(reference: Any, image: Any, *, saturate: bool = False) -> float:
    """MS-SSIM as STST's script has it, which is not Wang's; higher is better, 1 for equal images.

    Luminance is taken at the finest scale, with exponent 1; contrast and structure, each averaged by itself, at scales
    one to four. The fifth weight is not used. Gray as MATLAB rounds it, 11 × 11 Gaussian windows, range 0..255.

    Args:
        reference: (H, W, 3) or (H, W) uint8, sides of 176 or more.
        image: the same shape.
        saturate: let the squares of the finest scale stop at 255, as those of MATLAB's 8-bit images do. The published
            script reads 8-bit images, so this may be what was run; its other three scales are not affected.

    Raises:
        InputError: an image is not what was wanted.
    """
    pair = checked_pair(reference, image, least=LEAST_SIDE)
    x, y = (_matlab_gray(channels)[None] for channels in pair[:2])
    score = 1.0 + 0j
    for scale, weight in enumerate(SCALE_WEIGHTS[:-1]):
        if scale:
            x, y = halved(x), halved(y)
        maps = np.stack([x, y, x * x, y * y, x * y])
        if saturate and scale == 0:
            maps[2:] = np.minimum(maps[2:], 255)
        mean_x, mean_y, xx, yy, xy = gaussian_means(maps)
        if scale == 0:
            score *= ((2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)).mean()
        variance_x, variance_y = xx - mean_x**2, yy - mean_y**2
        if not saturate:  # what lies below 0 is rounding
            variance_x, variance_y = np.maximum(variance_x, 0), np.maximum(variance_y, 0)
        spread = np.sqrt(variance_x + 0j) * np.sqrt(variance_y + 0j)
        contrast = ((2 * spread + C2) / (variance_x + variance_y + C2)).mean()
        structure = ((2 * (xy - mean_x * mean_y) + C2) / (2 * spread + C2)).mean()
        score *= contrast**weight * structure**weight
    return float(score.real)


def stst_image_distance(reference: Any, image: Any, *, stain: StainImage = "hematoxylin") -> float:
    """What STST's Table II calls the distance of stain vectors, and is one of images; lower is better.

    Both images are separated with the fixed vectors of the Warwick toolbox (white point 255); one stain is painted
    alone, in its own colour, in 8 bits; this picture is stretched to 0..1; and the Euclidean norm of the difference is
    taken over all its values. It grows with the root of the image's area: 256 × 256 is the paper's. For a distance of
    stain vectors see `stain_angle`.

    Args:
        reference: (H, W, 3) uint8.
        image: the same shape.
        stain: "hematoxylin", "eosin", or "background": the rest, at right angles to both.

    Returns:
        The distance; NaN where a painted stain is of one level, which cannot be stretched.

    Raises:
        InputError: an image or the stain is not what was wanted.
    """
    if stain not in get_args(StainImage):
        raise InputError(f"got stain={stain!r}; wanted one of {', '.join(get_args(StainImage))}")
    first, second = checked_rgb(reference, "reference"), checked_rgb(image)
    checked_pair(first, second)
    number = get_args(StainImage).index(stain)
    painted = [_painted(pixels, number).astype(np.float64) for pixels in (first, second)]
    if any(np.ptp(picture) == 0 for picture in painted):
        return float("nan")
    a, b = ((picture - picture.min()) / np.ptp(picture) for picture in painted)
    return float(np.linalg.norm(a - b))


def _painted(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    matrix = completed(unit_rows(WARWICK_HE))
    density = -np.log((pixels.astype(np.float64) + 1) / 255)
    amount = apply_matrix(density, np.linalg.inv(matrix)[:, [number]])
    with np.errstate(over="ignore"):  # far beyond 255, where it is cut off anyway
        light = 255 * np.exp(-amount * matrix[number])
    painted: NDArray[np.uint8] = np.rint(np.minimum(light, 255)).astype(np.uint8)
    return painted


def _volume_means(volume: Floats) -> Floats:
    means = volume
    for axis in range(3):
        means = ndimage.correlate1d(means, gaussian_weights(), axis=axis, mode="nearest")
    return np.asarray(means, np.float64)


def _matlab_gray(channels: Floats) -> Floats:
    gray: Floats = channels[0] if len(channels) == 1 else np.rint(np.einsum("i,ihw->hw", MATLAB_LUMA, channels))
    return gray
