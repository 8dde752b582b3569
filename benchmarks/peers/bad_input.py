"""What each package does with input that is blank, tiny or of another type, beside restain.

Every package is fitted to a normal target first. What came of an input is judged by these rules:

* an exception: its name;
* "NaN": values that are not finite;
* white, black, one colour, one pixel: "as it was" where no value moved by more than 1, "moved by N" up to 25 levels,
  "target's glass" where white is within 25 levels of the brightest hundredth of the target. Beyond, "BLACK" where every
  value came out at most 10, else "TURNED" with the output's mean colour;
* another type or layout, or read-only: compared with what the package makes of the same picture as plain uint8 RGB.
  "same" up to a mean difference of 2 levels, else "WRONG by N" or "WRONG shape";
* "+ CHANGES INPUT" where the array that was handed in is not what it was before.

Words in capitals are silent faults: nothing tells the user.
"""

import warnings
from collections.abc import Callable

import numpy as np
from common import Image, print_table
from numpy.typing import NDArray

import restain
from peers.environments import Answer, Worker
from restain.errors import EstimateWarning

Array = NDArray[np.generic]
Levels = NDArray[np.float64]
Ask = Callable[[Array, bool], Answer]
"""Give a package an array, read-only or not."""

METHODS = {
    "macenko": {
        "torchstain": ("macenko numpy", "macenko torch"),
        "tiatoolbox": ("macenko",),
        "torch-staintools": ("macenko",),
        "staintools": ("macenko",),
    },
    "reinhard": {
        "torchstain": ("reinhard numpy", "reinhard torch"),
        "tiatoolbox": ("reinhard",),
        "torch-staintools": ("reinhard",),
        "staintools": ("reinhard",),
    },
}
"""By method and package, the names that the package's worker knows."""

ONE_COLOR = (200, 120, 170)
UNMOVED, NEAR, BLACK = 1, 25, 10
SAME = 2.0
"""Levels; a picture rounded to uint16 or float and back must not come out further away than this."""


def blank_inputs(picture: Image) -> dict[str, Array]:
    """Inputs without any stain to estimate from, of the picture's size."""
    return {
        "white": np.full_like(picture, 255),
        "black": np.zeros_like(picture),
        "one colour": np.full_like(picture, ONE_COLOR),
        "1x1": np.full((1, 1, 3), ONE_COLOR, np.uint8),
    }


def unusual_inputs(picture: Image) -> dict[str, tuple[Array, Image]]:
    """Inputs of another type or layout, each with what it shows as plain RGB."""
    gray = np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    with_zeros = picture.copy()
    with_zeros[:8, :8] = 0
    deep = np.minimum(picture.astype(np.uint32) * 257 + 60, 65535).astype(np.uint16)  # a 16-bit scan's are no multiples
    return {
        "RGBA": (np.dstack([picture, np.full_like(picture[..., 0], 255)]), picture),
        "gray (H, W)": (gray, np.stack([gray] * 3, axis=-1)),
        "float 0..1": ((picture / 255.0).astype(np.float32), picture),
        "uint16": (deep, picture),
        "some zeros": (with_zeros, with_zeros),
        "read-only": (picture, picture),
        "read-only, some zeros": (with_zeros, with_zeros),
    }


def measure(workers: dict[str, Worker], target: Image, picture: Image) -> int:
    """Print what became of every input, and how many were refused or wrong; how many restain refused or got wrong."""
    ours = 0
    for method, packages in METHODS.items():
        asks = {"restain": ask_restain(method, target)}
        for package in (package for package in packages if package in workers):
            for name in packages[package]:
                workers[package].fit(name, target)
                asks[package + name.removeprefix(method)] = ask_worker(workers[package], name)
        verdicts = {label: judge_all(ask, target, picture) for label, ask in asks.items()}
        inputs = list(verdicts["restain"])
        rows = [[name, *(column[name] for column in verdicts.values())] for name in inputs]
        rows.append(["raised", *(f"{sum(map(is_raised, column.values()))}" for column in verdicts.values())])
        rows.append(["silent faults", *(f"{sum(map(is_silent, column.values()))}" for column in verdicts.values())])
        print(f"{method}: what becomes of unusual input; CAPITALS: a fault that nothing tells of")
        print_table(["input", *verdicts], rows)
        ours += sum(is_raised(verdict) or is_silent(verdict) for verdict in verdicts["restain"].values())
    return ours


