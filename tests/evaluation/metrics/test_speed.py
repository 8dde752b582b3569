"""Frames a second: what is counted, what is waited for."""

import time

import numpy as np
import pytest

from restain.errors import InputError
from restain.evaluation.metrics.speed import fps


def test_sleep_is_timed() -> None:
    batch = np.zeros((8, 4, 4, 3), np.uint8)
    speed = fps(lambda images: time.sleep(0.02), batch, warm_up=0, repeats=3)
    assert 100 < speed.fps <= 400
    assert speed.seconds == pytest.approx(8 / speed.fps)
    assert speed.shape == (8, 4, 4, 3)
    assert (speed.precision, speed.device, speed.warm_up, speed.repeats) == ("uint8", "cpu", 0, 3)


def test_warm_up_is_not_timed() -> None:
    calls = []

    def slow_at_first(images: np.ndarray) -> None:
        calls.append(images)
        if len(calls) <= 2:
            time.sleep(0.05)

    assert fps(slow_at_first, np.zeros((1, 2, 2, 3)), warm_up=2, repeats=4).seconds < 0.04
    assert len(calls) == 6


def test_tensors_run_without_gradients() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Conv2d(3, 2, 1)
    seen = []
    speed = fps(lambda images: seen.append(layer(images).requires_grad), torch.zeros(2, 3, 4, 4), repeats=2)
    assert not any(seen)
    assert speed.precision == "torch.float32"
    assert speed.device == "cpu"


def test_a_gpu_is_waited_for() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    batch = torch.rand(4, 3, 2048, 2048, device="cuda")
    layer = torch.nn.Conv2d(3, 64, 7, padding=3).cuda()
    speed = fps(layer, batch, warm_up=3, repeats=5)
    begin = time.perf_counter()
    layer(batch)
    handed_over = time.perf_counter() - begin
    torch.cuda.synchronize()
    assert speed.seconds > handed_over
    assert speed.device == "cuda:0"


@pytest.mark.parametrize("shape", [(4, 4, 3), (0, 4, 4, 3), (3,)])
def test_one_image_is_no_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="wanted"):
        fps(lambda images: None, np.zeros(shape))


def test_something_must_be_timed() -> None:
    with pytest.raises(InputError, match="repeats=0"):
        fps(lambda images: None, np.zeros((1, 2, 2, 3)), repeats=0)
