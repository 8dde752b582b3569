"""A slide whose damaged tiles do not end a run: they are left out or filled, and told with their positions.

Damage is narrowed down to the file's own tiles, so that what lies around it is kept. Which tiles those are does not
depend on who reads what first, so results do not depend on the number of workers.
"""

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, SlideError, SlideWarning
from restain.slides.image_reader import ImageSlide
from restain.slides.reader import UNKNOWN_TILE, JpegPiece, Mask, OnError, Piece, Slide, pieces

Pixels = TypeVar("Pixels")

_SHOWN = 10


def check_on_error(on_error: str) -> None:
    """Raise `InputError` unless `on_error` is one of "stop", "skip" and "fill"."""
    if on_error not in get_args(OnError):
        raise InputError(f"got on_error={on_error!r}; wanted {', '.join(get_args(OnError))}")


def forgiving(slide: Slide, on_error: OnError) -> Slide:
    """`slide`, read as `on_error` says; itself for "stop", and where an image is read whole or not at all."""
    check_on_error(on_error)
    if on_error == "stop" or isinstance(slide, (ImageSlide, ForgivingSlide)):
        return slide
    return ForgivingSlide(slide, on_error)


class ForgivingSlide(Slide):
    """Another slide, without its damage. Closing it closes the other.

    With "skip" a damaged tile is padding: white, neither counted nor mapped. With "fill" it is padding until `glass` is
    set, which is when the slide's estimate is at hand, and from then on it has that colour and is real. So a damaged
    tile is never counted, and becomes the reference's glass when it is mapped.

    Attributes:
        glass: (3,) the colour that damaged tiles are filled with; None for padding.
        damage: why each damaged tile that was met cannot be read, by its level and (x, y) in level-0 pixels.
    """

    def __init__(self, slide: Slide, on_error: OnError) -> None:
        super().__init__(slide.path, slide.format)
        self._slide, self._on_error = slide, on_error
        self._lock = threading.Lock()
        # Hamamatsu's tiles are parts of one JPEG: near damage one read may fail and a smaller one may not.
        self._whole_tiles = "hamamatsu" not in slide.format
        self._left_out: list[str] = []
        self._verdicts: dict[tuple[int, tuple[int, int]], bool] = {}
        self.glass: NDArray[np.float64] | None = None
        self.damage: dict[tuple[int, tuple[int, int]], str] = {}
        self._measure_as(slide)
        self.icc_profile, self.icc_error = slide.icc_profile, slide.icc_error
        self.properties = slide.properties
        self.associated_images = slide.associated_images
        self.notes = list(slide.notes)

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        """As every slide's; never a `SlideError` because of damage."""
        whole = self._undamaged(self._slide.read_region, location, level, size)
        if whole is not None:
            return whole
        width, height = size
        out = np.full((height, width, 3), 255, np.uint8)
        known = np.zeros((height, width), np.bool_)
        for part, inside in self._parts(location, level, size):
            if self._readable(level, part.tile):
                out[inside], seen = self._slide.read_region(part.location, level, part.size)
                known[inside] = True if seen is None else seen
            elif self._on_error == "fill" and self.glass is not None:
                out[inside], known[inside] = self._glass_color(), True
        return out, None if known.all() else known

    def read_rgba(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """As every slide's; never a `SlideError` because of damage."""
        whole = self._undamaged(self._slide.read_rgba, location, level, size)
        if whole is not None:
            return whole
        width, height = size
        out = np.full((height, width, 4), (255, 255, 255, 0), np.uint8)
        for part, inside in self._parts(location, level, size):
            if self._readable(level, part.tile):
                out[inside] = self._slide.read_rgba(part.location, level, part.size)
            elif self._on_error == "fill" and self.glass is not None:
                out[inside] = (*self._glass_color(), 255)
        return out

    def jpeg_pieces(
        self, location: tuple[int, int], size: tuple[int, int], longest: float = math.inf
    ) -> list[JpegPiece] | None:
        """As every slide's; who finds one damaged reads the rectangle instead."""
        return self._slide.jpeg_pieces(location, size, longest)

    def check_some_left(self, histogram: ColorHistogram) -> None:
        """Raise `SlideError` if a sample of this slide holds nothing because of damage: all of it would be padding."""
        if self.damage and not histogram.counts.any():
            raise SlideError(f"nothing of {self.path.name} could be read; {next(iter(self.damage.values()))}")

    def leave_out(self, name: str, reason: str) -> None:
        """Note that an associated image, which cannot be read, is left out."""
        self._left_out = [*self._left_out, f"the {name} image was left out: {reason}"]
        self._write_notes()

    def tell(self) -> None:
        """Issue the notes on damage: one for all tiles that were met, and one for each image left out."""
        for note in self.notes[len(self._slide.notes) :]:
            warnings.warn(note, SlideWarning, stacklevel=2)

    def close(self) -> None:
        self._slide.close()

    def _undamaged(
        self,
        read: Callable[[tuple[int, int], int, tuple[int, int]], Pixels],
        location: tuple[int, int],
        level: int,
        size: tuple[int, int],
    ) -> Pixels | None:
        """A rectangle read at once; None where there is damage, which the caller narrows down to tiles."""
        parts = pieces(self._slide, location, level, size) if self.damage and self._whole_tiles else ()
        if any((level, part.tile) in self.damage for part in parts):
            return None
        try:
            return read(location, level, size)
        except SlideError:  # each tile's own is kept when it is tried
            return None

    def _parts(
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Iterator[tuple[Piece, tuple[slice, slice]]]:
        """The parts of a rectangle, one for each tile of the file, and where in the rectangle they lie."""
        for part in pieces(self._slide, location, level, size):
            (left, top), (wide, high) = part.offset, part.size
            yield part, (slice(top, top + high), slice(left, left + wide))

    def _glass_color(self) -> NDArray[np.uint8]:
        assert self.glass is not None
        return np.clip(np.rint(self.glass), 0, 255).astype(np.uint8)

    def _readable(self, level: int, tile: tuple[int, int]) -> bool:
        """Whether a tile of the file can be read whole, tried once."""
        with self._lock:
            key = (level, tile)
            if key not in self._verdicts:
                try:
                    self._slide.read_region(tile, level, self._extent(level, tile))
                    self._verdicts[key] = True
                except SlideError as error:
                    self._verdicts[key] = False
                    self.damage = {**self.damage, key: str(error)}  # others iterate over the old one
                    self._write_notes()
            return self._verdicts[key]

    def _write_notes(self) -> None:
        self.notes = [*self._slide.notes, *([self._line()] if self.damage else []), *self._left_out]

    def _extent(self, level: int, tile: tuple[int, int]) -> tuple[int, int]:
        """The size of a tile without what reaches beyond the level, in the level's pixels."""
        own = self.tile_sizes[level] if level < len(self.tile_sizes) else None
        wide, high = own or (UNKNOWN_TILE, UNKNOWN_TILE)
        scale = self.level_downsamples[level]
        width, height = self.level_dimensions[level]
        return max(min(wide, width - round(tile[0] / scale)), 1), max(min(high, height - round(tile[1] / scale)), 1)

    def _line(self) -> str:
        """All damage in one line."""
        told = []
        for level in sorted({level for level, _ in self.damage}):
            places = sorted((y, x) for found, (x, y) in self.damage if found == level)
            shown = ", ".join(f"({x}, {y})" for y, x in places[:_SHOWN])
            more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
            told.append(f"{len(places)} of level {level} at {shown}{more}")
        done = "filled with glass" if self._on_error == "fill" else "left out"
        return f"{self.path.name} has damaged tiles, which were {done} (x, y in level-0 pixels): {'; '.join(told)}"
