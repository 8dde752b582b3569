"""From files to batches: what a network is trained on, in an order that depends on nothing but the seed.

    data = TrainingData(DataSettings(source=("aperio/",), target=("hamamatsu/",), batch=4))
    for batch in data.batches(epoch=0):
        batch["source"], batch["target"]        # uint8 (N, 3, H, W)

With `input_augmentation` there are "source_input" and "target_input", too: the same crops, changed in colour, for a
network's input. With `labels` there is "target_label", int64 (N,): the place in `classes`, −1 where nobody knows.

Every sample is a pure function of the seed, the epoch and its index: the same whatever the number of worker processes,
of processes that train together, and of batches that were skipped because a run was resumed. No generator of torch is
touched.

An epoch is as long as the longer of the lists; the shorter starts again with other partners (PAPERS.md §2.5, §7.11).
Every batch is full.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, RestainError
from restain.training.augment import crop_position
from restain.training.blank import kinds
from restain.training.content_pairs import ContentPair, Descriptor, pair_by_content
from restain.training.cutting import LABEL, STREAMS, Batch, Cutter, cut_window, to_tensor
from restain.training.data_settings import DataSettings as DataSettings
from restain.training.decoding import Decoder
from restain.training.digest import digest_of
from restain.training.labels import find_labels
from restain.training.listing import Lists, Progress, Role, list_data, sample_colors
from restain.training.sampling import Plan, plan_epoch, shard, stable_order
from restain.training.tiles import Picture, Shelf


class TrainingData:
    """Files, listed and split, from which batches are cut. Close it, or use it as a context manager.

    Attributes:
        settings: as given.
        roles: "source", "target" or both: the keys of a batch.
        paired: whether source and target of a batch show the same tissue.
        content_pairs: which crops were paired because they show like content; empty where none were.
        classes: names of the target's labels, sorted; empty where there are none.
        training: by role, the pictures to train on; those of pairs, by content too, correspond.
        validation: by role, the pictures kept for validation, in a fixed order that mixes their files.
        cached: whether all pictures are in memory.
        failures: files that were left out, and why.
        notes: what a person should know: files left out, small images, slides without a resolution.
        digest: a name for exactly these pictures, split so: a resumed run can see whether its data are the same.
    """

    def __init__(
        self,
        settings: DataSettings,
        *,
        pin_memory: bool = False,
        progress: Progress | None = None,
        descriptor: Descriptor | None = None,
    ) -> None:
        """List the files; every one is opened, and every image decoded once.

        Args:
            settings: what to train on.
            pin_memory: whether batches are in page-locked memory, so that copies to a GPU overlap.
            progress: called with the number of files listed so far, and of all.
            descriptor: for pairs by content, what says how like two crops are; None for their grays.

        Raises:
            InputError: there are no such files, none can be read, or no picture is left to train on.
            RestainError: a file cannot be read and `skip_bad` is False.
        """
        cores = _cores()
        listing = list_data(settings, cores, progress)
        self.settings = settings
        self.training, self.validation = listing.training, listing.validation
        self.failures, self.notes = listing.failures, listing.notes
        self.classes, self._labels = self._find_labels()
        self.roles: tuple[Role, ...] = tuple(self.training)
        self.paired = bool(settings.pairs)
        self._files = {
            role: list(dict.fromkeys(picture.path for picture in self.training[role])) for role in self.roles
        }
        self._shelf = Shelf()
        self.content_pairs = self._pair_by_content(listing.kept, descriptor)
        self._together = self.paired or bool(self.content_pairs)
        self.digest = digest_of(self.training, self.validation, self._labels)
        self._leading = self.roles[:1] if self._together else self.roles
        self._kinds = {role: _kinds_of(self.training[role], settings, role) for role in self._leading}
        self.cached = self._keep(listing.kept)
        self._cutter = Cutter(settings, self.training, self._together, self._shelf, self._labels_of(self.training))
        workers = min(max(cores - 1, 1), 8) if settings.workers is None else settings.workers
        self._decoder = Decoder(self._cutter, 0 if self.cached else workers, pin_memory=pin_memory)
        self._turn = 0
        self._fixed: dict[Picture, RGB8] = {}

    # ---- training ------------------------------------------------------------------------------------------------

    @property
    def samples_per_epoch(self) -> int:
        """Samples of each list in an epoch, before an end that fills no batch is left out or filled."""
        return self.settings.samples_per_epoch or max(len(self.training[role]) for role in self.roles)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch, 1 or more; processes that train together share each."""
        samples, batch = self.samples_per_epoch, self.settings.batch
        return max(samples // batch if self.settings.drop_last else -(-samples // batch), 1)

    def batches(self, epoch: int, *, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The batches of one epoch, decoded ahead. One at a time: asking again ends the iterator before.

        Args:
            epoch: its number, 0 or more; each has another order and other crops.
            start: batches to skip; what follows is what would have followed.
            rank: number of this process among those that train together.
            world: how many these are; each gets its part of every batch.

        Returns:
            An iterator of uint8 (batch / world, 3, crop, crop) by role, in channels-last memory; and labels.

        Raises:
            InputError: the batch is no multiple of `world`.
            SlideError: while iterating, a file can no longer be read.
        """
        if epoch < 0 or start < 0:
            raise InputError(f"got epoch {epoch}, start {start}; wanted 0 or more")
        parts = [shard(k, self.settings.batch, rank, world) for k in range(start, self.batches_per_epoch)]
        self._turn += 1
        return self._cut(parts, epoch, self._turn)

    def _cut(self, parts: Sequence[range], epoch: int, turn: int) -> Iterator[Batch]:
        self._check_turn(turn)
        plans = self._plans(epoch)
        requests = (
            [(epoch, i, tuple((role, int(p.pictures[i]), int(p.blank[i])) for role, p in plans.items())) for i in part]
            for part in parts
        )
        for batch in self._decoder.decode(requests):
            if isinstance(batch, RestainError):
                raise batch
            yield batch
            self._check_turn(turn)

    def _check_turn(self, turn: int) -> None:
        if turn != self._turn:
            raise InputError("batches() was called again; only its last iterator can go on")

    def _plans(self, epoch: int) -> dict[Role, Plan]:
        count = self.batches_per_epoch * self.settings.batch
        plans: dict[Role, Plan] = {}
        for role in self._leading:
            tissue, blank = self._kinds[role]
            seed = [self.settings.seed, epoch, STREAMS[role]]
            share = self.settings.blank_share
            plans[role] = plan_epoch(
                seed, len(self.training[role]), count, blank_share=share, tissue=tissue, blank=blank
            )
        return plans

    # ---- validation ----------------------------------------------------------------------------------------------

    def validation_images(self, count: int) -> Batch:
        """The first pictures kept for validation, always the same, each cut in its middle; for sheets.

        Where nothing is kept for validation they are pictures that are trained on.

        Returns:
            By role uint8 (count or fewer, 3, crop, crop); those of pairs correspond.
        """
        return {role: self._stack(pictures[:count]) for role, pictures in self._shown().items()}

    def validation_batches(self, batch: int | None = None, *, most: int | None = None) -> Iterator[Batch]:
        """Everything kept for validation, in order, each cut in its middle, neither flipped nor turned.

        As many as the longer list has; the shorter starts again.

        Args:
            batch: pictures at a time, None for the size of a training batch; the last may be smaller.
            most: pictures of each list at most.

        Yields:
            By role uint8 (batch, 3, crop, crop), and labels. Nothing where nothing is kept for validation.
        """
        labels = self._labels_of(self.validation)
        lists = {role: self.validation.get(role, []) for role in self.roles}
        count = 0 if not all(lists.values()) else max(len(pictures) for pictures in lists.values())
        count = count if most is None else min(count, most)
        size = batch or self.settings.batch
        for first in range(0, count, size):
            which = range(first, min(first + size, count))
            cut: Batch = {role: self._stack([some[i % len(some)] for i in which]) for role, some in lists.items()}
            yield cut if labels is None else cut | {LABEL: torch.tensor([labels[i % len(labels)] for i in which])}

    def _shown(self) -> Lists:
        shown: Lists = {}
        for role in self.roles:
            lead = self.training["source"] if self._together else self.training[role]
            order = stable_order([f"{picture.name} {picture.location}" for picture in lead], self.settings.seed)
            shown[role] = self.validation.get(role) or [self.training[role][i] for i in order]
        return shown

    def _stack(self, pictures: Sequence[Picture]) -> torch.Tensor:
        crop = self.settings.crop
        if not pictures:
            return torch.empty((0, 3, crop, crop), dtype=torch.uint8)
        return to_tensor([self._middle(picture) for picture in pictures])

    def _middle(self, picture: Picture) -> RGB8:
        """The middle crop of a picture, kept for the next time while there is room."""
        cut = self._fixed.get(picture)
        if cut is None:
            x, y = crop_position(picture.size, self.settings.crop, "center")
            cut = cut_window(self._shelf, picture, x, y, self.settings.crop)
            if (len(self._fixed) + 1) * cut.nbytes <= self.settings.cache_bytes:
                self._fixed[picture] = np.ascontiguousarray(cut)
        return cut

    # ---- pairs by content ----------------------------------------------------------------------------------------

    def _pair_by_content(self, kept: dict[Picture, RGB8], descriptor: Descriptor | None) -> list[ContentPair]:
        """Pair crops, where that is asked for, and train on them instead of on all pictures."""
        settings = self.settings
        if not settings.content_pairs or len(self.roles) < 2:
            return []
        if self.paired:
            self.notes.append("pairs are given, so that none are made by content")
            return []
        self._shelf.kept = kept
        pairs = pair_by_content(
            self.training, settings.content_pairs, settings.crop, settings.seed, self._shelf, descriptor
        )
        self._shelf.kept = {}
        self.training = {"source": [pair.source for pair in pairs], "target": [pair.target for pair in pairs]}
        targets = len(set(self.training["target"]))
        if len(pairs) < settings.content_pairs or targets < len(pairs):
            self.notes.append(
                f"{len(pairs)} pairs were made by content, of {settings.content_pairs} wanted, with {targets} crops of "
                "the target: the images have no more crops"
            )
        return pairs

    def content_images(self) -> list[tuple[RGB8, RGB8]]:
        """The crops that were paired by content, each (crop, crop, 3) uint8; to look at."""
        return [(self._middle(pair.source), self._middle(pair.target)) for pair in self.content_pairs]

    # ---- labels --------------------------------------------------------------------------------------------------

    def _find_labels(self) -> tuple[tuple[str, ...], Mapping[Path, int]]:
        if not self.settings.labels:
            return (), {}
        lists = [part.get("target", []) for part in (self.training, self.validation)]
        found = find_labels(self.settings.labels, *lists)
        self.notes += found.notes
        return found.classes, found.numbers

    def _labels_of(self, lists: Lists) -> list[int] | None:
        """Of the target's pictures; None where nobody asks for labels."""
        return [self._labels[picture.path] for picture in lists.get("target", [])] if self.classes else None

    # ---- the rest ------------------------------------------------------------------------------------------------

    def histogram(self, role: Role, *, most: int = 32) -> ColorHistogram:
        """Colours of what is trained on, glass included: to find a white point in, or to fit a normalizer to.

        Of all files that were given, where only some crops of them were paired by content: those have tissue.

        Args:
            role: "source" or "target".
            most: files to read, chosen by the seed; slides are sampled.

        Raises:
            InputError: there is no such list, or nothing of it can be read.
        """
        if role not in self.training:
            raise InputError(f"there is no {role} among {', '.join(self.roles)}")
        histogram = sample_colors(self._files[role], self.settings.seed, most)
        if histogram is None:
            raise InputError(f"none of the {len(self._files[role])} files of the {role} can be read any more")
        return histogram

    def summary(self) -> dict[str, Any]:
        """What is trained on, in numbers, for a run's record; no names of files, which may be patients'."""
        facts: dict[str, Any] = {"paired": self.paired, "digest": self.digest, "files_left_out": len(self.failures)}
        if self.classes:
            facts["classes"] = list(self.classes)
        if self.content_pairs:
            facts["content_pairs"] = len(self.content_pairs)
        for role in self.roles:
            for part, lists in (("training", self.training), ("validation", self.validation)):
                some = lists.get(role, [])
                groups, files = ({getattr(p, name) for p in some} for name in ("group", "path"))
                facts[f"{role}_{part}"] = {"pictures": len(some), "groups": len(groups), "files": len(files)}
        return facts

    def close(self) -> None:
        """End worker processes and close files."""
        self._turn += 1
        self._decoder.close()
        self._shelf.close()

    def __enter__(self) -> "TrainingData":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _keep(self, kept: dict[Picture, RGB8]) -> bool:
        """Keep every picture in memory if all fit; else none."""
        lists = [*self.training.values(), *self.validation.values()]
        pictures = {picture for some in lists for picture in some}
        if sum(3 * picture.size[0] * picture.size[1] for picture in pictures) > self.settings.cache_bytes:
            return False
        for picture in pictures:
            pixels = kept.get(picture)
            self._shelf.kept[picture] = self._shelf.read(picture, 0, 0, *picture.size) if pixels is None else pixels
        self._shelf.close()
        return True


def _kinds_of(
    pictures: Sequence[Picture], settings: DataSettings, role: Role
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Indices of the pictures in which a crop can show tissue, and be blank; None where nobody asks."""
    if settings.blank_share is None:
        return None, None
    crop = settings.crop
    found = np.array([(True, False) if p.stained is None else kinds(p.stained, p.size, crop) for p in pictures])
    tissue, blank = (np.flatnonzero(column).astype(np.int64) for column in found.T)
    if settings.blank_share > 0 and not len(blank):
        raise InputError(
            f"blank_share is {settings.blank_share:g}, but no picture of the {role} has a blank place of {crop} "
            "pixels; leave it out, or add pictures of glass"
        )
    if settings.blank_share < 1 and not len(tissue):
        raise InputError(f"no picture of the {role} has tissue; leave blank_share out to train on it as it is")
    return tissue, blank


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
