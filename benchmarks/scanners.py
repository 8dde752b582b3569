"""Four scanners, one specimen: how far apart are its glass and its tissue, before and after normalizing?

    python benchmarks/scanners.py
    python benchmarks/scanners.py --picture scanners.png --method reinhard

Each scan in turn is the reference; all four are normalized to it with default settings, and beside that merely scaled
so that glass matches ("glass alone"). Everything is computed on the slides' colours with counts, at full resolution:

* glass: the pixels within 6 levels of the scan's own white point, as it is found in the source. Its spread is the
  largest difference between the scans' mean glass, in any channel, grey levels;
* tissue: the pixels with an optical density above 0.15 against that white point in any channel of the source. Distance
  is the sliced Wasserstein distance of the RGB distributions: for 48 directions the mean difference of 200 quantiles;
  mean over the six pairs of scans, and over the three pairs with the reference.

Below 1x, the scans are closer together than the raw ones are.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from common import Image, data_folder, print_goal, print_header, print_table, quietly, save_strips
from numpy.typing import NDArray

import restain
from restain import ColorHistogram, Macenko, Normalizer, Reinhard
from restain.color.glass import find_white_point

Floats = NDArray[np.float64]

METHODS = {"reinhard": Reinhard, "macenko": Macenko}
NEAR_GLASS = 6.0
TISSUE_DENSITY = 0.15
CROP = 480
QUANTILES = (np.arange(200) + 0.5) / 200
DIRECTIONS: Floats = np.random.default_rng(0).standard_normal((3, 48))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=0)


@dataclass(frozen=True)
class Scan:
    """One scanner's view: its pixels, its colours with counts, and which of them are glass and tissue."""

    name: str
    pixels: Image
    histogram: ColorHistogram
    glass: NDArray[np.bool_]
    tissue: NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", metavar="FILE", help="write a crop of the four scans, before (top) and after")
    parser.add_argument("--method", default="reinhard", choices=sorted(METHODS), help="for the picture")
    options = parser.parse_args()
    scans, data = read_scans()
    print_header("Four scanners, one specimen", data)
    print_table(
        ["scan", "pixels", "colours", "white point", "glass", "tissue"],
        [
            [
                scan.name,
                f"{scan.histogram.pixels:,.0f}",
                f"{len(scan.histogram):,}",
                " ".join(f"{level:.1f}" for level in find_white_point(scan.histogram).level),
                *(
                    f"{scan.histogram.counts[part].sum() / scan.histogram.pixels:.2%}"
                    for part in (scan.glass, scan.tissue)
                ),
            ]
            for scan in scans
        ],
    )

    raw = [scan.histogram.colors for scan in scans]
    raw_spread, raw_distances = glass_spread(scans, raw), tissue_distances(scans, raw)
    raw_all = np.mean(list(raw_distances.values()))
    print(f"Raw: glass spread {raw_spread:.1f} levels; tissue {raw_all:.2f} levels apart over all pairs\n")
    rows = []
    for method, way in {"glass alone": match_glass, **METHODS}.items():
        figures = []
        for index, reference in enumerate(scans):
            mapped = match_glass(reference, scans) if way is match_glass else normalized(way, reference, scans)
            distances = tissue_distances(scans, mapped)
            figures.append(
                (
                    glass_spread(scans, mapped),
                    np.mean(list(distances.values())) / raw_all,
                    mean_with(index, distances) / mean_with(index, raw_distances),
                )
            )
            rows.append([f"{method} to {reference.name}", *cells(figures[-1])])
        rows.append([f"{method}, mean", *cells(np.mean(figures, axis=0))])
        rows.append([f"{method}, worst", *cells(np.max(figures, axis=0))])
    print_table(["", "glass spread", "tissue, all pairs", "tissue, to the reference"], rows)
    print_goal(
        "largest glass spread after normalizing",
        max(float(r[1]) for r in rows if "glass" not in r[0]),
        1.5,
        unit=" levels",
    )
    if options.picture:
        save_picture(options.picture, scans, METHODS[options.method])


# ---- the scans ------------------------------------------------------------------------------------------------------


