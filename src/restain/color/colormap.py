"""`ColorMap`: RGB8 to RGB8 as an exact table of all 16,777,216 colours, applied at memory speed."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from restain.color.histogram import pack, places, unpack
from restain.color.images import RGB8, as_rgb8
from restain.errors import InputError

if TYPE_CHECKING:
    from restain.networks.color_table import ColorTable

COLORS = 1 << 24
_READY = np.uint32(1 << 24)  # as in kernels.py, which is not imported before pixels are at hand
_CODE = np.uint32(COLORS - 1)  # the bits of an entry that hold the result
_CHUNK = 1 << 15  # colours evaluated at a time: their float64 intermediates stay near the cache
_BAND = 1 << 22  # pixels whose colours are evaluated together
_LEAST_CHUNK = 1 << 12  # below, starting a thread costs more than it saves
_NONE_WAIT = np.empty(0, np.uint32)

ColorFunction = Callable[[RGB8], NDArray[np.float64]]
"""Colours (n, 3) uint8 to results (n, 3), floats in 0..255, each row independent of the others."""


@runtime_checkable
class CompiledColors(Protocol):
    """A `ColorFunction` that can also write a map's table itself, which saves most of the time for few colours."""

    def __call__(self, colors: RGB8, /) -> NDArray[np.float64]:
        """As every `ColorFunction`."""

    def write(self, table: NDArray[np.uint32], codes: NDArray[np.uint32]) -> None:
        """Write the entries of the colours `codes` (n,), as `restain.color.kernels.store` would."""


