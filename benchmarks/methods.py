"""What each method costs: an estimate from a slide's histogram, its exact map, and that map on one large tile.

    python benchmarks/methods.py [--rounds 5]

The floor of all of them is a memory copy of the tile's bytes; once a map's colours are evaluated, applying it costs the
same whatever the method (`kernel.py`).
"""

import argparse
from functools import partial
from typing import Any

import numpy as np
from common import CORES, Image, he_slide, interleaved, print_header, print_table

import restain
from restain.methods.base import Normalizer

TILE = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    slide, name = he_slide()
    histogram = restain.ColorHistogram.from_image(slide)
    tile = np.ascontiguousarray(slide[:TILE, :TILE])
    print_header("What each method costs", f"{name}; {len(histogram):,} colours; to the profile he; {rounds} rounds")
    normalizers = {key: make(method).fit("he") for key, method in restain.METHODS.items()}
    appearances = {key: normalizer.estimate(histogram) for key, normalizer in normalizers.items()}
    estimates = interleaved({key: partial(n.estimate, histogram) for key, n in normalizers.items()}, rounds)
    lazily = interleaved({k: partial(apply_lazily, n, appearances[k], tile) for k, n in normalizers.items()}, rounds)
    full = interleaved({k: partial(n.color_map, appearances[k]) for k, n in normalizers.items()}, 1, warm_up=False)
    rows = [
        [
            key,
            f"{1000 * estimates.median(key):.0f} ms",
            f"{1000 * lazily.median(key):.0f} ms",
            f"{full.median(key):.1f} s",
        ]
        for key in normalizers
    ]
    shape = f"{tile.shape[1]}x{tile.shape[0]}"
    print_table(["method", "estimate", f"map a {shape} tile, colours and all", f"all colours, {CORES} threads"], rows)


def make(method: type[Normalizer]) -> Normalizer:
    """A normalizer with default settings; maps given beforehand of their usual size, by chance: that costs the same."""
    if not method.fixed:
        return method()
    generator = np.random.default_rng(0)
    if method is restain.Lattice:
        return restain.Lattice(table={"levels": generator.uniform(0, 255, (33, 33, 33, 3))})
    sizes = ((32, 3), (32, 32), (3, 32))
    weights = {f"weight{i}": generator.normal(0, 0.3, size) for i, size in enumerate(sizes, 1)}
    biases = {f"bias{i}": np.zeros(size[0]) for i, size in enumerate(sizes, 1)}
    return restain.StainNet(weights=weights | biases)


def apply_lazily(normalizer: Normalizer, appearance: Any, tile: Image) -> Image:
    """Evaluate the tile's colours and map it."""
    return normalizer.color_map(appearance, lazy=True)(tile)


if __name__ == "__main__":
    main()
