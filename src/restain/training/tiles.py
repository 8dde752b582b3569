"""Pictures to train on: whole images, and tiles sampled from the tissue of slides; listed once, read many times.

Listing opens each file, so that a damaged one is known before training starts. Reading happens in worker processes,
each of which opens files for itself and keeps the last slides open.
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import SlideError
from restain.evaluation.datasets.pairs import Pair
from restain.slides.batch import SLIDE_PIXELS
from restain.slides.image_reader import ImageSlide, open_image
from restain.slides.reader import Mask, Slide, open_slide
from restain.slides.tissue import find_tissue
from restain.training.blank import STAINED_SHARE, Blocks, stained_blocks

SAME_SCALE = 0.02
"""Levels whose scale differs from the wanted one by no more than this share are read as they are."""


@dataclass(frozen=True)
class Picture:
    """A rectangle of a file; nothing of it is held but where it is."""

    name: str
    """The file's path below the folder it was found in, without extension."""
    path: Path
    group: str
    """What must not be torn apart by a split: a slide, a patient, or the file's own name."""
    location: tuple[int, int]
    """(x, y) of the top left corner in level-0 pixels."""
    size: tuple[int, int]
    """(width, height) in pixels as they are trained on."""
    downsample: float = 1.0
    """Level-0 pixels that one of these pixels spans."""
    plain: bool = True
    """Whether the file is an image that is decoded as a whole, rather than a slide that stays open."""
    stained: Blocks | None = field(default=None, compare=False, repr=False)
    """Which 8×8 blocks are stained; None where nobody asked."""


@dataclass(frozen=True)
class TileSettings:
    """How slides become pictures; `DataSettings` says what each means."""

    count: int
    side: int
    mpp: float | None
    downsample: float
    blank_share: float | None
    seed: int
    keep_bytes: int = 0
    """The pixels of a slide's tiles are returned, too, if they are no more than this."""


@dataclass(frozen=True)
class Listed:
    """What one file, or pair of files, holds."""

    pictures: list[tuple[Picture, ...]]
    """One picture, or a source with its target."""
    pixels: list[tuple[RGB8, ...]] | None
    """The same, decoded, where that was done anyway."""
    notes: list[str]


def is_sampled(slide: Slide) -> bool:
    """Whether tiles are sampled from it, as from a slide: it has levels, is of a scanner's format, or is very large."""
    vendor = slide.format.startswith("openslide: ") and not slide.format.endswith("generic-tiff")
    large = slide.dimensions[0] * slide.dimensions[1] > SLIDE_PIXELS
    return vendor or len(slide.level_dimensions) > 1 or (large and slide.pyramidal)


def read_window(
    slide: Slide, location: tuple[int, int], size: tuple[int, int], downsample: float
) -> tuple[RGB8, Mask | None]:
    """Read `size` (width, height) pixels that span `downsample` level-0 pixels each, from the level next above.

    Areas are averaged where the level is finer than wanted; cubic interpolation where even level 0 is coarser.
    """
    level = max((i for i, d in enumerate(slide.level_downsamples) if d <= downsample * (1 + SAME_SCALE)), default=0)
    ratio = downsample / slide.level_downsamples[level]
    if abs(ratio - 1) <= SAME_SCALE:
        return slide.read_region(location, level, size)
    width, height = (max(round(side * ratio), 1) for side in size)
    pixels, known = slide.read_region(location, level, (width, height))
    how = Image.Resampling.BOX if ratio > 1 else Image.Resampling.BICUBIC
    scaled = np.array(Image.fromarray(pixels).resize(size, how))
    if known is None:
        return scaled, None
    whole = np.asarray(Image.fromarray(known.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX))
    return scaled, whole == 255


