"""The tiles of a pyramid's level 0: read, mapped and encoded in threads.

Memory bound
------------
A colour map holds the tiles in flight, and those that are kept from the sample until their turn comes. A method that
looks at neighbourhoods is applied in windows, in bands as wide as the slide: to what `restain.methods.windows` holds
comes a row of tiles that are not complete yet, 3 · width · tile bytes. For a slide 100,000 pixels wide, windows of 512
that share 64, eight at a time, and tiles of 512, that makes 77 + 94 + 154 MB (390 MB measured, with encoded tiles that
wait for their turn), beside what the writer holds and what the network takes.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from restain.color.colormap import ColorMap
from restain.color.images import RGB8
from restain.methods.windows import WindowMap, stream_blocks
from restain.slides.codecs import EncodedTile, PyramidSettings, encode_tile
from restain.slides.cutter import Cutter
from restain.slides.glass_tiles import GlassTiles
from restain.slides.reader import Mask, Slide
from restain.slides.sample import Kept

MOST_UNIFORM = 64
"""Colours whose uniform tiles are kept encoded."""


def map_known(color_map: ColorMap, pixels: RGB8, known: Mask | None) -> RGB8:
    """Map `pixels` in place where they are known; padding stays as it is (white)."""
    if known is None:
        return color_map(pixels, out=pixels)
    mapped = color_map(pixels)
    mapped[~known] = pixels[~known]
    return mapped


def mapped_tiles(
    slide: Slide,
    color_map: ColorMap,
    kept: Kept,
    glass: GlassTiles | None,
    settings: PyramidSettings,
    pool: ThreadPoolExecutor,
    workers: int,
) -> Iterator[EncodedTile]:
    """Read, map and encode every tile of level 0, in reading order, a bounded number at a time."""
    from restain.color import kernels  # Numba takes long to import

    width, height = slide.dimensions
    side = settings.tile
    scratch = threading.local()  # a tile of each thread's own: new memory costs more than what is done with it
    uniform: dict[tuple[bytes, tuple[int, ...]], EncodedTile] = {}  # scanners fill what they skip with one colour

    def read(x: int, y: int) -> tuple[RGB8, Mask | None]:
        size = (min(side, width - x), min(side, height - y))
        tile: RGB8 | None = getattr(scratch, "tile", None)
        if tile is None or tile.shape[:2] != size[::-1]:
            tile = scratch.tile = np.empty((size[1], size[0], 3), np.uint8)
        return slide.read_tile((x, y), size, tile)

    def job(x: int, y: int) -> EncodedTile:
        before = kept.pop((x, y), None)
        if glass is not None and (mapped := glass.encode(x, y)) is not None:
            return mapped
        pixels, known = read(x, y) if before is None else (before, None)
        if known is not None and not known.any():
            return encode_tile(None, settings)  # padding stays a missing tile
        corner = pixels[0, 0].tobytes()  # nearly all tiles differ at once from the opposite one
        if known is not None or corner != pixels[-1, -1].tobytes() or not kernels.is_uniform(pixels):
            return encode_tile(map_known(color_map, pixels, known), settings)
        key = (corner, pixels.shape)
        encoded = uniform.get(key)
        if encoded is None:
            encoded = encode_tile(color_map(pixels, out=pixels), settings)
            if len(uniform) < MOST_UNIFORM:
                uniform[key] = encoded
        return encoded

    positions = ((x, y) for y in range(0, height, side) for x in range(0, width, side))
    return _ordered(pool, job, positions, 16 * workers)


def windowed_tiles(
    slide: Slide, window_map: WindowMap, settings: PyramidSettings, pool: ThreadPoolExecutor, workers: int
) -> Iterator[EncodedTile]:
    """Map windows of level 0, cut the tiles out of them, and encode every tile as soon as it is complete."""
    width, height = slide.dimensions
    blocks = stream_blocks(
        lambda x, y, w, h: slide.read_region((x, y), 0, (w, h)), width, height, window_map, workers=min(workers, 4)
    )
    cutter = Cutter(width, height, settings.tile)
    encoded: dict[int, Future[EncodedTile]] = {}  # by the tile's number, in reading order
    following = 0
    try:
        for block in blocks:
            for number, pixels in cutter.add(block):
                encoded[number] = pool.submit(encode_tile, pixels, settings)
            while following in encoded and (len(encoded) >= 4 * workers or encoded[following].done()):
                yield encoded.pop(following).result()
                following += 1
        while encoded:
            yield encoded.pop(following).result()
            following += 1
    finally:
        for future in encoded.values():
            future.cancel()


def _ordered(
    pool: ThreadPoolExecutor, job: Callable[..., EncodedTile], arguments: Iterable[tuple[int, int]], ahead: int
) -> Iterator[EncodedTile]:
    """`job` over `arguments` in threads, results in order, at most `ahead` of them waiting."""
    waiting: deque[Future[EncodedTile]] = deque()
    try:
        for argument in arguments:
            waiting.append(pool.submit(job, *argument))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
