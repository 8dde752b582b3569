"""Look at the pictures once: what is shown of the examples, and the colours of up to 48 images.

One sample is in memory at a time. Of an example, small copies and a crop are kept; of the others, counts of colours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.color.spaces import balance, lightness
from restain.errors import RestainError
from restain.evaluation.benchmark.measure import Evaluation
from restain.evaluation.benchmark.report.choice import Choice, choose, evenly
from restain.evaluation.benchmark.report.markup import shrunk
from restain.evaluation.benchmark.samples import Pixels, Progress, Sample
from restain.evaluation.metrics.background import background_mask
from restain.evaluation.metrics.inputs import gray

POOLED = 48
"""Most images whose colours are pooled; more would change no curve that is seen."""

SIDE = 512
"""Pixels of an image that are pooled, from its middle."""

CROP = 96
"""Side of the zoomed crops, pixels."""

SHOWN = 400
"""Longest side of a whole picture on the page, twice what it is drawn at."""

TISSUE = 0.8
"""As `Normalizer.luminosity`: what is darker than this share of the glass's lightness is tissue."""

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """One picture of an example."""

    whole: RGB8
    """At most `SHOWN` pixels long."""
    crop: RGB8
    """Not reduced."""


@dataclass(frozen=True)
class Example:
    """An example, ready to draw."""

    choice: Choice
    views: Mapping[str, View]
    """Of the contenders, by name."""
    target: View | None
    box: tuple[int, int, int, int]
    """left, top, width, height of the crop, source pixels."""
    size: tuple[int, int]
    """width, height of the source."""


@dataclass
class Pool:
    """The colours of one contender's outputs, or of the targets."""

    levels: Floats = field(default_factory=lambda: np.zeros((3, 256)))
    """Pixels of tissue by channel and level."""
    histograms: list[ColorHistogram] = field(default_factory=list)


@dataclass(frozen=True)
class Gathered:
    """All that the drawing needs of the pictures."""

    examples: Sequence[Example]
    pools: Mapping[str, Pool]
    target: Pool
    pooled: int
    """How many images were pooled."""
    glassy: Sample | None
    """The image that shows glass best; None where none shows any."""
    unread: Sequence[tuple[str, str]]
    """Names of images that could not be read again, and why."""


def gather(evaluation: Evaluation, count: int, progress: Progress | None = None) -> Gathered:
    """Read the examples and a share of the other images, and make every contender's output of them anew."""
    choices = {choice.sample.name: choice for choice in choose(evaluation, count)}
    paired = [sample for sample in evaluation.samples if sample.paired]
    pooled = {sample.name for sample in evenly(paired or list(evaluation.samples), POOLED)}
    todo = [sample for sample in evaluation.samples if sample.name in choices or sample.name in pooled]
    pools = {contender.name: Pool() for contender in evaluation.contenders}
    target, examples, unread = Pool(), {}, []
    glassy, most_glass = None, 0.0
    for done, sample in enumerate(todo, 1):
        try:
            pixels = sample.read()
        except (RestainError, OSError) as error:
            unread.append((sample.name, str(error) or type(error).__name__))
            continue
        outputs = {each.name: evaluation.output(each, pixels.source) for each in evaluation.contenders}
        white = find_white_point(ColorHistogram.from_image(pixels.source)).level
        tissue = tissue_mask(pixels.source, white)
        if sample.name in choices:
            examples[sample.name] = _example(choices[sample.name], pixels, outputs, tissue)
        if sample.name in pooled:
            _pool(pixels, outputs, tissue, pools, target)
        glass = _glass_to_show(background_mask(pixels.source, white))
        if glass > most_glass:
            glassy, most_glass = sample, glass
        if progress is not None:
            progress(done, len(todo), sample.source)
    shown = [examples[name] for name in choices if name in examples]
    return Gathered(shown, pools, target, len(pooled) - sum(n in pooled for n, _ in unread), glassy, unread)


def tissue_mask(image: RGB8, white: Any) -> Mask:
    """Where an image (H, W, 3) shows tissue: darker than glass."""
    light = lightness(balance(image.reshape(-1, 3), white)) < TISSUE
    return light.reshape(image.shape[:2])


def _glass_to_show(glass: Mask) -> float:
    """How well glass can be judged by a picture: best with much of it, and tissue beside it."""
    share = float(glass.mean())
    return share if share <= 0.6 else max(1.2 - share, 0.2)


def _pool(pixels: Pixels, outputs: Mapping[str, RGB8], tissue: Mask, pools: Mapping[str, Pool], target: Pool) -> None:
    middle = tuple(slice(max(0, (side - SIDE) // 2), max(0, (side - SIDE) // 2) + SIDE) for side in tissue.shape)
    mask = None if pixels.mask is None else pixels.mask[middle]
    if mask is not None and not mask.any():
        return
    where = tissue[middle] if mask is None else tissue[middle] & mask
    pictures = [(pools[name], image) for name, image in outputs.items()]
    if pixels.target is not None:
        pictures.append((target, pixels.target))
    for pool, image in pictures:
        part = np.ascontiguousarray(image[middle])
        pool.histograms.append(ColorHistogram.from_image(part, mask=mask))
        for channel in range(3):
            pool.levels[channel] += np.bincount(part[..., channel][where], minlength=256)


def _example(choice: Choice, pixels: Pixels, outputs: Mapping[str, RGB8], tissue: Mask) -> Example:
    left, top, width, height = box = find_box(pixels, tissue)
    inside = (slice(top, top + height), slice(left, left + width))

    def view(image: RGB8) -> View:
        return View(shrunk(image, SHOWN), image[inside].copy())

    return Example(
        choice=choice,
        views={name: view(image) for name, image in outputs.items()},
        target=None if pixels.target is None else view(pixels.target),
        box=box,
        size=(tissue.shape[1], tissue.shape[0]),
    )


def find_box(pixels: Pixels, tissue: Mask) -> tuple[int, int, int, int]:
    """The crop with most texture of tissue, where the target may be compared: left, top, width, height."""
    height, width = (min(CROP, side) for side in tissue.shape)
    levels = gray(pixels.source)
    edges = np.hypot(ndimage.sobel(levels, axis=0), ndimage.sobel(levels, axis=1))
    edges *= tissue if pixels.mask is None else tissue & pixels.mask
    # uniform_filter centres an even window half a pixel early; the crop is shifted alike.
    texture = ndimage.uniform_filter(edges, (height, width), mode="constant")
    rows, columns = (
        slice(side // 2, full - side + side // 2 + 1) for side, full in zip((height, width), tissue.shape, strict=True)
    )
    top, left = np.unravel_index(int(np.argmax(texture[rows, columns])), texture[rows, columns].shape)
    return int(left), int(top), width, height
