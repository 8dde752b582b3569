"""Colour spaces, on arrays of colours (..., 3): optical density, CIELAB, Ruderman's lαβ, HSD.

RGB runs 0..255 (float64, not rounded) throughout; all functions work on any leading shape and never round.
Every result depends only on its own colour, never on its neighbours in the array: matrices are applied column by
column, because a BLAS product may differ in its last bit with the number of rows.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# sRGB (IEC 61966-2-1) to CIE XYZ for D65, 2° observer, as rounded by scikit-image and OpenCV.
XYZ_FROM_RGB: Floats = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
RGB_FROM_XYZ: Floats = np.linalg.inv(XYZ_FROM_RGB).astype(np.float64)
D65: Floats = np.array([0.95047, 1.0, 1.08883])

# Ruderman, Cronin & Chiao 1998, as Reinhard et al. 2001 print them.
LMS_FROM_RGB: Floats = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
RGB_FROM_LMS: Floats = np.linalg.inv(LMS_FROM_RGB).astype(np.float64)
LALPHABETA_FROM_LOGLMS: Floats = np.array(
    [[1, 1, 1] / np.sqrt(3), [1, 1, -2] / np.sqrt(6), [1, -1, 0] / np.sqrt(2)]  # orthonormal rows
)


def apply_matrix(colors: Floats, matrix: ArrayLike) -> Floats:
    """Multiply each row by `matrix` from the right: (..., k) with (k, m) gives (..., m)."""
    matrix = np.asarray(matrix, np.float64)
    result = np.empty((*colors.shape[:-1], matrix.shape[1]))
    for column in range(matrix.shape[1]):
        total = colors[..., 0] * matrix[0, column]
        for row in range(1, matrix.shape[0]):
            total += colors[..., row] * matrix[row, column]
        result[..., column] = total
    return result


def balance(rgb: NDArray[Any], white: ArrayLike) -> Floats:
    """Colours scaled, channel by channel, so that the white point becomes 255, and clipped to 0..255."""
    scaled = (np.asarray(rgb, np.float64) + 1.0) / (np.asarray(white, np.float64) + 1.0) * 256.0 - 1.0
    return np.clip(scaled, 0.0, 255.0)


def rgb_to_density(rgb: NDArray[Any], white: ArrayLike = 255.0) -> Floats:
    """Optical density −ln((I+1)/(W+1)), natural log, against the white point W; 0 where I > W."""
    transmittance = (np.asarray(rgb, np.float64) + 1.0) / (np.asarray(white, np.float64) + 1.0)
    return np.maximum(-np.log(transmittance), 0.0)


def density_to_rgb(density: Floats, white: ArrayLike = 255.0) -> Floats:
    """The inverse of `rgb_to_density`: (W+1)·e^−OD − 1, neither clipped nor rounded."""
    return (np.asarray(white, np.float64) + 1.0) * np.exp(-density) - 1.0


def rgb_to_lab(rgb: NDArray[Any]) -> Floats:
    """sRGB 0..255 to CIELAB (D65): L in 0..100, a and b around −128..127."""
    linear = linear_light(rgb)
    xyz = apply_matrix(linear, XYZ_FROM_RGB.T) / D65
    # Below 0.008856 CIELAB continues the cube root by a line, so that black has a finite slope.
    root = np.where(xyz > 0.008856, np.cbrt(np.maximum(xyz, 0)), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def linear_light(rgb: NDArray[Any]) -> Floats:
    """sRGB 0..255 to linear light 0..1."""
    value = np.asarray(rgb, np.float64) / 255.0
    return np.where(value > 0.04045, ((np.maximum(value, 0) + 0.055) / 1.055) ** 2.4, value / 12.92)


def lab_to_rgb(lab: Floats) -> Floats:
    """CIELAB (D65) to sRGB 0..255, not clipped: colours outside sRGB lie outside. Cube roots below 0 are taken as 0."""
    y = (lab[..., 0] + 16.0) / 116.0
    root = np.stack([lab[..., 1] / 500.0 + y, y, y - lab[..., 2] / 200.0], axis=-1)
    root = np.maximum(root, 0.0)
    xyz = np.where(root > 0.2068966, root**3, (root - 16.0 / 116.0) / 7.787) * D65
    linear = apply_matrix(xyz, RGB_FROM_XYZ.T)
    power = 1.055 * np.maximum(linear, 0.0031308) ** (1.0 / 2.4) - 0.055
    return np.where(linear > 0.0031308, power, 12.92 * linear) * 255.0


def lightness(rgb: NDArray[Any]) -> Floats:
    """CIELAB L of sRGB 0..255, as a share 0..1 of white: the measure of the luminosity rules for tissue."""
    return lightness_of_linear(linear_light(rgb))


def lightness_of_linear(linear: Floats) -> Floats:
    """`lightness` of colours in linear light, 0..1."""
    y = apply_matrix(linear, XYZ_FROM_RGB[1][:, None])[..., 0]
    return np.where(y > 0.008856, 1.16 * np.cbrt(np.maximum(y, 0)) - 0.16, 9.033 * y)


def rgb_to_lalphabeta(rgb: NDArray[Any]) -> Floats:
    """RGB 0..255 to Ruderman's decorrelated log space lαβ (Reinhard et al. 2001), natural log of LMS in 1/256..1.

    One level is added before the log, as for optical density, so that black is finite.
    """
    lms = apply_matrix((np.asarray(rgb, np.float64) + 1.0) / 256.0, LMS_FROM_RGB.T)
    return apply_matrix(np.log(np.maximum(lms, 1e-12)), LALPHABETA_FROM_LOGLMS.T)


def lalphabeta_to_rgb(lab: Floats) -> Floats:
    """The inverse of `rgb_to_lalphabeta`, neither clipped nor rounded."""
    lms = np.exp(apply_matrix(lab, LALPHABETA_FROM_LOGLMS))  # orthonormal: the inverse is the transpose
    return apply_matrix(lms, RGB_FROM_LMS.T) * 256.0 - 1.0


def density_to_hsd(density: Floats) -> Floats:
    """Optical densities (..., 3) to hue–saturation–density (van der Laak 2000): (D, c_x, c_y).

    D is the mean density; c_x = OD_R/D − 1, c_y = (OD_G − OD_B)/(√3·D); both 0 where D is 0 (no stain, no hue).
    """
    mean = density.mean(axis=-1)
    safe = np.where(mean > 0, mean, 1.0)
    x = np.where(mean > 0, density[..., 0] / safe - 1.0, 0.0)
    y = np.where(mean > 0, (density[..., 1] - density[..., 2]) / (np.sqrt(3.0) * safe), 0.0)
    return np.stack([mean, x, y], axis=-1)


def hsd_to_density(hsd: Floats) -> Floats:
    """The inverse of `density_to_hsd`."""
    mean, x, y = hsd[..., 0], hsd[..., 1], hsd[..., 2]
    red = (x + 1.0) * mean
    green = 0.5 * mean * (2.0 - x + np.sqrt(3.0) * y)
    blue = 0.5 * mean * (2.0 - x - np.sqrt(3.0) * y)
    return np.stack([red, green, blue], axis=-1)
