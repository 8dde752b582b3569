"""How exactly pairs are registered: planted shifts and warps of real tiles, and real pairs of two scanners.

    python benchmarks/registration.py
    python benchmarks/registration.py --quick

A planted pair is a tile, and the same tile moved or bent, in other colours, with less focus and more noise; errors are
distances from the planted positions over the pixels of the mask, and for warps of those that show tissue. Without real
data the tiles are phantom tissue, and there are no scanner pairs.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
from common import Image, data_folder, he_slide, print_goal, print_header, print_table
from numpy.typing import NDArray
from scipy import ndimage

import restain
from restain.evaluation.datasets.pairs import read_pairs
from restain.evaluation.registration import Registration, RegistrationSettings, register
from restain.evaluation.registration.files import read_picture

SIDE = 256
Field = NDArray[np.float64]
Planted = tuple[Image, Image, Field]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer tiles and no comparison of settings and flows")
    quick = parser.parse_args().quick
    tiles, what = find_tiles(2 if quick else 4)
    print_header("Registration", f"{what}, in pairs of {SIDE}x{SIDE}")
    lengths = (0, 3.3, 11.8, 42.4)
    shifts = [planted(tile, i, shift=(r * 1.03, r * -0.71)) for i, tile in enumerate(tiles) for r in lengths]
    warps = [planted(tile, i, shift=(4.3, -3.6), bend=3, turn=0.4) for i, tile in enumerate(tiles)]
    warps += [planted(tile, 90 + i, shift=(-2.2, 6.1), bend=4, length=24) for i, tile in enumerate(tiles)]

    rows = []
    for name, cases in (("shifts, to 52 px", shifts), ("smooth warps, to 4 px", warps)):
        errors = [planted_errors(case, tissue_only=cases is warps) for case in cases]
        rows.append([name, str(len(cases)), *summary(errors)])
        worst = max(float(error.mean()) for error in errors)
        limit = 0.1 if cases is shifts else 0.5
        rows[-1].append(f"{worst:.3f}")
        print_goal(f"{name}: mean error of the worst pair", worst, limit, unit=" px")
        if cases is warps:
            worst = max(float(np.percentile(error, 95)) for error in errors)
            print_goal(f"{name}: 95th percentile of the worst pair", worst, 0.5, unit=" px")
    print()
    print_table(["planted, errors in px", "pairs", "mean", "95 %", "99 %", "worst mean"], rows)
    if not quick:
        compare_settings(warps)
        compare_flows(warps)
    scanner_pairs(quick)


# ---- planted truth ---------------------------------------------------------------------------------------------------


def find_tiles(count: int) -> tuple[list[Image], str]:
    """Pictures of tissue, larger than a pair, and what they are."""
    slide, name = he_slide()
    folder = data_folder()
    paths = [] if folder is None else sorted((folder / "glas" / "img").glob("*.png"))[:: max(1, 40 // count)][:count]
    real = [read_picture(path)[..., :3] for path in paths]
    scanner = restain.Scanner(noise=1, blur=0.6)
    phantoms = [restain.make_phantom(400, 400, seed=seed, scanner=scanner).image for seed in (1, 2)]
    crops = [slide[y : y + 400, x : x + 400] for x, y in ((900, 900), (600, 1600))]
    return real + crops + phantoms, f"{len(real)} images of GlaS, 2 crops of {name}, 2 phantoms"


def planted(
    tile: Image, seed: int, *, shift: tuple[float, float], bend: float = 0, length: float = 32, turn: float = 0
) -> Planted:
    """Source, target, and (H, W, 2) where in the target each pixel of the source is."""
    generator = np.random.default_rng(seed)
    top, left = ((side - SIDE) // 2 for side in tile.shape[:2])
    field = ndimage.gaussian_filter(generator.standard_normal((2, SIDE, SIDE)), (0, length, length))
    field *= bend / np.abs(field).max()
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    middle = (SIDE - 1) / 2
    turned = cos * x - sin * y, sin * x + cos * y
    there = np.stack([turned[axis] + middle + shift[axis] + field[axis] for axis in (0, 1)], axis=-1)
    where = [there[..., 1] + top, there[..., 0] + left]
    channels = [ndimage.map_coordinates(tile[..., k].astype(float), where, order=3, mode="mirror") for k in range(3)]
    source = np.stack(channels, axis=-1)
    colors = np.array([[0.85, 0.05, 0.05], [0.1, 0.9, 0.1], [0.02, 0.03, 0.8]])
    target = 255 * (tile[top : top + SIDE, left : left + SIDE] / 255.0) ** 1.3 @ colors
    target = ndimage.gaussian_filter(target, (0.7, 0.7, 0)) + generator.normal(0, 3, target.shape)
    source += generator.normal(0, 2, source.shape)
    return to_8_bits(source), to_8_bits(target), there


def to_8_bits(levels: Field) -> Image:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def planted_errors(case: Planted, settings: RegistrationSettings | None = None, *, tissue_only: bool = True) -> Field:
    """Distances in pixels over the mask, and of warps where there is tissue: how empty glass is bent, nothing shows."""
    source, target, there = case
    result = register(source, target, settings)
    apart = result.positions() - there
    darkest = source.min(axis=2)
    tissue = darkest < 0.9 * np.percentile(darkest, 99.5)
    return np.hypot(apart[..., 0], apart[..., 1])[result.mask & tissue if tissue_only else result.mask]


def summary(errors: Sequence[Field]) -> list[str]:
    together = np.concatenate(errors)
    return [f"{value:.3f}" for value in (together.mean(), *np.percentile(together, [95, 99]))]


def compare_settings(cases: Sequence[Planted]) -> None:
    """What the settings that decide most are worth."""
    choices = {"default": RegistrationSettings()}
    choices |= {f"flow_rounds={n}": RegistrationSettings(flow_rounds=n) for n in (0, 1, 2, 4)}
    choices |= {f"flow_window={n}": RegistrationSettings(flow_window=n) for n in (13, 31)}
    choices |= {f"flow_smoothing={s}": RegistrationSettings(flow_smoothing=s) for s in (0, 3, 8)}
    choices |= {f"contrast_radius={r}": RegistrationSettings(contrast_radius=r) for r in (4, 16)}
    rows = []
    for name, settings in choices.items():
        errors = [planted_errors(case, settings) for case in cases]
        worst = max(float(np.percentile(error, 95)) for error in errors)
        rows.append([name, *summary(errors), f"{worst:.3f}"])
    print_table(["warps, settings", "mean", "95 %", "99 %", "worst 95 %"], rows)


def compare_flows(cases: Sequence[Planted]) -> None:
    """Other dense flows in the place of Farneback's: each as one of the rounds, smoothed in the same way."""
    import cv2
    from skimage.registration import optical_flow_ilk, optical_flow_tvl1

    def of_skimage(flow: Callable[..., Any], **options: Any) -> Callable[[Image, Image], Any]:
        return lambda a, b: np.stack(flow(a / 255, b / 255, **options)[::-1], -1).astype(np.float32)

    medium = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows: dict[str, Callable[[Image, Image], Any] | None] = {
        "OpenCV Farneback (used)": None,
        "OpenCV DIS, medium": lambda a, b: medium.calc(a, b, None),
        "scikit-image ILK, radius 10": of_skimage(optical_flow_ilk, radius=10),
        "scikit-image TV-L1": of_skimage(optical_flow_tvl1),
    }
    rows = []
    farneback = cv2.calcOpticalFlowFarneback
    for name, flow in flows.items():
        step = farneback if flow is None else lambda a, b, _, flow=flow, **__: flow(a, b)
        with mock.patch.object(cv2, "calcOpticalFlowFarneback", step):
            start = time.perf_counter()
            errors = [planted_errors(case) for case in cases]
            seconds = (time.perf_counter() - start) / len(cases)
        worst = max(float(np.percentile(error, 95)) for error in errors)
        rows.append([name, *summary(errors), f"{worst:.3f}", f"{seconds:.2f}"])
    print_table(["warps, dense flow", "mean", "95 %", "99 %", "worst 95 %", "s a pair"], rows)