def list_file(path: Path, name: str, group: str, settings: TileSettings, white: ArrayLike | None) -> Listed:
    """The pictures of one file: itself if it is an image, tiles of its tissue (and glass) if it is a slide.

    Args:
        path: the file.
        name: what its pictures are called.
        group: what they belong to.
        settings: for slides.
        white: white point against which blocks of images are called stained; None to leave that open. Slides have their
            own.

    Raises:
        SlideError: it cannot be read, or is a slide without tissue.
    """
    with open_slide(path) as slide:
        if is_sampled(slide):
            return _sample_tiles(slide, path, name, group, settings)
        pixels, _ = slide.read_region((0, 0), 0, slide.dimensions)
        stained = None if white is None else stained_blocks(pixels, white)
        plain = isinstance(slide, ImageSlide)
        return Listed([(Picture(name, path, group, (0, 0), slide.dimensions, 1.0, plain, stained),)], [(pixels,)], [])


def list_pair(pair: Pair, group: str, settings: TileSettings, white: ArrayLike | None) -> Listed:
    """The pictures of a pair of files, cut to what both show; a known shift is rounded to whole pixels.

    Of slides, tiles of the source are sampled, each with the tile of the target at the same, shifted place.

    Raises:
        SlideError: one cannot be read, they do not overlap, or their sizes differ and no shift is known.
    """
    listed = list_file(pair.source, pair.name, group, replace(settings, keep_bytes=0), None)
    with open_slide(pair.target) as slide:
        width, height = slide.dimensions
        plain = isinstance(slide, ImageSlide)
        pixels = None if is_sampled(slide) else slide.read_region((0, 0), 0, (width, height))[0]
    dx, dy = (0, 0) if pair.shift is None else (round(pair.shift[0]), round(pair.shift[1]))
    if listed.pixels is None or pixels is None:
        if (listed.pixels is None) != (pixels is None):
            raise SlideError(f"{pair.source} and {pair.target}: one is a slide and the other an image")
        pictures: list[tuple[Picture, ...]] = []
        for (picture,) in listed.pictures:
            x, y = picture.location[0] + dx, picture.location[1] + dy
            w, h = (round(side * picture.downsample) for side in picture.size)
            if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
                twin = Picture(pair.name, pair.target, group, (x, y), picture.size, picture.downsample, plain)
                pictures.append((picture, twin))
        if not pictures:
            raise SlideError(f"no tile of {pair.source} lies within {pair.target}")
        return Listed(pictures, None, listed.notes)
    source, source_pixels = listed.pictures[0][0], listed.pixels[0][0]
    if pair.shift is None and source.size != (width, height):
        sizes = f"{source.size[0]}x{source.size[1]} and {width}x{height} pixels"
        raise SlideError(f"{pair.source} and {pair.target} have {sizes}; register them, or give their shift in a csv")
    left, top = max(0, -dx), max(0, -dy)
    right, bottom = min(source.size[0], width - dx), min(source.size[1], height - dy)
    if right <= left or bottom <= top:
        raise SlideError(f"{pair.source} and {pair.target} do not overlap when shifted by ({dx}, {dy}) pixels")
    cut = np.ascontiguousarray(source_pixels[top:bottom, left:right])
    twin_cut = np.ascontiguousarray(pixels[top + dy : bottom + dy, left + dx : right + dx])
    size = (right - left, bottom - top)
    stained = None if white is None else stained_blocks(cut, white)
    first = Picture(pair.name, pair.source, group, (left, top), size, 1.0, source.plain, stained)
    second = Picture(pair.name, pair.target, group, (left + dx, top + dy), size, 1.0, plain)
    return Listed([(first, second)], [(cut, twin_cut)], [])