def ask_worker(worker: Worker, name: str) -> Ask:
    """How to ask a package."""
    return lambda array, read_only: worker.transform(name, array, read_only=read_only)


def ask_restain(method: str, target: Image) -> Ask:
    """How to ask restain, default settings."""
    normalizer = restain.METHODS[method]().fit(target)

    def ask(array: Array, read_only: bool) -> Answer:
        given, output, error = array.copy(), None, ""
        given.setflags(write=not read_only)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", EstimateWarning)
                output = normalizer.transform(given)
        except Exception as raised:  # as for the others: whatever it raises is what is asked for
            error = type(raised).__name__
        return Answer(output, error, "", 0.0, not np.array_equal(given, array))

    return ask


def judge_all(ask: Ask, target: Image, picture: Image) -> dict[str, str]:
    """A verdict for every input."""
    verdicts = {}
    glass = np.percentile(target, 99, axis=(0, 1))
    for name, array in blank_inputs(picture).items():
        verdicts[name] = judge(ask(array, False), lambda output, given=array: judge_blank(given, output, glass))
    for name, (array, shown) in unusual_inputs(picture).items():
        plain = ask(shown, False)
        answer = ask(array, name.startswith("read-only"))
        verdicts[name] = judge(answer, lambda output, plain=plain: judge_unusual(plain, output))
    return verdicts


def judge(answer: Answer, judge_output: Callable[[Levels], str]) -> str:
    """One cell of the table; the rules are in the module's docstring."""
    if answer.output is None:
        verdict = answer.error
    else:
        output = in_levels(answer.output)
        verdict = judge_output(output) if np.isfinite(output).all() else "NaN"
    return verdict + (" + CHANGES INPUT" if answer.changed else "")


def judge_blank(given: Array, output: Levels, glass: Levels) -> str:
    """What became of an input without stain, beside a target with such glass."""
    if output.shape != given.shape:
        return f"WRONG shape {output.shape}"
    moved = np.abs(output - given.astype(np.float64)).max()
    if moved <= NEAR:
        return "as it was" if moved <= UNMOVED else f"moved by {moved:.0f}"
    if given.min() == 255 and np.abs(output - glass).max() <= NEAR:
        return "target's glass"
    if output.max() <= BLACK:
        return "BLACK"
    return "TURNED " + " ".join(f"{level:.0f}" for level in output.reshape(-1, 3).mean(axis=0))


def judge_unusual(plain: Answer, output: Levels) -> str:
    """What became of an input, beside the package's answer for the same picture as plain RGB."""
    if plain.output is None:
        return f"(plain RGB: {plain.error})"
    wanted = in_levels(plain.output)
    if output.shape == (*wanted.shape[:2], 4):
        output = output[..., :3]
    if output.shape != wanted.shape:
        return f"WRONG shape {output.shape}"
    difference = float(np.abs(output - wanted).mean())
    return "same" if difference <= SAME else f"WRONG by {difference:.1f}"


def in_levels(output: Array) -> Levels:
    """Values in 0..255, whatever their type: floats up to 1 are scaled."""
    values = output.astype(np.float64)
    scaled = output.dtype.kind == "f" and not (values > 1).any()
    return values * 255 if scaled else values


def is_raised(verdict: str) -> bool:
    """Whether the package raised."""
    return verdict.split(" ")[0].endswith(("Error", "Exception", "error"))


def is_silent(verdict: str) -> bool:
    """Whether the verdict tells of a fault in silence."""
    return any(word in verdict for word in ("NaN", "BLACK", "TURNED", "WRONG", "CHANGES"))
