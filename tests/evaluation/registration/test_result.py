"""A saved registration is the registration, warps are where they should be, and damaged files are told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain import make_phantom
from restain.color.histogram import ColorHistogram
from restain.errors import FormatError, InputError, OutputError
from restain.evaluation.registration import Quality, Registration, RegistrationSettings, register
from restain.files import save_arrays

IMAGE = make_phantom(100, 130, seed=4).image


def shifted(x: float, y: float, size: tuple[int, int] = (130, 100)) -> Registration:
    """A registration that says nothing but a shift."""
    width, height = size
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    nodes = (-(-(height - 1) // 4) + 1, -(-(width - 1) // 4) + 1, 2)
    return Registration(
        matrix, np.zeros(nodes, np.float32), np.ones((height, width), np.bool_), size, Quality(), "",
        RegistrationSettings(),
    )  # fmt: skip


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    made = replace(register(IMAGE, np.roll(IMAGE, (2, 3), (0, 1))), made_from="ab12")
    made.save(tmp_path / "r.safetensors")
    loaded = Registration.load(tmp_path / "r.safetensors")
    assert made.accepted
    assert made.flow.any()
    for name in ("matrix", "flow", "mask"):
        assert getattr(loaded, name).tobytes() == getattr(made, name).tobytes()
        assert getattr(loaded, name).dtype == getattr(made, name).dtype
    assert (loaded.quality, loaded.reason, loaded.settings) == (made.quality, made.reason, made.settings)
    assert loaded.made_from == "ab12"
    assert (loaded.source_size, loaded.target_size) == ((130, 100), (130, 100))
    assert np.array_equal(loaded.warp(IMAGE), made.warp(IMAGE))


def test_saving_keeps_what_is_there_if_told(tmp_path: Path) -> None:
    shifted(0, 0).save(tmp_path / "r.safetensors")
    with pytest.raises(OutputError, match="exists"):
        shifted(1, 1).save(tmp_path / "r.safetensors", overwrite=False)


@given(st.integers(-140, 140), st.integers(-110, 110))
def test_whole_shifts_move_pixels_and_labels_exactly(x: int, y: int) -> None:
    registration = shifted(x, y)
    padded = np.full((320, 410, 3), 255, np.uint8)
    padded[110:210, 140:270] = IMAGE
    expected = padded[110 + y : 210 + y, 140 + x : 270 + x]
    assert np.array_equal(registration.warp(IMAGE), expected)
    labels = IMAGE[..., 0].astype(np.uint16) + 300
    warped = registration.warp_labels(labels)
    inside = np.zeros((320, 410), np.bool_)
    inside[110:210, 140:270] = True
    assert np.array_equal(warped > 0, inside[110 + y : 210 + y, 140 + x : 270 + x])
    assert warped.dtype == np.uint16


def test_a_picture_of_another_size_is_an_error() -> None:
    with pytest.raises(InputError, match="got a picture of 50x100; wanted 130x100"):
        shifted(0, 0).warp(IMAGE[:, :50])
    with pytest.raises(InputError, match="wanted 130x100"):
        shifted(0, 0).warp_labels(np.zeros((3, 3), np.uint8))


def arrays() -> dict[str, Any]:
    made = shifted(1, 2)
    return {"matrix": made.matrix, "flow": made.flow, "mask": np.packbits(made.mask)}


FACTS: dict[str, Any] = {
    "source_size": [130, 100],
    "target_size": [130, 100],
    "quality": {},
    "reason": "",
    "settings": {"from_the_future": 1},
}


def test_a_setting_that_is_not_known_yet_does_no_harm(tmp_path: Path) -> None:
    save_arrays(tmp_path / "r.safetensors", "registration", arrays(), FACTS)
    assert Registration.load(tmp_path / "r.safetensors").settings == RegistrationSettings()


DAMAGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no mask": ({"mask": None}, {}),
    "other flow": ({"flow": np.zeros((3, 3, 2), np.float32)}, {}),
    "matrix of NaN": ({"matrix": np.full((2, 3), np.nan)}, {}),
    "no size": ({}, {"source_size": [0, 100]}),
    "huge": ({}, {"target_size": [10**9, 100]}),
    "no reason": ({}, {"reason": None}),
    "odd quality": ({}, {"quality": {"beauty": 1.0}}),
    "odd settings": ({}, {"settings": {"border": -3}}),
}


@pytest.mark.parametrize(("changed", "facts"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_told(tmp_path: Path, changed: dict[str, Any], facts: dict[str, Any]) -> None:
    path = tmp_path / "r.safetensors"
    kept = {name: value for name, value in (arrays() | changed).items() if value is not None}
    told = {name: value for name, value in (FACTS | facts).items() if value is not None}
    save_arrays(path, "registration", kept, told)
    with pytest.raises(FormatError, match=r"r\.safetensors"):
        Registration.load(path)


def test_another_kind_of_file_is_told(tmp_path: Path) -> None:
    ColorHistogram.from_image(IMAGE).save(tmp_path / "h.safetensors")
    with pytest.raises(FormatError, match="wanted a registration"):
        Registration.load(tmp_path / "h.safetensors")
    with pytest.raises(FormatError, match="not a file"):
        Registration.load(tmp_path / "gone.safetensors")
