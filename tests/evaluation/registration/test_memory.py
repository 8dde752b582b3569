"""Registering takes little more memory than its pictures need, and large pairs do not take it at the same time."""

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from restain.errors import InputError
from restain.evaluation.datasets.pairs import Pair
from restain.evaluation.registration import files, quality, register
from restain.evaluation.registration.flow import pixel_grid

from . import planting


def bytes_a_pixel(work: Callable[[], object], pixels: int) -> float:
    """The most that `work` holds at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / pixels
    finally:
        tracemalloc.stop()


def noisy(height: int, width: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(height)
    first = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return first, np.clip(first + generator.normal(0, 20, first.shape), 0, 255).astype(np.uint8)


def test_a_grid_takes_the_memory_of_its_floats() -> None:
    assert bytes_a_pixel(lambda: pixel_grid(512, 512), 512 * 512) < 9
    assert pixel_grid(3, 2).tolist() == [[[x, y] for x in range(2)] for y in range(3)]


def test_ssim_is_computed_in_bands() -> None:
    pair, mask = noisy(2048, 128), np.ones((2048, 128), np.bool_)
    quality.masked_ssim(*pair, mask)  # imports
    assert bytes_a_pixel(lambda: quality.masked_ssim(*pair, mask), mask.size) < 60


@pytest.mark.parametrize("height", [11, 255, 256, 257, 266, 267, 700])
def test_bands_do_not_show(height: int) -> None:
    pair = noisy(height, 30)
    _, values = structural_similarity(
        *pair, channel_axis=-1, gaussian_weights=True, sigma=1.5, win_size=11, data_range=255, full=True
    )
    mask = np.random.default_rng(1).random((height, 30)) > 0.4
    assert quality.masked_ssim(*pair, mask) == pytest.approx(values[mask].mean(), abs=1e-12)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Four pairs of 96 × 96."""
    made = []
    for seed in range(4):
        source, target, _ = planting.planted(planting.phantom_picture(seed, 128), seed, size=96)
        pair = Pair(str(seed), tmp_path / f"a{seed}.png", tmp_path / f"b{seed}.png")
        Image.fromarray(source).save(pair.source)
        Image.fromarray(target).save(pair.target)
        made.append(pair)
    return made


@pytest.mark.parametrize(("limit", "together"), [(96 * 96, 4), (96 * 96 - 1, 1)])
def test_large_pairs_are_registered_one_at_a_time(
    pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, together: int
) -> None:
    running, most, lock = 0, 0, threading.Lock()
    others = threading.Barrier(4)

    def watched(*arguments: Any, **options: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if together > 1:
            others.wait(60)  # all are here before one goes on
        result = register(*arguments, **options)
        with lock:
            running -= 1
        return result

    monkeypatch.setattr(files, "register", watched)
    monkeypatch.setattr(files, "LARGE_PIXELS", limit)
    outcomes = list(files.register_files(pairs, tmp_path / "out", workers=4))
    assert [outcome.status for outcome in outcomes] == ["accepted"] * 4
    assert most == together


def test_a_picture_that_is_too_large_is_told(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_PIXELS", 96 * 96 - 1)
    with pytest.raises(InputError, match="96x96 pixels; wanted at most 9,215: cut it into tiles"):
        files.read_picture(pairs[0].source)
