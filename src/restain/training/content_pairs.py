"""Pairs by content: for each crop of the source the crop of the target that shows the most alike, of other tissue.

Style transfer learns from such pairs (PAPERS §6.3). The target gives the style alone; but where it holds what the
source holds, fat beside fat and glands beside glands, less is left to be confused. Crops are cut edge to edge, those
with tissue are preferred, and of each list some hundred are looked at, from as many files as can be.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from restain.color.augment import to_gray
from restain.color.glass import PRIOR_WHITE, find_white_point
from restain.color.images import RGB8
from restain.color.spaces import Floats
from restain.errors import InputError
from restain.files import write_atomically
from restain.training.augment import reflect_to
from restain.training.blank import STAINED_SHARE, stained_blocks
from restain.training.cutting import to_tensor
from restain.training.listing import Lists, Role, sample_colors
from restain.training.sampling import stable_order
from restain.training.sheet import MOST_COLUMNS, MOST_ROWS, validation_sheet
from restain.training.tiles import Picture, Shelf

Descriptor = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) in 0..1 to descriptions (N, D), of which near ones show the same kind of tissue."""

LOOKED_AT = 256
"""Crops of each list that are looked at; more where more than a tenth of these are wanted."""
BINS = 16
"""Of the gray levels of a list, as many pixels in each."""


@dataclass(frozen=True)
class ContentPair:
    """Two crops of like content, and how far their descriptions are apart."""

    source: Picture
    target: Picture
    distance: float


@dataclass(frozen=True)
class _Crop:
    """A crop, as a picture of its own, and where it is in the picture that it was cut from."""

    picture: Picture
    whole: Picture
    x: int
    y: int


@dataclass(frozen=True)
class _Looks:
    """What is seen of the crops of one list.

    Attributes:
        crops: (N).
        grays: (N, 256) share of the pixels at each gray level.
        tissue: (N,) share of the blocks that are stained.
    """

    crops: list[_Crop]
    grays: Floats
    tissue: Floats

    def preferred(self) -> list[int]:
        """Those with tissue, then the others."""
        return sorted(range(len(self.crops)), key=lambda i: bool(self.tissue[i] < STAINED_SHARE))


def pair_by_content(
    lists: Lists, count: int, crop: int, seed: int, shelf: Shelf, descriptor: Descriptor | None = None
) -> list[ContentPair]:
    """Pair crops of the source with the nearest of the target; the same for the same pictures and seed.

    A crop of the target is taken again only when all have been.

    Args:
        lists: pictures of the source and of the target.
        count: pairs wanted; fewer are made where the source has fewer crops.
        crop: side of the crops, pixels; pictures that are smaller are taken as they are.
        seed: another one, other crops of the source.
        shelf: reads the pictures.
        descriptor: what is near; None for `gray_descriptions`.

    Raises:
        SlideError: a file cannot be read any more. InputError: a description is not finite.
    """
    most = max(LOOKED_AT, 10 * count)
    roles: tuple[Role, Role] = ("source", "target")
    looks = {role: _look(_spread(_cut(lists[role], crop), seed)[:most], seed, shelf) for role in roles}
    chosen = {role: looks[role].preferred() for role in roles}
    chosen["source"] = chosen["source"][:count]
    stained = int((looks["target"].tissue >= STAINED_SHARE).sum())
    chosen["target"] = chosen["target"][: stained or None]
    descriptions: dict[Role, Floats] = {}
    for role in roles:
        if descriptor is None:
            descriptions[role] = gray_descriptions(looks[role].grays, looks[role].tissue)[chosen[role]]
        else:
            descriptions[role] = _describe([looks[role].crops[i] for i in chosen[role]], crop, shelf, descriptor)
    distances = np.stack([np.linalg.norm(descriptions["target"] - one, axis=1) for one in descriptions["source"]])
    if not np.isfinite(distances).all():
        raise InputError("the descriptions by which crops are paired are not all finite")
    pairs = []
    for i, j in enumerate(nearest(distances)):
        source, target = looks["source"].crops[chosen["source"][i]], looks["target"].crops[chosen["target"][j]]
        pairs.append(ContentPair(source.picture, target.picture, float(distances[i, j])))
    return pairs


def nearest(distances: NDArray[np.float64]) -> list[int]:
    """For each row in turn the nearest column that is left; when none is, all are again. (N, M) to N columns."""
    found: list[int] = []
    left = np.ones(distances.shape[1], np.bool_)
    for row in distances:
        if not left.any():
            left[:] = True
        found.append(int(np.where(left, row, np.inf).argmin()))
        left[found[-1]] = False
    return found


