"""A whole slide from file to file, beside libvips's bare transcode of the same slide; memory, stages, and reading.

    python benchmarks/slide.py                             # 0.1, 0.4 and 1 gigapixel
    python benchmarks/slide.py --gigapixels 4 --rounds 1 --transcode
    python benchmarks/slide.py --keep slides/              # keep the made slides for the next time

The slides are made here: tiles of 512 pixels cut at random from a real one, turned and mirrored, 60 % of them its
empty glass with its noise; JPEG, quality 90, 4:4:4, with levels of a quarter and a sixteenth. restain estimates, maps
and writes a pyramid; libvips decodes, encodes and writes a pyramid, and changes no colour. Both start anew for each
round, in turn. Files are written to the folder of the slides, and flushed to disk by restain alone.

Stages are measured in one thread; their shares say where the time goes. The floor is decoding and encoding. "Write" is
all that remains: tiles of smaller levels put together, files written.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import tifffile
from common import CORES, Image, he_slide, interleaved, print_goal, print_header, print_table
from scipy import ndimage

import restain
from restain.color import kernels
from restain.slides.codecs import EncodedTile, compress
from restain.slides.glass_tiles import glass_tiles
from restain.slides.sample import sample_slide
from restain.slides.writer import settings_for, write_pyramid

TILE, QUALITY = 512, 90
TISSUE = 0.4
HUNDRED = 100_000 * 100_000 / 1e6
GOALS = {0.4: 0.9, 1.0: 0.6}
"""Seconds over libvips's, by gigapixels; the second for all that is larger."""

VIPS = """
import sys, pyvips
image = pyvips.Image.new_from_file(sys.argv[1], access="sequential")
image.tiffsave(sys.argv[2], tile=True, tile_width=512, tile_height=512, compression="jpeg", Q=90, pyramid=True,
               bigtiff=True)
"""
RESTAIN = """
import sys
from restain.cli import main
sys.exit(main(["normalize", sys.argv[1], sys.argv[2], "--overwrite", "--json"]))
"""
THROUGH_OPENSLIDE = RESTAIN.replace(
    "import main", "import main\nfrom restain.slides import openslide_reader\nopenslide_reader.PLAIN_TIFF = ()"
)
INSTALLED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""As after an installation: Python's bytecode is kept."""

