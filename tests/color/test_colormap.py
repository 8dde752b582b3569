"""`ColorMap`: a table applied exactly, to any memory layout, in place, lazily and from many threads."""

import copy
import multiprocessing
import pickle
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from restain.color import colormap, kernels
from restain.color.colormap import ColorMap
from restain.errors import InputError

sides = st.integers(1, 16)
images = st.tuples(sides, sides).flatmap(lambda size: hnp.arrays(np.uint8, (*size, 3)))


def random_image(seed: int, height: int = 64, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(colors: np.ndarray) -> np.ndarray:
    """A function of whole colours whose results need clipping and rounding."""
    red, green, blue = colors.astype(np.float64).T
    return np.stack([1.2 * red - 20, 0.5 * green + 0.3 * blue + 0.25, 255 * (blue / 255) ** 0.7], axis=-1)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def look_up(table: np.ndarray, image: np.ndarray) -> np.ndarray:
    return table[image[..., 0], image[..., 1], image[..., 2]]


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (256, 256, 256, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def random_map(table: np.ndarray) -> ColorMap:
    return ColorMap(table)


@pytest.fixture(scope="module")
def smooth_map() -> ColorMap:
    return ColorMap.from_function(smooth)


# ---- the table --------------------------------------------------------------------------------------------------


@given(image=images)
def test_equals_fancy_indexing(random_map: ColorMap, table: np.ndarray, image: np.ndarray) -> None:
    result = random_map(image)
    np.testing.assert_array_equal(result, look_up(table, image))
    assert result.dtype == np.uint8


def test_equals_fancy_indexing_for_all_colours(random_map: ColorMap, table: np.ndarray) -> None:
    everything = np.indices((256, 256, 256), np.uint8).reshape(3, 4096, 4096)
    np.testing.assert_array_equal(random_map(np.moveaxis(everything, 0, -1)), table.reshape(4096, 4096, 3))


def test_the_table_comes_back_as_a_copy(random_map: ColorMap, table: np.ndarray) -> None:
    copy = random_map.table
    np.testing.assert_array_equal(copy, table)
    copy[:] = 0
    np.testing.assert_array_equal(random_map(random_image(0)), look_up(table, random_image(0)))


def test_the_table_handed_over_is_not_kept(table: np.ndarray) -> None:
    mine = table.copy()
    color_map = ColorMap(mine)
    mine[:] = 0
    np.testing.assert_array_equal(color_map(random_image(0)), look_up(table, random_image(0)))


@pytest.mark.parametrize("bad", [np.zeros((256, 256, 256), np.uint8), np.zeros((16, 16, 16, 3), np.uint8), None])
def test_other_tables_are_refused(bad) -> None:
    with pytest.raises(InputError, match="wanted uint8"):
        ColorMap(bad)


def test_a_table_of_another_type_is_refused() -> None:
    with pytest.raises(InputError, match="float32"):
        ColorMap(np.broadcast_to(np.float32(0), (256, 256, 256, 3)))


def test_identity(random_map: ColorMap) -> None:
    identity = ColorMap.identity()
    np.testing.assert_array_equal(identity(random_image(1)), random_image(1))
    assert identity == ColorMap.from_function(lambda colors: colors.astype(np.float64))
    assert identity != random_map


def test_equality_is_that_of_tables(table: np.ndarray, random_map: ColorMap, smooth_map: ColorMap) -> None:
    assert random_map == ColorMap(table)
    other = table.copy()
    other[255, 255, 255, 2] ^= 1
    assert random_map != ColorMap(other)
    assert smooth_map == ColorMap.from_function(smooth, lazy=True)
    assert random_map != "a map"
    with pytest.raises(TypeError):
        hash(random_map)


def test_repr_says_how_much_is_evaluated(random_map: ColorMap) -> None:
    assert "100%" in repr(random_map)
    assert "0%" in repr(ColorMap.from_function(smooth, lazy=True))


def test_codes_are_the_packed_table(random_map: ColorMap, table: np.ndarray) -> None:
    codes = random_map.codes
    assert codes.dtype == np.uint32
    wide = table.reshape(-1, 3).astype(np.uint32)
    np.testing.assert_array_equal(codes, wide[:, 0] * 65536 + wide[:, 1] * 256 + wide[:, 2])
    codes[:] = 0
    np.testing.assert_array_equal(random_map.table, table)


# ---- composition ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steep_map() -> ColorMap:
    """Loses colours: the orders of composition differ."""
    return ColorMap.from_function(lambda colors: 2.0 * colors[:, ::-1] - 90)


def test_then_equals_one_after_the_other_for_all_colours(random_map: ColorMap, smooth_map: ColorMap) -> None:
    everything = np.moveaxis(np.indices((256, 256, 256), np.uint8).reshape(3, 4096, 4096), 0, -1)
    sequential = smooth_map(random_map(everything))
    np.testing.assert_array_equal(random_map.then(smooth_map).table.reshape(4096, 4096, 3), sequential)


@pytest.fixture(scope="module")
def smooth_then_steep(smooth_map: ColorMap, steep_map: ColorMap) -> ColorMap:
    return smooth_map.then(steep_map)


@given(image=images)
def test_then_equals_one_after_the_other(
    smooth_map: ColorMap, steep_map: ColorMap, smooth_then_steep: ColorMap, image: np.ndarray
) -> None:
    np.testing.assert_array_equal(smooth_then_steep(image), steep_map(smooth_map(image)))


@settings(max_examples=10)
@given(order=st.permutations(range(3)))
def test_composition_is_associative(
    random_map: ColorMap, smooth_map: ColorMap, steep_map: ColorMap, order: list[int]
) -> None:
    a, b, c = ((random_map, smooth_map, steep_map)[index] for index in order)
    assert a.then(b).then(c) == a.then(b.then(c))


def test_the_order_matters(smooth_map: ColorMap, steep_map: ColorMap) -> None:
    assert smooth_map.then(steep_map) != steep_map.then(smooth_map)


def test_the_identity_changes_nothing_on_either_side(random_map: ColorMap) -> None:
    identity = ColorMap.identity()
    assert identity.then(random_map) == random_map
    assert random_map.then(identity) == random_map


def test_lazy_maps_compose_as_compiled_ones_do(smooth_map: ColorMap, steep_map: ColorMap) -> None:
    first = ColorMap.from_function(smooth, lazy=True)
    first(BASE)  # some colours are known already, some not
    second = ColorMap.from_function(lambda colors: 2.0 * colors[:, ::-1] - 90, lazy=True)
    assert first.then(second) == smooth_map.then(steep_map)
    assert ColorMap.from_function(smooth, lazy=True).then(steep_map) == smooth_map.then(steep_map)
    lazy = ColorMap.from_function(smooth, lazy=True)
    assert lazy.then(lazy) == smooth_map.then(smooth_map)


def test_composition_changes_neither_map(random_map: ColorMap, smooth_map: ColorMap, table: np.ndarray) -> None:
    before = smooth_map.table
    random_map.then(smooth_map)
    np.testing.assert_array_equal(random_map.table, table)
    np.testing.assert_array_equal(smooth_map.table, before)


def test_colours_between_two_maps_are_rounded_to_8_bits() -> None:
    # Levels 7, 8 and 9 become 2.1, 2.4 and 2.7: 2, 2 and 3 between the maps. Unrounded, 4.8 and 5.4 would give 5 and 5.
    third = ColorMap.from_function(lambda colors: 0.3 * colors)
    double = ColorMap.from_function(lambda colors: 2.0 * colors)
    assert third.then(double)(np.array([[[7, 8, 9]]], np.uint8)).tolist() == [[[4, 4, 6]]]


@pytest.mark.parametrize("other", [None, np.zeros((256, 256, 256, 3), np.uint8), lambda image: image])
def test_only_maps_compose(smooth_map: ColorMap, other: object) -> None:
    with pytest.raises(InputError, match="wanted a ColorMap"):
        smooth_map.then(other)


# ---- copies, pickles, torch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_the_same_map(random_map: ColorMap, protocol: int) -> None:
    restored = pickle.loads(pickle.dumps(random_map, protocol))
    assert restored == random_map
    np.testing.assert_array_equal(restored(BASE), random_map(BASE))
    assert restored.then(ColorMap.identity()) == random_map


def test_a_lazy_map_of_a_function_that_cannot_be_pickled_is_compiled(smooth_map: ColorMap) -> None:
    lazy = ColorMap.from_function(lambda colors: smooth(colors), lazy=True)
    lazy(BASE)
    restored = pickle.loads(pickle.dumps(lazy))
    assert "100%" in repr(lazy)
    assert restored == smooth_map


def test_a_pickle_without_copies_serves_as_well(smooth_map: ColorMap) -> None:
    # Out-of-band buffers (as Dask sends them) arrive read-only.
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(smooth_map, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 1000
    restored = pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])
    np.testing.assert_array_equal(restored(BASE), smooth_map(BASE))


def test_another_process_maps_alike(smooth_map: ColorMap) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(smooth_map, BASE).result(), smooth_map(BASE))


