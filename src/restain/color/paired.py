"""`PairedColors`: what pictures' colours became in other pictures of the same pixels: how often, the mean, the spread.

Whatever a map of colours can learn from pairs of pictures depends only on this. Like histograms they add up: tile by
tile, thread by thread, machine by machine, exactly, in any order, since they hold whole numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.histogram import pack, unpack
from restain.color.images import RGB8, as_rgb8, opaque
from restain.errors import InputError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_BAND = 1 << 21  # pixels that are sorted at a time
_LEAST = 1 << 20  # colours that are gathered before they are added up


@dataclass(frozen=True, eq=False)
class PairedColors:
    """Source colours with what became of them: 60 bytes for each different colour. Without arguments, nothing yet.

    Attributes:
        codes: (n,) uint32, sorted, unique: R·65536 + G·256 + B of the source.
        counts: (n,) int64 > 0: pixels of each colour.
        sums: (n, 3) int64: sums of the levels that they became.
        squares: (n, 3) int64: sums of the squares of these levels.
    """

    codes: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    counts: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    sums: Integers = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    squares: Integers = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    @classmethod
    def from_images(cls, source: Any, target: Any, *, mask: ArrayLike | None = None) -> "PairedColors":
        """Of one pair of pictures of the same pixels; those that are transparent in either are left out.

        Args:
            source: (H, W, 3) uint8, or another form that `restain.color.images.as_rgb8` accepts.
            target: what it became, of the same size.
            mask: (H, W) bool, the pixels to count; None for all.

        Raises:
            InputError: no images, or sizes that differ.
        """
        before, after = as_rgb8(source), as_rgb8(target)
        if before.shape != after.shape:
            raise InputError(f"got a source of {before.shape[:2]} and a target of {after.shape[:2]}; wanted one size")
        seen = None if mask is None else np.asarray(mask, np.bool_)
        if seen is not None and seen.shape != before.shape[:2]:
            raise InputError(f"got a mask of shape {seen.shape} for an image of {before.shape[:2]}")
        for known in (opaque(source), opaque(target)):
            if known is not None:
                seen = known if seen is None else seen & known
        rows = max(1, _BAND // before.shape[1])
        bands = (np.s_[top : top + rows] for top in range(0, len(before), rows))
        return cls.merged(
            cls._counted(before[band], after[band], None if seen is None else seen[band]) for band in bands
        )

    @classmethod
    def merged(cls, parts: Iterable["PairedColors"]) -> "PairedColors":
        """The sum of many. Streams: what is in memory is some three times the sum, or a million colours' worth."""
        total, waiting, size = cls(), [], 0
        for part in parts:
            waiting.append(part)
            size += len(part)
            if size > max(_LEAST, len(total)):  # seldom: each time, all that was gathered is sorted
                total, waiting, size = cls._summed([total, *waiting]), [], 0
        return cls._summed([total, *waiting])

    def __add__(self, other: "PairedColors") -> "PairedColors":
        """Count both; for a long list `merged` is faster."""
        return self._summed([self, other]) if isinstance(other, PairedColors) else NotImplemented

    def __len__(self) -> int:
        """Different source colours."""
        return len(self.codes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PairedColors):
            return NotImplemented
        return all(np.array_equal(getattr(self, n), getattr(other, n)) for n in ("codes", "counts", "sums", "squares"))

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    @property
    def colors(self) -> RGB8:
        """(n, 3) uint8: the source colours."""
        return unpack(self.codes)

    @property
    def means(self) -> Floats:
        """(n, 3) levels: what each source colour became, on average."""
        result: Floats = self.sums / self.counts[:, None]
        return result

    @property
    def pixels(self) -> int:
        """All pixels counted."""
        return int(self.counts.sum())

    @property
    def within(self) -> Floats:
        """(n, 3): sums over pixels of the squared distance from their colour's mean, which no map of colours bridges.

        With `total` it says how much of a teacher's work depends on more than colour.
        """
        # Of whole numbers: with large counts the difference of two floats would be rounding alone.
        counts = self.counts[:, None]
        whole, rest = self.sums // counts, self.sums % counts
        about = self.squares - whole * (2 * self.sums - whole * counts)  # Σ(y − whole)², exact
        result: Floats = about - rest * (rest / counts)
        return np.maximum(result, 0.0)

    @property
    def total(self) -> Floats:
        """(3,): sums over pixels of the squared distance from the mean of all, channel by channel."""
        spread = self.means - self.sums.sum(axis=0) / max(self.pixels, 1)
        result: Floats = self.within.sum(axis=0) + (self.counts[:, None] * spread**2).sum(axis=0)
        return result

    @classmethod
    def _counted(cls, before: RGB8, after: RGB8, seen: NDArray[np.bool_] | None) -> "PairedColors":
        codes, levels = pack(before).ravel(), after.reshape(-1, 3)
        if seen is not None:
            codes, levels = codes[seen.ravel()], levels[seen.ravel()]
        order = np.argsort(codes)
        ordered: Integers = levels[order].astype(np.int64)
        return cls._of_sorted(codes[order], np.ones(len(codes), np.int64), ordered, ordered * ordered)

    @classmethod
    def _summed(cls, parts: list["PairedColors"]) -> "PairedColors":
        parts = [part for part in parts if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else cls()
        order = np.argsort(codes := np.concatenate([part.codes for part in parts]))
        arrays = (
            np.concatenate([getattr(part, name) for part in parts])[order] for name in ("counts", "sums", "squares")
        )
        return cls._of_sorted(codes[order], *arrays)

    @classmethod
    def _of_sorted(
        cls, codes: NDArray[np.uint32], counts: Integers, sums: Integers, squares: Integers
    ) -> "PairedColors":
        if not len(codes):
            return cls()
        ends = np.flatnonzero(np.r_[codes[1:] != codes[:-1], True])
        # Differences of running sums: exact in whole numbers, and far faster than `np.add.reduceat` on rows of three.
        counts, sums, squares = (
            np.diff(np.cumsum(array, axis=0)[ends], axis=0, prepend=0) for array in (counts, sums, squares)
        )
        return cls(codes[ends], counts, sums, squares)
