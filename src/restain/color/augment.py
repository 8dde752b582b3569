"""Colour augmentation: other stains, another light, less colour, for networks that are to become indifferent to them.

Functions of an (H, W, 3) uint8 image and of a `numpy.random.Generator`, from which comes whatever is left to chance;
`AUGMENTATIONS` names them. PAPERS §3.5 compares them with normalization: "gray" and the two "Enhance" rows; §2.5 has
HED jitter, and what CAGAN does to the input of its generator.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.images import RGB8, as_rgb8
from restain.color.spaces import Floats, apply_matrix
from restain.errors import InputError

Augmentation = Callable[[RGB8, np.random.Generator], RGB8]
Range = tuple[float, float]
Components = tuple[Floats, Floats]
"""Variances (3,) and unit vectors (3, 3), one a column: of RGB in 0..1, the least first."""

RGB_FROM_HED: Floats = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities of hematoxylin, eosin and DAB (Ruifrok & Johnston 2001), as scikit-image has them."""
HED_FROM_RGB: Floats = np.linalg.inv(RGB_FROM_HED).astype(np.float64)

_DARKEST = np.log(1e-6)  # scikit-image's: its densities are 1 where a millionth of the light comes through
_DENSITY: Floats = np.log(np.maximum(np.arange(256) / 255.0, 1e-6)) / _DARKEST


def to_gray(image: RGB8, generator: np.random.Generator | None = None) -> RGB8:
    """The image without its colours: Y = 0.299R + 0.587G + 0.114B, rounded, three times.

    Args:
        image: (H, W, 3) uint8.
        generator: of no effect: nothing is left to chance.
    """
    return np.repeat(_rounded(_luminance(as_rgb8(image)))[..., None], 3, axis=2)


def pca_lighting(
    image: RGB8, generator: np.random.Generator, *, sigma: float = 0.1, components: Components | None = None
) -> RGB8:
    """All pixels moved alike along the principal components of the colours: "Enhance_Alexnet".

    Σ_k p_k·a_k·√λ_k is added, with a_k ~ N(0, `sigma`), and p_k, λ_k the eigenpairs of the covariance of RGB in 0..1.

    Args:
        image: (H, W, 3) uint8.
        generator: gives three numbers.
        sigma: standard deviation of a_k.
        components: of `color_components`, such as those of a whole training set, as AlexNet's are; None for this
            image's own.

    References:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012.
    """
    pixels = as_rgb8(image)
    variances, vectors = color_components([pixels]) if components is None else components
    shift = vectors @ (generator.normal(0.0, sigma, 3) * np.sqrt(np.maximum(variances, 0.0)))
    return _rounded(pixels + 255.0 * shift)


def color_components(images: Iterable[RGB8]) -> Components:
    """Variances and principal components of the colours of images, all pixels together, in 0..1.

    Raises:
        InputError: there are no images.
    """
    count, total, products = 0, np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
    for image in images:
        colors = as_rgb8(image).reshape(-1, 3).astype(np.int64)  # whole numbers: exact, whatever the order
        count, total, products = count + len(colors), total + colors.sum(axis=0), products + colors.T @ colors
    if not count:
        raise InputError("got no images; wanted one or more to find the principal components of")
    covariance = (products / count - np.outer(total / count, total / count)) / 255.0**2
    variances, vectors = np.linalg.eigh(covariance)
    largest = vectors[np.abs(vectors).argmax(axis=0), range(3)]
    return variances, vectors * np.where(largest < 0, -1.0, 1.0)  # else LAPACK would choose the signs


def hsv_change(
    image: RGB8,
    generator: np.random.Generator,
    *,
    scale: Range = (0.7, 1.3),
    offset: Range = (-0.1, 0.1),
    hue: Range = (-0.03, 0.03),
) -> RGB8:
    """Saturation and value changed linearly, the hue turned a little: "Enhance_our".

    S and V become a·x + b, clipped to 0..1, each with an a and a b of its own. Chen et al. do not publish their ranges;
    these are ours.

    Args:
        image: (H, W, 3) uint8.
        generator: gives five numbers.
        scale: least and greatest a.
        offset: least and greatest b.
        hue: least and greatest turn of the hue, in whole turns.
    """
    a, b, turn = generator.uniform(*scale, 2), generator.uniform(*offset, 2), generator.uniform(*hue)
    hsv = rgb_to_hsv(as_rgb8(image) / 255.0)
    hsv[..., 0] = (hsv[..., 0] + turn) % 1.0
    hsv[..., 1:] = np.clip(a * hsv[..., 1:] + b, 0.0, 1.0)
    return _rounded(255.0 * hsv_to_rgb(hsv))


