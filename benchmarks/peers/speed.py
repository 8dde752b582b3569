"""How long each package takes for a large tile and for a folder of small ones, beside restain.

All are fitted to the same target beforehand and timed in turn, in one run. Of the packages the seconds inside their
calls count, without conversions and copies. restain is timed in three ways:

* "mapped": the slide was estimated and its table of colours made before, which is done once a slide;
* "estimated once": estimate, table and mapping, all tiles of the folder together, as one does with a slide;
* "each by itself": `transform` of each tile, which estimates every time, as the packages do.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from common import Image, Timings, interleaved, print_table

import restain
from peers.environments import Worker
from peers.pictures import TILE
from restain.errors import EstimateWarning

CONTENDERS = {
    "macenko": {
        "torchstain": ("macenko numpy", "macenko torch"),
        "tiatoolbox": ("macenko",),
        "torch-staintools": ("macenko", "macenko cached"),
        "staintools": ("macenko",),
    },
    "reinhard": {
        "torchstain": ("reinhard numpy", "reinhard torch"),
        "tiatoolbox": ("reinhard",),
        "torch-staintools": ("reinhard",),
        "staintools": ("reinhard",),
    },
    "vahadane": {
        "tiatoolbox": ("vahadane",),
        "staintools": ("vahadane",),
    },
}
"""What is timed, by method and package; the worker knows what the words after the method mean. torch-staintools has
Vahadane's method, too, for GPUs: without one, a single small tile took more than five minutes."""

CACHED = "cached"
"""A contender that estimates nothing; it is compared with mapping alone."""

MAPPED, ONCE, EACH = "restain, mapped", "restain, estimated once", "restain, each by itself"
COLUMNS = ["method and package", "ms/Mpx", "over mapped", "over estimated once", "over each by itself"]

SLOW = "vahadane"
SLOW_TILES = 8
"""The packages need seconds a tile for Vahadane's method: it is timed once, and on the folder's first tiles alone."""

Contenders = dict[str, Callable[[], Any]]
Ratios = dict[str, tuple[float, float]]


def measure(workers: dict[str, Worker], target: Image, tile: Image, tiles: Sequence[Image], rounds: int) -> Ratios:
    """Print a table for the tile and one for the folder.

    Returns:
        By what was timed: how many times longer than restain's mapping, and than restain with one estimate, the
        fastest package took; those that estimate nothing count for the first alone.
    """
    nearest: Ratios = {}
    large = f"{tile.shape[1]}x{tile.shape[0]} tile"
    for what, images in ((large, [tile]), (f"{len(tiles)} tiles of {TILE}x{TILE}", tiles)):
        rows = []
        for method in (method for method, packages in CONTENDERS.items() if packages.keys() & workers.keys()):
            chosen, turns = (images[:SLOW_TILES], 1) if method == SLOW else (images, rounds)
            timings = time_method(workers, method, target, chosen, turns)
            megapixels = sum(image.shape[0] * image.shape[1] for image in chosen) / 1e6
            rows += [table_row(method, label, timings, megapixels) for label in timings]
            nearest[f"{method}, {what}"] = nearest_package(timings)
        print(f"Speed, {what}; medians of {rounds} rounds. {SLOW}: one round, {SLOW_TILES} tiles at most")
        print_table(COLUMNS, rows)
    print_preparation(target, tile)
    return nearest


def time_method(
    workers: dict[str, Worker], method: str, target: Image, images: Sequence[Image], rounds: int
) -> Timings:
    """All contenders in turn, each on all images; each was called before, so that nothing is compiled meanwhile."""
    inside: dict[str, list[float]] = {}
    contenders = our_contenders(method, target, images)
    for package, names in CONTENDERS[method].items():
        if package in workers:
            contenders |= their_contenders(workers[package], names, target, images, inside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        for ours in (MAPPED, ONCE, EACH):
            contenders[ours]()
        timings = interleaved(contenders, rounds, warm_up=False)
    return Timings(timings | inside)  # without the time that it takes to ask a worker


def our_contenders(method: str, target: Image, images: Sequence[Image]) -> Contenders:
    """restain's three ways."""
    normalizer = restain.METHODS[method]().fit(target)
    table = normalizer.color_map(normalizer.estimate(list(images)))

    def estimate_once() -> None:
        color_map = normalizer.color_map(normalizer.estimate(list(images)), lazy=True)
        for image in images:
            color_map(image)

    return {
        MAPPED: lambda: [table(image) for image in images],
        ONCE: estimate_once,
        EACH: lambda: [normalizer.transform(image) for image in images],
    }


def their_contenders(
    worker: Worker, names: Sequence[str], target: Image, images: Sequence[Image], inside: dict[str, list[float]]
) -> Contenders:
    """A package's methods; each call adds the seconds that it took inside the package to `inside`."""
    contenders: Contenders = {}
    worker.load([images[0][:TILE, :TILE]])
    for name in names:
        worker.fit(name, target)
        worker.time(name)
        label = " ".join((worker.name, *name.split()[1:]))
        inside[label] = []
        contenders[label] = partial(_time_inside, worker, name, inside[label])
    worker.load(images)
    return contenders


def _time_inside(worker: Worker, name: str, seconds: list[float]) -> None:
    seconds.append(worker.time(name))


def table_row(method: str, label: str, timings: Timings, megapixels: float) -> list[str]:
    """Time, and ratios to restain's three ways."""
    ratios = [timings.ratio(label, ours) for ours in (MAPPED, ONCE, EACH)]
    cells = [f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x" for ratio in ratios]
    return [f"{method}: {label}", f"{1000 * timings.median(label) / megapixels:.1f}", *cells]


def nearest_package(timings: Timings) -> tuple[float, float]:
    """The smallest ratio to mapping, and of those that estimate the smallest to restain with one estimate."""
    packages = [label for label in timings if label not in (MAPPED, ONCE, EACH)]
    mapped = min(timings.ratio(label, MAPPED) for label in packages)
    return mapped, min(timings.ratio(label, ONCE) for label in packages if CACHED not in label)


def print_preparation(target: Image, tile: Image) -> None:
    """Print what a slide costs once, before it is mapped: the large tile's estimate and its table of all colours."""
    normalizer = restain.Macenko().fit(target)
    begin = time.perf_counter()
    appearance = normalizer.estimate(tile)
    estimated = time.perf_counter()
    normalizer.color_map(appearance)
    seconds = estimated - begin, time.perf_counter() - estimated
    print("Before it is mapped, once a slide: estimate of the large tile {:.2f} s, table {:.2f} s".format(*seconds))
