"""Windows on one grid: the same pixels however an image is cut, no seams, padding left alone, memory bounded."""

import threading
import tracemalloc
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from restain.color.images import RGB8
from restain.errors import InputError, SlideError
from restain.methods.window_grid import Grid, WindowCache, read_window, reflected
from restain.methods.windows import Block, Read, WindowMap, apply_region, apply_windows, stream_blocks
from restain.phantom import make_phantom

from .blurring import RADIUS, SHIFT, Blurring


class Same(Blurring):
    """Nothing changes, so only the cutting and joining is seen."""

    def __call__(self, windows: RGB8) -> NDArray[np.float32]:
        return windows.astype(np.float32)


def noise(height: int, width: int, seed: int = 0) -> RGB8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def reader(image: RGB8, known: NDArray[np.bool_] | None = None) -> Read:
    """A window onto an array that asserts what `Read` promises."""

    def read(x: int, y: int, width: int, height: int):
        assert x >= 0
        assert y >= 0
        assert 0 < width <= image.shape[1] - x
        assert 0 < height <= image.shape[0] - y
        part = (slice(y, y + height), slice(x, x + width))
        return image[part] if known is None else (image[part], known[part])

    return read


def by_hand(image: RGB8, window_map: WindowMap) -> NDArray[np.float64]:
    """All windows of the grid added up in float64 with products of weights, which must sum to 1; not rounded."""
    side, overlap = window_map.side, window_map.overlap
    step, margin = side - overlap, overlap // 2
    height, width = image.shape[:2]
    rows, columns = -(-height // step), -(-width // step)
    far = 2 * side
    # Reflected once at a time, as often as needed: NumPy refuses more than the image has.
    padded = image.astype(np.float64)
    for axis in (0, 1):
        for _ in range(far):
            if padded.shape[axis] >= image.shape[axis] + 2 * far:
                break
            missing = image.shape[axis] + 2 * far - padded.shape[axis]
            more = min(max(padded.shape[axis] - 1, 1), missing // 2)
            mode = "reflect" if padded.shape[axis] > 1 else "edge"
            padded = np.pad(padded, [(more, more) if i == axis else (0, 0) for i in range(3)], mode=mode)
    total, weights = np.zeros((height, width, 3)), np.zeros((height, width))

    def weight(index: int, last: int) -> NDArray[np.float64]:
        rising = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
        result = np.ones(side)
        if index > 0:
            result[:overlap] = rising
        if index < last:
            result[side - overlap :] = rising[::-1]
        return result

    for row in range(rows):
        for column in range(columns):
            y, x = row * step - margin, column * step - margin
            window = padded[far + y : far + y + side, far + x : far + x + side].astype(np.uint8)
            mapped = window_map(window[None])[0].astype(np.float64)
            both = weight(row, rows - 1)[:, None] * weight(column, columns - 1)
            y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + side, height), min(x + side, width)
            part = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
            total[y0:y1, x0:x1] += both[part][..., None] * mapped[part]
            weights[y0:y1, x0:x1] += both[part]
    np.testing.assert_allclose(weights, 1, atol=1e-12)
    return np.clip(total, 0, 255)


# ---- the same picture, however it is cut ------------------------------------------------------------------------

sizes = st.integers(1, 70) | st.integers(71, 200)
grids = st.sampled_from([(64, 16), (32, 0), (32, 16), (40, 6), (7, 2), (64, 32)])


def joined(blocks: Iterable[Block], height: int, width: int) -> RGB8:
    out = np.zeros((height, width, 3), np.uint8)
    for block in blocks:
        out[block.y : block.y + block.pixels.shape[0], block.x : block.x + block.pixels.shape[1]] = block.pixels
    return out


@settings(max_examples=60)
@given(height=sizes, width=sizes, grid=grids, batch=st.integers(1, 5), cut=st.data())
def test_blocks_and_regions_are_the_whole(height: int, width: int, grid: tuple[int, int], batch: int, cut) -> None:
    image = noise(height, width)
    window_map = Blurring(*grid, batch=batch, tilt=20)
    whole = apply_windows(image, window_map)
    streamed = list(stream_blocks(reader(image), width, height, Blurring(*grid, tilt=20), workers=batch - 1))
    places = [(block.y, block.x) for block in streamed]
    assert places == sorted(places)
    np.testing.assert_array_equal(joined(streamed, height, width), whole)
    cache = WindowCache(3)
    for _ in range(4):
        x, y = cut.draw(st.integers(0, width - 1)), cut.draw(st.integers(0, height - 1))
        w, h = cut.draw(st.integers(1, width - x)), cut.draw(st.integers(1, height - y))
        for given_cache in (None, cache):
            part = apply_region(reader(image), (width, height), (x, y, w, h), window_map, cache=given_cache)
            np.testing.assert_array_equal(part, whole[y : y + h, x : x + w])


@settings(max_examples=40)
@given(height=st.integers(1, 150), width=st.integers(1, 150), grid=grids, tilt=st.sampled_from([0, 30]))
def test_windows_are_blended_as_the_weights_say(height: int, width: int, grid: tuple[int, int], tilt: float) -> None:
    image = noise(height, width, seed=height)
    window_map = Blurring(*grid, tilt=tilt)
    exact = by_hand(image, window_map)
    # The nearest level, but for the last bits of float32.
    assert np.abs(apply_windows(image, window_map) - exact).max() <= 0.5 + 1e-3


@given(height=sizes, width=sizes, grid=grids)
def test_what_is_not_changed_comes_back(height: int, width: int, grid: tuple[int, int]) -> None:
    image = noise(height, width)
    before = image.copy()
    out = apply_windows(image, Same(*grid))
    np.testing.assert_array_equal(out, before)
    assert not np.shares_memory(out, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("level", [0.0, 0.4999, 17.3, 99.4999, 99.5001, 254.6, 255.0])
def test_a_constant_stays_constant(level: float) -> None:
    class Constant(Same):
        def __call__(self, windows: RGB8) -> NDArray[np.float32]:
            return np.full(windows.shape, level, np.float32)

    out = apply_windows(noise(150, 170), Constant())
    assert (out == round(level)).all()


def test_results_beyond_the_levels_are_clipped_after_blending() -> None:
    class Loud(Same):
        def __call__(self, windows: RGB8) -> NDArray[np.float32]:
            return windows.astype(np.float32) * np.float32(4) - np.float32(300)

    image = noise(100, 100)
    np.testing.assert_array_equal(apply_windows(image, Loud()), np.clip(image * 4.0 - 300, 0, 255).astype(np.uint8))


def test_a_window_s_own_border_weighs_little() -> None:
    """Inside, a blur in windows is the blur of the whole: what a window misses beyond its border hardly shows."""
    image = make_phantom(300, 250, seed=1).image
    whole = ndimage.uniform_filter(image.astype(np.float64), (2 * RADIUS + 1, 2 * RADIUS + 1, 0), mode="mirror") + SHIFT
    wide = np.abs(apply_windows(image, Blurring(64, 32)) - np.clip(whole, 0, 255))
    none = np.abs(apply_windows(image, Blurring(64, 0)) - np.clip(whole, 0, 255))
    assert wide.max() <= 1.5
    assert none.max() > 5


def border_step(image: NDArray[np.float64], step: int, overlap: int) -> float:
    """The largest mean difference between columns of neighbours, near where windows meet."""
    across = np.abs(np.diff(image, axis=1)).mean(axis=(0, 2))
    near = [x for x in range(len(across)) if x > 0 and min(x % step, step - x % step) <= overlap // 2 + 1]
    return float(across[near].max())


def test_blending_hides_what_windows_make_of_their_place() -> None:
    """Each window is 40 levels brighter on its right than on its left: where they meet, that is a step."""
    flat = np.full((200, 400, 3), 120, np.uint8)
    hard = apply_windows(flat, Blurring(64, 0, tilt=40)).astype(np.float64)
    soft = apply_windows(flat, Blurring(64, 32, tilt=40)).astype(np.float64)
    assert border_step(hard, 64, 0) > 35
    assert border_step(soft, 32, 32) < 4


# ---- windows and what they see ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 1), (2, 2), (63, 64), (65, 49), (48, 96), (97, 96)])
def test_beyond_the_image_windows_see_it_reflected(height: int, width: int) -> None:
    image = noise(height, width)
    grid = Grid(width, height, Same(64, 16))
    for row in range(grid.rows):
        for column in range(grid.columns):
            window = read_window(reader(image), grid, row, column)
            assert window.known is None
            ys = [mirrored(y, height) for y in range(row * 48 - 8, row * 48 + 56)]
            xs = [mirrored(x, width) for x in range(column * 48 - 8, column * 48 + 56)]
            np.testing.assert_array_equal(window.pixels, image[np.ix_(ys, xs)])


def mirrored(position: int, length: int) -> int:
    """Walk the axis and turn at its ends."""
    place, way = 0, 1
    for _ in range(abs(position)):
        if length == 1:
            return 0
        if not 0 <= place + way < length:
            way = -way
        place += way
    return place


@given(start=st.integers(-100, 100), count=st.integers(0, 50), length=st.integers(1, 30))
def test_reflection(start: int, count: int, length: int) -> None:
    assert reflected(start, count, length).tolist() == [mirrored(i, length) for i in range(start, start + count)]


def test_one_pixel() -> None:
    image = np.array([[[10, 100, 200]]], np.uint8)
    np.testing.assert_array_equal(apply_windows(image, Blurring()), [[[16, 86, 209]]])
    for workers in (0, 2):
        assert [(b.x, b.y) for b in stream_blocks(reader(image), 1, 1, Blurring(), workers=workers)] == [(0, 0)]


def test_windows_come_in_batches_in_order() -> None:
    for workers in (0, 1, 3):
        window_map = Blurring(64, 16, batch=4)
        list(stream_blocks(reader(noise(96, 48 * 7)), 48 * 7, 96, window_map, workers=workers))
        assert window_map.calls == [4, 4, 4, 2]  # 2 rows of 7, across the ends of rows


def test_blocks_fill_the_image_once() -> None:
    times = np.zeros((130, 201), np.int64)
    for block in stream_blocks(reader(noise(130, 201)), 201, 130, Blurring()):
        times[block.y : block.y + block.pixels.shape[0], block.x : block.x + block.pixels.shape[1]] += 1
    assert (times == 1).all()


# ---- padding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_padding_is_given_back_as_it_is_and_spared_the_network(workers: int) -> None:
    image = noise(300, 300)
    known = np.ones((300, 300), np.bool_)
    known[:, 130:] = False  # from the middle of the third window of each row on
    known[10, 10] = False
    window_map = Blurring(64, 16, batch=2)
    plain = apply_windows(image, Blurring(64, 16))
    out = np.empty_like(image)
    seen = np.empty_like(known)
    for block in stream_blocks(reader(image, known), 300, 300, window_map, workers=workers):
        part = (
            slice(block.y, block.y + block.pixels.shape[0]),
            slice(block.x, block.x + block.pixels.shape[1]),
        )
        out[part], seen[part] = block.pixels, True if block.known is None else block.known
    np.testing.assert_array_equal(out[~known], image[~known])
    np.testing.assert_array_equal(out[known], plain[known])
    np.testing.assert_array_equal(seen, known)
    assert sum(window_map.calls) == 7 * 3
    region = apply_region(reader(image, known), (300, 300), (5, 6, 290, 280), Blurring(64, 16), cache=WindowCache())
    np.testing.assert_array_equal(region, out[6:286, 5:295])


def test_padding_alone_needs_no_network() -> None:
    image = noise(100, 100)
    window_map = Blurring()
    blocks = list(stream_blocks(reader(image, np.zeros((100, 100), np.bool_)), 100, 100, window_map))
    np.testing.assert_array_equal(joined(blocks, 100, 100), image)
    assert window_map.calls == []


# ---- memory and threads -----------------------------------------------------------------------------------------


def peak(height: int, width: int) -> int:
    """Bytes, at most, of streaming an image that is never there whole."""
    row = noise(1, width)

    def read(x: int, y: int, w: int, h: int) -> RGB8:
        return np.repeat(row[:, x : x + w], h, axis=0)

    tracemalloc.start()
    for _ in stream_blocks(read, width, height, Same(64, 16, batch=4), workers=2):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_is_bounded() -> None:
    width, side, overlap, batch = 3000, 64, 16, 4
    small, large = peak(300, width), peak(3000, width)
    assert large < 1.1 * small + 200_000
    # As the docstring counts, with room for what NumPy takes on the way; the image itself has 27 MB.
    assert large < 12 * width * overlap + 45 * batch * side**2 + 500_000


def test_what_goes_wrong_is_told_and_threads_end() -> None:
    def broken(x: int, y: int, w: int, h: int) -> RGB8:
        if y > 60:
            raise SlideError("damaged there")
        return np.zeros((h, w, 3), np.uint8)

    before = threading.active_count()
    for workers in (0, 1, 3):
        blocks = stream_blocks(broken, 500, 500, Same(), workers=workers)
        with pytest.raises(SlideError, match="damaged there"):
            list(blocks)
    early = stream_blocks(reader(noise(500, 500)), 500, 500, Same(), workers=2)
    next(early)
    early.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_network_that_gives_no_numbers_is_told() -> None:
    class Damaged(Same):
        def __call__(self, windows: RGB8) -> NDArray[np.float32]:
            out = windows.astype(np.float32)
            out[-1, 3, 4, 1] = np.nan
            return out

    with pytest.raises(InputError, match="no numbers"):
        apply_windows(noise(70, 70), Damaged())


@pytest.mark.parametrize("wrong", [lambda w: w, lambda w: w[:, :-1].astype(np.float32), lambda w: w.astype(float)])
def test_a_map_that_gives_something_else_is_told(wrong) -> None:
    class Wrong(Same):
        def __call__(self, windows: RGB8) -> NDArray[np.float32]:
            return wrong(windows)

    with pytest.raises(InputError, match="a window map gave"):
        apply_windows(noise(70, 70), Wrong())


@pytest.mark.parametrize(("side", "overlap", "batch"), [(64, 15, 1), (64, 34, 1), (64, -2, 1), (0, 0, 1), (64, 16, 0)])
def test_grids_that_cannot_be_are_refused(side: int, overlap: int, batch: int) -> None:
    window_map = Same()
    window_map.side, window_map.overlap, window_map.batch = side, overlap, batch
    with pytest.raises(InputError, match="even overlap"):
        apply_windows(noise(70, 70), window_map)


@pytest.mark.parametrize("rectangle", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 71, 5), (68, 0, 5, 5), (0, 66, 5, 5)])
def test_rectangles_outside_are_refused(rectangle: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="inside 70x70"):
        apply_region(reader(noise(70, 70)), (70, 70), rectangle, Same())


def test_regions_share_windows_through_a_cache() -> None:
    image = noise(200, 200)
    cache, window_map = WindowCache(64), Blurring(64, 16, batch=2)
    for _ in range(3):
        apply_region(reader(image), (200, 200), (60, 60, 24, 24), window_map, cache=cache)
    assert window_map.calls == [1]
    apply_region(reader(image), (200, 200), (60, 60, 50, 24), window_map, cache=cache)
    assert window_map.calls == [1, 1]
    apply_region(reader(image), (200, 200), (60, 60, 24, 24), window_map, cache=cache, key=1)  # another level
    assert window_map.calls == [1, 1, 1]


def test_a_cache_keeps_only_so_many() -> None:
    image = noise(200, 200)
    cache, window_map = WindowCache(2), Blurring(64, 16, batch=1)
    inside = [(60, 12), (110, 12), (160, 12)]  # of three windows, one each
    for x, y in [*inside, inside[1], inside[2], inside[0]]:
        apply_region(reader(image), (200, 200), (x, y, 4, 4), window_map, cache=cache)
    assert len(window_map.calls) == 4  # the first had to go, and was mapped again
    cache, window_map = WindowCache(2), Blurring(64, 16, batch=1)
    for x, y in [inside[0], inside[1], inside[0], inside[2], inside[0]]:
        apply_region(reader(image), (200, 200), (x, y, 4, 4), window_map, cache=cache)
    assert len(window_map.calls) == 3  # the second had to go: the first was used later


def test_a_cache_keeps_nothing_but_results() -> None:
    """Of a call that brought several windows, each is kept by itself: the others' memory goes with them."""
    image, cache = noise(200, 200), WindowCache(64)
    apply_region(reader(image), (200, 200), (0, 0, 200, 200), Blurring(64, 16, batch=4), cache=cache)
    assert len(cache._kept) == 25
    for window in cache._kept.values():
        assert window.levels is not None
        assert window.levels.base is None
        assert window.pixels.size == 0


def test_many_threads_read_regions_of_one_map() -> None:
    """The map is called by one thread at a time, and all get the same pixels."""
    image = noise(300, 300)
    inside, lock = [], threading.Lock()

    class Alone(Blurring):
        def __call__(self, windows: RGB8) -> NDArray[np.float32]:
            assert lock.acquire(blocking=False)
            inside.append(threading.get_ident())
            try:
                return super().__call__(windows)
            finally:
                lock.release()

    window_map, cache = Alone(tilt=10), WindowCache(5)
    whole = apply_windows(image, Blurring(tilt=10))

    def job(seed: int) -> bool:
        generator = np.random.default_rng(seed)
        x, y = generator.integers(0, 200, 2).tolist()
        part = apply_region(reader(image), (300, 300), (x, y, 100, 90), window_map, cache=cache)
        return np.array_equal(part, whole[y : y + 90, x : x + 100])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(job, range(24)))
    assert inside
