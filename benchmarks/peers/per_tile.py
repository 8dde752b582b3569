"""A slide in tiles: torchstain, whose `normalize` estimates every tile, and restain, which estimates once."""

from collections import Counter

import numpy as np
from common import Image, save_strips
from seams import TILE, print_scores, tiles

import restain
from peers.environments import Worker

METHOD = "macenko numpy"
SHRINK = 3
"""The picture has the mean of so many by so many pixels of the slide as one."""
BRIGHT, DARKENED = 235, 30
"""A tile with a mean level above the first is nearly all glass; it must not come out darker by more than the second."""


def measure(worker: Worker, target: Image, slide: Image, picture: str | None) -> float:
    """Print seam scores, write the picture; restain's score over the source's."""
    # Glass as it is, as torchstain means to leave it; by default it would take the target's colour, which is lilac.
    normalizer = restain.Macenko(background="keep").fit(target)
    once = normalizer.color_map(normalizer.estimate(slide), lazy=True)(slide)
    apart, errors = one_by_one(worker, target, slide)
    results = {"source": slide, "torchstain, tile by tile": apart, "restain, one estimate": once}
    print(f"Seams between {TILE}-pixel tiles, Macenko to the same target")
    scores = print_scores(results)
    print_failures(slide, apart, errors)
    if picture:
        save_strips(picture, [[(label, shrunk(pixels)) for label, pixels in results.items()]])
    return scores["restain, one estimate"]


def one_by_one(worker: Worker, target: Image, slide: Image) -> tuple[Image, Counter[str]]:
    """The slide as the package makes it tile by tile, as it was where it raises; how often, by exception."""
    worker.fit(METHOD, target)
    result, errors = slide.copy(), Counter[str]()
    for tile in tiles(slide):
        answer = worker.transform(METHOD, np.ascontiguousarray(slide[tile]))
        if answer.output is None:
            errors[answer.error] += 1
        else:
            result[tile] = answer.output
    return result, errors


def print_failures(slide: Image, result: Image, errors: Counter[str]) -> None:
    """Print how often the package raised, and how often it darkened glass."""
    everything = list(tiles(slide))
    bright = [tile for tile in everything if slide[tile].mean() > BRIGHT]
    darkened = sum(result[tile].mean() < slide[tile].mean() - DARKENED for tile in bright)
    named = ", ".join(f"{count} {name}" for name, count in errors.items()) or "none"
    print(f"torchstain raised on {errors.total()} of {len(everything)} tiles ({named}), which are left as they were.")
    print(f"Of {len(bright)} tiles that are nearly all glass it darkened {darkened} by more than {DARKENED} levels.\n")


def shrunk(image: Image) -> Image:
    """The image at a third of its size."""
    height, width = (length // SHRINK * SHRINK for length in image.shape[:2])
    blocks = image[:height, :width].reshape(height // SHRINK, SHRINK, width // SHRINK, SHRINK, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
