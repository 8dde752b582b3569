"""What the metrics say of one untouched pair of scanners, how far the published variants are off, and what they cost.

    python benchmarks/metrics.py [--mitos]

The pairs are tiles of phantom tissue, scanned twice; with `--mitos`, tiles of MITOS-ATYPIA-14 as they come from two
scanners, cut to what they share by whole pixels, whose figures may not be published. The networks take part where their
weights are among the data.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import Image, data_folder, he_slide, print_goal, print_header, print_table

from restain.errors import RestainError
from restain.evaluation.metrics import METRICS, SUITES, run_suite, summarise
from restain.evaluation.metrics.structural import ssim, ssim_stretched

TILE = 256
PAIRS = 40
TILES = 32  # of the slide, timed
SECONDS = 240  # that a thousand tiles may take with the toolkit: "minutes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mitos", action="store_true", help="real pairs, whose figures may not be published")
    pairs, name = scanner_pairs(parser.parse_args().mitos)
    print_header("What metrics say before anything is normalized", f"{len(pairs)} tiles of {name}")
    published(pairs)
    tiles, slide = slide_tiles()
    print_header("What metrics cost", f"{len(tiles)} tiles of {TILE}x{TILE} from {slide}, one thread of Python")
    cost(tiles)


def published(pairs: list[tuple[Image, Image]]) -> None:
    """Both halves of the suite stst, StainNet's two scores against the source, and the ratios that follow."""
    table = summarise([run_suite("stst", first, target=second) for first, second in pairs])
    print_table(
        ["one scanner against the other", "mean", "sd"],
        [[label, f"{each.mean:.4g}", f"{each.sd:.2g}"] for label, each in table.items()],
    )
    faded = [(first, np.rint(first * 0.6 + 80).astype(np.uint8)) for first, _ in pairs]
    rows = [
        ["ERGAS of sewar over ERGAS", f"{table['ergas_sewar'].mean / table['ergas'].mean:.0f}"],
        ["RASE of sewar over RASE", f"{table['rase_sewar'].mean / table['rase'].mean:.1f}"],
        ["UQI of sewar less UQI", f"{table['uqi_sewar'].mean - table['uqi'].mean:.3f}"],
        ["SSIM as a volume less SSIM", f"{table['ssim_volume'].mean - table['ssim'].mean:.3f}"],
        ["SSIM, gray, of 0.6·image + 80", f"{np.mean([ssim(*pair, color='gray8') for pair in faded]):.3f}"],
        ["the same, both stretched", f"{np.mean([ssim_stretched(*pair) for pair in faded]):.3f}"],
        ["UQI of sewar, unrelated tiles", f"{_unrelated(pairs, 'uqi_sewar'):.3f}"],
        ["UQI, unrelated tiles", f"{_unrelated(pairs, 'uqi'):.3f}"],
    ]
    print_table(["published variants", ""], rows)


def cost(tiles: list[Image]) -> None:
    """Megapixels a second of every metric of images, and how long a thousand tiles take."""
    pairs = [(tile, np.clip(tile.astype(int) + 6, 0, 255).astype(np.uint8)) for tile in tiles]
    rows = []
    for name, metric in METRICS.items():
        if metric.takes not in ("pair", "image"):
            continue
        options: Mapping[str, Any] = {"tile": TILE // 4} if name == "seam_score" else weights_of(name)
        images = [pair if metric.takes == "pair" else pair[1:] for pair in pairs]
        try:
            metric.function(*images[0], **options)  # caches fill
        except (RestainError, ImportError) as error:
            rows.append([name, "-", "-", str(error)[:60] + "…"])
            continue
        begin = time.perf_counter()
        for each in images:
            metric.function(*each, **options)
        seconds = (time.perf_counter() - begin) / len(images)
        rows.append([name, f"{seconds * 1000:.1f}", f"{TILE**2 / 1e6 / seconds:.2f}", ""])
    print_table(["metric", "ms a tile", "Mpx/s", ""], rows)
    for suite in SUITES:
        begin = time.perf_counter()
        results = [run_suite(suite, output, source=source, target=source, tile=64) for source, output in pairs]
        thousand = (time.perf_counter() - begin) / len(pairs) * 1000
        missing = f" (without {', '.join(results[0].skipped)})" if results[0].skipped else ""
        if suite == "toolkit":
            print_goal(f"a thousand tiles, suite {suite}{missing}", thousand, SECONDS, unit=" s")
        else:
            print(f"a thousand tiles, suite {suite}{missing}: {thousand:.0f} s")


# ---- data -----------------------------------------------------------------------------------------------------------


def scanner_pairs(real: bool) -> tuple[list[tuple[Image, Image]], str]:
    """The same tissue from two scanners, cut to what both show."""
    folder = data_folder()
    if real and folder is not None and (folder / "mitos_pairs" / "pairs.csv").exists():
        pairs = [_shared(*pair) for pair in _mitos(folder / "mitos_pairs")]
        return pairs, "MITOS-ATYPIA-14, Aperio against Hamamatsu, cut by whole pixels (shift left: below one)"
    import restain

    scanners = restain.Scanner(noise=1.5, blur=0.6), restain.Scanner(white=(236.0, 231.0, 228.0), noise=1.5, blur=0.8)
    phantoms = [[restain.make_phantom(TILE, TILE, seed=n, scanner=s).image for s in scanners] for n in range(PAIRS)]
    return [(first, second) for first, second in phantoms], "phantom tissue, scanned twice"


def _mitos(folder: Path) -> Iterator[tuple[Image, Image, int, int]]:
    from PIL import Image as Pillow

    with (folder / "pairs.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["slide"] == "07"][:PAIRS]
    for row in rows:
        first, second = (
            np.asarray(Pillow.open(folder / scanner / f"{row['tile']}.png").convert("RGB"))
            for scanner in ("aperio", "hamamatsu")
        )
        yield first, second, int(row["dy"]), int(row["dx"])


def _shared(first: Image, second: Image, dy: int, dx: int) -> tuple[Image, Image]:
    height, width = first.shape[:2]
    here = first[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
    there = second[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    return here, there


def slide_tiles() -> tuple[list[Image], str]:
    """The darkest whole tiles of a slide: those with the most tissue."""
    slide, name = he_slide()
    corners = [(y, x) for y in range(0, len(slide) - TILE, TILE) for x in range(0, slide.shape[1] - TILE, TILE)]
    tiles = [np.ascontiguousarray(slide[y : y + TILE, x : x + TILE]) for y, x in corners]
    return sorted(tiles, key=lambda tile: float(tile.mean()))[:TILES], name


def weights_of(name: str) -> Mapping[str, Any]:
    """The weights of a network, where they are among the data."""
    folder = data_folder()
    file = folder / "weights" / "squeezenet_v1.0" / "squeezenet_v1.0_decoded.npz" if folder else None
    return {"weights": file} if name == "squeeze_feature_distance" and file and file.exists() else {}


def _unrelated(pairs: list[tuple[Image, Image]], name: str) -> float:
    """A metric of each tile against the next one's other scan."""
    values = []
    for (first, _), (_, second) in pairwise(pairs):
        height, width = (min(a, b) for a, b in zip(first.shape[:2], second.shape[:2], strict=True))
        values.append(METRICS[name].function(first[:height, :width], second[:height, :width]))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