def test_a_map_that_cannot_be_compiled_cannot_be_pickled() -> None:
    lazy = ColorMap.from_function(not_a_number_where_red_is_7, lazy=True)
    with pytest.raises(InputError, match="NaN"):
        pickle.dumps(lazy)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies(smooth_map: ColorMap, copied) -> None:
    lazy = ColorMap.from_function(smooth, lazy=True)
    again = copied({"map": lazy})["map"]
    np.testing.assert_array_equal(again(BASE), smooth_map(BASE))
    assert "100%" not in repr(lazy), "a copy need not compile"
    assert again == smooth_map


def test_without_torch_the_extra_is_named(smooth_map: ColorMap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # how a module that is not installed looks
    with pytest.raises(ImportError, match=r"pip install 'restain\[train\]'"):
        smooth_map.to_torch()


# ---- memory layouts ---------------------------------------------------------------------------------------------

BASE = random_image(2, 40, 60)
LAYOUTS = {
    "contiguous": BASE,
    "cut out": BASE[3:30, 5:41],
    "strided": BASE[::2, ::3],
    "upside down": BASE[::-1],
    "mirrored": BASE[:, ::-1],
    "bgr": BASE[..., ::-1],
    "fortran": np.asfortranarray(BASE),
    "transposed": BASE.transpose(1, 0, 2),
    "planar": np.moveaxis(np.ascontiguousarray(np.moveaxis(BASE, -1, 0)), 0, -1),
    "of rgba": np.dstack([BASE, BASE[..., :1]])[..., :3],
    "broadcast": np.broadcast_to(BASE[:1], (40, 60, 3)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(random_map: ColorMap, table: np.ndarray, layout: str) -> None:
    image = LAYOUTS[layout].view()
    image.setflags(write=False)
    before = image.copy()
    np.testing.assert_array_equal(random_map(image), look_up(table, image))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "broadcast"])
def test_any_memory_layout_of_the_output(random_map: ColorMap, table: np.ndarray, layout: str) -> None:
    out = np.zeros_like(BASE, subok=False) if layout == "contiguous" else _like(LAYOUTS[layout])
    image = random_image(3, *out.shape[:2])
    assert random_map(image, out=out) is out
    np.testing.assert_array_equal(out, look_up(table, image))


def _like(view: np.ndarray) -> np.ndarray:
    """A writable zero array with the strides of `view`, inside memory of its own."""
    room = np.zeros(4 * BASE.size, np.uint8)
    return np.lib.stride_tricks.as_strided(room[2 * BASE.size :], view.shape, view.strides)


def test_only_the_output_is_written(random_map: ColorMap, table: np.ndarray) -> None:
    canvas = np.full((50, 70, 3), 7, np.uint8)
    random_map(BASE, out=canvas[4:44, 6:66])
    np.testing.assert_array_equal(canvas[4:44, 6:66], look_up(table, BASE))
    canvas[4:44, 6:66] = 7
    assert (canvas == 7).all()


def test_in_place(random_map: ColorMap, table: np.ndarray) -> None:
    image = BASE.copy()
    assert random_map(image, out=image) is image
    np.testing.assert_array_equal(image, look_up(table, BASE))


def test_in_place_on_a_part(random_map: ColorMap, table: np.ndarray) -> None:
    image = BASE.copy()
    part = image[5:20, 10:50]
    random_map(part, out=part)
    expected = BASE.copy()
    expected[5:20, 10:50] = look_up(table, BASE[5:20, 10:50])
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.s_[:-1], np.s_[1:]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:], np.s_[::-1]),
        (np.s_[:], np.s_[:, ::-1]),
        (np.s_[:], np.s_[..., ::-1]),
    ],
    ids=["down", "up", "right", "upside down", "mirrored", "channels"],
)
def test_overlapping_memory_gives_the_right_pixels_or_an_error(
    random_map: ColorMap, table: np.ndarray, source, target
) -> None:
    memory = BASE.copy()
    try:
        random_map(memory[source], out=memory[target])
    except InputError:
        return
    np.testing.assert_array_equal(memory[target], look_up(table, BASE[source]))


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((40, 61, 3), np.uint8),
        np.zeros((40, 60), np.uint8),
        np.zeros((40, 60, 3), np.float32),
        np.broadcast_to(np.uint8(0), (40, 60, 3)),
    ],
    ids=["wider", "gray", "float", "read-only"],
)
def test_outputs_that_do_not_fit_are_refused(random_map: ColorMap, out: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"wanted writable uint8 \(40, 60, 3\)"):
        random_map(BASE, out=out)


