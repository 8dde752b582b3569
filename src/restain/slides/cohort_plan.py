"""What is left to do for a cohort: which outputs an earlier run finished, and whether they belong to this one."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from restain.errors import OutputError
from restain.files import write_atomically
from restain.methods.base import Appearance, Normalizer
from restain.slides.batch import BatchSettings
from restain.slides.cohort_work import Job
from restain.slides.folders import checksum
from restain.slides.manifest import Manifest, Row, key

Pair = tuple[Path, Path]


class SavedNormalizer:
    """A normalizer as the bytes of its file.

    Attributes:
        data: what `Normalizer.save` writes.
        digest: their SHA-256.
    """

    def __init__(self, normalizer: Normalizer) -> None:
        with tempfile.TemporaryDirectory(prefix="restain-") as folder:
            normalizer.save(Path(folder) / "normalizer.safetensors")
            self.data = (Path(folder) / "normalizer.safetensors").read_bytes()
        self.digest = hashlib.sha256(self.data).hexdigest()

    def refuse_other(self, path: Path, book: Manifest, digest: str) -> None:
        """Raise `OutputError` where outputs lie by another normalizer, whose file this one would replace."""
        if not path.is_file() or checksum(path) == self.digest:
            return
        for row in book.rows.values():
            if row.status == "done" and row.settings != digest and (path.parent / row.output).exists():
                raise OutputError(
                    f"{path.parent / row.output} was made by the normalizer in {path}, which is another; name another "
                    "folder, or pass --overwrite to replace the normalizer"
                )

    def refuse_stranger(self, path: Path, *, ours: bool) -> None:
        """Raise `OutputError` where a file lies that no cohort left there, such as a training run's weights."""
        if path.exists() and not ours and (not path.is_file() or checksum(path) != self.digest):
            raise OutputError(f"{path} is there already, and no cohort's; name another folder, or move it")

    def write(self, path: Path) -> None:
        """Write the file, unless it is there."""
        if not path.is_file() or checksum(path) != self.digest:
            write_atomically(path, lambda stream: stream.write(self.data), overwrite=True)


def settings_digest(saved: SavedNormalizer, settings: BatchSettings, together: Appearance | None = None) -> str:
    """Of everything that decides what an output looks like: sixteen hexadecimal digits.

    Args:
        saved: the normalizer.
        settings: how slides are sampled and written.
        together: the one appearance of all slides, where they are estimated together.
    """
    facts = asdict(settings)
    del facts["workers"], facts["overwrite"]
    if together is not None:
        for item in fields(together):
            value = getattr(together, item.name)
            facts[f"appearance {item.name}"] = _plain(value)
    return hashlib.sha256(f"{saved.digest} {json.dumps(facts, sort_keys=True, default=str)}".encode()).hexdigest()[:16]


def plan_cohort(
    pairs: Sequence[Pair],
    folder: Path,
    book: Manifest,
    digest: str,
    *,
    overwrite: bool,
    resume: bool,
    together: bool = False,
) -> tuple[list[Job], int, int]:
    """The slides that are left to do, with absolute paths; how many are finished; how many outputs nobody knows.

    With `resume`, an output stays that the manifest says was made from the same source with the same settings. One that
    a run was to write, and was killed or failed, is written again. One that the manifest does not know was there
    before: it stays, unless `overwrite`. `together` says that the slides were estimated together.

    Raises:
        OutputError: outputs are there that may not be replaced, were made with other settings or from other sources, or
            all are there and none is known.
    """
    jobs: list[Job] = []
    found: list[Row] = []
    kept = 0
    other_settings: list[Path] = []
    for source, output in pairs:
        row = book.rows.get(key(output, folder))
        if not output.exists():
            jobs.append(_job(source, output, replace=False))
        elif resume and row is not None and row.status == "done" and row.settings == digest and _same(row, source):
            kept += 1
        elif overwrite or (resume and row is not None and row.status in ("started", "failed")):
            jobs.append(_job(source, output, replace=True))
        elif not resume:
            raise OutputError(f"{output} exists; --no-resume does everything anew, which needs --overwrite")
        elif row is not None and row.status == "done":
            if row.settings == digest:
                raise OutputError(
                    f"{output} was made from {row.input}, not from {source}; name another folder, or pass --overwrite"
                )
            other_settings.append(output)
        else:
            found.append(Row(Path(os.path.abspath(source)), key(output, folder), "found"))
    if other_settings:
        hint = ", or --estimate folder found other files" if together else ""
        raise OutputError(
            f"{other_settings[0]} and {len(other_settings) - 1} more outputs were made by another method, reference or "
            f"settings than these, as {book.path} says{hint}; pass --overwrite to make them anew, or name "
            "another folder"
        )
    if len(found) == len(pairs):
        raise OutputError(
            f"all {len(found)} outputs exist already, and no manifest says how they were made; pass --overwrite to "
            "replace them, or name another folder"
        )
    if jobs:
        for row in found:
            book.add(row, sync=False)
    return jobs, kept, len(found)


def _plain(value: Any) -> Any:
    """Numbers as they are told, so that the last bits of a sum do not count; of bytes a digest."""
    if isinstance(value, (np.ndarray, float)):
        value = np.round(value, 6).tolist()
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


def _job(source: Path, output: Path, *, replace: bool) -> Job:
    return Job(Path(os.path.abspath(source)), Path(os.path.abspath(output)), replace)


def _same(row: Row, source: Path) -> bool:
    """Whether a row is of this source: by its path, or where that has changed by its contents."""
    return row.input == Path(os.path.abspath(source)) or row.input_sha256 == checksum(source)
