"""How long each package takes for a large tile and for a folder of small ones, beside restain."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from common import Image, Timings, interleaved, print_table

import restain
from peers.environments import Worker
from peers.pictures import TILE
from restain.errors import EstimateWarning

CONTENDERS = {
    "macenko": {
        "torchstain": ("macenko numpy", "macenko torch"),
        "tiatoolbox": ("macenko",),
        "torch-staintools": ("macenko", "macenko qr", "macenko qr cached"),
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
        "torch-staintools": ("vahadane", "vahadane qr cached"),
        "staintools": ("vahadane",),
    },
}
"""What is timed, by method and package."""

APPLIED, ESTIMATED = "restain, estimated before", "restain, estimate and all"


def measure(workers: dict[str, Worker], target: Image, tile: Image, tiles: Sequence[Image], rounds: int) -> list[float]:
    """Print a table for the tile and one for the folder; the smallest ratios: [(applied, with estimate)] flattened."""
    smallest = [np.inf, np.inf]
    megapixels = tile.shape[0] * tile.shape[1] / 1e6, len(tiles) * TILE * TILE / 1e6
    names = f"one {tile.shape[1]}x{tile.shape[0]} tile", f"{len(tiles)} tiles of {TILE}x{TILE}, one after the other"
    for images, size, what in zip(([tile], tiles), megapixels, names, strict=True):
        rows = []
        for method, packages in CONTENDERS.items():
            turns = 1 if method == "vahadane" else rounds
            timings = time_method(workers, method, packages, target, images, turns)
            rows += method_rows(method, timings, size, smallest)
        print(f"Speed, {what}; ms per megapixel, medians of {rounds} rounds (vahadane: 1 round)")
        header = ["method and package", "ms/Mpx", f"over {APPLIED.split(', ')[1]}", f"over {ESTIMATED.split(', ')[1]}"]
        print_table(header, rows)
    return smallest


def time_method(
    workers: dict[str, Worker],
    method: str,
    packages: dict[str, tuple[str, ...]],
    target: Image,
    images: Sequence[Image],
    rounds: int,
) -> Timings:
    """All contenders of a method in turn, each on all images; the peers' seconds are those inside their calls."""
    normalizer = restain.METHODS[method]().fit(target)
    appearance = normalizer.estimate(list(images))
    color_map = normalizer.color_map(appearance)
    contenders: dict[str, Callable[[], Any]] = {
        APPLIED: lambda: [color_map(image) for image in images],
        ESTIMATED: lambda: [normalizer.transform(image) for image in images],
    }
    seconds: dict[str, list[float]] = {}
    for package, names in packages.items():
        if package not in workers:
            continue
        worker = workers[package]
        worker.load(images[:1])
        for name in names:
            worker.fit(name, target)
            label = " ".join((package, *name.split()[1:]))
            seconds[label] = []
            contenders[label] = partial(_time_inside, worker, name, seconds[label])
            if rounds == 1:  # the slow ones: warmed up on one small image, which compiles what is to be compiled
                worker.load([images[0][:TILE, :TILE]])
                worker.time(name)
        worker.load(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)
        contenders[APPLIED](), contenders[ESTIMATED]()
        timings = interleaved(contenders, rounds, warm_up=rounds > 1)
    for label, inside in seconds.items():
        timings[label] = inside[-rounds:]  # without the time that requests take
    return timings


def _time_inside(worker: Worker, name: str, seconds: list[float]) -> None:
    seconds.append(worker.time(name))


def method_rows(method: str, timings: Timings, megapixels: float, smallest: list[float]) -> list[list[str]]:
    """Rows of the table; keeps the smallest ratios."""
    rows = []
    for label in timings:
        ratios = [timings.ratio(label, ours) for ours in (APPLIED, ESTIMATED)]
        if not label.startswith("restain"):
            smallest[:] = [min(a, b) for a, b in zip(smallest, ratios, strict=True)]
        cells = [f"{ratio:.1f}x" if ratio < 100 else f"{ratio:.0f}x" for ratio in ratios]
        rows.append([f"{method}: {label}", f"{1000 * timings.median(label) / megapixels:.1f}", *cells])
    return rows
