"""Patches of whole slides: where there is tissue, and, where outlines tell, of tumour and of what is none."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restain.errors import InputError
from restain.evaluation.datasets.asap import Outline, draw_outlines, read_outlines
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.patches import PATCH, Patch
from restain.slides.reader import open_slide
from restain.slides.tissue import find_tissue

CELLS = 8
"""Outlines are drawn with so many cells to a patch's side: enough to tell a share of one half or three quarters."""

TUMOR_SHARE = 0.75
"""Share of a patch from which it shows tumour; patches between none and this are left out, as neither."""


def tissue_patches(
    item: Item, count: int | None = None, *, size: int = PATCH, level: int = 0, seed: int = 0
) -> list[Patch]:
    """Patches of a slide that show tissue, on a grid, labelled by the slide's outlines.

    With outlines, patches are labelled "tumor" or "normal", those in between are left out, and of `count` half are
    tumour if there are so many. Without, they have the label of a slide without tumour, "normal" or "negative", and
    none otherwise: where the tumour of a slide is, nobody said.

    Args:
        item: a slide.
        count: how many to choose; None for all.
        size: side in pixels of `level`.
        level: the slide's level to take them from.
        seed: of the choice; the slide's name enters too.

    Returns:
        Patches in reading order; fewer than `count` where the slide has no more.

    Raises:
        SlideError: the slide cannot be read. FormatError: its outlines cannot. InputError: there is no such level.
    """
    if size < 8 or level < 0 or (count is not None and count < 0):
        raise InputError(f"got size={size}, level={level}, count={count}; wanted 8 or more, and 0 or more")
    with open_slide(item.path) as slide:
        if level >= len(slide.level_dimensions):
            raise InputError(f"{item.path} has {len(slide.level_dimensions)} levels; wanted level {level}")
        tile = round(size * slide.level_downsamples[level])
        tissue, _ = find_tissue(slide, tile)
        width, height = slide.dimensions
    # Tiles that stick out of the slide would be padding in part.
    tissue = tissue[: height // tile, : width // tile]
    if item.annotations is None:
        healthy = item.label in ("normal", "negative")
        labels = {"normal" if healthy else None: tissue}
    else:
        share = tumor_shares(read_outlines(item.annotations), tissue.shape, tile)
        labels = {"tumor": tissue & (share >= TUMOR_SHARE), "normal": tissue & (share == 0)}
    generator = np.random.default_rng([seed, zlib.crc32(item.slide.encode())])
    chosen = [
        Patch(item, (int(column) * tile, int(row) * tile), size, level, label)
        for label, places in _shares_of(labels, count).items()
        for row, column in _some(labels[label], places, generator)
    ]
    return sorted(chosen, key=lambda patch: patch.location[::-1])


def tumor_shares(outlines: Sequence[Outline], grid: tuple[int, ...], tile: int) -> NDArray[np.float64]:
    """Share of tumour in each tile of a grid: (rows, columns), 0..1."""
    rows, columns = grid
    if not rows or not columns:
        return np.zeros(grid)
    drawn = draw_outlines(outlines, (columns * CELLS, rows * CELLS), downsample=tile / CELLS)
    shares: NDArray[np.float64] = drawn.reshape(rows, CELLS, columns, CELLS).mean(axis=(1, 3))
    return shares


def _shares_of(labels: dict[str | None, NDArray[np.bool_]], count: int | None) -> dict[str | None, int]:
    """How many patches of each label: all, or equal numbers, what one lacks given to the other."""
    available = {label: int(places.sum()) for label, places in labels.items()}
    if count is None:
        return available
    taken = dict.fromkeys(labels, 0)
    for left, label in zip(range(len(labels), 0, -1), sorted(labels, key=lambda label: available[label]), strict=True):
        taken[label] = min(available[label], (count - sum(taken.values())) // left)
    return taken


def _some(places: NDArray[np.bool_], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    found = np.argwhere(places)
    return found[np.sort(generator.choice(len(found), count, replace=False))] if count < len(found) else found
