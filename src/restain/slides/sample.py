"""What a slide looks like, from a bounded, seeded sample of its tissue and its glass at full resolution."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram, HistogramBuilder
from restain.errors import InputError
from restain.slides.reader import Slide, open_slide

TISSUE_DENSITY = 0.12
"""Optical density, in any channel and against the white point, from which a thumbnail pixel shows tissue."""


def sample_slide(
    slide: Any,
    *,
    max_pixels: int = 64_000_000,
    max_glass_pixels: int = 4_000_000,
    tile: int = 512,
    seed: int = 0,
    workers: int | None = None,
) -> ColorHistogram:
    """Count the colours of a slide's tissue, and of its glass beside it.

    Tissue is found on a thumbnail; of the tiles that show any, all are read when they fit into `max_pixels`, else a
    seeded random choice. The result does not depend on the number of workers.

    Args:
        slide: a path, or a slide from `open_slide`.
        max_pixels: most pixels of tissue tiles to read; one tile is read at least.
        max_glass_pixels: most pixels of tiles without tissue to read.
        tile: side of the sampled tiles, level-0 pixels.
        seed: of the random choice.
        workers: reading threads; None for two.

    Returns:
        A histogram whose `provenance` says what was sampled.
    """
    if max_pixels < 1 or max_glass_pixels < 0 or tile < 8 or seed < 0:
        raise InputError(
            f"got max_pixels={max_pixels}, max_glass_pixels={max_glass_pixels}, tile={tile}, seed={seed}; "
            "wanted 1 or more, 0 or more, 8 or more, and 0 or more"
        )
    if not isinstance(slide, Slide):
        with open_slide(slide) as opened:
            return sample_slide(
                opened, max_pixels=max_pixels, max_glass_pixels=max_glass_pixels, tile=tile, seed=seed, workers=workers
            )
    tissue, glass = find_tissue(slide, tile)
    generator = np.random.default_rng(seed)
    tissue_tiles = _choose(tissue, max(max_pixels // tile**2, 1), generator)
    glass_tiles = _choose(glass, max_glass_pixels // tile**2, generator)
    histogram = _count(slide, tissue_tiles + glass_tiles, tile, workers or 2)
    facts = {
        "tissue_tiles": len(tissue_tiles),
        "of_tissue_tiles": int(tissue.sum()),
        "glass_tiles": len(glass_tiles),
        "tile": tile,
        "seed": seed,
    }
    return replace(histogram, icc_profile=slide.icc_profile, provenance=facts)


def find_tissue(slide: Slide, tile: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tiles of a slide show tissue, and which only glass.

    Args:
        slide: the slide.
        tile: side of the tiles, level-0 pixels.

    Returns:
        Two (rows, columns) bool grids; tiles that are padding alone are in neither.
    """
    thumbnail, known = slide.thumbnail()
    white = find_white_point(ColorHistogram.from_image(thumbnail, mask=known)).level
    stained = ((thumbnail + 1.0) / (white + 1.0)).min(axis=2) < np.exp(-TISSUE_DENSITY)
    real = np.ones(stained.shape, np.bool_) if known is None else known
    stained &= real
    width, height = slide.dimensions
    rows, columns = -(-height // tile), -(-width // tile)
    shown = _any_in_tiles(stained, rows, columns, height / tile, width / tile)
    seen = _any_in_tiles(real, rows, columns, height / tile, width / tile)
    return shown, seen & ~shown


def _any_in_tiles(mask: NDArray[np.bool_], rows: int, columns: int, tall: float, wide: float) -> NDArray[np.bool_]:
    """Whether any thumbnail pixel that touches a tile is set; `tall`, `wide` are the slide's sides in tiles."""
    grid = np.zeros((rows, columns), np.bool_)
    y, x = np.nonzero(mask)
    for dy in (0, 1):
        for dx in (0, 1):  # a thumbnail pixel may span several tiles: both of its ends count
            row = np.minimum(((y + dy) * (tall / mask.shape[0]) - 1e-9 * dy).astype(np.int64), rows - 1)
            column = np.minimum(((x + dx) * (wide / mask.shape[1]) - 1e-9 * dx).astype(np.int64), columns - 1)
            grid[row, column] = True
    return grid


def _choose(grid: NDArray[np.bool_], most: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """At most `most` (row, column) of `grid`, in reading order."""
    found = np.argwhere(grid)
    if len(found) > most:
        found = found[np.sort(generator.choice(len(found), most, replace=False))]
    return [(int(row), int(column)) for row, column in found]


def _count(slide: Slide, tiles: list[tuple[int, int]], tile: int, workers: int) -> ColorHistogram:
    """Count whole tiles; each worker gathers its own histogram, and they are added up."""
    width, height = slide.dimensions
    workers = max(1, min(workers, len(tiles) // 4, 16))  # each holds two tables of 64 MiB

    def gather(share: list[tuple[int, int]]) -> ColorHistogram:
        builder = HistogramBuilder()
        for row, column in share:
            x, y = column * tile, row * tile
            pixels, known = slide.read_region((x, y), 0, (min(tile, width - x), min(tile, height - y)))
            builder.add(pixels, known)
        return builder.histogram()

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(gather, [tiles[start::workers] for start in range(workers)]))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