def _sample_tiles(slide: Slide, path: Path, name: str, group: str, settings: TileSettings) -> Listed:
    """Tiles of a slide on a grid, in reading order: so many with tissue, so many blank, looked at one by one."""
    notes = [f"{name}: {note}" for note in slide.notes]
    downsample = settings.downsample
    if settings.mpp is not None:
        if slide.mpp is None:
            notes.append(f"{name} does not say its micrometres per pixel; read at downsample {downsample:g}")
        else:
            downsample = settings.mpp / (sum(slide.mpp) / 2)
            if downsample < 1 - SAME_SCALE:
                notes.append(f"{name} is coarser ({sum(slide.mpp) / 2:g}) than {settings.mpp:g} µm a pixel; enlarged")
    width, height = slide.dimensions
    span = max(round(settings.side * downsample), 1)
    rows, columns = height // span, width // span
    size = (settings.side, settings.side)
    thumbnail, known = slide.thumbnail()
    white = find_white_point(ColorHistogram.from_image(thumbnail, mask=known)).level
    if not rows or not columns:
        size = (max(round(width / downsample), 1), max(round(height / downsample), 1))
        stained = _if_asked(stained_blocks(read_window(slide, (0, 0), size, downsample)[0], white), settings)
        return Listed([(Picture(name, path, group, (0, 0), size, downsample, False, stained),)], None, notes)
    tissue, glass = find_tissue(slide, span)
    blanks = round((settings.blank_share or 0) * settings.count)
    keep = 3 * settings.side**2 * settings.count <= settings.keep_bytes
    found: list[tuple[Picture, RGB8 | None]] = []
    for blank, grid, quota in ((False, tissue, settings.count - blanks), (True, glass, blanks)):
        got = 0
        seed = [settings.seed, zlib.crc32(name.encode()), int(blank)]
        for location in _places(grid[:rows, :columns], span, quota, seed):
            pixels, known = read_window(slide, location, size, downsample)
            blocks = stained_blocks(pixels, white)
            if known is None and (blocks.mean() < STAINED_SHARE) == blank:
                stained = _if_asked(blocks, settings)
                picture = Picture(name, path, group, location, size, downsample, False, stained)
                found.append((picture, pixels if keep else None))
                got += 1
                if got == quota:
                    break
        if not blank and quota and not got:
            raise SlideError(f"{path} has no tile of {settings.side} pixels with tissue")
    found.sort(key=lambda item: item[0].location[::-1])
    kept = [(pixels,) for _, pixels in found if pixels is not None]
    return Listed([(picture,) for picture, _ in found], list(kept) if keep else None, notes)


def _if_asked(blocks: Blocks, settings: TileSettings) -> Blocks | None:
    return None if settings.blank_share is None else blocks


def _places(grid: NDArray[np.bool_], span: int, quota: int, seed: list[int]) -> Iterator[tuple[int, int]]:
    """Tiles of a grid in a random order, as level-0 (x, y); a few times as many as wanted, no more."""
    found = np.argwhere(grid)
    for k in np.random.default_rng(seed).permutation(len(found))[: 8 * quota + 64 if quota else 0]:
        yield int(found[k, 1]) * span, int(found[k, 0]) * span


class Shelf:
    """Reads windows of pictures: from memory where they are kept there, else from their files.

    Slides stay open, the last `most` of them. One process, one thread: after a fork the child opens files for itself.
    """

    def __init__(self, most: int = 16) -> None:
        self.kept: dict[Picture, RGB8] = {}
        self._most = most
        self._open: OrderedDict[Path, Slide] = OrderedDict()
        self._process = os.getpid()

    def read(self, picture: Picture, x: int, y: int, width: int, height: int) -> RGB8:
        """The window (height, width, 3) at (x, y) of a picture, inside it; not to be written to."""
        kept = self.kept.get(picture)
        if kept is not None:
            return kept[y : y + height, x : x + width]
        left = picture.location[0] + round(x * picture.downsample)
        top = picture.location[1] + round(y * picture.downsample)
        try:
            if not picture.plain:
                slide = self._slide(picture.path)
                return read_window(slide, (left, top), (width, height), picture.downsample)[0]
            image = open_image(picture.path)
            if image is None:
                raise SlideError("it is no image any more")
            return image.read_region((left, top), 0, (width, height))[0]
        except SlideError as error:
            raise SlideError(f"{picture.path} could be read before, and cannot now: {error}") from None

    def close(self) -> None:
        """Close the slides that are open."""
        while self._open:
            self._open.popitem()[1].close()

    def _slide(self, path: Path) -> Slide:
        if self._process != os.getpid():  # handles that the parent opened share its position in the file
            self._open, self._process = OrderedDict(), os.getpid()
        slide = self._open.pop(path, None) or open_slide(path)
        self._open[path] = slide
        if len(self._open) > self._most:
            self._open.popitem(last=False)[1].close()
        return slide

    def __getstate__(self) -> dict[str, object]:
        return {"kept": {}, "_most": self._most, "_open": OrderedDict(), "_process": -1}
