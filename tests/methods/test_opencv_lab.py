"""The 8-bit CIELAB of OpenCV: against what OpenCV gives, and against the formula as scikit-image has it."""

import numpy as np
from skimage.color import lab2rgb, rgb2lab

from restain.methods.opencv_lab import lab8_to_rgb, rgb_to_lab8


def test_codes_are_those_of_opencv() -> None:
    # cv2.cvtColor(rgb[None].astype(np.uint8), cv2.COLOR_RGB2LAB) of OpenCV 4.13
    rgb = [[0, 0, 0], [255, 255, 255], [1, 2, 3], [200, 120, 170], [63, 20, 120], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    codes = [
        *([0, 128, 128], [255, 128, 128], [1, 128, 127], [154, 166, 115]),
        *([50, 170, 80], [136, 208, 195], [224, 42, 211], [82, 207, 20]),
    ]
    np.testing.assert_array_equal(rgb_to_lab8(np.array(rgb, np.float64)), codes)


def test_levels_are_those_of_opencv() -> None:
    # cv2.cvtColor(codes[None].astype(np.uint8), cv2.COLOR_LAB2RGB) of OpenCV 4.13; the last two lie outside sRGB
    codes = [[0, 128, 128], [255, 128, 128], [150, 163, 110], [20, 140, 100], [100, 0, 0], [128, 255, 255]]
    rgb = [[0, 0, 0], [255, 255, 255], [187, 119, 174], [5, 20, 61], [0, 138, 255], [255, 0, 0]]
    np.testing.assert_array_equal(lab8_to_rgb(np.array(codes, np.float64)), rgb)


def test_both_ways_are_the_formula_but_for_rounding() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20_000, 3)).astype(np.float64)
    codes = rgb_to_lab8(rgb)
    formula = rgb2lab(rgb / 255.0) * [2.55, 1.0, 1.0] + [0.0, 128.0, 128.0]
    assert np.abs(codes - formula).mean() < 0.5
    assert np.abs(codes - formula).max() < 2.5  # dark colours have few steps of light
    back = lab2rgb((codes - [0.0, 128.0, 128.0]) / [2.55, 1.0, 1.0]) * 255.0
    difference = np.abs(lab8_to_rgb(codes) - back)
    assert difference.mean() < 0.5
    assert np.percentile(difference, 99.9) < 2.0
