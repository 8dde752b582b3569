"""`.cube` files, read by a parser of our own and applied by Pillow and SciPy: how near they come to the exact map."""

from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import maximum_filter, minimum_filter

import restain
from restain.color.colormap import ColorMap
from restain.color.cube import sample_grid, save_cube
from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.errors import InputError, OutputError, RestainError
from restain.phantom import Phantom

EVERY_COLOR = np.moveaxis(np.indices((256, 256, 256), np.uint8).reshape(3, 4096, 4096), 0, -1)


class Cube(NamedTuple):
    header: dict[str, str]
    values: np.ndarray
    """(size³, 3), in the order of the file."""


def parse(path: Path) -> Cube:
    """What the Cube LUT Specification says a reader finds: keywords, then lines of three numbers."""
    header, values = {}, []
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n")
    assert "\r" not in text
    for line in text.splitlines():
        assert len(line) <= 250
        word, _, rest = line.partition(" ")
        if word[0].isalpha():
            assert word not in header
            assert not values, "keywords stand before the numbers"
            header[word] = rest
        else:
            values.append([float(number) for number in line.split(" ")])
    return Cube(header, np.array(values))


def apply_with_pillow(cube: Cube, image: np.ndarray) -> np.ndarray:
    table = ImageFilter.Color3DLUT(int(cube.header["LUT_3D_SIZE"]), cube.values.astype(np.float32).ravel())
    return np.asarray(Image.fromarray(image).filter(table))


def apply_with_scipy(cube: Cube, colors: np.ndarray) -> np.ndarray:
    """Colours (n, 3) to levels (n, 3), not rounded."""
    size = int(cube.header["LUT_3D_SIZE"])
    axis = np.linspace(0, 255, size)
    by_blue_green_red = cube.values.reshape(size, size, size, 3) * 255
    return RegularGridInterpolator((axis, axis, axis), by_blue_green_red)(colors[:, ::-1])


def differences(color_map: ColorMap, path: Path) -> np.ndarray:
    """(2^24, 3) grey levels between the file, applied by Pillow, and the exact map."""
    mapped = apply_with_pillow(parse(path), EVERY_COLOR).reshape(-1, 3)
    return np.abs(mapped.astype(np.int16) - color_map.table.reshape(-1, 3))