def test_other_forms_of_images(random_map: ColorMap, table: np.ndarray) -> None:
    expected = look_up(table, BASE)
    np.testing.assert_array_equal(random_map(BASE / 255.0), expected)
    np.testing.assert_array_equal(random_map(BASE.astype(np.uint16) * 257), expected)
    gray = BASE[..., 0]
    np.testing.assert_array_equal(random_map(gray), look_up(table, np.dstack([gray] * 3)))
    with pytest.raises(InputError):
        random_map(BASE.astype(np.int64))


# ---- functions --------------------------------------------------------------------------------------------------


def test_a_function_is_rounded_once_and_clipped(smooth_map: ColorMap) -> None:
    image = random_image(4, 200, 200)
    np.testing.assert_array_equal(smooth_map(image), rounded(smooth(image.reshape(-1, 3))).reshape(image.shape))


def test_rounding_is_to_the_nearest_level() -> None:
    halves = ColorMap.from_function(lambda colors: colors + np.array([0.49, 0.51, -0.51]), lazy=True)
    assert halves(np.array([[[10, 10, 10]]], np.uint8)).tolist() == [[[10, 11, 9]]]


@pytest.mark.parametrize("value", [np.inf, 1e300, 255.5])
def test_results_outside_are_clipped(value: float) -> None:
    bright = ColorMap.from_function(lambda colors: np.full((len(colors), 3), [value, -value, 3.0]), lazy=True)
    assert bright(np.zeros((1, 1, 3), np.uint8)).tolist() == [[[255, 0, 3]]]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(smooth_map: ColorMap, workers: int) -> None:
    assert ColorMap.from_function(smooth, workers=workers) == smooth_map
    image = random_image(2, 400, 400)
    expected = smooth_map(image)
    np.testing.assert_array_equal(ColorMap.from_function(smooth, lazy=True, workers=workers)(image), expected)
    np.testing.assert_array_equal(ColorMap.apply_once(smooth, image, workers=workers), expected)


