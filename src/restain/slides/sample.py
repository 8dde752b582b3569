"""What a slide looks like, from a bounded, seeded sample of its tissue and its glass at full resolution."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.color.builder import HistogramBuilder
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, RestainError
from restain.methods.base import Appearance, Normalizer
from restain.methods.window_grid import reflected
from restain.methods.windows import WindowMap
from restain.slides.forgiving import ForgivingSlide
from restain.slides.icc import Icc
from restain.slides.reader import Mask, OnError, Slide, open_slide
from restain.slides.tissue import find_tissue, stained_pixels

SAMPLE_TILE = 512
"""Side of the tiles that are sampled."""

Kept = dict[tuple[int, int], RGB8]
"""Tiles that were read, by their (x, y)."""

_MOST_KEPT = 192_000_000
"""Bytes of tiles: the tissue of a sample. Half of it where there is but one thread."""

_MOST_WAITING = 128
"""Tiles that threads read, in all, before they count the first one."""

_TOLD = 0.2
"""Seconds from one telling of progress to the next: so long an interrupt may go unnoticed."""

Counted = Callable[[int, int], None]
"""Called a few times a second with the tiles that are counted and those in all; what it raises ends the counting."""

FULL_TILE = 0.5
"""Share of a tile that shows tissue from which one tile is as good as another to measure norm statistics on."""


def sample_slide(
    slide: Any,
    *,
    max_pixels: int = 64_000_000,
    max_glass_pixels: int = 4_000_000,
    tile: int = SAMPLE_TILE,
    seed: int = 0,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    workers: int | None = None,
    kept: Kept | None = None,
    progress: Counted | None = None,
) -> ColorHistogram:
    """Count the colours of a slide's tissue, and of its glass beside it.

    Tissue is found on a thumbnail; of the tiles that show any, all are read when they fit into `max_pixels`, else a
    seeded random choice. The result does not depend on the number of workers.

    Args:
        slide: a path, or a slide from `open_slide`, which is taken as it was opened.
        max_pixels: most pixels of tissue tiles to read; one tile is read at least.
        max_glass_pixels: most pixels of tiles without tissue to read.
        tile: side of the sampled tiles, level-0 pixels.
        seed: of the random choice.
        icc: "srgb" converts the slide to sRGB by its ICC profile first, "keep" does not.
        on_error: of damaged tiles: "stop" raises `SlideError`; "skip" and "fill" do not count them, and a
            `SlideWarning` names them.
        workers: reading threads; None for two.
        kept: where to put some of the tiles that are read, at most 192 MB, for who will want them again.
        progress: called from this thread, where the sample takes long, with the tiles that are counted and their
            number in all. What it raises ends the sampling: every reading thread stops after its tile.

    Returns:
        A histogram whose `provenance` says what was sampled.

    Raises:
        SlideError: the slide cannot be read, or nothing of it.
    """
    _check_options(max_pixels, max_glass_pixels, tile, seed)
    if not isinstance(slide, Slide):
        with open_slide(slide, icc=icc, on_error=on_error) as opened:
            histogram = sample_slide(
                opened,
                max_pixels=max_pixels,
                max_glass_pixels=max_glass_pixels,
                tile=tile,
                seed=seed,
                workers=workers,
                kept=kept,
                progress=progress,
            )
            if isinstance(opened, ForgivingSlide):
                opened.check_some_left(histogram)
                opened.tell()
            return histogram
    plan = plan_sample(slide, max_pixels=max_pixels, max_glass_pixels=max_glass_pixels, tile=tile, seed=seed)
    counts = count_tiles(slide, plan.tiles, plan.tile, workers=workers, kept=kept, progress=progress)
    return finish_sample(slide, plan, counts)


@dataclass(frozen=True)
class SamplePlan:
    """Which tiles of a slide are sampled: chosen once, and counted in one place or in several.

    Attributes:
        tiles: (row, column) of each tile, tissue before glass, in reading order.
        tile: their side, level-0 pixels.
        facts: what a sample's `provenance` says.
    """

    tiles: tuple[tuple[int, int], ...]
    tile: int
    facts: Mapping[str, Any]


def plan_sample(
    slide: Slide,
    *,
    max_pixels: int = 64_000_000,
    max_glass_pixels: int = 4_000_000,
    tile: int = SAMPLE_TILE,
    seed: int = 0,
) -> SamplePlan:
    """Choose the tiles that `sample_slide` counts; arguments as there."""
    _check_options(max_pixels, max_glass_pixels, tile, seed)
    tissue, glass = find_tissue(slide, tile)
    generator = np.random.default_rng(seed)
    tissue_tiles = _choose(tissue, max(max_pixels // tile**2, 1), generator)
    glass_tiles = _choose(glass, max_glass_pixels // tile**2, generator)
    facts = {
        "tissue_tiles": len(tissue_tiles),
        "of_tissue_tiles": int(tissue.sum()),
        "glass_tiles": len(glass_tiles),
        "tile": tile,
        "seed": seed,
    }
    return SamplePlan((*tissue_tiles, *glass_tiles), tile, facts)


def _check_options(max_pixels: int, max_glass_pixels: int, tile: int, seed: int) -> None:
    if max_pixels < 1 or max_glass_pixels < 0 or tile < 8 or seed < 0:
        raise InputError(
            f"got max_pixels={max_pixels}, max_glass_pixels={max_glass_pixels}, tile={tile}, seed={seed}; "
            "wanted 1 or more, 0 or more, 8 or more, and 0 or more"
        )


def finish_sample(slide: Slide, plan: SamplePlan, histogram: ColorHistogram) -> ColorHistogram:
    """The sample of a slide, from the counts of all tiles of its plan, in whatever parts they were counted."""
    return replace(histogram, icc_profile=slide.icc_profile, provenance=dict(plan.facts))


def _choose(grid: NDArray[np.bool_], most: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """At most `most` (row, column) of `grid`, in reading order."""
    found = np.argwhere(grid)
    if len(found) > most:
        found = found[np.sort(generator.choice(len(found), most, replace=False))]
    return [(int(row), int(column)) for row, column in found]


def count_tiles(
    slide: Slide,
    tiles: Sequence[tuple[int, int]],
    tile: int,
    *,
    workers: int | None = None,
    kept: Kept | None = None,
    progress: Counted | None = None,
) -> ColorHistogram:
    """Count whole tiles, given by (row, column); each thread counts for itself, and all is added up.

    Tiles without padding are put into `kept`, where that is given, until it is full (`_MOST_KEPT`). `progress` as for
    `sample_slide`.
    """
    width, height = slide.dimensions
    workers = max(1, min(workers or 2, len(tiles) // 4, 16))  # each holds two tables of 64 MiB
    done = [0] * workers
    stop = threading.Event()  # Ctrl-C, say: the threads end at their next tile
    ready = threading.Event()
    # Of many slides at once, each has one thread.
    most_kept = min(_MOST_KEPT, workers * _MOST_KEPT // 2) // (3 * tile**2)
    most_waiting = max(_MOST_WAITING // workers, 1)

    def gather(number: int) -> HistogramBuilder:
        builder = HistogramBuilder()
        waiting: list[tuple[RGB8, Mask | None]] = []

        def count() -> None:
            while waiting and not stop.is_set():
                builder.add(*waiting.pop(0))
                done[number] += 1

        for row, column in tiles[number::workers]:
            if stop.is_set():
                break
            x, y = column * tile, row * tile
            pixels, known = slide.read_region((x, y), 0, (min(tile, width - x), min(tile, height - y)))
            if kept is not None and known is None and len(kept) < most_kept:
                kept[x, y] = pixels
            waiting.append((pixels, known))
            if ready.is_set() or len(waiting) >= most_waiting:
                count()
        count()
        return builder

    def tell() -> None:
        if progress is not None:
            progress(sum(done), len(tiles))

    def load() -> None:
        from restain.color import kernels  # half a second, in which the other threads can read

        kernels.load()
        ready.set()

    with ThreadPoolExecutor(workers + 1) as pool:
        try:
            loading = pool.submit(load)  # not in this thread: Ctrl-C would leave Numba imported by half
            shares = [pool.submit(gather, number) for number in range(workers)]
            loading.result()
            total, *others = (_awaited(share, tell) for share in shares)
        finally:
            stop.set()
    for builder in others:
        total.absorb(builder)
    return total.histogram()


def _awaited(share: Future[HistogramBuilder], tell: Callable[[], None]) -> HistogramBuilder:
    while wait([share], _TOLD).not_done:
        tell()
    return share.result()


# ---- tiles ------------------------------------------------------------------------------------------------------


def estimate_slide(
    slide: Slide, normalizer: Normalizer, histogram: ColorHistogram, *, seed: int = 0, workers: int | None = None
) -> tuple[Appearance, dict[str, Any]]:
    """How a slide looks to a normalizer: from its colours, and from tiles of tissue where the normalizer wants some.

    Args:
        slide: the slide.
        normalizer: which may have `statistics_tiles`.
        histogram: from `sample_slide`.
        seed: of the random choice of tiles.
        workers: reading threads; None for two.

    Returns:
        The appearance, and plain facts on all that was sampled.
    """
    facts = dict(histogram.provenance)
    if not normalizer.statistics_tiles:
        return normalizer.estimate(histogram), facts
    side = normalizer.statistics_side
    tiles = sample_tiles(slide, normalizer.statistics_tiles, side, seed=seed, workers=workers)
    return normalizer.estimate(histogram, tiles=tiles), facts | {
        "statistics_tiles": len(tiles),
        "statistics_side": side,
    }


def sample_tiles(
    slide: Any,
    count: int,
    side: int,
    *,
    seed: int = 0,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    workers: int | None = None,
) -> list[RGB8]:
    """Tiles of a slide's tissue at full resolution, chosen at random.

    Tiles lie on a grid, wholly inside the slide and without padding. Those that show tissue in half of their area are
    all alike to the choice; where they are too few, the richest of the others follow. The result does not depend on the
    number of workers.

    Args:
        slide: a path, or a slide from `open_slide`, which is taken as it was opened.
        count: most tiles.
        side: of the tiles, pixels.
        seed: of the random choice.
        icc, on_error: as for `sample_slide`; no tile is taken where the slide is damaged.
        workers: reading threads; None for two.

    Returns:
        Up to `count` tiles (side, side, 3) uint8; none where the slide shows no tissue. A slide that is smaller than a
        tile is continued by reflection.
    """
    if count < 0 or side < 1 or seed < 0:
        raise InputError(f"got count={count}, side={side}, seed={seed}; wanted 0 or more, 1 or more, and 0 or more")
    if not isinstance(slide, Slide):
        with open_slide(slide, icc=icc, on_error=on_error) as opened:
            tiles: list[RGB8] = sample_tiles(opened, count, side, seed=seed, workers=workers)
            if isinstance(opened, ForgivingSlide):
                opened.tell()
            return tiles
    width, height = slide.dimensions
    wide, high = min(side, width), min(side, height)
    places = _places_of_tissue(slide, wide, high, np.random.default_rng(seed))[: 4 * count]

    def read(place: tuple[int, int]) -> RGB8 | None:
        pixels, known = slide.read_region(place, 0, (wide, high))
        if known is not None:
            return None
        return pixels[reflected(0, side, high)[:, None], reflected(0, side, wide)]

    tiles = []
    with ThreadPoolExecutor(workers or 2) as pool:
        while len(tiles) < count and places:  # a thumbnail is too coarse to see every hole
            asked, places = places[: count - len(tiles)], places[count - len(tiles) :]
            tiles += [tile for tile in pool.map(read, asked) if tile is not None]
    return tiles


def sample_mapped(
    slide: Slide, window_map: WindowMap, *, max_pixels: int = 4_000_000, seed: int = 0, workers: int | None = None
) -> ColorHistogram:
    """Count the colours that a slide's tissue and glass have when they are mapped, on windows chosen as `sample_slide`
    chooses its tiles; `max_pixels` of tissue, and a quarter as many of glass. Windows are not blended.
    """
    side = window_map.side
    tissue, glass = find_tissue(slide, side)
    generator = np.random.default_rng(seed)
    places = _choose(tissue, max(max_pixels // side**2, 1), generator)
    places += _choose(glass, max_pixels // 4 // side**2, generator)
    width, height = slide.dimensions

    def read(place: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        x, y = place[1] * side, place[0] * side
        return slide.read_region((x, y), 0, (min(side, width - x), min(side, height - y)))

    builder = HistogramBuilder()
    with ThreadPoolExecutor(workers or 2) as pool:
        for pixels, known in pool.map(read, places):
            high, wide = pixels.shape[:2]
            window = pixels[reflected(0, side, high)[:, None], reflected(0, side, wide)]
            levels = window_map(window[None])[0, :high, :wide]
            builder.add(np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8), known)
    return replace(builder.histogram(), icc_profile=slide.icc_profile)


def sample_tiles_of(
    files: Sequence[Path],
    count: int,
    side: int,
    *,
    seed: int = 0,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    workers: int | None = None,
) -> list[RGB8]:
    """Tiles of the tissue of several slides or images, as evenly from each as can be; arguments as `sample_tiles`.

    What one file cannot give, the next ones do. Files that cannot be read are left out. `icc` and `on_error` say how
    each is read, as in `open_slide`.
    """
    tiles: list[RGB8] = []
    order = np.random.default_rng(seed).permutation(len(files))
    for done, index in enumerate(order):
        wanted = -(-(count - len(tiles)) // (len(files) - done))
        if not wanted:
            break
        try:
            # Each with a choice of its own: images of one size have the same grid.
            with open_slide(files[index], icc=icc, on_error=on_error) as slide:
                tiles += sample_tiles(slide, wanted, side, seed=seed + 1 + int(index), workers=workers)
        except (RestainError, OSError):
            continue
    return tiles


def _places_of_tissue(slide: Slide, wide: int, high: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """(x, y) of the tiles of this size that show tissue: the full ones in random order, then the others by richness."""
    stained, real = stained_pixels(slide)
    width, height = slide.dimensions
    xs, ys = np.arange(0, width - wide + 1, wide), np.arange(0, height - high + 1, high)

    def share(mask: Mask) -> NDArray[np.float64]:
        """Of each tile's area, by bilinear interpolation of the mask's integral."""
        total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
        total[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
        tall, broad = mask.shape[0] / height, mask.shape[1] / width
        rows = _interpolated(total, (ys + high) * tall) - _interpolated(total, ys * tall)
        sums = _interpolated(rows.T, (xs + wide) * broad) - _interpolated(rows.T, xs * broad)
        area: NDArray[np.float64] = sums.T / (wide * broad * high * tall)
        return area

    tissue, whole = share(stained), share(real) > 1 - 1e-6
    full = np.argwhere((tissue >= FULL_TILE) & whole)
    rest = np.argwhere((tissue > 1e-6) & (tissue < FULL_TILE) & whole)
    rest = rest[np.argsort(-tissue[rest[:, 0], rest[:, 1]], kind="stable")]
    order = np.concatenate([generator.permutation(full), rest])
    return [(int(xs[column]), int(ys[row])) for row, column in order]


def _interpolated(table: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of a table at fractional positions."""
    below = np.clip(positions.astype(np.int64), 0, len(table) - 2)
    return table[below] + (positions - below)[:, None] * (table[below + 1] - table[below])
