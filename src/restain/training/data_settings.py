"""What is trained on: every option, its default, and a sentence about it."""

import os
import re
from dataclasses import dataclass
from typing import Any, Literal

from restain.errors import InputError
from restain.training.augment import CropMode


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is trained on. Values are plain, so that a TOML or JSON file can hold them."""

    source: tuple[str, ...] = ()
    """Images and slides to be changed: files, folders (searched through) and glob patterns. Empty for systems that
    learn from the target alone."""
    target: tuple[str, ...] = ()
    """Images and slides of the wanted appearance. Empty for systems that learn from the source alone."""
    pairs: str = ""
    """Registered pairs: a csv (source and target, or tile; dy and dx, slide, patient where known) whose files lie in
    the one `source` and the one `target` folder, or beside it; or "names" for the files of one name in these folders.
    Empty: unpaired."""
    validation_source: tuple[str, ...] = ()
    """Images and slides of the source kept for validation, instead of a share of `source`."""
    validation_target: tuple[str, ...] = ()
    """Images and slides of the target kept for validation, instead of a share of `target`."""
    validation_pairs: str = ""
    """Pairs kept for validation, as `pairs`; in `validation_source` and `validation_target`, or else in `source` and
    `target`."""
    validation_share: float = 0.1
    """Share of the pictures kept for validation where no files are named for it: 0 (none) to below 1."""
    group_pattern: str = ""
    """Regular expression whose first group, searched for in a file's path, names what must not be both trained and
    validated on: the slide, or better the patient. Empty: each file is on its own. A csv's patient or slide goes
    first."""
    batch: int = 4
    """Crops of each list in one update, over all processes that train together."""
    crop: int = 256
    """Side of the square crops in pixels. Smaller pictures are mirrored to it."""
    crop_mode: CropMode = "random"
    """Where crops lie: "random", "center" or "top-left"."""
    flip: bool = True
    """Whether half of the crops are flipped left to right."""
    flip_vertical: bool = False
    """Whether half of the crops are flipped top to bottom."""
    rotate: bool = False
    """Whether crops are turned by 0, 90, 180 or 270 degrees."""
    input_augmentation: Literal["none", "cagan"] = "none"
    """What is done to the colours of what a network is given, not of what its output is compared with: nothing, or
    CAGAN's changes. Batches then hold both."""
    labels: str = ""
    """What the images of the target show: "folders", the name of the folder that each lies in, or a csv with the
    columns image and label. Empty: not known."""
    content_pairs: int = 0
    """So many crops of the source, each with the crop of the target whose content is nearest to it, are trained on
    together, and nothing else; 0 for all images, unpaired. Where `pairs` are given these go first."""
    blank_share: float | None = None
    """Share of the crops that is blank (less than 5 % of it stained), 0 to 1. None for what comes: of images all they
    show, of slides tissue."""
    samples_per_epoch: int = 0
    """Crops of each list in an epoch; 0 for as many as the longer list has pictures. Few large images want more."""
    drop_last: bool = True
    """What becomes of an epoch's end that fills no batch: True leaves it out, False fills it from the next round."""
    slide_tiles: int = 500
    """Tiles that are sampled from each slide, blank ones among them."""
    slide_tile: int = 0
    """Side in pixels of the tiles sampled from slides, in which crops lie; 0 for the side of the crops."""
    mpp: float | None = None
    """Micrometres per pixel at which slides are read, where they say theirs; None for `slide_downsample`."""
    slide_downsample: float = 1.0
    """Level-0 pixels for each pixel that is read of a slide, where `mpp` does not decide: 2 halves the resolution."""
    skip_bad: bool = True
    """Whether files that cannot be read are reported and left out; False makes the first of them an error."""
    cache_bytes: int = 1_000_000_000
    """Decoded pictures are kept in memory, and no worker processes started, if all fit into so many bytes."""
    workers: int | None = None
    """Processes that decode ahead; 0 to decode between updates, None for one less than there are cores, 1 to 8."""
    seed: int = 0
    """Of the split, the tiles of slides, the order and the crops."""

    def __post_init__(self) -> None:
        for name in ("source", "target", "validation_source", "validation_target"):
            given: Any = getattr(self, name)
            several = given if isinstance(given, list | tuple) else [given]
            if not all(isinstance(item, str | os.PathLike) for item in several):
                raise InputError(f"got {name} = {given!r}; wanted paths")
            object.__setattr__(self, name, tuple(os.fspath(item) for item in several))
        for name in ("pairs", "validation_pairs", "labels"):
            if not isinstance(getattr(self, name), str | os.PathLike):
                raise InputError(f"got {name} = {getattr(self, name)!r}; wanted a path")
            object.__setattr__(self, name, os.fspath(getattr(self, name)))
        self._check_files()
        self._check_numbers()

    def _check_files(self) -> None:
        if not (self.source or self.target or self.pairs):
            raise InputError("nothing to train on: give source, target or both")
        if self.validation_pairs and not self.pairs:
            raise InputError(
                "validation_pairs without pairs; give pairs too, or validation_source and validation_target"
            )
        for name, pairs in (("", self.pairs), ("validation_", self.validation_pairs)):
            folders = [getattr(self, f"{name}{role}") for role in ("source", "target")]
            if not pairs and self.pairs and any(folders):
                raise InputError("validation_source and validation_target of pairs need validation_pairs")
            if pairs and any(len(folder) > 1 for folder in folders):
                raise InputError(f"{name}pairs needs one {name}source and one {name}target folder; got {folders}")
        if self.labels and not (self.target or self.pairs):
            raise InputError("labels without target; they are those of its images")
        for role in ("source", "target"):
            if not self.pairs and getattr(self, f"validation_{role}") and not getattr(self, role):
                raise InputError(f"validation_{role} without {role}; there is nothing to train on")
        try:
            groups = re.compile(self.group_pattern).groups
        except re.error as error:
            raise InputError(f"group_pattern {self.group_pattern!r} is no regular expression: {error}") from None
        if self.group_pattern and not groups:
            raise InputError(f"group_pattern {self.group_pattern!r} has no group; put what names the slide in ( )")

    def _check_numbers(self) -> None:
        lows = {"batch": 1, "crop": 16, "samples_per_epoch": 0, "slide_tiles": 1, "slide_tile": 0}
        lows |= {"content_pairs": 0, "cache_bytes": 0, "workers": 0, "seed": 0}
        for name, low in lows.items():
            value = getattr(self, name)
            if value is None and name == "workers":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise InputError(f"got {name} = {value!r}; wanted a whole number, {low} or more")
        for name in ("flip", "flip_vertical", "rotate", "drop_last", "skip_bad"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"got {name} = {getattr(self, name)!r}; wanted true or false")
        for name in ("validation_share", "blank_share", "mpp", "slide_downsample"):
            value = getattr(self, name)
            optional = value is None and name in ("blank_share", "mpp")
            if not optional and (not isinstance(value, int | float) or isinstance(value, bool)):
                raise InputError(f"got {name} = {value!r}; wanted a number")
        if not 0 <= self.validation_share < 1:
            raise InputError(f"got validation_share = {self.validation_share}; wanted 0 to below 1")
        if self.crop_mode not in ("random", "center", "top-left"):
            raise InputError(f"got crop_mode = {self.crop_mode!r}; wanted random, center or top-left")
        if self.input_augmentation not in ("none", "cagan"):
            raise InputError(f"got input_augmentation = {self.input_augmentation!r}; wanted none or cagan")
        if self.blank_share is not None and not 0 <= self.blank_share <= 1:
            raise InputError(f"got blank_share = {self.blank_share}; wanted 0 to 1, or nothing")
        if self.blank_share is not None and self.crop_mode != "random":
            raise InputError('blank_share decides where crops lie; it needs crop_mode = "random"')
        if self.blank_share is not None and self.content_pairs and not self.pairs:
            raise InputError("blank_share decides where crops lie, and content_pairs which there are; leave one out")
        for name in ("mpp", "slide_downsample"):
            value = getattr(self, name)
            if value is not None and not 0.01 <= value <= 1000:
                raise InputError(f"got {name} = {value}; wanted 0.01 to 1000")
        if 0 < self.slide_tile < self.crop:
            raise InputError(f"got slide_tile = {self.slide_tile}; wanted at least the crop's {self.crop} pixels")