@settings(max_examples=30)
@given(pictures=st.lists(images, min_size=1, max_size=4))
def test_lazy_equals_eager(smooth_map: ColorMap, pictures: list[np.ndarray]) -> None:
    lazy = ColorMap.from_function(smooth, lazy=True)
    for picture in pictures:
        np.testing.assert_array_equal(lazy(picture), smooth_map(picture))


def test_lazy_equals_eager_for_more_colours_than_a_chunk(smooth_map: ColorMap) -> None:
    image = random_image(5, 700, 700)
    lazy = ColorMap.from_function(smooth, lazy=True)
    np.testing.assert_array_equal(lazy(image), smooth_map(image))
    assert lazy == smooth_map


def test_lazy_evaluates_a_colour_once() -> None:
    seen: list[np.ndarray] = []

    def spy(colors: np.ndarray) -> np.ndarray:
        seen.append(colors.copy())
        return smooth(colors)

    lazy = ColorMap.from_function(spy, lazy=True)
    assert not seen
    for picture in (random_image(6), random_image(6)[::-1], random_image(7)):
        lazy(picture)
        lazy(picture.copy(), out=picture)
    evaluated = np.concatenate(seen)
    assert len(np.unique(evaluated, axis=0)) == len(evaluated)


def test_lazy_in_place(smooth_map: ColorMap) -> None:
    image = BASE.copy()
    ColorMap.from_function(smooth, lazy=True)(image, out=image)
    np.testing.assert_array_equal(image, smooth_map(BASE))


@pytest.mark.parametrize("in_place", [False, True])
def test_lazy_from_many_threads(smooth_map: ColorMap, in_place: bool) -> None:
    # Neighbouring tiles share most of their colours, so that the threads ask for the same ones at once.
    whole = np.random.default_rng(8).integers(90, 130, (512, 512, 3), dtype=np.uint8)
    expected = smooth_map(whole)
    for _ in range(3):
        lazy = ColorMap.from_function(smooth, lazy=True)
        image, out = whole.copy(), np.zeros_like(whole)
        tiles = [np.s_[top : top + 64, left : left + 64] for top in range(0, 512, 64) for left in range(0, 512, 64)]
        gate = threading.Barrier(8)

        def work(share: list, image=image, out=out, lazy=lazy, gate=gate) -> None:
            gate.wait()
            for tile in share:
                lazy(image[tile], out=image[tile] if in_place else out[tile])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, [tiles[start::8] for start in range(8)]))
        np.testing.assert_array_equal(image if in_place else out, expected)


