"""Images a second, measured so that a GPU has finished when the clock is read."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from restain.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a function maps batches, and all that one must know to compare the number.

    Attributes:
        fps: images a second: the batch size over the median seconds of a batch.
        seconds: median of a batch.
        shape: of the batch.
        precision: its type, as "uint8" or "torch.float16".
        device: where it lies: "cpu", "cuda:0"...
        warm_up: batches run before the clock started.
        repeats: batches timed.
    """

    fps: float
    seconds: float
    shape: tuple[int, ...]
    precision: str
    device: str
    warm_up: int
    repeats: int


def fps(function: Callable[[Any], Any], batch: Any, *, warm_up: int = 10, repeats: int = 20) -> Speed:
    """Time `function(batch)`; more frames a second are better.

    The device that the batch lies on is waited for before and after each call: without that, a GPU is timed at how
    fast work can be handed to it. No reading or writing of files is in it, unless the function does that. StainNet's
    figures are for batches of 100 images of 512 × 512, without waiting.

    Args:
        function: what is timed; gradients are off while it runs.
        batch: an array or tensor whose first axis counts images: (N, H, W, 3) or (N, 3, H, W). One image (H, W, 3)
            alone would count as H: give it an axis.
        warm_up: calls before timing: caches fill, code is compiled, clocks rise. The first calls are the slow ones.
        repeats: calls that are timed, one by one; the median counts.

    Raises:
        InputError: the batch has no four axes or no images, or nothing is to be timed.
    """
    shape = tuple(int(side) for side in getattr(batch, "shape", ()))
    if len(shape) != 4 or 0 in shape:
        raise InputError(f"got a batch of shape {shape}; wanted (N, H, W, 3) or (N, 3, H, W), N of 1 or more")
    if repeats < 1 or warm_up < 0:
        raise InputError(f"got repeats={repeats}, warm_up={warm_up}; wanted 1 or more, and 0 or more")
    wait, calm = _device_of(batch)
    seconds = []
    with calm():
        for turn in range(-warm_up, repeats):
            wait()
            begin = time.perf_counter()
            function(batch)
            wait()
            if turn >= 0:
                seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    return Speed(
        fps=shape[0] / median,
        seconds=median,
        shape=shape,
        precision=str(batch.dtype),
        device=str(getattr(batch, "device", "cpu")),
        warm_up=warm_up,
        repeats=repeats,
    )


def _device_of(batch: Any) -> tuple[Callable[[], None], Callable[[], Any]]:
    """How to wait for the batch's device, and a context without gradients."""
    from contextlib import nullcontext

    if not type(batch).__module__.startswith("torch"):
        return lambda: None, nullcontext
    import torch

    kind = batch.device.type
    if kind == "cpu":
        return lambda: None, torch.no_grad
    if kind == "cuda":
        return lambda: torch.cuda.synchronize(batch.device), torch.no_grad
    return getattr(torch, kind).synchronize, torch.no_grad