MEASURED = """
import json, os, resource, sys, time
begin = time.perf_counter()
status = os.spawnv(os.P_WAIT, sys.argv[1], sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, time.perf_counter() - begin, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigapixels", nargs="+", type=float, default=[0.1, 0.4, 1.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the made slides; temporary by default")
    parser.add_argument("--transcode", action="store_true", help="nothing but libvips's and restain's time")
    options = parser.parse_args()
    pixels, name = he_slide()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        slides = {size: made_slide(folder / f"made-{size:g}.tif", size, pixels) for size in options.gigapixels}
        print_header(f"A whole slide, file to file, {CORES} cores", f"slides made of {name}, 60 % glass")
        middle = sorted(slides)[len(slides) // 2]
        transcode(slides, folder, options.rounds, None if options.transcode else middle)
        if options.transcode:
            return
        stages(slides[middle], middle, folder)
        glass_both_ways(slides[middle])
        reading(slides[middle])


# ---- slides ---------------------------------------------------------------------------------------------------------


def made_slide(path: Path, gigapixels: float, pixels: Image) -> Path:
    """Write a slide of about so many pixels, no two tiles alike, unless it is there."""
    if path.exists():
        return path
    generator = np.random.default_rng(0)
    side = round((gigapixels * 1e9) ** 0.5 / TILE)
    tissue = tissue_layout(side, generator)
    glass = flattest(pixels, 256)
    staged = {4: np.empty((side * TILE // 4, side * TILE // 4, 3), np.uint8)}
    staged[16] = np.empty((side * TILE // 16, side * TILE // 16, 3), np.uint8)

    def level_zero() -> Iterator[bytes]:
        for row in range(side):
            for column in range(side):
                tile = some_tissue(pixels, generator) if tissue[row, column] else some_glass(glass, generator)
                small = halved(halved(tile))
                for step, piece in ((4, small), (16, halved(halved(small)))):
                    y, x, n = row * TILE // step, column * TILE // step, TILE // step
                    staged[step][y : y + n, x : x + n] = piece
                yield encoded(tile)

    layout = {
        "photometric": "ycbcr", "compression": "jpeg", "subsampling": (1, 1), "tile": (TILE, TILE), "dtype": np.uint8,
        "metadata": None, "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER",
    }  # fmt: skip
    part = path.with_suffix(".part")
    with tifffile.TiffWriter(part, bigtiff=True) as tiff:
        tiff.write(level_zero(), shape=(side * TILE, side * TILE, 3), **layout)
        for image in staged.values():
            tiff.write(tiles_of(image), shape=image.shape, subfiletype=1, **layout)
    part.rename(path)
    return path


def tissue_layout(side: int, generator: np.random.Generator) -> np.ndarray:
    """Which tiles show tissue: one large piece in the middle and some small ones."""
    noise = ndimage.gaussian_filter(generator.normal(size=(side, side)), side / 14, mode="constant")
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    height = noise / noise.std() - 1.5 * (y**2 + x**2)
    return height > np.quantile(height, 1 - TISSUE)


def some_tissue(pixels: Image, generator: np.random.Generator) -> Image:
    """A tile from anywhere in the slide, turned and mirrored, mostly of tissue."""
    while True:
        y, x = generator.integers(0, np.array(pixels.shape[:2]) - TILE + 1)
        tile = pixels[y : y + TILE, x : x + TILE]
        if (tile[::4, ::4].min(axis=2) < 215).mean() > 0.55:
            return turned(tile, generator)


def some_glass(glass: Image, generator: np.random.Generator) -> Image:
    """A tile of real glass: mirrored at its borders, shifted, turned."""
    whole = np.block([[[glass], [glass[:, ::-1]]], [[glass[::-1]], [glass[::-1, ::-1]]]])
    return turned(np.roll(whole, generator.integers(0, TILE, 2), axis=(0, 1)), generator)


def turned(tile: Image, generator: np.random.Generator) -> Image:
    tile = np.rot90(tile, generator.integers(4))
    return np.ascontiguousarray(tile[:, ::-1] if generator.integers(2) else tile)


def flattest(pixels: Image, side: int) -> Image:
    """The square that varies least."""
    corners = [(y, x) for y in range(0, len(pixels) - side, 64) for x in range(0, pixels.shape[1] - side, 64)]
    y, x = min(corners, key=lambda c: pixels[c[0] : c[0] + side, c[1] : c[1] + side].std(axis=(0, 1)).max())
    return pixels[y : y + side, x : x + side]


def halved(tile: Image) -> Image:
    out = np.empty((tile.shape[0] // 2, tile.shape[1] // 2, 3), np.uint8)
    kernels.halve(tile, out)
    return out


def tiles_of(image: Image) -> Iterator[bytes]:
    for y in range(0, image.shape[0], TILE):
        for x in range(0, image.shape[1], TILE):
            tile = image[y : y + TILE, x : x + TILE]
            rest = ((0, TILE - tile.shape[0]), (0, TILE - tile.shape[1]), (0, 0))
            yield encoded(np.pad(tile, rest, mode="edge"))


def encoded(tile: Image) -> bytes:
    return imagecodecs.jpeg8_encode(tile, level=QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="444")


# ---- file to file ---------------------------------------------------------------------------------------------------


def transcode(slides: dict[float, Path], folder: Path, rounds: int, middle: float | None) -> None:
    """Whole commands, start included; of the `middle` size also through OpenSlide, as formats without raw tiles are."""
    rows, goals = [], []
    for size, slide in sorted(slides.items()):
        scripts = {"libvips": VIPS, "restain": RESTAIN}
        if size == middle:
            scripts["restain through OpenSlide"] = THROUGH_OPENSLIDE
        used: dict[str, list[list[float]]] = {name: [] for name in scripts}

        def run(name: str, script: str, slide: Path = slide, used: dict[str, list[list[float]]] = used) -> None:
            output = folder / f"{name}.tif"
            command = [sys.executable, "-c", MEASURED, sys.executable, "-c", script, str(slide), str(output)]
            done = subprocess.run(command, env=INSTALLED, capture_output=True, text=True, check=True)
            status, *figures = json.loads(done.stdout.splitlines()[-1])
            if status:
                raise SystemExit(f"{name} failed: {done.stderr}")
            used[name].append(figures)
            output.unlink()

        contenders = {name: partial(run, name, script) for name, script in scripts.items()}
        timings = interleaved(contenders, rounds, warm_up=size == min(slides))
        with restain.open_slide(slide) as opened:
            megapixels = opened.dimensions[0] * opened.dimensions[1] / 1e6
        for name in timings:
            ratio = timings.ratio(name, "libvips")
            seconds = timings.median(name)
            _, memory, cpu = np.median(np.array(used[name][-rounds:]), axis=0)
            rows.append(
                [
                    f"{size:g} gigapixels, {name}", f"{seconds:.2f} s", f"{megapixels / seconds:.0f}", f"{cpu:.1f} s",
                    f"{memory:.0f}", f"{ratio:.2f}",
                    f"{HUNDRED * seconds / megapixels:.0f} s",
                ]
            )  # fmt: skip
        limit = next((goal for least, goal in sorted(GOALS.items(), reverse=True) if size >= least), None)
        if limit is not None:
            ratio = timings.ratio("restain", "libvips")
            goals.append((f"restain's time over libvips's, {size:g} gigapixels", ratio, limit))
    print_table(["", "time", "Mpx/s", "CPU", "peak MiB", "of libvips's", "100,000²"], rows)
    print("\nStainNet's paper: 40 s for 100,000² on a GPU, without reading and writing.")
    for label, ratio, limit in goals:
        print_goal(label, ratio, limit)
    print()


# ---- stages, reading ------------------------------------------------------------------------------------------------


class AtOnce(Executor):
    """Encodes smaller levels in the calling thread, and keeps the time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def submit(self, function: Any, /, *arguments: Any) -> "Future[Any]":
        begin = time.thread_time()
        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        self.seconds += time.thread_time() - begin
        return done