# ---- real pairs of two scanners --------------------------------------------------------------------------------------


def scanner_pairs(quick: bool) -> None:
    """MITOS-ATYPIA-14: the same tissue on an Aperio and a Hamamatsu; and pairs of other tiles, to be refused."""
    folder = data_folder()
    if folder is None or not (folder / "mitos_pairs").is_dir():
        print("no pairs of two scanners at hand (mitos_pairs); set RESTAIN_DATA")
        return
    folder /= "mitos_pairs"
    pairs = read_pairs(folder / "pairs.csv", folder / "aperio", folder / "hamamatsu")[:: 8 if quick else 1]
    pictures = [(read_picture(pair.source), read_picture(pair.target)) for pair in pairs]
    start = time.perf_counter()
    results = [register(source, target) for source, target in pictures]
    seconds = (time.perf_counter() - start) / len(pairs)
    affine = [register(source, target, RegistrationSettings(flow_rounds=0)) for source, target in pictures]
    wrong = [register(pictures[i][0], pictures[i - 1][1]) for i in range(len(pictures))]

    by_slide: dict[str, list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        by_slide[pair.slide or ""].append(i)
    rows = [scanner_row(f"slide {slide}", results, affine, which) for slide, which in by_slide.items()]
    rows.append(scanner_row("all", results, affine, range(len(pairs))))
    header = ["Aperio and Hamamatsu", "pairs", "SSIM before", "affine", "registered", "contrast corr."]
    print_table([*header, "inconsistent", "covered", "accepted"], rows)
    print(f"{seconds:.2f} s a pair; SSIM: RGB per channel, Gaussian window of 11, sigma 1.5, range 255, over the mask")
    least = min(result.quality.correlation_after for result in results)
    most = max(result.quality.inconsistent for result in results)
    print(f"true pairs:  contrast correlates by {least:.2f} at least, {most:.2f} inconsistent at most")
    least = min(result.quality.inconsistent for result in wrong)
    most = max(result.quality.correlation_after for result in wrong)
    print(f"wrong pairs: contrast correlates by {most:.2f} at most, {least:.2f} inconsistent at least")
    print_goal("true pairs that are rejected", sum(not result.accepted for result in results), 0)
    print_goal("wrong pairs that are accepted", sum(result.accepted for result in wrong), 0)


def scanner_row(
    name: str, results: Sequence[Registration], affine: Sequence[Registration], which: Sequence[int] | range
) -> list[str]:
    found = [results[i].quality for i in which]
    columns = [
        [quality.ssim_before for quality in found],
        [affine[i].quality.ssim_after for i in which],
        [quality.ssim_after for quality in found],
        [quality.correlation_after for quality in found],
        [quality.inconsistent for quality in found],
        [quality.covered for quality in found],
    ]
    means = [f"{np.mean(column):.3f}" for column in columns]
    return [name, str(len(found)), *means, str(sum(results[i].accepted for i in which))]


if __name__ == "__main__":
    main()
