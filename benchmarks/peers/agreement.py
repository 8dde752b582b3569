"""How far restain's flavours are from the packages they are named after, and how far the packages are from each other.

Every package is fitted to the same target and gets the same tiles; differences are absolute, in grey levels. Tiles that
the package raises on, or that restain finds nothing to estimate from, are counted but not compared.
"""

import warnings
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
from common import Image, print_table
from numpy.typing import NDArray

import restain
from peers.environments import Worker
from restain.errors import EstimateWarning

Key = tuple[str, str, str]
"""A method of restain's, a package, and the name that the package's worker knows the method by."""

FLAVOURS: tuple[Key, ...] = (
    ("macenko", "torchstain", "macenko numpy"),
    ("macenko", "tiatoolbox", "macenko"),
    ("macenko", "staintools", "macenko"),
    ("reinhard", "torchstain", "reinhard numpy"),
    ("reinhard", "tiatoolbox", "reinhard"),
    ("reinhard", "staintools", "reinhard"),
    ("reinhard_modified", "torchstain", "reinhard_modified numpy"),
    ("ruifrok", "tiatoolbox", "ruifrok"),
    ("vahadane", "tiatoolbox", "vahadane"),
    ("vahadane", "staintools", "vahadane"),
    ("vahadane", "staintools", "vahadane rested"),
)
"""What is held against what. StainTools' factorisation ends after a second wherever it is then, which depends on the
machine and on what else it does; "rested" lets it come to rest."""

OTHERS: tuple[Key, ...] = (
    ("macenko", "torch-staintools", "macenko"),
    ("reinhard", "torch-staintools", "reinhard"),
)
"""Further packages, for the differences among packages."""

COMPARED = ("macenko", "reinhard")
"""Methods that several packages have, compared pair by pair."""

Tiles = dict[str, Image]
Results = dict[str, Image | None]
"""What became of each tile, by its name; None where nothing did."""


class Differences:
    """Absolute differences of the tiles that two results both have."""

    def __init__(self, first: Results, second: Results) -> None:
        self.means: dict[str, float] = {}
        self._pixels = np.zeros(256, np.int64)  # how many values differ by so many levels
        for name, one in first.items():
            other = second.get(name)
            if one is not None and other is not None:
                difference = np.abs(one.astype(np.int16) - other)
                self.means[name] = float(difference.mean())
                self._pixels += np.bincount(difference.ravel(), minlength=256)

    @property
    def mean(self) -> float:
        """Mean of the tiles' means."""
        return float(np.mean(list(self.means.values()))) if self.means else np.nan

    def cells(self) -> list[str]:
        """For a table: tiles, mean, the worst tile's mean, 99th percentile and largest of all values."""
        percentile = np.searchsorted(np.cumsum(self._pixels), 0.99 * self._pixels.sum())
        worst = max(self.means.values(), default=np.nan)
        largest = np.flatnonzero(self._pixels).max(initial=0)
        return [f"{len(self.means)}", f"{self.mean:.3f}", f"{worst:.2f}", f"{percentile}", f"{largest}"]

    def worst_tile(self) -> str:
        """The name of the tile with the largest mean."""
        return max(self.means, key=self.means.__getitem__, default="")


COLUMNS = ["tiles", "mean", "worst tile", "99 %", "largest"]


def measure(workers: dict[str, Worker], target: Image, tiles: Tiles) -> dict[str, float]:
    """Print the flavours' agreement, then the packages beside each other; the mean difference of each flavour."""
    keys = [key for key in FLAVOURS + OTHERS if key[1] in workers]
    results = {key: ask_package(workers[key[1]], key[2], target, tiles) for key in keys}
    rows, means = [], {}
    for key in (key for key in keys if key in FLAVOURS):
        ours = restyle(flavour_of(key).fit(target), tiles)
        differences = Differences(results[key], ours)
        missing = [f"{sum(tile is None for tile in side.values())}" for side in (results[key], ours)]
        rows.append([label_of(key), *differences.cells(), *missing, differences.worst_tile()])
        means[label_of(key)] = differences.mean
    origins = ", ".join(f"{count} of {name}" for name, count in Counter(n.split("/")[0] for n in tiles).items())
    print(f"Each flavour and its package on {origins}; absolute differences, grey levels")
    print_table(["flavour", *COLUMNS, "package raised", "restain fell back", "the worst tile"], rows)
    print_repeated(workers, target, tiles, results)
    print_apart(target, tiles, results)
    return means


def label_of(key: Key) -> str:
    """A flavour's name in the tables."""
    return f"{key[0]} as {key[1]}" + (", at rest" if "rested" in key[2] else "")


def ask_package(worker: Worker, method: str, target: Image, tiles: Tiles) -> Results:
    """What a package makes of every tile."""
    worker.fit(method, target)
    return {name: levels(worker.transform(method, tile).output) for name, tile in tiles.items()}


def levels(output: NDArray[Any] | None) -> Image | None:
    """An output as (H, W, 3) uint8; floats in 0..1 are scaled, as torch-staintools has them. None where not finite."""
    if output is None or not np.isfinite(output).all():
        return None
    if output.dtype.kind == "f":
        output = np.rint(np.clip(output, 0, 1) * 255)
    return output.astype(np.uint8)


def flavour_of(key: Key) -> restain.Normalizer:
    """The normalizer that computes as the package does."""
    make: Any = restain.METHODS[key[0]]
    normalizer: restain.Normalizer = make(flavour=key[1], background="none")
    return normalizer


def restyle(normalizer: restain.Normalizer, tiles: Tiles) -> Results:
    """What restain makes of every tile, None where the estimate fell back."""
    results: Results = {}
    for name, tile in tiles.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = normalizer.transform(tile)
        results[name] = None if any(issubclass(w.category, EstimateWarning) for w in caught) else result
    return results


def print_repeated(workers: dict[str, Worker], target: Image, tiles: Tiles, results: dict[Key, Results]) -> None:
    """How far a package is from itself: Vahadane's, whose factorisation may be random, fitted once more."""
    rows = []
    for key in (key for key in results if key[0] == "vahadane"):
        again = ask_package(workers[key[1]], key[2], target, tiles)
        rows.append([label_of(key).replace(" as ", " of "), *Differences(results[key], again).cells()])
    if rows:
        print("The same package twice, fitted again in between; grey levels")
        print_table(["package", *COLUMNS], rows)


def print_apart(target: Image, tiles: Tiles, results: dict[Key, Results]) -> None:
    """How far packages are from each other and from restain's own settings."""
    rows = []
    for method in COMPARED:
        named = {package: result for (of, package, _), result in results.items() if of == method}
        named["restain"] = restyle(restain.METHODS[method]().fit(target), tiles)
        for one, other in combinations(named, 2):
            rows.append([f"{method}: {one} and {other}", *Differences(named[one], named[other]).cells()])
    print("The packages beside each other, and beside restain's own settings; grey levels")
    print_table(["pair", *COLUMNS], rows)
