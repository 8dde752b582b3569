"""The grid of windows that covers an image; reading them, and having them mapped a few at a time.

What is made of the results is in `restain.methods.windows`.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.errors import InputError

if TYPE_CHECKING:
    from restain.methods.windows import WindowMap

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

Read = Callable[[int, int, int, int], "RGB8 | tuple[RGB8, Mask | None]"]
"""Pixels (h, w, 3) uint8 of a rectangle (x, y, w, h) inside the image; or these and where they are real, as
`Slide.read_region` has it: padding is given back as it is, and a window of padding alone is spared the network. Called
from several threads at a time."""

AHEAD = 2
"""Calls whose windows are read or mapped while an earlier one's are used."""


class Grid:
    """Where the windows of an image lie."""

    def __init__(self, width: int, height: int, window_map: "WindowMap") -> None:
        side, overlap = window_map.side, window_map.overlap
        if side < 1 or overlap < 0 or overlap % 2 or 2 * overlap > side or window_map.batch < 1:
            raise InputError(
                f"got windows of {side} pixels that share {overlap}, {window_map.batch} at a time; "
                "wanted an even overlap of at most half a window, and 1 or more"
            )
        self.width, self.height, self.side, self.overlap = width, height, side, overlap
        self.step, self.margin = side - overlap, overlap // 2
        self.rows, self.columns = -(-height // self.step), -(-width // self.step)

    def begin(self, index: int) -> int:
        """Where the windows of a row or column begin, pixels; before the image for the first."""
        return index * self.step - self.margin

    def touching(self, start: int, length: int, whole: int) -> range:
        """The rows or columns of windows that pixels start..start+length of an axis are made of."""
        last = -(-whole // self.step) - 1
        first = max((start - self.margin) // self.step, 0)
        return range(min(first, last), min((start + length - 1 + self.margin) // self.step, last) + 1)


def reflected(start: int, count: int, length: int) -> NDArray[np.int64]:
    """Positions start..start+count on an axis of `length` pixels, continued by reflection, edges not repeated."""
    if length == 1:
        return np.zeros(count, np.int64)
    phase = np.arange(start, start + count) % (2 * length - 2)
    return np.minimum(phase, 2 * length - 2 - phase)


@dataclass(frozen=True)
class Window:
    """A window: its place in the grid, what is in it, and what the map makes of that.

    Attributes:
        row, column: in the grid.
        pixels: (side, side, 3) uint8.
        known: where they are real, (side, side); None for everywhere.
        levels: (side, side, 3), what the map made of them; None before, and for ever where it is padding alone.
    """

    row: int
    column: int
    pixels: RGB8
    known: Mask | None
    levels: Float32 | None = None

    @property
    def empty(self) -> bool:
        """Whether it is padding alone."""
        return self.known is not None and not self.known.any()


def read_window(read: Read, grid: Grid, row: int, column: int) -> Window:
    """One window; where it reaches beyond the image, the image reflected."""
    ys = reflected(grid.begin(row), grid.side, grid.height)
    xs = reflected(grid.begin(column), grid.side, grid.width)
    top, left = int(ys.min()), int(xs.min())
    height, width = int(ys.max()) - top + 1, int(xs.max()) - left + 1
    found = read(left, top, width, height)
    pixels, known = found if isinstance(found, tuple) else (found, None)
    if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
        raise InputError(f"got {pixels.dtype} {pixels.shape} to map; wanted uint8 ({height}, {width}, 3)")
    if height < grid.side or width < grid.side or top != ys[0] or left != xs[0]:  # it reaches beyond the image
        ys, xs = ys - top, xs - left
        pixels = pixels[ys[:, None], xs]
        known = None if known is None else known[ys[:, None], xs]
    return Window(row, column, pixels, known)


def _map(windows: Sequence[Window], window_map: "WindowMap") -> list[Window]:
    real = [window.pixels for window in windows if not window.empty]
    levels: Iterator[Float32] = iter(())
    if real:
        result = window_map(np.stack(real))
        if result.shape != (len(real), *real[0].shape) or result.dtype != np.float32:
            raise InputError(f"a window map gave {result.dtype} {result.shape} for {len(real)} windows {real[0].shape}")
        if np.isnan(result.sum()):
            raise InputError("a network gave values that are no numbers; its weights are damaged")
        levels = iter(result)
    return [window if window.empty else replace(window, levels=next(levels)) for window in windows]


def map_in_order(
    read: Read, grid: Grid, places: Iterable[tuple[int, int]], window_map: "WindowMap", workers: int
) -> Iterator[Window]:
    """The windows at (row, column), mapped `batch` at a time, in order.

    With workers, threads read the windows of the next calls and one maps them, while the caller uses what is done.
    """
    places = iter(places)
    groups = iter(lambda: list(islice(places, window_map.batch)), [])
    if not workers:
        for group in groups:
            yield from _map([read_window(read, grid, *place) for place in group], window_map)
        return
    readers, mapper = ThreadPoolExecutor(workers), ThreadPoolExecutor(1)
    waiting: deque[Future[list[Window]]] = deque()

    def work(reads: list[Future[Window]]) -> list[Window]:
        return _map([future.result() for future in reads], window_map)

    try:
        for group in groups:
            reads = [readers.submit(read_window, read, grid, *place) for place in group]
            waiting.append(mapper.submit(work, reads))
            if len(waiting) > AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        mapper.shutdown(wait=False, cancel_futures=True)  # its running call may wait for reads, so these are done
        readers.shutdown()
        mapper.shutdown()


class WindowCache:
    """The results of the windows used last, for regions that share them; safe to use from many threads.

    Args:
        most: windows to keep; one of 512 pixels takes 3 MB.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, int, int], Window] = OrderedDict()
        self._lock = threading.Lock()
        self.mapping = threading.Lock()
        """Held while the map is called."""

    def get(self, key: tuple[int, int, int]) -> Window | None:
        """The window of (image, row, column), None if it is not there."""
        with self._lock:
            window = self._kept.get(key)
            if window is not None:
                self._kept.move_to_end(key)
            return window

    def put(self, key: tuple[int, int, int], window: Window) -> None:
        """Keep a window, and let go of the one that was not used for longest."""
        with self._lock:
            self._kept[key] = window
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


def _lean(window: Window) -> Window:
    """A window without what is of no more use: the other windows of its call, and pixels that are not padding."""
    pixels = np.empty((0, 0, 3), np.uint8) if window.known is None else window.pixels
    return replace(window, pixels=pixels, levels=None if window.levels is None else window.levels.copy())


def map_cached(
    read: Read, grid: Grid, rows: range, columns: range, window_map: "WindowMap", cache: WindowCache, key: int
) -> Iterator[Window]:
    """All windows of these rows and columns, in order; those that the cache has not are mapped `batch` at a time."""
    places = iter([(row, column) for row in rows for column in columns])
    for group in iter(lambda: list(islice(places, window_map.batch)), []):
        found = {place: cache.get((key, *place)) for place in group}
        missing = [read_window(read, grid, *place) for place, window in found.items() if window is None]
        if missing:
            with cache.mapping:
                mapped = _map(missing, window_map)
            for window in mapped:
                found[window.row, window.column] = window
                cache.put((key, window.row, window.column), _lean(window))
        yield from (window for window in found.values() if window is not None)
