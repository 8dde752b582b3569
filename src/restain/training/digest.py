"""A name for exactly these pictures, by which a resumed run sees whether it has the data that it was started with."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restain.errors import SlideError
from restain.training.listing import Lists

_END = 65_536
"""Bytes that are read at either end of a file: a picture's header and its first pixels, and behind the last ones the
checksum over all of them that PNG and many other formats have."""


def digest_of(training: Lists, validation: Lists, labels: Mapping[Path, int]) -> str:
    """SHA-256 over where the pictures are in their files, how these are split, labelled, and what is in them.

    Of a file its size and both its ends count, not its date, which changes when it is copied, nor its folder. Other
    pixels are seen where they change either.

    Args:
        training: the pictures to train on, by role.
        validation: the pictures kept for validation.
        labels: of files; those without have none.

    Raises:
        SlideError: a file cannot be read any more.
    """
    contents: dict[Path, str] = {}
    facts: list[Any] = []
    for part, lists in (("training", training), ("validation", validation)):
        for role, pictures in sorted(lists.items()):
            for picture in pictures:
                if picture.path not in contents:
                    contents[picture.path] = _content(picture.path)
                place = [part, role, picture.name, picture.location, picture.size, picture.downsample]
                facts.append([*place, contents[picture.path], labels.get(picture.path)])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _content(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            digest = hashlib.sha256(stream.read(_END))
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - _END, 0))
            digest.update(stream.read(_END))
    except OSError as error:
        raise SlideError(f"{path} could be read before, and cannot now: {error}") from None
    return f"{size} {digest.hexdigest()}"
