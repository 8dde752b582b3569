"""Images of one size with what is known of them: what networks are trained on and tested with."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from restain.color.images import RGB8, as_rgb8
from restain.errors import InputError
from restain.evaluation.benchmark.contenders import Contender
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.labels import read_labels
from restain.evaluation.datasets.patches import Patch
from restain.evaluation.datasets.splits import group_of
from restain.methods.base import Appearance, Normalizer
from restain.slides.reader import open_slide

Change = Normalizer | Callable[[RGB8], RGB8]
"""What test images go through before a network sees them."""

Estimate = Literal["image", "slide"]


@dataclass(frozen=True)
class Examples:
    """Images, what is true of each, and what belongs together.

    Attributes:
        images: (n, side, side, 3) uint8.
        truth: (n,) int64, the class of each; or (n, side, side) bool, its foreground.
        classes: names of the classes in their order; empty where `truth` is foreground.
        names: of the images, one each.
        pictures: which picture each is cut from; those of one picture are pooled before segmentations are averaged.
        groups: which patient or slide each is of: what no split may tear apart, and what intervals are drawn over.
    """

    images: RGB8
    truth: NDArray[Any]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    pictures: tuple[str, ...]
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        count, shape = len(self.images), self.images.shape
        if self.images.ndim != 4 or shape[3] != 3 or self.images.dtype != np.uint8 or not count:
            raise InputError(f"got images {self.images.dtype} {shape}; wanted one or more, (n, side, side, 3) uint8")
        if self.classes:
            good = self.truth.shape == (count,) and self.truth.dtype == np.int64
            good = good and self.truth.min() >= 0 and self.truth.max() < len(self.classes)
            wanted = f"({count},) int64 of 0 to {len(self.classes) - 1}"
        else:
            good = self.truth.shape == shape[:3] and self.truth.dtype == np.bool_
            wanted = f"{shape[:3]} bool"
        if not good:
            raise InputError(f"got truth {self.truth.dtype} {self.truth.shape}; wanted {wanted}")
        if {len(self.names), len(self.pictures), len(self.groups)} != {count}:
            raise InputError(f"got other numbers of names, pictures or groups than of images; wanted {count} of each")

    def __len__(self) -> int:
        return len(self.images)

    def changed(self, change: Change) -> "Examples":
        """The same, each image normalized by itself."""
        return replace(self, images=np.stack([_apply(change, image, None) for image in self.images]))


def make_examples(
    images: Any,
    truth: Any,
    classes: Sequence[str] = (),
    *,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> Examples:
    """Examples from arrays.

    Args:
        images: (n, side, side, 3) uint8.
        truth: (n,) whole numbers, indices into `classes`; or (n, side, side) bool.
        classes: their names; none for foreground.
        names: of the images; a digest of its pixels for each without.
        groups: their patients or slides; every image its own without, so that a patient may be in two parts unseen.

    Raises:
        InputError: shapes or types are others.
    """
    pixels, known = np.asarray(images), np.asarray(truth)
    if names is None:
        names = [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16] for image in pixels]
    known = known.astype(np.int64) if classes and np.issubdtype(known.dtype, np.integer) else known
    groups = names if groups is None else groups
    return Examples(pixels, known, tuple(classes), tuple(names), tuple(names), tuple(groups))


def class_names(items: Sequence[Item | Patch]) -> tuple[str, ...]:
    """The labels that occur, sorted.

    Raises:
        InputError: an item has none.
    """
    return tuple(sorted({_label(each) for each in items}))


def read_examples(
    items: Sequence[Item | Patch],
    side: int,
    classes: Sequence[str] = (),
    *,
    change: Change | None = None,
    estimate: Estimate = "image",
    mask_above: int = 0,
) -> Examples:
    """Read pictures, or squares of them, as `side` x `side` pixels.

    Larger ones are averaged down, and masks decided by the pixel in the middle; a picture that is not square is
    squeezed. Normalizing comes first, at the resolution of the picture.

    Args:
        items: pictures of a data set, or patches of them.
        side: pixels.
        classes: names in order, for labels; none to read masks.
        change: a normalizer, or a function of an image.
        estimate: what a normalizer learns the appearance from: "image", each item by itself; "slide", all pictures
            of its slide among the items together.
        mask_above: values of the mask above this are foreground.

    Raises:
        InputError: an item lacks its label or mask, or its label is none of `classes`.
        SlideError: a picture cannot be read.
    """
    appearances = _appearances(items, change) if estimate == "slide" else {}
    images, truths = [], []
    for each in items:
        pixels = _read(each)
        if change is not None:
            pixels = _apply(change, pixels, appearances.get(_item(each).slide))
        images.append(np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX)))
        if not classes:
            truths.append(_mask(each, pixels.shape[:2], side, mask_above))
        elif _label(each) not in classes:
            raise InputError(f"{_item(each).path} is called {_label(each)!r}; wanted one of {', '.join(classes)}")
    known: Any = np.array([classes.index(_label(each)) for each in items], np.int64) if classes else np.array(truths)
    return Examples(
        np.array(images, np.uint8).reshape(-1, side, side, 3),
        known,
        tuple(classes),
        tuple(each.name if isinstance(each, Patch) else each.path.stem for each in items),
        tuple(f"{_item(each).path.parent.name}/{_item(each).path.stem}" for each in items),
        tuple(group_name(_item(each)) for each in items),
    )


def group_name(item: Item) -> str:
    """What an item belongs to, in words: "glas: patient 3"."""
    return f"{item.dataset}: {' '.join(group_of(item))}"


def _item(each: Item | Patch) -> Item:
    return each.item if isinstance(each, Patch) else each


def _label(each: Item | Patch) -> str:
    label = each.label or (each.item.label if isinstance(each, Patch) else None)
    if label is None:
        raise InputError(f"{_item(each).path} has no label; wanted one for every item")
    return label


def _read(each: Item | Patch) -> RGB8:
    with open_slide(_item(each).path) as slide:
        if isinstance(each, Patch):
            pixels, _ = slide.read_region(each.location, each.level, (each.size, each.size))
        else:
            pixels, _ = slide.read_region((0, 0), 0, slide.dimensions)
    return pixels


def _mask(each: Item | Patch, shape: tuple[int, ...], side: int, above: int) -> NDArray[np.bool_]:
    item = _item(each)
    if item.mask is None:
        raise InputError(f"{item.path} has no mask; wanted one for every item, or classes")
    mask = read_labels(item.mask) > above
    if isinstance(each, Patch):
        if each.level:
            raise InputError(f"got a patch of level {each.level}; masks are known at level 0")
        left, top = each.location
        mask = mask[top : top + each.size, left : left + each.size]
    if mask.shape != shape[:2]:
        raise InputError(f"{item.mask} has {mask.shape} pixels there where its picture has {shape[:2]}")
    return np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))


def _appearances(items: Sequence[Item | Patch], change: Change | None) -> dict[str, Appearance | None]:
    """How each slide looks to a normalizer, from all its pictures."""
    if not isinstance(change, Normalizer):
        return {}
    files: dict[str, list[Any]] = {}
    for each in items:
        item = _item(each)
        if item.path not in files.setdefault(item.slide, []):
            files[item.slide].append(item.path)
    return {slide: Contender(slide, change).estimate(paths, paths) for slide, paths in files.items()}


def _apply(change: Change, image: RGB8, appearance: Appearance | None) -> RGB8:
    made = change.transform(image, appearance) if isinstance(change, Normalizer) else as_rgb8(change(image))
    if made.shape != image.shape:
        raise InputError(f"a normalizer made {made.shape} of {image.shape}; wanted the same size")
    return made