def read_scans() -> tuple[list[Scan], str]:
    """The four scans of the specimen, else of a phantom."""
    folder = data_folder()
    paths = sorted(folder.glob("scanners4_cytology/*/*.tif")) if folder is not None else []
    if not paths:
        return list(phantom_scans()), "one phantom tissue through four scanners (no real data found; set RESTAIN_DATA)"
    scans = []
    for path in paths:
        with quietly(), restain.open_slide(path) as slide:
            pixels, _ = slide.read_region((0, 0), 0, slide.dimensions)
            scans.append(scan_of(path.stem.split("_")[0], pixels, ColorHistogram.from_slide(slide)))
    return scans, "cytology slide 563479 on four scanners (WsiRegistration), about 5000x5000, read whole"


def phantom_scans() -> Iterable[Scan]:
    """One drawing, photographed four times: other whites, tone curves and sharpness."""
    from restain.phantom import STAINS_A, Scanner, make_phantom, render

    tissue = make_phantom(1536, 1536, seed=3, glass_fraction=0.4)
    scanners = {
        "neutral": Scanner((243, 243, 241), 1.0, 0.6, 1.2),
        "bright": Scanner((253, 253.5, 251.5), 1.15, 0.9, 0.8),
        "bluish": Scanner((228, 230, 234), 0.9, 0.7, 1.4),
        "pinkish": Scanner((236, 231, 228.5), 1.05, 1.1, 1.0),
    }
    for seed, (name, scanner) in enumerate(scanners.items()):
        pixels = render(tissue.concentrations, tissue.rbc, STAINS_A, scanner, seed=seed)
        yield scan_of(name, pixels, ColorHistogram.from_image(pixels))


def scan_of(name: str, pixels: Image, histogram: ColorHistogram) -> Scan:
    """A scan with its glass and its tissue told apart."""
    white = find_white_point(histogram).level
    colors = histogram.colors.astype(np.float64)
    glass = (np.abs(colors - white) <= NEAR_GLASS).all(axis=1)
    tissue = (-np.log((colors + 1) / (white + 1)) > TISSUE_DENSITY).any(axis=1)
    return Scan(name, pixels, histogram, glass, tissue)


# ---- what is measured -----------------------------------------------------------------------------------------------


def match_glass(reference: Scan, scans: list[Scan]) -> list[Image]:
    """Each scan's colours, scaled channel by channel from its white point to the reference's, and nothing else."""
    wanted = find_white_point(reference.histogram).level
    mapped = []
    for scan in scans:
        scale = (wanted + 1) / (find_white_point(scan.histogram).level + 1)
        mapped.append(np.rint(np.clip((scan.histogram.colors + 1.0) * scale - 1, 0, 255)).astype(np.uint8))
    return mapped