class ColorMap:
    """An exact map of 8-bit colours, held as one packed table.

    A map made by `from_function` with `lazy=True` evaluates a colour when it first occurs; results are the same, a
    single image costs only its own colours, and a slide some percent of all. Safe to call from many threads.

    What a map does never changes, so `copy.copy` and `copy.deepcopy` return the map itself. A pickle (64 MiB, for
    other processes) holds the table alone: a lazy map is compiled first, since its function need not be picklable.

    Example:
        >>> import numpy as np
        >>> negative = ColorMap.from_function(lambda colors: 255.0 - colors)
        >>> negative(np.array([[[0, 100, 255]]], np.uint8)).tolist()
        [[[255, 155, 0]]]
        >>> negative.then(negative) == ColorMap.identity()
        True
    """

    def __init__(self, table: NDArray[np.uint8]) -> None:
        """From a table (256, 256, 256, 3) uint8: `table[r, g, b]` is what (r, g, b) becomes."""
        table = np.asarray(table)
        if table.shape != (256, 256, 256, 3) or table.dtype != np.uint8:
            raise InputError(f"got a table of {table.dtype} {table.shape}; wanted uint8 (256, 256, 256, 3)")
        self._begin(_ordered(pack(table.reshape(-1, 3)) | _READY))

    def _begin(self, packed: NDArray[np.uint32], function: ColorFunction | None = None) -> None:
        """Start from packed entries, as kernels.py describes them; `function` evaluates those that are 0."""
        self._packed = packed
        self._function = function
        self._workers: int | None = None
        self._lock = threading.Lock()

    @classmethod
    def _from_packed(cls, packed: NDArray[np.uint32], function: ColorFunction | None = None) -> "ColorMap":
        result = cls.__new__(cls)
        result._begin(packed, function)
        return result

    @classmethod
    def from_function(cls, function: ColorFunction, *, lazy: bool = False, workers: int | None = None) -> "ColorMap":
        """Tabulate a vectorised function of colours, rounding to nearest once, at the end.

        Args:
            function: see `ColorFunction`; results outside 0..255 are clipped, NaN is an error.
            lazy: evaluate colours only when they occur.
            workers: threads to evaluate in, of a lazy map later too; None for one a core that this process may use.
        """
        result = cls._from_packed(np.zeros(COLORS, np.uint32), function)  # the system commits pages only when written
        result._workers = workers
        if not lazy:
            result.compile(workers=workers)
        return result

    @classmethod
    def identity(cls) -> "ColorMap":
        """Every colour to itself."""
        return cls._from_packed(_ordered(np.arange(COLORS, dtype=np.uint32) | _READY))

    @classmethod
    def apply_once(cls, function: ColorFunction, image: Any, *, workers: int | None = None) -> RGB8:
        """What `from_function(function)(image)` gives, evaluating this image's colours alone and keeping none of them.

        A table that was used before costs a small image less than a new one, whose pages the system has yet to commit.

        Args:
            function: see `ColorFunction`.
            image: (H, W, 3) uint8, or another form that `as_rgb8` accepts. Never changed.
            workers: threads to evaluate in; None for one a core that this process may use.
        """
        from restain.color import kernels

        pixels = as_rgb8(image)
        out = np.empty(pixels.shape, np.uint8)
        codes = np.empty(min(pixels.shape[0] * pixels.shape[1], COLORS), np.uint32)
        with _SCRATCH_LOCK:
            table = _SCRATCH.pop() if _SCRATCH else np.zeros(COLORS, np.uint32)
        flat = np.ascontiguousarray(pixels).reshape(-1)
        codes = codes[: kernels.list_missing(table, flat, codes)]
        _evaluate(function, table, codes, workers)  # an error loses the table; the next call makes another
        kernels.apply_table(table, flat, out.reshape(-1), _NONE_WAIT)
        table[places(codes)] = 0
        with _SCRATCH_LOCK:
            if len(_SCRATCH) < _MOST_SCRATCH:
                _SCRATCH.append(table)
        return out

    def compile(self, *, workers: int | None = None) -> "ColorMap":
        """Evaluate every colour that a lazy map has not met yet; returns the map itself."""
        with self._lock:
            if self._function is None:
                return self
            _evaluate(self._function, self._packed, np.arange(COLORS, dtype=np.uint32), workers or self._workers)
            self._function = None
        return self

    def __call__(self, image: Any, out: RGB8 | None = None) -> RGB8:
        """Map every pixel.

        Args:
            image: (H, W, 3) uint8, contiguous or not, or another form that `as_rgb8` accepts. Never changed, unless
                it is given as `out` too.
            out: where to write, (H, W, 3) uint8 of the same size; None for a new array. May be `image` itself.

        Returns:
            `out`, or the new (H, W, 3) uint8 array.
        """
        from restain.color import kernels

        pixels = as_rgb8(image)
        if out is None:
            out = np.empty(pixels.shape, np.uint8)
        elif out.shape != pixels.shape or out.dtype != np.uint8 or not out.flags.writeable:
            raise InputError(f"got out of {out.dtype} {out.shape}; wanted writable uint8 {pixels.shape}")
        if out is not pixels and np.may_share_memory(pixels, out) and not _same_memory(pixels, out):
            pixels = pixels.copy()  # an overlap: a pixel could be overwritten before it is read
        target = out if out.flags.c_contiguous else np.empty(out.shape, np.uint8)
        flat, mapped = np.ascontiguousarray(pixels).reshape(-1), target.reshape(-1)
        if self._function is None:
            kernels.apply_table(self._packed, flat, mapped, _NONE_WAIT)
        else:
            for start in range(0, len(flat), 3 * _BAND):
                self._apply_lazily(flat[start : start + 3 * _BAND], mapped[start : start + 3 * _BAND])
        if target is not out:
            out[...] = target
        return out

    @property
    def table(self) -> NDArray[np.uint8]:
        """(256, 256, 256, 3) uint8, a copy: `table[r, g, b]` is what (r, g, b) becomes."""
        return unpack(self.codes).reshape(256, 256, 256, 3)

    @property
    def codes(self) -> NDArray[np.uint32]:
        """(16777216,) uint32, a copy: the table with every colour (r, g, b) written as r·65536 + g·256 + b."""
        self.compile()
        return self._packed[places(np.arange(COLORS, dtype=np.uint32))] & _CODE

    @property
    def entries(self) -> NDArray[np.uint32]:
        """The table itself, packed as kernels.py describes; of a lazy map some entries are 0."""
        return self._packed

    def then(self, second: "ColorMap") -> "ColorMap":
        """The one map that does what this map and then `second` do, byte for byte.

        The colours between the two are rounded to 8 bits, as they are in an image, so this is not what a single
        formula rounded once would give. Lazy maps are compiled first: the composition is one gather of whole tables.

        Raises:
            InputError: `second` is not a `ColorMap`.
        """
        if not isinstance(second, ColorMap):
            raise InputError(f"got {type(second).__name__}; wanted a ColorMap to apply after this one")
        second.compile()
        self.compile()
        return ColorMap._from_packed(second._packed[places(self._packed & _CODE)])

    def save_cube(
        self, path: str | os.PathLike[str], size: int = 33, *, title: str = "restain", overwrite: bool = True
    ) -> None:
        """Write the map, approximately, as a .cube file for other programs; see `restain.color.cube.save_cube`."""
        from restain.color import cube

        cube.save_cube(self, path, size, title=title, overwrite=overwrite)

    def to_torch(self) -> "ColorTable":
        """This map as a `torch.nn.Module`; see `restain.networks.color_table.ColorTable`.

        Raises:
            ImportError: PyTorch is not installed.
        """
        try:
            import torch  # noqa: F401
        except ImportError as error:
            message = f"to_torch needs PyTorch ({error}); install it with: pip install 'restain[train]'"
            raise ImportError(message) from error
        from restain.networks.color_table import ColorTable

        return ColorTable(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ColorMap):
            return NotImplemented
        self.compile()
        other.compile()
        return np.array_equal(self._packed, other._packed)

    __hash__ = None  # type: ignore[assignment]  # compares by contents

    def __copy__(self) -> "ColorMap":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ColorMap":
        return self

    def __getstate__(self) -> dict[str, Any]:
        self.compile()
        return {"packed": self._packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(state["packed"])

    def __repr__(self) -> str:
        share = np.count_nonzero(self._packed) / COLORS
        return f"ColorMap({share:.0%} of {COLORS:,} colours evaluated)"

    def evaluate(self, codes: NDArray[np.uint32]) -> None:
        """Evaluate colours that will occur, by their codes (n,), at once and in threads."""
        self._evaluate_missing(unpack(codes).reshape(-1))

    def _apply_lazily(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Map what is evaluated in one pass over (3n,) levels, then evaluate and map the rest; works in place, too."""
        from restain.color import kernels

        waiting = np.empty(len(pixels) // 3, np.uint32)
        count = kernels.apply_table(self._packed, pixels, out, waiting)
        if count:
            colors = out.reshape(-1, 3)[waiting[:count]].reshape(-1)
            self._evaluate_missing(colors)
            kernels.apply_table(self._packed, colors, colors, _NONE_WAIT)
            out.reshape(-1, 3)[waiting[:count]] = colors.reshape(-1, 3)

    def _evaluate_missing(self, pixels: NDArray[np.uint8]) -> None:
        from restain.color import kernels

        with self._lock:
            if self._function is None:
                return
            missing = np.empty(min(len(pixels) // 3, COLORS), np.uint32)
            try:
                count = kernels.list_missing(self._packed, pixels, missing)
                _evaluate(self._function, self._packed, missing[:count], self._workers)
            except BaseException:
                asked = places(pack(pixels.reshape(-1, 3)))
                self._packed[asked[self._packed[asked] & _READY == 0]] = 0  # so that they are listed again
                raise


def _ordered(entries: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A packed table of entries that are given in the order of their colours' codes."""
    packed = np.empty_like(entries)
    packed[places(np.arange(COLORS, dtype=np.uint32))] = entries
    return packed


def usable_cores() -> int:
    """Cores that this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_SCRATCH: list[NDArray[np.uint32]] = []  # tables of zeros for `apply_once`, 64 MiB each
_SCRATCH_LOCK = threading.Lock()
_MOST_SCRATCH = 2


def _evaluate(
    function: ColorFunction, packed: NDArray[np.uint32], codes: NDArray[np.uint32], workers: int | None = None
) -> None:
    """Write the entries of `codes` (n,), in threads; each colour's result depends on that colour alone."""
    from restain.color import kernels

    workers = workers or usable_cores()
    size = min(_CHUNK, max(-(-len(codes) // workers), _LEAST_CHUNK))
    chunks = [codes[start : start + size] for start in range(0, len(codes), size)]

    compiled = function if isinstance(function, CompiledColors) else None

    def job(chunk: NDArray[np.uint32]) -> None:
        if compiled is not None:
            compiled.write(packed, chunk)
            return
        levels = np.ascontiguousarray(function(unpack(chunk)), np.float64)
        if levels.shape != (len(chunk), 3) or not kernels.store(packed, chunk, levels):
            raise InputError(f"a colour function gave {levels.shape} with NaN or of the wrong shape for {len(chunk)}")

    if len(chunks) < 2 or workers < 2:
        for chunk in chunks:
            job(chunk)
        return
    with ThreadPoolExecutor(min(workers, len(chunks))) as pool:
        list(pool.map(job, chunks))


def _same_memory(first: RGB8, second: RGB8) -> bool:
    """Whether two arrays are the same pixels at the same places."""
    return first.ctypes.data == second.ctypes.data and first.strides == second.strides and first.shape == second.shape