def test_compile_while_others_map(smooth_map: ColorMap) -> None:
    lazy = ColorMap.from_function(smooth, lazy=True)
    pictures = [random_image(seed, 128, 128) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        compiled = pool.submit(lazy.compile)
        results = list(pool.map(lazy, pictures))
        assert compiled.result() is lazy
    for picture, result in zip(pictures, results, strict=True):
        np.testing.assert_array_equal(result, smooth_map(picture))


# ---- functions that fail ----------------------------------------------------------------------------------------


def not_a_number_where_red_is_7(colors: np.ndarray) -> np.ndarray:
    values = smooth(colors)
    values[colors[:, 0] == 7] = np.nan
    return values


def test_nan_is_an_error_and_the_map_stays_usable(smooth_map: ColorMap) -> None:
    lazy = ColorMap.from_function(not_a_number_where_red_is_7, lazy=True)
    bad = random_image(9)
    bad[10, 10, 0] = 7
    good = bad.copy()
    good[good[..., 0] == 7] = 8
    for _ in range(2):
        with pytest.raises(InputError, match="NaN"):
            lazy(bad)
        np.testing.assert_array_equal(lazy(good), smooth_map(good))


def test_nan_in_one_of_many_chunks(smooth_map: ColorMap) -> None:
    lazy = ColorMap.from_function(not_a_number_where_red_is_7, lazy=True)
    bad = random_image(10, 700, 700)
    good = np.where(bad[..., :1] == 7, np.uint8(8), bad)
    with pytest.raises(InputError, match="NaN"):
        lazy(bad)
    np.testing.assert_array_equal(lazy(good), smooth_map(good))


def test_a_failure_in_place_leaves_the_image_as_it_was() -> None:
    lazy = ColorMap.from_function(not_a_number_where_red_is_7, lazy=True)
    image = random_image(11)
    image[3, 3, 0] = 7
    before = image.copy()
    with pytest.raises(InputError, match="NaN"):
        lazy(image, out=image)
    np.testing.assert_array_equal(image, before)


def test_a_map_that_cannot_be_compiled_stays_usable(smooth_map: ColorMap) -> None:
    with pytest.raises(InputError, match="NaN"):
        ColorMap.from_function(not_a_number_where_red_is_7)
    lazy = ColorMap.from_function(not_a_number_where_red_is_7, lazy=True)
    with pytest.raises(InputError, match="NaN"):
        lazy.compile()
    good = random_image(12)
    good[good[..., 0] == 7] = 8
    np.testing.assert_array_equal(lazy(good), smooth_map(good))


def test_results_of_the_wrong_shape_are_an_error() -> None:
    with pytest.raises(InputError, match="wrong shape"):
        ColorMap.from_function(lambda colors: smooth(colors)[:, :2], lazy=True)(BASE)


def test_an_error_of_the_function_comes_through_and_the_map_stays_usable(smooth_map: ColorMap) -> None:
    broken = True

    def sometimes(colors: np.ndarray) -> np.ndarray:
        if broken:
            raise ZeroDivisionError("on purpose")
        return smooth(colors)

    lazy = ColorMap.from_function(sometimes, lazy=True)
    with pytest.raises(ZeroDivisionError):
        lazy(BASE)
    broken = False
    np.testing.assert_array_equal(lazy(BASE), smooth_map(BASE))


def test_a_map_that_was_interrupted_stays_usable(smooth_map: ColorMap, monkeypatch: pytest.MonkeyPatch) -> None:
    list_missing = kernels.list_missing

    def interrupted(*arguments: np.ndarray) -> None:
        list_missing(*arguments)
        raise KeyboardInterrupt  # Ctrl-C, when colours are listed and not evaluated

    lazy = ColorMap.from_function(smooth, lazy=True)
    with monkeypatch.context() as context:
        context.setattr(kernels, "list_missing", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lazy(BASE)
    np.testing.assert_array_equal(lazy(BASE), smooth_map(BASE))


def test_an_error_in_one_thread_does_not_reach_the_others(smooth_map: ColorMap) -> None:
    lazy = ColorMap.from_function(not_a_number_where_red_is_7, lazy=True)
    # The good pictures hold most colours of the bad ones, which are being evaluated while the bad ones fail.
    bad = [random_image(13, 96, 96) % 64 for _ in range(8)]
    good = [np.where(picture[..., :1] == 7, np.uint8(8), picture) for picture in bad]

    def attempt(picture: np.ndarray) -> np.ndarray | None:
        try:
            return lazy(picture)
        except InputError:
            return None

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, [picture for pair in zip(bad, good, strict=True) for picture in pair]))
    assert all(result is None for result in results[::2])
    for picture, result in zip(good, results[1::2], strict=True):
        np.testing.assert_array_equal(result, smooth_map(picture))