@pytest.fixture(scope="module")
def random_map() -> ColorMap:
    return ColorMap(np.random.default_rng(0).integers(0, 256, (256, 256, 256, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def tissue_codes(phantom: Phantom) -> np.ndarray:
    histogram = ColorHistogram.from_image(phantom.image)
    colors = histogram.tissue(find_white_point(histogram).level, 0.8).colors.astype(np.int64)
    assert len(colors) > 10_000
    return colors @ [65536, 256, 1]


# ---- the format -------------------------------------------------------------------------------------------------


def test_the_header_and_the_order(tmp_path: Path) -> None:
    path = tmp_path / "swap.cube"
    ColorMap.from_function(lambda colors: colors[:, [2, 0, 1]].astype(float)).save_cube(path, 3, title="R -> G -> B")
    header, values = parse(path)
    assert header == {
        "TITLE": '"R -> G -> B"',
        "LUT_3D_SIZE": "3",
        "DOMAIN_MIN": "0.0 0.0 0.0",
        "DOMAIN_MAX": "1.0 1.0 1.0",
    }
    # Blue varies slowest, red fastest; 127.5 lies between two levels.
    expected = [(blue, red, green) for blue, green, red in product([0, 0.5, 1], repeat=3)]
    np.testing.assert_array_equal(values, expected)


def test_the_usual_size_is_33_and_the_title_names_restain(tmp_path: Path) -> None:
    ColorMap.identity().save_cube(tmp_path / "identity.cube")
    header, values = parse(tmp_path / "identity.cube")
    assert header["LUT_3D_SIZE"] == "33"
    assert header["TITLE"] == '"restain"'
    assert len(values) == 33**3


@pytest.mark.parametrize("size", [2, 129])
def test_the_smallest_and_the_largest(tmp_path: Path, size: int) -> None:
    ColorMap.identity().save_cube(tmp_path / "a.cube", size)
    header, values = parse(tmp_path / "a.cube")
    assert header["LUT_3D_SIZE"] == str(size)
    axis = np.linspace(0, 1, size)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    np.testing.assert_allclose(values, np.stack([red, green, blue], -1).reshape(-1, 3), rtol=0, atol=6e-7)


def test_numbers_have_six_decimals(tmp_path: Path) -> None:
    ColorMap.identity().save_cube(tmp_path / "a.cube", 4)
    assert "0.333333 0.666667 0.000000" in (tmp_path / "a.cube").read_text().splitlines()


def test_a_numpy_integer_is_a_size_and_a_capital_suffix_a_suffix(tmp_path: Path) -> None:
    ColorMap.identity().save_cube(str(tmp_path / "A.CUBE"), np.int64(5))
    assert parse(tmp_path / "A.CUBE").header["LUT_3D_SIZE"] == "5"


# ---- the values -------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(size=st.integers(2, 65))
def test_grid_points_are_interpolated_as_scipy_does(random_map: ColorMap, size: int) -> None:
    table = random_map.table
    levels = np.arange(256)
    axis = np.linspace(0, 255, size)
    corner = axis[:: max(1, size // 5)]  # some hundred of the points
    points = np.stack(np.meshgrid(corner, corner, corner, indexing="ij"), -1).reshape(-1, 3)
    expected = RegularGridInterpolator((levels, levels, levels), table)(np.clip(points, 0, 255))
    found = sample_grid(table, size)[:: max(1, size // 5), :: max(1, size // 5), :: max(1, size // 5)]
    np.testing.assert_allclose(found.transpose(2, 1, 0, 3).reshape(-1, 3), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [2, 4, 18, 52, 86])
def test_grid_points_on_whole_levels_have_the_tables_values_exactly(random_map: ColorMap, size: int) -> None:
    table = random_map.table
    step = 255 // (size - 1)
    np.testing.assert_array_equal(sample_grid(table, size), table[::step, ::step, ::step].transpose(2, 1, 0, 3))


@pytest.mark.parametrize("size", [2, 17, 33, 65])
def test_the_identity_stays_the_identity(tmp_path: Path, size: int) -> None:
    identity = ColorMap.identity()
    identity.save_cube(tmp_path / "identity.cube", size)
    assert differences(identity, tmp_path / "identity.cube").max() <= 1
    colors = np.random.default_rng(1).integers(0, 256, (20_000, 3), dtype=np.uint8)
    # Six decimals are 0.00013 of a level.
    np.testing.assert_allclose(apply_with_scipy(parse(tmp_path / "identity.cube"), colors), colors, rtol=0, atol=2e-4)


def test_no_colour_leaves_the_range_of_the_map_around_it(tmp_path: Path) -> None:
    # What holds for every map: between grid points a result is a mean of the eight around it, less than a step of
    # 7.97 levels away, and each of these is a mean of the table's values at the whole levels on either side.
    waves = ColorMap.from_function(lambda colors: 100 * np.sin(colors / 40.0) + 127)
    waves.save_cube(tmp_path / "waves.cube", 33)
    window = (17, 17, 17, 1)
    low, high = (extreme(waves.table, window).astype(int) for extreme in (minimum_filter, maximum_filter))
    mapped = apply_with_pillow(parse(tmp_path / "waves.cube"), EVERY_COLOR).reshape(256, 256, 256, 3)
    assert (mapped >= low - 1).all()  # a level for Pillow's rounding
    assert (mapped <= high + 1).all()


# Mean and largest difference in levels over tissue colours and over all colours: the table in save_cube's docstring.
MEASURED = {
    ("reinhard", 33): (0.08, 1, 0.14, 9),
    ("reinhard", 65): (0.06, 1, 0.07, 5),
    ("macenko", 33): (0.22, 6, 0.45, 37),
    ("macenko", 65): (0.11, 3, 0.17, 23),
    ("histogram", 33): (1.58, 6, 0.96, 7),
    ("histogram", 65): (1.07, 4, 0.58, 5),
}


@pytest.fixture(scope="module")
def normalizer_maps(phantom: Phantom) -> dict[str, ColorMap]:
    maps = {}
    for name in {name for name, _ in MEASURED}:
        normalizer = restain.METHODS[name]().fit("he")
        maps[name] = normalizer.color_map(normalizer.estimate(phantom.image))
    return maps


@pytest.mark.parametrize(("name", "size"), MEASURED)
def test_the_documented_differences_from_exact_maps(
    tmp_path: Path, normalizer_maps: dict[str, ColorMap], tissue_codes: np.ndarray, name: str, size: int
) -> None:
    color_map = normalizer_maps[name]
    path = tmp_path / "he.cube"
    color_map.save_cube(path, size)
    everywhere = differences(color_map, path)
    tissue = everywhere[tissue_codes]
    # The figures are those of the docstring; a tenth and a level are for other versions of Pillow and libm.
    means = np.array([tissue.mean(), everywhere.mean()])
    np.testing.assert_allclose(means, np.take(MEASURED[name, size], [0, 2]), rtol=0.1, atol=0.006)
    assert abs(tissue.max() - MEASURED[name, size][1]) <= 1
    assert abs(everywhere.max() - MEASURED[name, size][3]) <= 1


def test_scipy_and_pillow_agree_on_a_file(
    tmp_path: Path, normalizer_maps: dict[str, ColorMap], phantom: Phantom
) -> None:
    normalizer_maps["macenko"].save_cube(tmp_path / "he.cube")
    cube = parse(tmp_path / "he.cube")
    by_pillow = apply_with_pillow(cube, phantom.image).reshape(-1, 3)
    by_scipy = apply_with_scipy(cube, phantom.image.reshape(-1, 3))
    assert np.abs(by_pillow - by_scipy).max() < 0.6  # Pillow rounds, in fixed point


def test_the_docstring_has_these_figures() -> None:
    rows = [line.split() for line in (save_cube.__doc__ or "").splitlines()]
    figures = [row for row in rows if len(row) == 6 and row[0] in restain.METHODS]
    assert {(row[0], int(row[1])): tuple(map(float, row[2:])) for row in figures} == MEASURED


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 0, -33, 130, 33.0, "33", None, True], ids=str)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, size: object) -> None:
    with pytest.raises(InputError, match=r"whole number in 2\.\.129"):
        ColorMap.identity().save_cube(tmp_path / "a.cube", size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("title", ['a "b"', "two\nlines", "Färbung", "x" * 201, None])
def test_titles_that_the_format_cannot_hold_are_refused(tmp_path: Path, title: object) -> None:
    with pytest.raises(InputError, match="title"):
        ColorMap.identity().save_cube(tmp_path / "a.cube", title=title)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.png", "a", "cube", "a.cube.txt"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"does not end in \.cube"):
        ColorMap.identity().save_cube(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_files_are_replaced_unless_forbidden(tmp_path: Path) -> None:
    path = tmp_path / "a.cube"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        ColorMap.identity().save_cube(path, overwrite=False)
    assert path.read_text() == "precious"
    ColorMap.identity().save_cube(path, 2)
    assert parse(path).header["LUT_3D_SIZE"] == "2"


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        ColorMap.identity().save_cube(tmp_path / "missing" / "a.cube")


def test_a_map_that_cannot_be_compiled_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.cube"
    path.write_text("precious")
    broken = ColorMap.from_function(lambda colors: np.full((len(colors), 3), np.nan), lazy=True)
    with pytest.raises(RestainError, match="NaN"):
        broken.save_cube(path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
