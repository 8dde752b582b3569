"""Saved histograms: nothing is lost, and whatever is not one of them is a `FormatError`, never another error."""

import functools
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from restain.color.histogram import ColorHistogram
from restain.errors import FormatError, OutputError
from restain.methods.reinhard import Reinhard
from restain.phantom import Phantom

from .. import saved_files

bounded = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sample() -> ColorHistogram:
    """With everything that a histogram may hold."""
    image = np.random.default_rng(0).integers(0, 6, (24, 24, 3), dtype=np.uint8)
    counted = ColorHistogram.from_image(image)
    return replace(counted, icc_profile=b"not a real profile", provenance={"slide": "ä.svs", "n": [1]})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "sample.safetensors"
    sample().save(path)
    return path


@pytest.mark.parametrize(
    "histogram",
    [
        sample(),
        sample() * 0.3,
        sample() * 1e12,
        ColorHistogram.from_colors([[1, 2, 3]]),
        ColorHistogram.from_image(np.zeros((8, 8, 4), np.uint8)),
        ColorHistogram.from_image(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)),
    ],
    ids=["small", "weighted", "large counts", "no flat", "empty", "many colours"],
)
def test_a_loaded_histogram_equals_the_saved_one(tmp_path: Path, histogram: ColorHistogram) -> None:
    histogram.save(tmp_path / "a.safetensors")
    loaded = ColorHistogram.load(tmp_path / "a.safetensors")
    assert loaded == histogram
    assert loaded.provenance == histogram.provenance
    assert loaded.counts.dtype == np.float64
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_str_is_a_path_too(tmp_path: Path) -> None:
    sample().save(str(tmp_path / "a.safetensors"))
    assert ColorHistogram.load(str(tmp_path / "a.safetensors")) == sample()


def test_files_are_replaced_unless_forbidden(saved: Path) -> None:
    other = ColorHistogram.from_colors([[1, 2, 3]])
    with pytest.raises(OutputError, match="exists"):
        other.save(saved, overwrite=False)
    assert ColorHistogram.load(saved) == sample()
    other.save(saved)
    assert ColorHistogram.load(saved) == other


# ---- damaged ----------------------------------------------------------------------------------------------------


load_or_format_error = functools.partial(saved_files.load_or_format_error, load=ColorHistogram.load)


def test_truncated_files_are_format_errors(saved: Path) -> None:
    saved_files.assert_no_part_is_taken_for_the_whole(saved, 150, ColorHistogram.load)


def test_files_with_bytes_after_the_end_are_format_errors(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert load_or_format_error(saved) is None


@bounded
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_a_format_error_or_a_valid_histogram(saved: Path, place: float, flip: int) -> None:
    sample().save(saved)
    saved.write_bytes(saved_files.flipped(saved.read_bytes(), place, flip))
    histogram = load_or_format_error(saved)
    if histogram is not None:  # the flip hit a count, a colour or a fact: what is there must still make sense
        assert (np.diff(histogram.codes.astype(np.int64)) > 0).all()
        assert histogram.codes.max() < 1 << 24
        assert (histogram.counts > 0).all()


def test_every_flipped_byte_of_the_header(saved: Path) -> None:
    whole = saved.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    for place in range(end):
        for flip in (0x01, 0x20, 0x80):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            saved.write_bytes(damaged)
            load_or_format_error(saved)


@bounded
@given(contents=st.binary(max_size=300))
def test_random_bytes_are_format_errors(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "random.safetensors"
    path.write_bytes(contents)
    assert load_or_format_error(path) is None


@bounded
@given(
    header=st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_random_headers_and_facts_are_format_errors(tmp_path: Path, header) -> None:
    path = tmp_path / "random.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert load_or_format_error(path) is None
    arrays = {"codes": np.array([1], np.uint32), "counts": np.array([1.0])}
    save_file(arrays, path, metadata={"restain": json.dumps(header)})
    assert load_or_format_error(path) is None


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"other": "program"},
        {"restain": ""},
        {"restain": "{}"},
        {"restain": "[]"},
        {"restain": "3"},
        {"restain": '{"kind": "histogram"}'},
        {"restain": '{"kind": "histogram", "provenance": 3}'},
        {"restain": '{"kind": null, "provenance": {}}'},
    ],
    ids=lambda metadata: str(metadata)[:50],
)
def test_other_facts_are_format_errors(tmp_path: Path, metadata) -> None:
    arrays = {"codes": np.array([1], np.uint32), "counts": np.array([1.0])}
    save_file(arrays, tmp_path / "a.safetensors", metadata=metadata)
    assert load_or_format_error(tmp_path / "a.safetensors") is None


@pytest.mark.parametrize(
    "changed",
    [
        {"codes": np.array([3, 2], np.uint32), "counts": np.array([1.0, 1.0])},
        {"codes": np.array([2, 2], np.uint32), "counts": np.array([1.0, 1.0])},
        {"codes": np.array([1 << 24], np.uint32), "counts": np.array([1.0])},
        {"codes": np.array([1], np.int64), "counts": np.array([1.0])},
        {"codes": np.array([[1]], np.uint32), "counts": np.array([[1.0]])},
        {"codes": np.array([1], np.uint32), "counts": np.array([1.0, 2.0])},
        {"codes": np.array([1], np.uint32), "counts": np.array([0.0])},
        {"codes": np.array([1], np.uint32), "counts": np.array([-1.0])},
        {"codes": np.array([1], np.uint32), "counts": np.array([np.nan])},
        {"codes": np.array([1], np.uint32), "counts": np.array([np.inf])},
        {"flat_codes": np.array([9, 8], np.uint32), "flat_counts": np.array([1.0, 1.0])},
        {"codes": None},
        {"counts": None},
        {"flat_counts": None},
    ],
    ids=lambda changed: " ".join(f"{name}={value}" for name, value in changed.items()),
)
def test_arrays_that_make_no_histogram_are_format_errors(saved: Path, changed: dict) -> None:
    arrays = {name: array for name, array in (load_file(saved) | changed).items() if array is not None}
    save_file(arrays, saved, metadata={"restain": '{"kind": "histogram", "provenance": {}}'})
    assert load_or_format_error(saved) is None


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F16", "I8", "BOOL", "F4", "E8M0", "C64", "X"])
def test_types_of_numbers_that_histograms_do_not_have_are_format_errors(tmp_path: Path, dtype: str) -> None:
    middle = 2 * {"BF16": 2, "F16": 2, "C64": 8}.get(dtype, 1)
    header = {
        "__metadata__": {"restain": '{"kind": "histogram", "provenance": {}}'},
        "codes": {"dtype": dtype, "shape": [2], "data_offsets": [0, middle]},
        "counts": {"dtype": "F64", "shape": [2], "data_offsets": [middle, middle + 16]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(middle + 16))
    assert load_or_format_error(path) is None


def test_another_kind_is_named(tmp_path: Path, reference: Phantom) -> None:
    Reinhard().fit(reference.image).save(tmp_path / "a.safetensors")
    with pytest.raises(FormatError, match="holds a normalizer; wanted a colour histogram"):
        ColorHistogram.load(tmp_path / "a.safetensors")


def test_missing_files_and_folders_are_format_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(FormatError, match="not a file"):
            ColorHistogram.load(path)