def normalized(method: type[Normalizer], reference: Scan, scans: list[Scan]) -> list[Image]:
    """Each scan's colours as the method makes them with default settings: 8 bits."""
    normalizer = method().fit(reference.histogram)
    mapped = []
    for scan in scans:
        values = normalizer.map_colors(scan.histogram.colors, normalizer.estimate(scan.histogram))
        mapped.append(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
    return mapped


def glass_spread(scans: list[Scan], colors: list[Image]) -> float:
    """Largest difference, in any channel, of the mean colour of the scans' glass."""
    means = [
        np.average(mapped[scan.glass], axis=0, weights=scan.histogram.counts[scan.glass])
        for scan, mapped in zip(scans, colors, strict=True)
    ]
    return float(np.ptp(means, axis=0).max())


def tissue_distances(scans: list[Scan], colors: list[Image]) -> dict[tuple[int, int], float]:
    """Sliced Wasserstein distance of each pair of scans, grey levels."""
    quantiles = [
        sliced_quantiles(mapped[scan.tissue], scan.histogram.counts[scan.tissue])
        for scan, mapped in zip(scans, colors, strict=True)
    ]
    return {(i, j): float(np.abs(quantiles[i] - quantiles[j]).mean()) for i, j in combinations(range(len(scans)), 2)}


def sliced_quantiles(colors: Image, counts: Floats) -> Floats:
    """The `QUANTILES` of the colours projected on each of `DIRECTIONS`: (48, 200)."""
    result = np.empty((DIRECTIONS.shape[1], len(QUANTILES)))
    for i, projected in enumerate((colors @ DIRECTIONS).T):
        order = np.argsort(projected)
        cumulative = np.cumsum(counts[order])
        result[i] = projected[order][np.searchsorted(cumulative, QUANTILES * cumulative[-1])]
    return result


def cells(figures: Sequence[float]) -> list[str]:
    """Glass spread in levels, and the two distances as shares of the raw ones."""
    spread, all_pairs, to_reference = figures
    return [f"{spread:.2f}", f"{all_pairs:.2f}x", f"{to_reference:.2f}x"]


def mean_with(index: int, distances: dict[tuple[int, int], float]) -> float:
    """Mean distance of one scan from the others."""
    return float(np.mean([distance for pair, distance in distances.items() if index in pair]))


# ---- the picture ----------------------------------------------------------------------------------------------------


def save_picture(path: str, scans: list[Scan], method: type[Normalizer]) -> None:
    """The same cells on four scanners: as they are (top), and normalized to the first (bottom)."""
    normalizer = method().fit(scans[0].histogram)
    before, after = [], []
    for scan, (top, left) in zip(scans, same_places(scans), strict=True):
        crop = np.ascontiguousarray(scan.pixels[top : top + CROP, left : left + CROP])
        before.append((scan.name, crop))
        appearance = normalizer.estimate(scan.histogram)
        after.append((f"{scan.name}, {method.__name__} to {scans[0].name}", normalizer.transform(crop, appearance)))
    save_strips(path, [before, after])


def same_places(scans: list[Scan], shrink: int = 8) -> list[tuple[int, int]]:
    """Top and left of the crop of the first scan with the most tissue, and of the same place in the others.

    The scans differ in scale by some percent and in position; both are found by correlating small maps of darkness.
    """
    maps = [darkness(scan, shrink) for scan in scans]
    box = CROP // shrink
    sums = np.pad(np.minimum(maps[0], 0.3).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = sums[box:, box:] - sums[:-box, box:] - sums[box:, :-box] + sums[:-box, :-box]
    # Away from the rim, where a scan may end.
    margin = box
    inner = total[margin:-margin, margin:-margin]
    row, column = (int(i) + margin for i in np.unravel_index(inner.argmax(), inner.shape))
    centre = np.array([row, column]) + box / 2
    places = [(row * shrink, column * shrink)]
    for scan, other in zip(scans[1:], maps[1:], strict=True):
        y, x = matching_point(maps[0], other, centre) * shrink - CROP / 2
        height, width = scan.pixels.shape[:2]
        places.append((int(np.clip(y, 0, height - CROP)), int(np.clip(x, 0, width - CROP))))
    return places


def darkness(scan: Scan, shrink: int) -> Floats:
    """How much darker than glass, averaged over blocks: (H // shrink, W // shrink)."""
    height, width = (length // shrink for length in scan.pixels.shape[:2])
    blocks = scan.pixels[: height * shrink, : width * shrink, 1].reshape(height, shrink, width, shrink)
    level = blocks.mean(axis=(1, 3))
    return np.clip(1 - level / np.median(level), 0, 1)


def matching_point(first: Floats, second: Floats, point: Floats) -> Floats:
    """Where `point` (row, column) of `first` lies in `second`: the best of many scales, then the best shift there."""
    from scipy.ndimage import zoom

    side = 2 * max(first.shape + second.shape)
    spectrum = np.fft.rfft2(second - second.mean(), (side, side))
    best, where = -np.inf, point
    for scale in np.arange(0.80, 1.26, 0.01):
        scaled = zoom(first, scale, order=1)
        scaled -= scaled.mean()
        scaled /= np.linalg.norm(scaled)
        match = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(scaled, (side, side))), (side, side))
        if match.max() > best:
            best = match.max()
            shift = np.array(np.unravel_index(match.argmax(), match.shape))
            shift = np.where(shift > side // 2, shift - side, shift)
            where = point * scale + shift
    return where


if __name__ == "__main__":
    main()
