"""Counting the colours of many images into one histogram, in tables of all colours."""

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.histogram import FLAT_BLOCK, FLAT_DEVIATION, Codes, ColorHistogram, Mask, codes_at, places
from restain.color.images import RGB8
from restain.errors import InputError

_MOST_SPARE = 8  # tables kept for the next builders

_EVERYWHERE: Mask = np.zeros((0, 0), np.bool_)


class HistogramBuilder:
    """Counts image after image into one histogram; one builder a thread, one of which then absorbs the others.

    Holds two tables of 2²⁴ counts (64 MiB each, committed by the system only where colours occur), which are kept
    for the next builder when `histogram` is called.
    """

    _spare: list[NDArray[np.uint32]] = []  # noqa: RUF012 (shared on purpose)
    _lock = threading.Lock()

    def __init__(self) -> None:
        self._tallies: tuple[_Tally, _Tally] | None = None

    def add(self, image: RGB8, mask: Mask | None = None) -> None:
        """Count `image` (H, W, 3) uint8 where `mask` (H, W) is true, and its flat blocks wholly inside the mask."""
        from restain.color import counting

        where = _EVERYWHERE if mask is None else checked_mask(mask, image)
        if self._tallies is None:
            self._tallies = (_Tally(self._take()), _Tally(self._take()))
        everything, flat_alone = self._tallies
        everything.add(image, where)
        flat = np.zeros(image.shape[:2], np.bool_)
        counting.flat_blocks(image, where, FLAT_BLOCK, FLAT_DEVIATION, flat)
        flat_alone.add(image, flat)

    def absorb(self, other: "HistogramBuilder") -> None:
        """Add what another builder has counted, which starts again from nothing."""
        if other._tallies is None:
            return
        if self._tallies is None:
            self._tallies, other._tallies = other._tallies, None
            return
        for tally, theirs in zip(self._tallies, other._tallies, strict=True):
            tally.absorb(theirs)
        other._release()

    def histogram(self) -> ColorHistogram:
        """Everything added so far, as one histogram; the builder starts again from nothing."""
        if self._tallies is None:
            nothing = np.zeros(0, np.uint32), np.zeros(0)
            return ColorHistogram(*nothing, flat=ColorHistogram(*nothing))
        everything, flat = (ColorHistogram(*tally.drain()) for tally in self._tallies)
        self._release()
        return replace(everything, flat=flat)

    def _release(self) -> None:
        """Keep the tables, which are empty, for the next builder."""
        with self._lock:
            self._spare.extend(tally.table for tally in self._tallies or ())
            del self._spare[_MOST_SPARE:]
        self._tallies = None

    @classmethod
    def _take(cls) -> NDArray[np.uint32]:
        with cls._lock:
            return cls._spare.pop() if cls._spare else np.zeros(1 << 24, np.uint32)


class _Tally:
    """A table of counts, in the order of `places`, and the list of its entries that are not zero."""

    def __init__(self, table: NDArray[np.uint32]) -> None:
        self.table = table
        self._seen: list[Codes] = []
        self._pixels = 0
        self._older: list[tuple[Codes, NDArray[np.float64]]] = []

    def add(self, image: RGB8, mask: Mask) -> None:
        from restain.color import counting

        pixels = image.shape[0] * image.shape[1]
        self._make_room(pixels)
        seen = np.empty(min(pixels, 1 << 24), np.uint32)
        flat = np.ascontiguousarray(image).reshape(-1)
        end = counting.count_colors(self.table, flat, np.ascontiguousarray(mask).reshape(-1), seen)
        self._pixels += pixels
        if end:
            self._seen.append(seen[:end].copy())

    def absorb(self, other: "_Tally") -> None:
        from restain.color import counting

        self._make_room(other._pixels)
        entries = np.concatenate(other._seen) if other._seen else np.zeros(0, np.uint32)
        seen = np.empty(len(entries), np.uint32)
        self._seen.append(seen[: counting.move_counts(other.table, self.table, entries, seen)])
        self._pixels += other._pixels
        self._older += other._older
        other._seen, other._pixels, other._older = [], 0, []

    def _make_room(self, pixels: int) -> None:
        """Let so many pixels more be counted: a table's counts have 32 bits."""
        if self._pixels + pixels >= 1 << 32:
            self._older.append(self._empty())

    def drain(self) -> tuple[Codes, NDArray[np.float64]]:
        parts = [*self._older, self._empty()]
        self._older = []
        if len(parts) == 1:
            return parts[0]
        merged = ColorHistogram._summed(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
        return merged.codes, merged.counts

    def _empty(self) -> tuple[Codes, NDArray[np.float64]]:
        codes = np.sort(codes_at(np.concatenate(self._seen))) if self._seen else np.zeros(0, np.uint32)
        at = places(codes)
        counts = self.table[at].astype(np.float64)
        self.table[at] = 0
        self._seen, self._pixels = [], 0
        return codes, counts


def checked_mask(mask: ArrayLike, image: RGB8) -> Mask:
    """A mask as bool, if it has the size of the image (H, W, 3)."""
    array = np.asarray(mask, np.bool_)
    if array.shape != image.shape[:2]:
        raise InputError(f"got a mask of shape {array.shape} for an image of {image.shape[:2]}")
    return array