def stages(path: Path, size: float, scratch: Path) -> None:
    """Seconds of one thread for each stage of a slide, the pyramid written to disk."""
    normalizer = restain.Macenko().fit("he")
    clock = time.thread_time
    spent = dict.fromkeys(("glass, not decoded", "decode", "map", "encode", "halve"), 0.0)
    counts = dict.fromkeys(("glass", "tissue"), 0)
    pool = AtOnce()
    with restain.open_slide(path) as slide:
        histogram = sample_slide(slide)
        appearance = normalizer.estimate(histogram)
        color_map = normalizer.pixel_map(appearance, lazy=True)
        color_map.evaluate(histogram.codes)
        settings = settings_for(scratch / "stages.tif", None, size=slide.dimensions, mpp=slide.mpp)
        glass = glass_tiles(slide, color_map, appearance.white_point, settings)
        width, height = slide.dimensions
        tile = np.empty((TILE, TILE, 3), np.uint8)

        def timed(name: str, call: Any) -> Any:
            begin = clock()
            result = call()
            spent[name] += clock() - begin
            return result

        def level_zero() -> Iterator[EncodedTile]:
            for y in range(0, height, TILE):
                for x in range(0, width, TILE):
                    short = timed("glass, not decoded", lambda: glass and glass.encode(x, y))  # noqa: B023
                    counts["glass" if short else "tissue"] += 1
                    if short:
                        yield short
                        continue
                    pixels, _ = timed("decode", lambda: slide.read_tile((x, y), (TILE, TILE), tile))  # noqa: B023
                    timed("map", lambda: color_map(pixels, out=pixels))  # noqa: B023
                    half = np.empty((TILE // 2, TILE // 2, 3), np.uint8)
                    data = timed("encode", lambda: compress(pixels, settings))  # noqa: B023
                    timed("halve", lambda: kernels.halve(pixels, half))  # noqa: B023
                    yield EncodedTile(data, half)

        list(zip(level_zero(), range(100), strict=False))  # what is compiled or loaded once
        spent, counts = dict.fromkeys(spent, 0.0), dict.fromkeys(counts, 0)
        begin = clock()
        write_pyramid(
            scratch / "stages.tif", slide.dimensions, level_zero(), settings=settings, mpp=slide.mpp, icc_profile=None,
            description="", software="", associated={}, pool=pool,
        )  # fmt: skip
        total = clock() - begin
    (scratch / "stages.tif").unlink()
    spent |= {"smaller levels": pool.seconds}
    spent |= {"write": total - sum(spent.values())}
    area = dict.fromkeys(spent, width * height / 1e6)
    for name in ("decode", "map", "encode", "halve"):
        area[name] = counts["tissue"] * TILE**2 / 1e6
    area["glass, not decoded"] = counts["glass"] * TILE**2 / 1e6
    print_table(
        [f"{size:g} gigapixels, one thread", "Mpx", "Mpx/s", "share"],
        [
            [name, f"{area[name]:.0f}", f"{area[name] / seconds:.0f}", f"{seconds / total:.0%}"]
            for name, seconds in spent.items()
        ],
    )
    floor = spent["decode"] + spent["encode"] + spent["smaller levels"]
    print(
        f"all: {width * height / 1e6 / total:.0f} Mpx/s a core; decoding and encoding take {floor / total:.0%} of it\n"
    )


def glass_both_ways(path: Path) -> None:
    """Tiles of glass, mapped as coefficients and as pixels: how far from the exact map, decoded again."""
    normalizer = restain.Macenko().fit("he")
    off: dict[str, list[Image]] = {"as coefficients": [], "as pixels": []}
    with restain.open_slide(path) as slide:
        appearance = normalizer.estimate(sample_slide(slide))
        color_map = normalizer.pixel_map(appearance, lazy=True)
        settings = settings_for(Path("glass.tif"), None, size=slide.dimensions, mpp=slide.mpp)
        glass = glass_tiles(slide, color_map, appearance.white_point, settings)
        assert glass is not None
        for x in range(0, slide.dimensions[0], TILE):
            short = glass.encode(x, 0)
            if short is None:
                continue
            wanted = color_map(slide.read_region((x, 0), 0, (TILE, TILE))[0])
            for name, data in (("as coefficients", short.data), ("as pixels", compress(wanted, settings))):
                off[name].append(np.abs(imagecodecs.jpeg8_decode(data).astype(np.int16) - wanted))
    print_table(
        [f"{len(off['as pixels'])} tiles of glass, mapped", "grey levels off", "at most"],
        [[name, f"{np.mean(values):.3f}", f"{np.max(values)}"] for name, values in off.items()],
    )
    print()


def reading(path: Path) -> None:
    """`NormalizedSlide.read_region` beside OpenSlide's into an array; and restain where tiles cannot be had raw."""
    generator = np.random.default_rng(1)
    raw = openslide.OpenSlide(str(path))
    slide = restain.NormalizedSlide(path, restain.Macenko().fit("he"))
    places = [tuple(int(v) for v in generator.integers(0, np.array(raw.dimensions) - TILE)) for _ in range(60)]
    timings = interleaved(
        {
            "OpenSlide": lambda: [np.asarray(raw.read_region(place, 0, (TILE, TILE))) for place in places],
            "NormalizedSlide": lambda: [np.asarray(slide.read_region(place, 0, (TILE, TILE))) for place in places],
        },
        5,
    )
    ratio = timings.ratio("NormalizedSlide", "OpenSlide")
    print_table(
        ["read_region of 512x512", "ms"],
        [[name, f"{1e3 * timings.median(name) / len(places):.2f}"] for name in timings],
    )
    print_goal("NormalizedSlide.read_region's time over OpenSlide's", ratio, 1.2)


if __name__ == "__main__":
    main()
