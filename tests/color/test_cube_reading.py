"""Reading .cube files: of our own, of other programs, and damaged ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from restain.color import cube
from restain.color.colormap import ColorMap
from restain.color.cube import load_cube
from restain.errors import FormatError

with_fixtures = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, levels: np.ndarray, header: str = "", *, end: str = "\n", number: str = "{:.8f}") -> Path:
    """A lattice (n, n, n, 3) by red, green and blue, in 0..255, as a file: red varies fastest."""
    rows = [" ".join(number.format(v / 255) for v in row) for row in levels.transpose(2, 1, 0, 3).reshape(-1, 3)]
    lines = [*header.splitlines(), f"LUT_3D_SIZE {len(levels)}", *rows]
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


@pytest.fixture
def levels() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (4, 4, 4, 3))


@pytest.mark.parametrize("size", [2, 18, 33])
def test_what_was_written_is_read(size: int, tmp_path: Path) -> None:
    color_map = ColorMap.from_function(lambda c: c[:, [1, 2, 0]] * [0.5, 1.0, 0.7] + 0.1 * c[:, [2, 0, 1]])
    color_map.save_cube(tmp_path / "a.cube", size, title="a # title")
    axis = np.linspace(0, 255, size)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    whole = np.arange(256)
    expected = RegularGridInterpolator((whole, whole, whole), color_map.table)(grid)
    np.testing.assert_allclose(load_cube(tmp_path / "a.cube"), expected, rtol=0, atol=2e-4)  # six decimals


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", " \n", "\n# a comment\n"])
@pytest.mark.parametrize("number", ["{:.8f}", "{:+.9e}", "{:.17g}"])
def test_other_hands(end: str, number: str, levels: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.cube", levels, 'TITLE "Färbung"\n#LUT_3D_SIZE 9', end=end, number=number)
    np.testing.assert_allclose(load_cube(path), levels, rtol=0, atol=1e-5)


def test_tabs_a_byte_order_mark_and_no_last_newline(levels: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.cube", levels)
    text = path.read_text().replace(" ", "\t \t").rstrip("\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    np.testing.assert_allclose(load_cube(path), levels, rtol=0, atol=1e-5)


def test_values_beyond_white_and_black_are_kept(levels: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_allclose(load_cube(write(tmp_path / "a.cube", 3 * levels - 200)), 3 * levels - 200, atol=1e-5)


DOMAINS = {
    "usual": ("DOMAIN_MIN 0 0 0\nDOMAIN_MAX 1.0 1 1", [0, 0, 0], [1, 1, 1]),
    "wider": ("DOMAIN_MIN -0.5 -1 0\nDOMAIN_MAX 1.5 2 1", [-0.5, -1, 0], [1.5, 2, 1]),
    "narrower": ("DOMAIN_MIN 0.1 0.2 0\nDOMAIN_MAX 0.9 1 0.5", [0.1, 0.2, 0], [0.9, 1, 0.5]),
    "the end alone": ("DOMAIN_MAX 2 2 2", [0, 0, 0], [2, 2, 2]),
    "resolve's": ("LUT_3D_INPUT_RANGE 0.0 1.0", [0, 0, 0], [1, 1, 1]),
    "resolve's, wider": ("LUT_3D_INPUT_RANGE -1 3", [-1, -1, -1], [3, 3, 3]),
}


@pytest.mark.parametrize("what", DOMAINS)
def test_the_domain(what: str, levels: np.ndarray, tmp_path: Path) -> None:
    header, low, high = DOMAINS[what]
    found = load_cube(write(tmp_path / "a.cube", levels, header))
    axes = [np.linspace(a, b, 4) for a, b in zip(low, high, strict=True)]
    share = np.linspace(0, 1, 4)
    grid = np.clip(np.stack(np.meshgrid(share, share, share, indexing="ij"), -1), low, high)
    np.testing.assert_allclose(found, RegularGridInterpolator(axes, levels)(grid), rtol=0, atol=1e-5)


GOOD = "LUT_3D_SIZE 2\n" + "0.1 0.2 0.3\n" * 8
DAMAGED = {
    "empty": ("", "wanted LUT_3D_SIZE"),
    "a 1D table": ("LUT_1D_SIZE 2\n0 0 0\n1 1 1\n", "no 1D table"),
    "a 1D table before a 3D one": ("LUT_1D_SIZE 2\n" + GOOD, "no 1D table"),
    "no size": (GOOD.replace("LUT_3D_SIZE 2\n", ""), "wanted LUT_3D_SIZE"),
    "no number for a size": (GOOD.replace("SIZE 2", "SIZE"), r"LUT_3D_SIZE is ; wanted 2\.\.129"),
    "a size of 1": (GOOD.replace("SIZE 2", "SIZE 1"), "LUT_3D_SIZE is 1;"),
    "a negative size": (GOOD.replace("SIZE 2", "SIZE -2"), "LUT_3D_SIZE is -2;"),
    "an enormous size": (GOOD.replace("SIZE 2", "SIZE 999999999999"), "LUT_3D_SIZE is 999999999999;"),
    "two sizes": ("LUT_3D_SIZE 2\n" + GOOD, "two lines LUT_3D_SIZE"),
    "a line too few": (GOOD[:-12], "7 lines of numbers; wanted 2³ = 8"),
    "a line too many": (GOOD + "0 0 0\n", "9 lines"),
    "two numbers": (GOOD.replace("0.1 0.2 0.3", "0.1 0.2", 1), "2 words; wanted 3 numbers"),
    "four numbers": (GOOD.replace("0.3", "0.3 0.4", 1), "4 words; wanted 3 numbers"),
    "a word": (GOOD.replace("0.3", "red", 1), "something else"),
    "NaN": (GOOD.replace("0.3", "nan", 1), "not finite"),
    "infinite": (GOOD.replace("0.3", "inf", 1), "not finite"),
    "huge": (GOOD.replace("0.3", "1e30", 1), "beyond"),
    "a keyword among numbers": (GOOD + "DOMAIN_MAX 2 2 2\n", "9 lines"),
    "a range of video": ("LUT_IN_VIDEO_RANGE\n" + GOOD, "LUT_IN_VIDEO_RANGE is not known"),
    "an empty domain": ("DOMAIN_MIN 1 0 0\n" + GOOD, "domain ends at"),
    "a domain of two": ("DOMAIN_MIN 1 0\n" + GOOD, "2 words; wanted 3"),
    "a domain of none": ("DOMAIN_MIN\n" + GOOD, "0 words; wanted 3"),
    "another format": ("P6 2 2 255\n", "wanted LUT_3D_SIZE"),
    "names that move the cursor": ("A\x1b[2J\x1b[1A\n" + GOOD, r"A\?\[2J\?\[1A is not known"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_files(what: str, tmp_path: Path) -> None:
    text, message = DAMAGED[what]
    (tmp_path / "d.cube").write_text(text)
    with pytest.raises(FormatError, match=rf"d\.cube is damaged or no \.cube file: .*{message}") as caught:
        load_cube(tmp_path / "d.cube")
    assert str(caught.value).isprintable()


@with_fixtures
@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_byte_is_hit(places: list[tuple[int, int]], levels: np.ndarray, tmp_path: Path) -> None:
    """Numbers come out, or an error that names the file; never another exception."""
    path = write(tmp_path / "d.cube", levels, "DOMAIN_MIN 0 0 0")
    data = bytearray(path.read_bytes())
    for place, byte in places:
        data[place % len(data)] = byte
    path.write_bytes(data)
    told = ""
    try:
        assert np.isfinite(load_cube(path)).all()
    except FormatError as error:
        told = str(error)
    assert not told or ("d.cube" in told and told.isprintable())


def test_no_file_and_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "none.cube", tmp_path):
        with pytest.raises(FormatError, match="is not a file"):
            load_cube(path)
    (tmp_path / "a.cube").write_text(GOOD)
    monkeypatch.setattr(cube, "MOST_BYTES", 50)
    with pytest.raises(FormatError, match="at most"):
        load_cube(tmp_path / "a.cube")
