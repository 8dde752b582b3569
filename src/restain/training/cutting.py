"""Cutting the crops of a batch: what happens in the worker processes, and nothing that they would have to remember."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from restain.color.augment import AUGMENTATIONS
from restain.color.images import RGB8
from restain.errors import RestainError, SlideError
from restain.training.augment import crop_position, draw_orientation, reflect_to
from restain.training.blank import place_crop
from restain.training.data_settings import DataSettings
from restain.training.listing import Lists, Role
from restain.training.tiles import Picture, Shelf

Batch = dict[str, torch.Tensor]
Draw = tuple[Role, int, int]
"""Which list, which of its pictures, and whether the crop is to be blank (`Plan.blank`)."""
Request = list[tuple[int, int, tuple[Draw, ...]]]
"""The samples of a batch: epoch, index, and one draw for each list."""
LABEL = "target_label"
"""What a batch calls the labels of its target: (N,) int64."""
STREAMS: dict[Role, int] = {"source": 0, "target": 1}  # enters the seeds of what belongs to a list


class Cutter(Dataset[Any]):
    """Cuts the crops of a batch; lives in the worker processes, too, and remembers nothing from one to the next."""

    def __init__(
        self, settings: DataSettings, lists: Lists, together: bool, shelf: Shelf, labels: Sequence[int] | None = None
    ) -> None:
        """Nothing is read yet.

        Args:
            settings: where crops lie, and what is done to them.
            lists: pictures by role.
            together: whether pictures of one number are cut alike, and one draw is for all lists.
            shelf: reads the pictures.
            labels: of the target's pictures; None where there are none.
        """
        self._settings, self._lists, self._together, self._shelf = settings, lists, together, shelf
        self._labels = labels

    def __getitem__(self, request: Request) -> Batch | RestainError:
        """The batch, or what went wrong: an exception that crosses processes would arrive as a wall of text."""
        crops: dict[str, list[RGB8]] = {}
        labels: list[int] = []
        try:
            for epoch, index, draws in request:
                for role, number, blank in draws:
                    for name, crop in self._crops(epoch, index, role, number, blank).items():
                        crops.setdefault(name, []).append(crop)
                    if self._labels is not None and (role == "target" or self._together):
                        labels.append(self._labels[number])
        except RestainError as error:
            return error
        except OSError as error:
            return SlideError(str(error))
        batch = {name: to_tensor(images) for name, images in crops.items()}
        return batch | {LABEL: torch.tensor(labels)} if labels else batch

    def _crops(self, epoch: int, index: int, role: Role, number: int, blank: int) -> dict[str, RGB8]:
        settings = self._settings
        picture = self._lists[role][number]
        generator = np.random.default_rng([settings.seed, epoch, STREAMS[role], 4, index])
        if blank >= 0 and picture.stained is not None:
            x, y = place_crop(picture.stained, picture.size, settings.crop, bool(blank), generator)
        else:
            x, y = crop_position(picture.size, settings.crop, settings.crop_mode, generator)
        orientation = draw_orientation(
            generator, flip=settings.flip, flip_vertical=settings.flip_vertical, rotate=settings.rotate
        )
        crops: dict[str, RGB8] = {}
        for name in self._lists if self._together else [role]:
            crop = orientation(cut_window(self._shelf, self._lists[name][number], x, y, settings.crop))
            crops[name] = crop
            if settings.input_augmentation != "none":
                # A generator of its own, so that it changes no other draw.
                chance = np.random.default_rng([settings.seed, epoch, STREAMS[name], 5, index])
                crops[f"{name}_input"] = AUGMENTATIONS[settings.input_augmentation](crop, chance)
        return crops


def cut_window(shelf: Shelf, picture: Picture, x: int, y: int, side: int) -> RGB8:
    """A square window of a picture, mirrored where the picture is smaller."""
    width, height = (min(side, length) for length in picture.size)
    return reflect_to(shelf.read(picture, x, y, width, height), side)


def to_tensor(images: Sequence[RGB8]) -> torch.Tensor:
    """(N, 3, H, W) of N images (H, W, 3), in channels-last memory."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
