"""Feature similarity (FSIM, and with chroma FSIMc): Zhang, Zhang, Mou & Zhang, "FSIM: a feature similarity index for
image quality assessment", 2011; phase congruency after Kovesi, "Image features from phase congruency", 1999.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from restain.evaluation.metrics.inputs import Floats, checked_pair

SCALES, ORIENTATIONS = 4, 4
SHORTEST_WAVE = 6  # pixels, of the finest filter; each coarser one is twice as long
BANDWIDTH = 0.55  # σ of the log-Gabor over its centre frequency
SPREAD = math.pi / ORIENTATIONS / 1.2  # σ of a filter over directions, radians
NOISE_DEVIATIONS = 2.0  # of noise above its mean that count as noise

T_CONGRUENCY, T_GRADIENT, T_CHROMA = 0.85, 160.0, 200.0
"""Constants of the paper, for levels 0..255; they keep the ratios finite and were tuned on its test images."""

CHROMA_EXPONENT = 0.03

YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])

SCHARR = np.array([[3.0, 0.0, -3.0], [10.0, 0.0, -10.0], [3.0, 0.0, -3.0]]) / 16

_NO_STRUCTURE = 1e-6  # mean phase congruency of a flat image: rounding of its transform

LEAST_SIDE = 16


def fsim(reference: Any, image: Any) -> float:
    """Feature similarity of the luma; higher is better, 1 for equal images, 0 at least.

    Phase congruency (4 scales, 4 directions) times similarity of Scharr gradients, averaged with the larger phase
    congruency as weight: edges and texture count, flat regions hardly. Range 0..255. From 384 pixels on, images are
    first shrunk by the mean of n × n pixels, n = round(shorter side / 256), as the authors do. STST reports this one.

    Args:
        reference: (H, W, 3) or (H, W) uint8, sides of 16 or more.
        image: the same shape.

    Returns:
        The similarity; NaN where neither image has any structure.

    Raises:
        InputError: an image is not what was wanted.
    """
    pair = checked_pair(reference, image, color="gray", least=LEAST_SIDE)
    return _similarity(_shrunk(pair.reference), _shrunk(pair.image))


def fsimc(reference: Any, image: Any) -> float:
    """FSIM with the chroma channels I and Q of YIQ; higher is better, 1 for equal images.

    Their similarity enters with the small power of 0.03, so even a wrong hue costs little. StainGAN reports this one;
    it is also what `fsim` of the package piq means by default. Colour images only; otherwise as `fsim`.

    Raises:
        InputError: an image is not what was wanted.
    """
    pair = checked_pair(reference, image, least=LEAST_SIDE, need_rgb=True)
    return _similarity(*(np.einsum("ij,jhw->ihw", YIQ, _shrunk(channels)) for channels in pair[:2]))


def _similarity(first: Floats, second: Floats) -> float:
    """Of (1, H, W) luma or (3, H, W) YIQ."""
    congruency = phase_congruency(first[0]), phase_congruency(second[0])
    weight = np.maximum(*congruency)
    score = weight * _ratio(congruency[0], congruency[1], T_CONGRUENCY)
    score *= _ratio(_gradient(first[0]), _gradient(second[0]), T_GRADIENT)
    if len(first) == 3:
        chroma = _ratio(first[1], second[1], T_CHROMA) * _ratio(first[2], second[2], T_CHROMA)
        score *= np.abs(chroma) ** CHROMA_EXPONENT
    total = weight.sum()
    return float(score.sum() / total) if total > _NO_STRUCTURE * weight.size else float("nan")


def phase_congruency(luma: Floats) -> Floats:
    """How well the waves of all scales agree in phase at each pixel, whatever their strength: (H, W), 0..1."""
    filters = _filters(*luma.shape)
    spectrum = fft.fft2(luma)
    energy, amplitude = np.zeros(luma.shape), np.zeros(luma.shape)
    for direction in range(ORIENTATIONS):
        # Real part: the even-symmetric filter's response; imaginary part: the odd one's.
        response: NDArray[np.complex128] = fft.ifft2(spectrum * filters.gabors[direction], axes=(-2, -1))
        size = np.abs(response)
        total = response.sum(axis=0)
        mean = total / (np.abs(total) + 1e-4)  # 1e-4, as the authors: keeps 0/0 out
        turned = response * np.conj(mean)
        agreeing = (turned.real - np.abs(turned.imag)).sum(axis=0)
        energy += np.maximum(agreeing - _noise_threshold(size[0], filters, direction), 0)
        amplitude += size.sum(axis=0)
    congruency: Floats = energy / (amplitude + 1e-4)
    return congruency


def _noise_threshold(finest: Floats, filters: "_Filters", direction: int) -> float:
    """The energy that noise alone would have, from the median response of the finest scale, which is mostly noise.

    Squared responses to Gaussian noise are exponentially distributed: their mean is their median over ln 2. The
    energy is then Rayleigh-distributed; 1.7 is Kovesi's allowance for what this measure overestimates.
    """
    power = float(np.median(finest**2)) / math.log(2) / filters.finest_power[direction]
    tau = math.sqrt(power * filters.noise_gain[direction] / 2)
    mean, deviation = tau * math.sqrt(math.pi / 2), tau * math.sqrt(2 - math.pi / 2)
    return (mean + NOISE_DEVIATIONS * deviation) / 1.7


class _Filters(NamedTuple):
    gabors: Floats  # (ORIENTATIONS, SCALES, H, W), in the frequency plane, frequency 0 in the corner
    finest_power: list[float]  # per direction, Σ of the squares of the finest filter
    noise_gain: list[float]  # per direction, expected energy² of noise of power 1


@lru_cache(maxsize=4)
def _filters(height: int, width: int) -> _Filters:
    vertical, horizontal = np.meshgrid(_frequencies(height), _frequencies(width), indexing="ij")
    radius, angle = np.hypot(horizontal, vertical), np.arctan2(-vertical, horizontal)
    low_pass = 1 / (1 + (radius / 0.45) ** 30)  # keeps the corners of the plane out
    radius[0, 0] = 1  # its logarithm is taken; the filters are 0 there
    gabors = np.empty((ORIENTATIONS, SCALES, height, width))
    for direction in range(ORIENTATIONS):
        turn = angle - direction * math.pi / ORIENTATIONS
        away = np.abs(np.arctan2(np.sin(turn), np.cos(turn)))
        for scale in range(SCALES):
            centre = 1 / (SHORTEST_WAVE * 2**scale)
            radial = np.exp(-(np.log(radius / centre) ** 2) / (2 * math.log(BANDWIDTH) ** 2)) * low_pass
            radial[0, 0] = 0
            gabors[direction, scale] = radial * np.exp(-(away**2) / (2 * SPREAD**2))
    finest = [float((each[0] ** 2).sum()) for each in gabors]
    spatial = fft.ifft2(gabors, axes=(-2, -1)).real * math.sqrt(height * width)
    # 2·Σ f_i² + 4·Σ_{i<j} f_i·f_j = 2·(Σ f_i)², summed over pixels
    gain = [2 * float((each.sum(axis=0) ** 2).sum()) for each in spatial]
    return _Filters(gabors, finest, gain)


def _frequencies(count: int) -> Floats:
    """Cycles a pixel along one axis, 0 first. For an odd count, ±0.5 at the ends, as the authors have it."""
    steps = np.arange(count) - count // 2
    frequencies: Floats = fft.ifftshift(steps / (count - 1 if count % 2 else count))
    return frequencies


def _gradient(luma: Floats) -> Floats:
    across, down = (ndimage.convolve(luma, kernel, mode="constant") for kernel in (SCHARR, SCHARR.T))
    size: Floats = np.hypot(across, down)
    return size


def _ratio(first: Floats, second: Floats, constant: float) -> Floats:
    similarity: Floats = (2 * first * second + constant) / (first**2 + second**2 + constant)
    return similarity


def _shrunk(channels: Floats) -> Floats:
    factor = max(1, round(min(channels.shape[1:]) / 256))
    if factor == 1:
        return channels
    rows, columns = (side // factor for side in channels.shape[1:])
    blocks = channels[:, : rows * factor, : columns * factor].reshape(-1, rows, factor, columns, factor)
    means: Floats = blocks.mean(axis=(2, 4))
    return means