# ---- once -------------------------------------------------------------------------------------------------------


def bend(colors: np.ndarray) -> np.ndarray:
    return 255.0 * (colors / 255.0) ** np.array([0.8, 1.1, 1.3])


def test_a_map_applied_once_gives_the_same_bytes() -> None:
    color_map = ColorMap.from_function(bend, lazy=True)
    for seed, shape in enumerate([(1, 1), (3, 50_000), (300, 300)]):
        image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        np.testing.assert_array_equal(ColorMap.apply_once(bend, image), color_map(image))


@pytest.mark.parametrize("fault", ["exception", "NaN"])
def test_a_failure_leaves_nothing_behind(fault: str) -> None:
    def fail(colors: np.ndarray) -> np.ndarray:
        if fault == "NaN":
            return np.full(colors.shape, np.nan)
        raise ArithmeticError("no")

    image = np.random.default_rng(5).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    for _ in range(3):
        with pytest.raises((ArithmeticError, InputError)):
            ColorMap.apply_once(fail, image)
        np.testing.assert_array_equal(ColorMap.apply_once(lambda colors: colors * 1.0, image), image)


def test_many_threads_once() -> None:
    images = [np.random.default_rng(n).integers(0, 256, (64, 64 + n, 3), dtype=np.uint8) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda image: ColorMap.apply_once(bend, image), images))
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result, ColorMap.from_function(bend, lazy=True)(image))
    assert len(colormap._SCRATCH) <= colormap._MOST_SCRATCH
    assert not any(table.any() for table in colormap._SCRATCH)


WAYS = {
    "lazily": lambda function, image, workers: ColorMap.from_function(function, lazy=True, workers=workers)(image),
    "compiled": lambda function, image, workers: ColorMap.from_function(function, lazy=True, workers=workers).compile()(
        image
    ),
    "in place": lambda function, image, workers: ColorMap.from_function(function, lazy=True, workers=workers)(
        image, out=image
    ),
    "once": lambda function, image, workers: ColorMap.apply_once(function, image, workers=workers),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_workers_asked_for_evaluate(way: str) -> None:
    seen = set()

    def note(colors: np.ndarray) -> np.ndarray:
        seen.add(threading.get_ident())
        return colors * 1.0

    image = random_image(0, 400, 400)
    WAYS[way](note, image, 1)
    assert seen == {threading.get_ident()}
    seen.clear()
    WAYS[way](note, image, 3)
    assert len(seen) <= 3


@pytest.mark.parametrize("way", WAYS)
def test_by_default_one_thread_a_core_that_may_be_used(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colormap, "usable_cores", lambda: 1)
    seen = set()

    def note(colors: np.ndarray) -> np.ndarray:
        seen.add(threading.get_ident())
        return colors * 1.0

    WAYS[way](note, random_image(0, 400, 400), None)
    assert seen == {threading.get_ident()}


# ---- 1×1 convolutions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 255, 256, 257, 1000])
def test_an_affine_layer(columns: int) -> None:
    generator = np.random.default_rng(columns)
    channels, weight = generator.normal(size=(3, columns)), generator.normal(size=(7, 3))
    bias = generator.normal(size=7)
    for rectify in (True, False):
        result = kernels.affine(channels, weight, bias, rectify)
        expected = np.repeat(bias[:, None], columns, axis=1)
        for column in range(columns):
            for output in range(7):
                for each in range(3):
                    expected[output, column] += weight[output, each] * channels[each, column]
        np.testing.assert_allclose(result, np.maximum(expected, 0) if rectify else expected, rtol=0, atol=1e-14)
        assert (result.min() < 0) != rectify or columns == 1
        for part in (np.s_[:1], np.s_[columns // 2 :], np.s_[::-1], np.s_[columns // 3 : columns // 3 + 100]):
            chosen = np.ascontiguousarray(channels[:, part])
            np.testing.assert_array_equal(kernels.affine(chosen, weight, bias, rectify), result[:, part])
