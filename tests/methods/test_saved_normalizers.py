"""Saved normalizers: whatever is wrong with a file is a `FormatError` when it is loaded, not a surprise later."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from restain import METHODS, ColorHistogram, load
from restain.errors import FormatError, OutputError, RestainError
from restain.phantom import Phantom

from ..saved_files import (
    assert_no_part_is_taken_for_the_whole,
    facts_of,
    flipped,
    load_or_format_error,
    load_with_flips_in_the_header,
    rewrite,
)
from .making import make

pytestmark = pytest.mark.parametrize("name", METHODS)
bounded = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def contents(reference: Phantom, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a file of each method."""
    path, found = tmp_path_factory.mktemp("saved") / "saved.safetensors", {}
    for name in METHODS:
        make(name).fit(reference.image).save(path)
        found[name] = path.read_bytes()
    return found


@pytest.fixture
def saved(name: str, contents: dict[str, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "saved.safetensors"
    path.write_bytes(contents[name])
    return path


def test_rewriting_alone_does_no_harm(name: str, saved: Path, reference: Phantom) -> None:
    rewrite(saved, facts_of(saved))
    assert load(saved) == make(name).fit(reference.image)


def test_truncated_files(name: str, saved: Path) -> None:
    assert_no_part_is_taken_for_the_whole(saved, 60)


def test_flipped_bytes_of_the_header(name: str, saved: Path) -> None:
    load_with_flips_in_the_header(saved, 3)


@bounded
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_a_format_error_or_does_not_crash(
    name: str, contents: dict[str, bytes], saved: Path, reference: Phantom, place: float, flip: int
) -> None:
    saved.write_bytes(flipped(contents[name], place, flip))
    normalizer = load_or_format_error(saved)
    if normalizer is not None:  # a number was hit: a picture comes out, or an error that says so
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = normalizer.transform(reference.image[:32, :32])
            except RestainError:
                return
        assert result.shape == (32, 32, 3)


@pytest.mark.parametrize("key", ["method", "settings", "reference", "provenance", "kind"])
def test_a_missing_fact(name: str, key: str, saved: Path) -> None:
    facts = facts_of(saved)
    del facts[key]
    rewrite(saved, facts)
    assert load_or_format_error(saved) is None


@pytest.mark.parametrize("value", [None, 3, "text", [1], [[]], {"a": 1}], ids=repr)
@pytest.mark.parametrize("key", ["method", "settings", "reference"])
def test_a_fact_of_another_kind(name: str, key: str, value, saved: Path) -> None:
    rewrite(saved, facts_of(saved) | {key: value})
    assert load_or_format_error(saved) is None


def test_an_unknown_method_is_named(name: str, saved: Path) -> None:
    rewrite(saved, facts_of(saved) | {"method": "acrylic"})
    with pytest.raises(FormatError, match=f"'acrylic'; this version knows .*{name}"):
        load(saved)


def test_an_unknown_setting_is_named(name: str, saved: Path) -> None:
    facts = facts_of(saved)
    facts["settings"]["brightness"] = 3
    rewrite(saved, facts)
    with pytest.raises(FormatError, match="brightness"):
        load(saved)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("background", "mirror"),
        ("background", ["match"]),
        ("luminosity", "bright"),
        ("luminosity", 7),
        ("luminosity", []),
    ],
)
def test_an_impossible_setting(name: str, setting: str, value, saved: Path) -> None:
    facts = facts_of(saved)
    facts["settings"][setting] = value
    rewrite(saved, facts)
    assert load_or_format_error(saved) is None


def test_a_missing_array(name: str, saved: Path) -> None:
    whole = load_file(saved)
    for missing in whole:
        rewrite(saved, facts_of(saved), {key: array for key, array in whole.items() if key != missing})
        assert load_or_format_error(saved) is None, missing
        rewrite(saved, facts_of(saved), whole)


