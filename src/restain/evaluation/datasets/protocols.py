"""The papers' experiments as lists: which pictures, which patches, which part they are in.

Kang 2021 (StainNet), Salehi 2020 (STST), Du 2025 (DSTGAN). Where a paper leaves something open, ours says so; where the
folder at hand holds less than the paper had, a note says by how much. What a paper did against the rule that no slide
be in two parts is done only when asked for, and noted.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from restain.errors import InputError
from restain.evaluation.datasets.bach import list_bach
from restain.evaluation.datasets.camelyon import RADBOUD, UTRECHT, list_camelyon16
from restain.evaluation.datasets.glas import list_glas
from restain.evaluation.datasets.item import Item
from restain.evaluation.datasets.mitos import list_mitos
from restain.evaluation.datasets.pairing import pair_items
from restain.evaluation.datasets.pairs import Pair
from restain.evaluation.datasets.patches import Patch, choose, corner_grid, picture_size, spread_grid
from restain.evaluation.datasets.slide_patches import tissue_patches
from restain.evaluation.datasets.splits import check_split, owners_split, split_items
from restain.evaluation.datasets.tupac import list_tupac

Folder = str | os.PathLike[str]

REGISTERED_MARGIN = 48
"""Pixels left out at the edges of a registered frame: its masked border, and room for a shift."""


@dataclass(frozen=True)
class Protocol:
    """An experiment."""

    name: str
    items: Mapping[str, Sequence[Item]]
    """Pictures by part: "train_source", "test", …."""
    patches: Mapping[str, Sequence[Patch]]
    """Patches by part; none where whole pictures are used."""
    pairs: Sequence[Pair] = ()
    """What is to be registered first, if anything: patches of sources then lie on the warped targets too."""
    notes: Sequence[str] = ()
    """Where it differs from the paper, or breaks a rule because the paper did."""


def stainnet_mitos(folder: Folder) -> Protocol:
    """StainNet on MITOS: registered x40 frames, Aperio to Hamamatsu, 16 patches of 256 pixels from each.

    1200 frames (19,200 patches) train and 496 (7,936) test, which is the owner's split by slide. Where in a frame the
    16 lie is not published; here they are spread evenly over it.
    """
    items = [item for item in list_mitos(folder, "x40") if item.split is not None]
    pairs = pair_items(items, "aperio", "hamamatsu")
    paired = {pair.source for pair in pairs}
    parts = {
        name: [item for item in part if item.path in paired]
        for name, part in owners_split(item for item in items if item.scanner == "aperio").items()
    }
    patches = {name: [patch for item in part for patch in _sixteen(item)] for name, part in parts.items()}
    notes = _counted(patches, {"train": 19_200, "test": 7_936})
    return Protocol("stainnet-mitos", parts, patches, pairs, notes)


def stst_mitos(folder: Folder, *, seed: int = 0, as_published: bool = False) -> Protocol:
    """STST on MITOS: x20 frames, the top left 1536 x 1280 pixels of each as 30 patches; not registered.

    The Hamamatsu patches are "train" (3000) and "test" (500); "test_source" are those of the Aperio frames, which are
    fed in at test. The paper drew both at random from all 424 frames, so that slides, and frames, are in both parts.
    Here they are drawn from the owner's training and test slides.

    Args:
        folder: MITOS-ATYPIA-14.
        seed: of the choice, whose seed is not published.
        as_published: draw from all frames as the paper did.
    """
    items = list_mitos(folder, "x20")
    target = [item for item in items if item.scanner == "hamamatsu"]
    sources = {item.pair: item for item in items if item.scanner == "aperio"}
    notes = []
    if as_published:
        mixed = choose(_thirties(target), 3_500, seed)
        train = choose(mixed, 3_000, seed + 1)
        kept = set(train)
        test = [patch for patch in mixed if patch not in kept]
        notes.append("patches of one slide, and of one frame, are in train and test, as in the paper")
    else:
        parts = owners_split(target)
        train = choose(_thirties(parts.get("train", [])), 3_000, seed)
        test = choose(_thirties(parts.get("test", [])), 500, seed)
    fed = [replace(patch, item=sources[patch.item.pair]) for patch in test if patch.item.pair in sources]
    patches = {"train": train, "test": test, "test_source": fed}
    notes += _counted(patches, {"train": 3_000, "test": 500, "test_source": 500})
    return Protocol("stst-mitos", _items_of(patches), patches, notes=notes)


def stainnet_camelyon(folder: Folder, *, count: int = 6_000, seed: int = 0) -> Protocol:
    """StainNet on Camelyon16: patches of 256 pixels of training slides, Utrecht as source and Radboud as target.

    The paper trained its normalization models on 6000 patches and does not say of which slides; here as many are
    taken of either centre, equally many of each of its training slides.
    """
    items = [item for item in list_camelyon16(folder) if item.split == "train"]
    parts = {
        part: [item for item in items if item.center == center]
        for part, center in (("train_source", UTRECHT), ("train_target", RADBOUD))
    }
    check_split(parts)
    patches = {}
    for part, slides in parts.items():
        each = -(-count // max(len(slides), 1))
        patches[part] = choose([p for item in slides for p in tissue_patches(item, each, seed=seed)], count, seed)
    notes = _counted(patches, dict.fromkeys(parts, count))
    return Protocol("stainnet-camelyon", parts, patches, notes=notes)


def dstgan_mitos(folder: Folder) -> Protocol:
    """DSTGAN on MITOS: Aperio is the source and Hamamatsu the target, by the owner's split.

    How many patches the paper took is not published; here they are StainNet's 16 a frame, not registered.
    """
    roles = {"aperio": "source", "hamamatsu": "target"}
    parts = {
        f"{split}_{role}": [item for item in items if item.scanner == scanner]
        for split, items in owners_split(list_mitos(folder, "x40")).items()
        for scanner, role in roles.items()
    }
    patches = {name: [patch for item in part for patch in _sixteen(item)] for name, part in parts.items()}
    return Protocol("dstgan-mitos", parts, patches, notes=["the number of patches is ours; the paper gives none"])


def dstgan_tupac(folder: Folder) -> Protocol:
    """DSTGAN on TUPAC: the first training patient is the target, all others are sources."""
    items = [item for item in list_tupac(folder) if item.split == "train"]
    if not items:
        raise InputError(f"{folder} has no training cases of TUPAC-2016")
    first = min(items, key=lambda item: int(item.slide)).patient
    parts = {
        "target": [item for item in items if item.patient == first],
        "source": [item for item in items if item.patient != first],
    }
    check_split(parts)
    notes = [] if first == "01" else [f"the target is case {first}, the first at hand; the paper's is the first of all"]
    return Protocol("dstgan-tupac", parts, {}, notes=notes)


def dstgan_glas(folder: Folder, *, as_published: bool = False) -> Protocol:
    """DSTGAN on GlaS: the 85 training images and the 60 of test A train, the 20 of test B test.

    Training images of patients who are in test B too, as far as Grade.csv tells, are left out.

    Args:
        folder: GlaS.
        as_published: keep them, as the paper did.
    """
    items = list_glas(folder)
    test = [item for item in items if item.split == "testB"]
    tested = {item.patient for item in test if item.patient is not None}
    train = [item for item in items if item.split != "testB" and (as_published or item.patient not in tested)]
    parts = {"train": train, "test": test}
    notes = _counted(parts, {"train": 145, "test": 20})
    shared = sorted({item.patient for item in train if item.patient is not None and item.patient in tested})
    if shared:
        notes.append(f"patients in train and test, as in the paper: {', '.join(shared)}")
    if all(item.patient is None for item in items):
        notes.append("without Grade.csv it is not known whether patients are in both parts")
    return Protocol("dstgan-glas", parts, {}, notes=notes)


def dstgan_bach(folder: Folder, patients: Folder | None = None, *, seed: int = 0) -> Protocol:
    """DSTGAN on BACH: three quarters of the 400 labelled images train, one quarter tests, every class in both.

    The paper's split is not published; this one is, by its seed.

    Args:
        folder: ICIAR-BACH-2018.
        patients: a csv of image and patient, as `list_bach` takes it.
        seed: of the split.
    """
    items = list_bach(folder, patients)
    parts = split_items(items, {"train": 0.75, "test": 0.25}, seed=seed)
    notes = ["the split is ours; the paper gives none", *_counted(parts, {"train": 300, "test": 100})]
    unknown = sum(item.patient is None for item in items)
    if unknown:
        notes.append(f"of {unknown} images the patient is not known: a patient may be in both parts")
    return Protocol("dstgan-bach", parts, {}, notes=notes)


def _sixteen(item: Item) -> list[Patch]:
    corners = spread_grid(picture_size(item), 4, 4, margin=REGISTERED_MARGIN)
    return [Patch(item, corner) for corner in corners]


def _thirties(items: Sequence[Item]) -> list[Patch]:
    return [Patch(item, corner) for item in items for corner in corner_grid(picture_size(item), 1536, 1280)]


def _items_of(patches: Mapping[str, Sequence[Patch]]) -> dict[str, list[Item]]:
    return {name: list(dict.fromkeys(patch.item for patch in part)) for name, part in patches.items()}


def _counted(parts: Mapping[str, Sequence[Any]], wanted: Mapping[str, int]) -> list[str]:
    return [
        f"{part}: {len(parts.get(part, ())):,} where the paper has {count:,}"
        for part, count in wanted.items()
        if len(parts.get(part, ())) != count
    ]
