"""Saved systems: whatever is wrong with a file is a `FormatError` when it is loaded, and costs no memory."""

import resource
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")

from restain import ColorHistogram, load  # noqa: E402  (after the skip)
from restain.errors import FormatError, OutputError, RestainError  # noqa: E402
from restain.phantom import Phantom  # noqa: E402
from restain.systems import SYSTEMS  # noqa: E402

from ..saved_files import (  # noqa: E402
    assert_no_part_is_taken_for_the_whole,
    facts_of,
    flipped,
    load_or_format_error,
    load_with_flips_in_the_header,
    rewrite,
)
from .small import noise, trained  # noqa: E402

pytestmark = pytest.mark.parametrize("name", SYSTEMS)
bounded = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a file of each system."""
    path, found = tmp_path_factory.mktemp("saved") / "saved.safetensors", {}
    for name in SYSTEMS:
        trained(name).save(path)
        found[name] = path.read_bytes()
    return found


@pytest.fixture
def saved(name: str, contents: dict[str, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "saved.safetensors"
    path.write_bytes(contents[name])
    return path


def with_config(facts: dict[str, Any], **values: Any) -> dict[str, Any]:
    config = facts["settings"]["config"] | values
    return facts | {"settings": facts["settings"] | {"config": config}}


def test_rewriting_alone_does_no_harm(name: str, saved: Path) -> None:
    rewrite(saved, facts_of(saved))
    assert load(saved) == trained(name)


def test_weights_never_travel_alone(name: str, saved: Path) -> None:
    facts = facts_of(saved)
    assert facts["kind"] == "system"
    assert facts["system"] == name
    assert facts["provenance"]["training"]["training_data_license"] == "CC0-1.0"
    assert facts["settings"]["config"]["channels"] == trained(name).config.channels


def test_truncated_files(name: str, saved: Path) -> None:
    assert_no_part_is_taken_for_the_whole(saved, 30)


def test_flipped_bytes_of_the_header(name: str, saved: Path) -> None:
    header = int.from_bytes(saved.read_bytes()[:8], "little")
    load_with_flips_in_the_header(saved, header // 60)


@bounded
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_a_format_error_or_does_not_crash(
    name: str, contents: dict[str, bytes], saved: Path, place: float, flip: int
) -> None:
    saved.write_bytes(flipped(contents[name], place, flip))
    system = load_or_format_error(saved)
    if system is not None:  # a number was hit: a picture comes out, or an error that says so
        try:
            result = system.transform(noise(16, 16))
        except RestainError:
            return
        assert result.shape == (16, 16, 3)


@pytest.mark.parametrize("key", ["system", "settings", "reference", "provenance", "kind"])
def test_a_missing_fact(name: str, key: str, saved: Path) -> None:
    facts = facts_of(saved)
    del facts[key]
    rewrite(saved, facts)
    assert load_or_format_error(saved) is None


@pytest.mark.parametrize("value", [None, 3, "text", [1], [[]], {"a": 1}], ids=repr)
@pytest.mark.parametrize("key", ["system", "settings", "reference"])
def test_a_fact_of_another_kind(name: str, key: str, value: Any, saved: Path) -> None:
    rewrite(saved, facts_of(saved) | {key: value})
    assert load_or_format_error(saved) is None


def test_an_unknown_system_is_named(name: str, saved: Path) -> None:
    rewrite(saved, facts_of(saved) | {"system": "acrylic"})
    with pytest.raises(FormatError, match=f"the system 'acrylic'; this version knows .*{name}"):
        load(saved)


def test_another_systems_weights(name: str, saved: Path) -> None:
    facts = facts_of(saved)
    for other in SYSTEMS:
        if other != name:
            rewrite(saved, facts | {"system": other})
            assert load_or_format_error(saved) is None


def test_unknown_settings_are_named(name: str, saved: Path) -> None:
    facts = facts_of(saved)
    rewrite(saved, with_config(facts, chanels=3))
    with pytest.raises(FormatError, match="there is no setting chanels"):
        load(saved)
    rewrite(saved, facts | {"settings": facts["settings"] | {"brightness": 3}})
    with pytest.raises(FormatError, match="brightness"):
        load(saved)
    rewrite(saved, facts | {"settings": facts["settings"] | {"trainable": True}})
    assert load_or_format_error(saved) is None


@pytest.mark.parametrize("value", [None, 3, "text", [1], {"a": 1}, {"channels": "4"}, {"channels": 4.0}], ids=repr)
def test_settings_of_another_kind(name: str, value: Any, saved: Path) -> None:
    facts = facts_of(saved)
    rewrite(saved, facts | {"settings": facts["settings"] | {"config": value}})
    assert load_or_format_error(saved) is None


@pytest.mark.parametrize("background", ["mirror", ["match"], 3, None])
def test_an_impossible_background(name: str, background: Any, saved: Path) -> None:
    facts = facts_of(saved)
    rewrite(saved, facts | {"settings": facts["settings"] | {"background": background}})
    assert load_or_format_error(saved) is None


@pytest.mark.parametrize(
    "values",
    [
        {"channels": 10**9},
        {"channels": 1024},
        {"channels": 312},
        {"channels": 5},
        {"channels": 0},
        {"channels": -4},
        {"channels": 10**400},
        {"blocks": 10**9},
        {"blocks": 64},
        {"kernels": [1] * 10**4},
        {"kernels": [10**9 + 1, 1, 1]},
        {"kernels": [15, 15, 15]},
    ],
    ids=lambda values: " ".join(f"{key} {str(value)[:12]}" for key, value in values.items()),
)
def test_networks_of_a_size_that_the_file_does_not_hold(name: str, values: dict[str, Any], saved: Path) -> None:
    """STST with 1,024 channels has 14 billion weights: nothing is made on a file's word."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rewrite(saved, with_config(facts_of(saved), **values))
    assert load_or_format_error(saved) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_missing_array(name: str, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for missing in {*list(whole)[:: max(1, len(whole) // 12)], "white_point"}:
        rewrite(saved, facts, {key: array for key, array in whole.items() if key != missing})
        assert load_or_format_error(saved) is None, missing


def test_an_unknown_array_or_number(name: str, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for unheard in ("unheard_of", "generator.unheard_of", "generator.", "discriminator.weight"):
        rewrite(saved, facts, whole | {unheard: np.zeros(3, np.float32)})
        assert load_or_format_error(saved) is None, unheard
    rewrite(saved, facts | {"reference": facts["reference"] | {"unheard_of": 3}}, whole)
    assert load_or_format_error(saved) is None


def some(whole: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A few of the arrays: the target's, and weights from all over the network."""
    names = list(whole)[:: max(1, len(whole) // 6)]
    return {name: whole[name] for name in (*names, "white_point")}


def test_arrays_of_another_shape(name: str, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for key, array in some(whole).items():
        for changed in (array[None], array.reshape(-1)[:-1], array.reshape(-1)[:1], array.reshape(-1)):
            if changed.shape != array.shape:
                rewrite(saved, facts, whole | {key: np.ascontiguousarray(changed)})
                assert load_or_format_error(saved) is None, f"{key} of shape {changed.shape}"


def test_arrays_of_another_type(name: str, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for key, array in some(whole).items():
        for kind in (np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_):
            if kind != array.dtype:
                rewrite(saved, facts, whole | {key: array.astype(kind)})
                assert load_or_format_error(saved) is None, f"{key} as {kind}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(name: str, value: float, saved: Path) -> None:
    facts, whole = facts_of(saved), load_file(saved)
    for key, array in some(whole).items():
        changed = np.atleast_1d(array.copy())
        changed.flat[-1] = value
        rewrite(saved, facts, whole | {key: changed.reshape(array.shape)})
        assert load_or_format_error(saved) is None, key


@pytest.mark.parametrize("value", [0.0, -1.0, 1e30])
def test_weights_that_cannot_be_of_use(name: str, value: float, saved: Path) -> None:
    """All of them alike: a picture comes out, or an error that says so; never another one, nor a warning."""
    facts, whole = facts_of(saved), load_file(saved)
    changed = {
        key: np.full_like(array, value) if key.startswith("generator.") else array for key, array in whole.items()
    }
    rewrite(saved, facts, changed)
    system = load_or_format_error(saved)
    if system is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                assert system.transform(noise(16, 16)).shape == (16, 16, 3)
            except RestainError:
                return


@pytest.mark.parametrize("level", [-1.0, 256.0, 1e300])
def test_a_white_point_that_no_scanner_has(name: str, level: float, saved: Path) -> None:
    rewrite(saved, facts_of(saved), load_file(saved) | {"white_point": np.array([level, 230.0, 230.0])})
    assert load_or_format_error(saved) is None


def test_another_kind_of_file(name: str, saved: Path, reference: Phantom) -> None:
    ColorHistogram.from_image(reference.image).save(saved)
    with pytest.raises(FormatError, match="holds a histogram"):
        load(saved)
    saved.write_bytes(b"\x80\x04\x95" + bytes(100))  # a pickle's first bytes
    assert load_or_format_error(saved) is None


def test_files_are_replaced_unless_forbidden(name: str, saved: Path) -> None:
    other, before = trained(name, seed=1), saved.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        other.save(saved, overwrite=False)
    assert saved.read_bytes() == before
    other.save(saved)
    assert load(saved) == other