def test_a_missing_number(name: str, saved: Path) -> None:
    facts = facts_of(saved)
    for missing in ("white_origin", "tissue_pixels"):
        fewer = {key: value for key, value in facts["reference"].items() if key != missing}
        rewrite(saved, facts | {"reference": fewer})
        assert load_or_format_error(saved) is None, missing


def test_an_unknown_array_or_number(name: str, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    rewrite(saved, facts, whole | {"unheard_of": np.zeros(3)})
    assert load_or_format_error(saved) is None
    rewrite(saved, facts | {"reference": facts["reference"] | {"unheard\nof": 3}}, whole)
    assert load_or_format_error(saved) is None


def test_arrays_of_another_shape(name: str, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for key, array in whole.items():
        for changed in (array[..., :-1], array[:1], array[None], array[:0], array.reshape(-1)[0]):
            if changed.shape != array.shape:
                rewrite(saved, facts, whole | {key: np.ascontiguousarray(changed)})
                assert load_or_format_error(saved) is None, f"{key} of shape {changed.shape}"


def test_arrays_of_another_type(name: str, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for key, array in whole.items():
        for dtype in (np.float32, np.int64, np.uint8):
            rewrite(saved, facts, whole | {key: array.astype(dtype)})
            assert load_or_format_error(saved) is None, f"{key} as {dtype}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(name: str, value: float, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for key, array in whole.items():
        changed = array.copy()
        changed.flat[-1] = value
        rewrite(saved, facts, whole | {key: changed})
        assert load_or_format_error(saved) is None, key


@pytest.mark.parametrize("level", [-1.0, -236.0, 256.0, 1e300])
def test_a_white_point_that_no_scanner_has(name: str, level: float, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    rewrite(saved, facts, whole | {"white_point": np.array([level, 230.0, 230.0])})
    assert load_or_format_error(saved) is None


def test_another_kind_of_file(name: str, saved: Path, reference: Phantom) -> None:
    ColorHistogram.from_image(reference.image).save(saved)
    with pytest.raises(FormatError, match="holds a histogram; wanted a saved normalizer"):
        load(saved)
    saved.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert load_or_format_error(saved) is None
    saved.write_bytes(b"\x80\x04\x95" + bytes(100))  # a pickle's first bytes
    assert load_or_format_error(saved) is None


def test_missing_files(name: str, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(FormatError, match=r"not a file|folder without"):
            load(path)


def test_files_are_replaced_unless_forbidden(name: str, saved: Path, phantom: Phantom) -> None:
    other = make(name).fit(phantom.image)
    before = saved.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        other.save(saved, overwrite=False)
    assert saved.read_bytes() == before
    other.save(saved)
    assert load(saved) == other


@pytest.mark.parametrize("number", [0.0, -1.0, 1e300])
def test_statistics_that_cannot_be(name: str, number: float, saved: Path) -> None:
    """All numbers of an array alike: a picture comes out, or the file is refused; never another error."""
    facts, whole = facts_of(saved), load_file(saved)
    for key, array in whole.items():
        if key.startswith("settings.") or array.dtype != np.float64:
            continue
        rewrite(saved, facts, whole | {key: np.full_like(array, number)})
        normalizer = load_or_format_error(saved)
        if normalizer is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                appearance = normalizer.reference_
                values = normalizer.map_colors(np.arange(300.0).reshape(100, 3) % 256, appearance)
            assert values.shape == (100, 3)


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], None], ids=["no stain", "one stain"])
def test_stain_vectors_that_cannot_be(name: str, row: list[float] | None, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    if "stain_matrix" not in whole:
        pytest.skip("the method has no stain vectors")
    matrix = whole["stain_matrix"].copy()
    matrix[0] = matrix[1] if row is None else row
    rewrite(saved, facts, whole | {"stain_matrix": matrix})
    with pytest.raises(FormatError, match="cannot be told apart"):
        load(saved)