def hed_jitter(
    image: RGB8, generator: np.random.Generator, *, scale: Range = (0.9, 1.1), offset: Range = (-0.01, 0.01)
) -> RGB8:
    """More or less of each stain: its concentration s, hematoxylin, eosin and DAB apart, becomes α·s + β.

    Concentrations are in scikit-image's unit, in which a density of 1 lets a millionth of the light through, and are
    not clipped: with α = 1 and β = 0 the image stays as it is.

    Args:
        image: (H, W, 3) uint8.
        generator: gives six numbers.
        scale: least and greatest α.
        offset: least and greatest β.

    References:
        Tellez et al., "Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference to train
        distilled stain-invariant convolutional networks", 2018.
    """
    alpha, beta = generator.uniform(*scale, 3), generator.uniform(*offset, 3)
    # There, the change and back again are one affine map of the densities.
    density = apply_matrix(_DENSITY[as_rgb8(image)], HED_FROM_RGB @ np.diag(alpha) @ RGB_FROM_HED)
    return _rounded(255.0 * np.exp((density + beta @ RGB_FROM_HED) * _DARKEST))


def cagan_change(
    image: RGB8, generator: np.random.Generator, *, strong: float = 0.2, mild: float = 0.48, factor: float = 1.5
) -> RGB8:
    """What CAGAN does to the input of its generator, and to nothing else (Cong et al. 2022).

    With probability `strong` the image is blurred (3×3, weights ¼ ½ ¼), its saturation and then its contrast are
    raised, and its stains jittered; with probability `mild` its stains are jittered; else it is returned itself.

    Args:
        image: (H, W, 3) uint8.
        generator: gives one number, and those of `hed_jitter`.
        strong: share of the images that everything is done to.
        mild: share of the images whose stains alone are jittered.
        factor: of saturation, the distance to gray, and of contrast, the distance to the image's mean gray.
    """
    pixels = as_rgb8(image)
    kind = generator.random()
    if kind < strong:
        pixels = _blurred(pixels)
        pixels = _away_from(_luminance(pixels)[..., None], pixels, factor)
        pixels = _away_from(_luminance(pixels).mean(), pixels, factor)
    return hed_jitter(pixels, generator) if kind < strong + mild else pixels


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "gray": to_gray,
        "pca": pca_lighting,
        "hsv": hsv_change,
        "hed": hed_jitter,
        "cagan": cagan_change,
    }
)
"""Every augmentation by name; "gray" is the same for every image, and belongs before testing, too."""


def rgb_to_hsv(rgb: Floats) -> Floats:
    """RGB (..., 3) in 0..1 to hue, saturation and value in 0..1; the hue in whole turns, 0 for gray."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    value = rgb.max(axis=-1)
    spread = value - rgb.min(axis=-1)
    safe = np.where(spread > 0, spread, 1.0)
    sectors = [(green - blue) / safe, 2.0 + (blue - red) / safe]
    hue = np.select([value == red, value == green], sectors, 4.0 + (red - green) / safe)
    saturation = spread / np.where(value > 0, value, 1.0)
    return np.stack([hue / 6.0 % 1.0, saturation, value], axis=-1)


def hsv_to_rgb(hsv: Floats) -> Floats:
    """The inverse of `rgb_to_hsv`."""
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    channels = []
    for start in (5.0, 3.0, 1.0):  # each channel falls and rises along the hue circle, a third of a turn apart
        place = (start + 6.0 * hue) % 6.0
        channels.append(value * (1.0 - saturation * np.clip(np.minimum(place, 4.0 - place), 0.0, 1.0)))
    return np.stack(channels, axis=-1)


def _luminance(image: RGB8) -> Floats:
    return apply_matrix(image.astype(np.float64), [[0.299], [0.587], [0.114]])[..., 0]


def _away_from(level: ArrayLike, image: RGB8, factor: float) -> RGB8:
    """Every distance to `level` multiplied."""
    return _rounded(level + factor * (image - np.asarray(level)))


def _blurred(image: RGB8) -> RGB8:
    """Weights ¼ ½ ¼ along both axes, mirrored at the edges."""
    total = np.pad(image.astype(np.uint16), [(1, 1), (1, 1), (0, 0)], mode="reflect")
    total = total[:-2] + 2 * total[1:-1] + total[2:]
    total = total[:, :-2] + 2 * total[:, 1:-1] + total[:, 2:]
    return ((total + 8) >> 4).astype(np.uint8)


def _rounded(values: NDArray[np.float64]) -> RGB8:
    """Levels, clipped to 0..255 and rounded to the nearest."""
    return np.rint(np.clip(values, 0.0, 255.0)).astype(np.uint8)
