"""Saved normalizers, systems and histograms that are damaged on purpose: each is a `FormatError` when it is loaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import restain
from restain.errors import FormatError


def facts_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as stream:
        return json.loads(stream.metadata()["restain"])


def rewrite(path: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
    """The same file with other facts or arrays."""
    arrays = load_file(path) if arrays is None else arrays
    save_file(arrays, path, metadata={"restain": json.dumps(facts)})


def load_or_format_error(path: Path, load: Callable[[Path], Any] = restain.load) -> Any:
    """What is loaded, or None for a `FormatError` of one line that names the file; any other error fails the test."""
    try:
        return load(path)
    except FormatError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    return None


def assert_no_part_is_taken_for_the_whole(path: Path, parts: int, load: Callable[[Path], Any] = restain.load) -> None:
    """Each of the first 32 lengths, so many more, and one byte less than all."""
    whole = path.read_bytes()
    for length in sorted({*range(0, 32), *range(32, len(whole), max(1, len(whole) // parts)), len(whole) - 1}):
        path.write_bytes(whole[:length])
        assert load_or_format_error(path, load) is None, f"{length} of {len(whole)} bytes were taken for a whole file"


def flipped(data: bytes, place: float, flip: int) -> bytes:
    """With bits of one byte flipped, so far into the file."""
    damaged = bytearray(data)
    damaged[int(place * len(damaged))] ^= flip
    return bytes(damaged)


def load_with_flips_in_the_header(path: Path, step: int) -> None:
    """Every so many bytes of it, one at a time: a `FormatError`, or what can be loaded."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for place in range(0, end, step):
        damaged = bytearray(whole)
        damaged[place] ^= 0x11
        path.write_bytes(damaged)
        load_or_format_error(path)
