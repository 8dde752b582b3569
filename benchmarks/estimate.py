"""How long `estimate` takes on a 100-megapixel sample, and whether it is what the raw pixels give.

    python benchmarks/estimate.py

The sample is made of copies of a real slide, each with a tint, a brightness and noise of its own, until it has as many
pixels and colours as a large slide's sample. Stain vectors from the histogram are compared, in degrees, with those from
every pixel: Macenko by a direct NumPy implementation written here, Vahadane by its own factorisation with one row a
pixel and no binning.
"""

import time
import unittest.mock

import numpy as np
from common import Image, he_slide, interleaved, print_goal, print_header, print_table

from restain import ColorHistogram, Macenko, Vahadane
from restain.color.builder import HistogramBuilder
from restain.color.spaces import rgb_to_density
from restain.methods.macenko import extreme_angles
from restain.methods.stain_vectors import on_plane
from restain.methods.vahadane import sparse_stains

SAMPLE = 100_000_000
RAW = 20_000_000
"""Pixels whose Macenko vectors are also computed one by one."""
RAW_SPARSE = 2_000_000
"""Pixels whose Vahadane vectors are also computed one by one."""
XYZ_Y = np.array([0.212671, 0.715160, 0.072169])


def main() -> None:
    slide, name = he_slide()
    # A phantom has fewer colours than a slide; more noise makes up for it.
    noise = 1.0 if len(ColorHistogram.from_image(slide)) > 500_000 else 5.0
    generator = np.random.default_rng(0)
    builder = HistogramBuilder()
    kept: list[Image] = []
    counting, pixels = 0.0, 0
    while pixels < SAMPLE:
        copy = altered(slide, noise, generator)
        copy = copy[: -(-(SAMPLE - pixels) // copy.shape[1])]
        if pixels < RAW:
            kept.append(copy[: -(-(RAW - pixels) // copy.shape[1])])
        begin = time.perf_counter()
        builder.add(copy)
        counting += time.perf_counter() - begin
        pixels += copy.shape[0] * copy.shape[1]
    sample = builder.histogram()
    print_header(
        "Estimating from a histogram",
        f"{name}, copies with noise and tints: {pixels:,} pixels, {len(sample):,} colours",
    )
    print(f"Counting the colours took {counting:.1f} s, 1 thread ({pixels / counting / 1e6:.0f} Mpx/s)\n")

    times = interleaved(
        {"Macenko": lambda: Macenko().estimate(sample), "Vahadane": lambda: Vahadane().estimate(sample)}, 5
    )
    print_table(["estimate from 100 Mpx", "median"], [[n, f"{times.median(n):.2f} s"] for n in times])

    macenko_degrees = compare_macenko(kept)
    vahadane_degrees = compare_vahadane(kept[0])
    for n in times:
        print_goal(f"{n}'s estimate from 100 Mpx", times.median(n), 1, unit=" s")
    print_goal("Macenko, histogram from raw pixels", macenko_degrees, 0.5, unit=" degrees")
    print_goal("Vahadane, histogram (6 bits) from raw pixels", vahadane_degrees, 0.5, unit=" degrees")


def altered(slide: Image, noise: float, generator: np.random.Generator) -> Image:
    """A copy with its own brightness (2 %), tint (1 %), and noise (sd in levels)."""
    gain = generator.normal(1, 0.02) * generator.normal(1, 0.01, 3)
    levels = slide * gain.astype(np.float32)
    levels += np.float32(noise) * generator.standard_normal(levels.shape, dtype=np.float32)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def compare_macenko(images: list[Image]) -> float:
    """Largest angle, degrees, between vectors from the histogram and from every pixel of the same images."""
    begin = time.perf_counter()
    histogram = ColorHistogram.from_images(images)
    counted = time.perf_counter()
    appearance = Macenko().estimate(histogram)
    estimated = time.perf_counter()
    direct = macenko_of_pixels(np.concatenate([image.reshape(-1, 3) for image in images]), appearance.white_point)
    done = time.perf_counter()
    degrees = largest_angle(appearance.stain_matrix, direct)
    print_table(
        ["Macenko", "rows", "time", "degrees from every pixel"],
        [
            ["colours with counts", f"{len(histogram):,}", f"{estimated - counted:.2f} s", f"{degrees:.1e}"],
            ["  counting them first", "", f"{counted - begin:.2f} s", ""],
            ["every pixel, NumPy", f"{histogram.pixels:,.0f}", f"{done - estimated:.2f} s", ""],
        ],
    )
    return degrees


def compare_vahadane(image: Image) -> float:
    """The same for Vahadane's factorisation, and how much of the difference is the binning's."""
    rows = RAW_SPARSE // image.shape[1]
    image = image[(len(image) - rows) // 2 :][:rows]
    histogram = ColorHistogram.from_image(image)
    begin = time.perf_counter()
    appearance = Vahadane().estimate(histogram)
    binned = time.perf_counter()
    with unittest.mock.patch("restain.methods.base.MOST_COLORS", len(histogram)):
        exact = Vahadane().estimate(histogram).stain_matrix
    unbinned = time.perf_counter()
    colors = tissue_of_pixels(image.reshape(-1, 3), appearance.white_point)
    settings = Vahadane()
    density = rgb_to_density(colors)
    density = density[on_plane(density, np.ones(len(density)), settings.off_plane)]
    ones = np.ones(len(density))
    direct = sparse_stains(density, ones, extreme_angles(density, ones, 1.0), settings.sparsity, settings.iterations)
    done = time.perf_counter()
    degrees = largest_angle(appearance.stain_matrix, direct)
    print_table(
        ["Vahadane", "rows", "time", "degrees from every pixel"],
        [
            ["histogram, 6 bits", f"{len(histogram):,}", f"{binned - begin:.2f} s", f"{degrees:.3f}"],
            ["histogram, 8 bits", "", f"{unbinned - binned:.2f} s", f"{largest_angle(exact, direct):.1e}"],
            ["every pixel", f"{histogram.pixels:,.0f}", f"{done - unbinned:.2f} s", ""],
        ],
    )
    return degrees


def tissue_of_pixels(pixels: Image, white: np.ndarray) -> np.ndarray:
    """Balanced colours (n, 3) of stained pixels, the defaults' rules written out: lightness < 0.9, no channel < 10."""
    table = ((np.arange(256)[:, None] + 1) * (256 / (white + 1)) - 1).clip(0, 255)  # each channel's levels, balanced
    balanced = np.stack([table[pixels[:, channel], channel] for channel in range(3)], axis=1)
    value = table / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    luminance = sum(linear[pixels[:, channel], channel] * XYZ_Y[channel] for channel in range(3))
    lightness = np.where(luminance > 0.008856, 1.16 * np.cbrt(luminance) - 0.16, 9.033 * luminance)
    return balanced[(lightness < 0.9) & (balanced >= 10).all(axis=1)]


def macenko_of_pixels(pixels: Image, white: np.ndarray) -> np.ndarray:
    """Macenko et al. 2009 on every pixel: (2, 3), hematoxylin first."""
    density = -np.log((tissue_of_pixels(pixels, white) + 1) / 256)
    density = density[on_plane(density, np.ones(len(density)), Macenko().off_plane)]
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, 1:] * np.sign(vectors[0, 1:])
    x, y = (density @ plane).T
    angles = np.percentile(np.arctan2(y, x), [1, 99])
    stains = np.array([plane @ [np.cos(angle), np.sin(angle)] for angle in angles]).clip(0)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    return stains if stains[0, 0] > stains[1, 0] else stains[::-1]


def largest_angle(first: np.ndarray, second: np.ndarray) -> float:
    """Degrees between corresponding unit rows, the larger; by the chord, which is exact for small angles."""
    chord = np.linalg.norm(first - second, axis=1).max()
    return float(np.degrees(2 * np.arcsin(chord / 2)))


if __name__ == "__main__":
    main()