def gray_descriptions(grays: Floats, tissue: Floats) -> Floats:
    """Descriptions by how much of a crop is dark, and how dark, measured by the list that the crop belongs to.

    A description says which share of the crop is darker than what 1/16, 2/16, … of all pixels of the list are darker
    than; so a scanner's brightness, its tone curve and the strength of stains do not decide. The share of tissue counts
    as much as all of these. (Of registered crops by two scanners, true partners were found nearer so than by histograms
    of the density against the white point.)

    Args:
        grays: (N, 256) share of each crop's pixels at each gray level.
        tissue: (N,) share of each crop that is stained.

    Returns:
        (N, `BINS`) float64, all in 0..1.
    """
    below = np.pad(grays.cumsum(axis=1), [(0, 0), (1, 0)])
    of_all = below.mean(axis=0)
    steps = np.arange(1, BINS) / BINS
    shares = np.stack([np.interp(steps, of_all / of_all[-1], row) for row in below])
    return np.column_stack([shares / np.sqrt(BINS - 1), tissue])


# ---- crops ------------------------------------------------------------------------------------------------------


def _cut(pictures: Sequence[Picture], side: int) -> list[_Crop]:
    """All whole crops, edge to edge; of what is smaller along a side, all that there is."""
    crops = []
    for whole in pictures:
        width, height = size = min(side, whole.size[0]), min(side, whole.size[1])
        for y in range(0, whole.size[1] - height + 1, side):
            for x in range(0, whole.size[0] - width + 1, side):
                left, top = (round(step * whole.downsample) for step in (x, y))
                location = (whole.location[0] + left, whole.location[1] + top)
                picture = replace(whole, location=location, size=size, stained=None)
                crops.append(_Crop(picture, whole, x, y))
    return crops


def _spread(crops: Sequence[_Crop], seed: int) -> list[_Crop]:
    """In an order by chance in which every file comes once before any comes twice."""
    files: dict[Path, list[_Crop]] = {}
    for i in stable_order([f"{crop.picture.name} {crop.picture.location}" for crop in crops], seed):
        files.setdefault(crops[i].picture.path, []).append(crops[i])
    rounds = max(map(len, files.values()))
    return [some[k] for k in range(rounds) for some in files.values() if k < len(some)]


def _pixels(crops: Sequence[_Crop], shelf: Shelf) -> Iterator[tuple[int, RGB8]]:
    """The number and the pixels of each crop; each picture is read once, so that they come in another order."""
    wholes: dict[Picture, list[int]] = {}
    for number, crop in enumerate(crops):
        wholes.setdefault(crop.whole, []).append(number)
    for whole, numbers in wholes.items():
        pixels = shelf.read(whole, 0, 0, *whole.size)
        for number in numbers:
            (width, height), x, y = crops[number].picture.size, crops[number].x, crops[number].y
            yield number, pixels[y : y + height, x : x + width]


def _look(crops: list[_Crop], seed: int, shelf: Shelf) -> _Looks:
    colors = sample_colors(list(dict.fromkeys(crop.picture.path for crop in crops)), seed)
    white = np.array(PRIOR_WHITE) if colors is None else find_white_point(colors).level
    grays, tissue = np.zeros((len(crops), 256)), np.zeros(len(crops))
    for number, pixels in _pixels(crops, shelf):
        grays[number] = np.bincount(to_gray(pixels)[..., 0].ravel(), minlength=256) / pixels[..., 0].size
        tissue[number] = stained_blocks(pixels, white).mean()
    return _Looks(crops, grays, tissue)


def _describe(crops: Sequence[_Crop], side: int, shelf: Shelf, descriptor: Descriptor) -> Floats:
    described: list[Floats] = [np.empty(0)] * len(crops)
    with torch.inference_mode():
        for number, pixels in _pixels(crops, shelf):
            image = to_tensor([reflect_to(pixels, side)]).float().div(255)
            described[number] = descriptor(image).double().cpu().numpy().ravel()
    return np.stack(described)


# ---- for a person -----------------------------------------------------------------------------------------------


def write_table(path: Path, pairs: Sequence[ContentPair]) -> None:
    """Write which crops were paired, in level-0 pixels (x, y) of their files, and how far apart they are, as csv."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["source_file", "source_x", "source_y", "target_file", "target_x", "target_y", "distance"])
    for pair in pairs:
        source, target = ((picture.path, *picture.location) for picture in (pair.source, pair.target))
        writer.writerow([*source, *target, f"{pair.distance:.6g}"])
    data = stream.getvalue().encode()
    write_atomically(path, lambda out: out.write(data), overwrite=True)


def pairs_sheet(pairs: Sequence[tuple[RGB8, RGB8]]) -> Image.Image:
    """Sources, each with its target beside it; the first 32 pairs, in up to four columns.

    Args:
        pairs: (H, W, 3) uint8 each, all of one size; one pair or more.
    """
    shown = list(pairs[: MOST_ROWS * MOST_COLUMNS // 2])
    across = -(-len(shown) // MOST_ROWS)
    down = -(-len(shown) // across)
    nothing = np.full_like(shown[0][0], 48)  # the sheet's own gray
    columns: dict[str, list[RGB8]] = {}
    for k in range(across):
        part = shown[k * down : (k + 1) * down]
        for side, role in enumerate(("source", "target")):
            tiles = [pair[side] for pair in part]
            columns[f"{role} {k * down + 1} to {k * down + len(part)}"] = [*tiles, *[nothing] * (down - len(part))]
    title = f"{len(pairs)} crops of the source, each with the crop of the target that was taken for the most like it"
    return validation_sheet(columns, title)
