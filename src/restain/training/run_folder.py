"""The folder of a training run: what a person opens, what `--resume` continues, what a kill cannot spoil.

    runs/NAME/
    ├── settings.toml              every setting as resolved; can be given back as a recipe
    ├── environment.json           versions, device, command and time of every start
    ├── pairs.csv, pairs.png       which crops were paired by content, where some were
    ├── metrics.jsonl              a line of losses every so many steps (metrics_log.py)
    ├── curves.png                 the losses drawn
    ├── pictures/step-00001000.png validation sheets
    ├── checkpoints/step-00001000.safetensors, best.safetensors
    ├── normalizer.safetensors     what `restain normalize --normalizer runs/NAME` applies
    ├── tensorboard/               only when asked for
    └── .restain-run.lock          held while a process trains

Everything is written beside its name and renamed, so a name that is there is whole.
"""

import json
import math
import os
import re
import shutil
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from restain.errors import FormatError, InputError, OutputError, TrainingError, TrainingWarning
from restain.files import atomic_output, write_atomically
from restain.lock import Lock
from restain.training.checkpoint import load_state, read_facts, save_state
from restain.training.run_facts import HEADER, environment, settings_text

if TYPE_CHECKING:
    from PIL import Image

LOCK = ".restain-run.lock"
KEEP = 2
"""Checkpoints kept beside the best one: the newest, and the one before should the newest be damaged."""

_STEP = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: its file, the updates done by then, and the state as it was saved."""

    path: Path
    step: int
    state: Any


class RunFolder:
    """One training run on disk; made by `create` or `open`, not by itself.

    As a context manager it gives the lock back at the end.

    Attributes:
        path: the folder.
        settings: the run's settings, as written in `settings.toml`.
        keep: how many of the newest checkpoints stay, the best one not counted.
    """

    def __init__(self, path: Path, settings: dict[str, Any], lock: Lock | None, keep: int = KEEP) -> None:
        if keep < 1:
            raise InputError(f"got keep={keep}; wanted at least one checkpoint")
        self.path, self.settings, self.keep = path, settings, keep
        self._lock = lock

    # ---- made and opened ----------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], settings: Mapping[str, Any], *, overwrite: bool = False, keep: int = KEEP
    ) -> Self:
        """A new run in a new or empty folder, locked for this process.

        Args:
            path: the folder; made with its parents.
            settings: plain nested values: dicts of str keys, lists, str, bool, int, float, paths. TOML has no None:
                a setting that is None is left out, and named in a comment at the file's top.
            overwrite: whether a run that is there already is removed first: the files of a run, nothing else.
            keep: how many of the newest checkpoints stay.

        Raises:
            OutputError: a run or anything else is there, another process trains into it, or it cannot be written.
            InputError: a setting that TOML cannot hold.
        """
        path = Path(path)
        text, plain = settings_text(settings)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise OutputError(f"{path} is or lies in a file; name a folder for the run") from None
        except OSError as error:
            raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error
        refuse_folder(path, overwrite=overwrite)
        lock = Lock(path / LOCK, "trained into")
        try:
            if is_run(path) and not overwrite:  # another process was faster
                raise _refusal(path)
            run = cls(path, plain, lock, keep)
            run._remove_results()
            # First of all files: the folder of a run that is killed right now is a run.
            write_atomically(path / "settings.toml", lambda stream: stream.write(text.encode()), overwrite=True)
            for folder in (run.pictures, run.checkpoints):
                folder.mkdir(exist_ok=True)
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, lock: bool = True, keep: int = KEEP) -> Self:
        """A run that is there.

        Args:
            path: the folder.
            lock: whether to lock it for this process, to train on; False to read, and in all processes of a
                distributed run but the first.
            keep: how many of the newest checkpoints stay.

        Raises:
            FormatError: the folder is no run, or its settings are damaged.
            OutputError: another process trains into it, or it cannot be written.
        """
        path = Path(path)
        if not is_run(path):
            raise FormatError(f"{path} is no training run: it has no settings.toml that a run wrote")
        try:
            settings = tomllib.loads((path / "settings.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FormatError(f"{path / 'settings.toml'} cannot be read: {error}") from error
        run = cls(path, settings, Lock(path / LOCK, "trained into") if lock else None, keep)
        if lock:
            run._remove_leftovers()
            for folder in (run.pictures, run.checkpoints):
                folder.mkdir(exist_ok=True)
        return run

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- names --------------------------------------------------------------------------------------------------

    @property
    def pictures(self) -> Path:
        """The folder of validation sheets."""
        return self.path / "pictures"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The best checkpoint's file, which need not be there."""
        return self.checkpoints / "best.safetensors"

    @property
    def metrics(self) -> Path:
        """The log of losses."""
        return self.path / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """The drawing of the losses."""
        return self.path / "curves.png"

    @property
    def normalizer(self) -> Path:
        """The trained system's file."""
        return self.path / "normalizer.safetensors"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's events."""
        return self.path / "tensorboard"

    @property
    def pairs(self) -> Path:
        """The table of crops that were paired by content."""
        return self.path / "pairs.csv"

    @property
    def pairs_sheet(self) -> Path:
        """The picture of them."""
        return self.path / "pairs.png"

    # ---- written ------------------------------------------------------------------------------------------------

    def record_start(self, *, command: Sequence[str] | str, device: str, **more: Any) -> None:
        """Add to `environment.json` what this start runs on: versions, machine, device, command, time, `more`."""
        path = self.path / "environment.json"
        try:
            starts = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else []
        except (OSError, ValueError, KeyError, TypeError):
            starts = []  # somebody's edit; it is a record, and no reason not to train
        starts.append({**environment(), "command": command, "device": device, **more})
        text = json.dumps({"starts": starts}, indent=2) + "\n"
        write_atomically(path, lambda stream: stream.write(text.encode()), overwrite=True)

    def save_picture(self, step: int, sheet: "Image.Image") -> Path:
        """Write a validation sheet as `pictures/step-….png`."""
        return _save_png(self.pictures / f"step-{step:08d}.png", sheet)

    def save_pairs_sheet(self, sheet: "Image.Image") -> Path:
        """Write the picture of crops that were paired by content."""
        return _save_png(self.pairs_sheet, sheet)

    def save_checkpoint(self, step: int, state: Any, *, score: float | None = None) -> Path:
        """Write `checkpoints/step-….safetensors`, then remove those that are no longer kept.

        The disk needs room for `keep` + 2 of them. Checkpoints of later steps, which a run that was taken up at an
        earlier one leaves behind, are removed too.

        Args:
            step: updates done.
            state: what `checkpoint.save_state` takes.
            score: how good the run is by now, larger is better; the best so far becomes `best.safetensors`.
                A score that is not finite counts as none.

        Raises:
            OutputError: it cannot be written; all earlier ones are still there.
        """
        path = self.checkpoints / f"step-{step:08d}.safetensors"
        score = None if score is None or not math.isfinite(score) else float(score)
        save_state(path, state, facts={"step": step, "score": score})
        if score is not None:
            best = self.best_score
            if best is None or score > best:
                _link(path, self.best)
        found = self._steps()
        kept = [s for s in sorted(found) if s <= step][-self.keep :]
        for other in found:
            if other not in kept:
                found[other].unlink(missing_ok=True)
        return path

    @property
    def best_score(self) -> float | None:
        """The best checkpoint's score, None where there is none that can be read."""
        try:
            score = read_facts(self.best).get("score")
        except FormatError:
            return None
        return score if isinstance(score, float) else None

    # ---- read ---------------------------------------------------------------------------------------------------

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that loads, with its state; None where none was ever written.

        A damaged one is passed over with a `TrainingWarning`; the best one is tried last.

        Raises:
            TrainingError: there are checkpoints, and all are damaged.
        """
        found = self._steps()
        candidates = [found[step] for step in sorted(found, reverse=True)]
        if self.best.is_file():
            candidates.append(self.best)
        damaged: list[str] = []
        for path in candidates:
            try:
                checkpoint = Checkpoint(path, int(read_facts(path)["step"]), load_state(path))
            except (FormatError, KeyError, TypeError, ValueError) as error:
                damaged.append(str(error))
                continue
            if damaged:
                message = f"{damaged[0]}; training goes on from {path.name} (step {checkpoint.step})"
                warnings.warn(message, TrainingWarning, stacklevel=2)
            return checkpoint
        if damaged:
            raise TrainingError(f"no checkpoint of {self.path} can be read: {damaged[0]}; --overwrite starts anew")
        return None

    def _steps(self) -> dict[int, Path]:
        """The files of checkpoints by step; half-written ones have other names."""
        if not self.checkpoints.is_dir():
            return {}
        matches = ((_STEP.fullmatch(path.name), path) for path in self.checkpoints.iterdir())
        return {int(match[1]): path for match, path in matches if match}

    # ---- removed ------------------------------------------------------------------------------------------------

    def _remove_results(self) -> None:
        """Remove what a run writes but its settings, which mark the folder as a run until new ones replace them."""
        self._remove_leftovers()
        for folder, pattern in ((self.checkpoints, "*.safetensors"), (self.pictures, "step-*.png")):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        results = (self.pairs, self.pairs_sheet, self.metrics, self.curves, self.normalizer)
        for path in (*results, self.path / "environment.json"):
            path.unlink(missing_ok=True)
        if self.tensorboard.is_dir():
            shutil.rmtree(self.tensorboard)

    def _remove_leftovers(self) -> None:
        """Remove half-written files of a killed process; only the holder of the lock may."""
        for folder in (self.path, self.pictures, self.checkpoints):
            for path in folder.glob(".*.part"):
                path.unlink(missing_ok=True)


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a training run: it has settings that a run wrote, or that lie beside a run's lock."""
    settings = Path(path) / "settings.toml"
    if not settings.is_file():
        return False
    if (Path(path) / LOCK).exists():
        return True
    try:
        with settings.open("rb") as stream:
            return stream.read(len(HEADER)) == HEADER.encode()
    except OSError:
        return False


def refuse_folder(path: Path, *, overwrite: bool = False) -> None:
    """Raise `OutputError` where `RunFolder.create` would, because of what is there: a run, a file, or anything else."""
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path} is or lies in a file; name a folder for the run")
    if not is_run(path) and not _is_empty(path):
        raise OutputError(f"{path} is not empty and no training run; name a new folder")
    if is_run(path) and not overwrite:
        raise _refusal(path)


def _is_empty(path: Path) -> bool:
    """Whether a folder holds nothing but what a run that was killed at its very start left."""
    return all(p.name == LOCK or (p.name.startswith(".") and p.suffix == ".part") for p in path.iterdir())


def _refusal(path: Path) -> OutputError:
    return OutputError(f"{path} is a training run already; --resume continues it, --overwrite starts it anew")


def _save_png(path: Path, image: "Image.Image") -> Path:
    with atomic_output(path, overwrite=True) as temporary, temporary.open("wb") as stream:
        image.save(stream, "PNG")
    return path


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` in one step, without a second copy where the file system can."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with atomic_output(target, overwrite=True) as copy:
            shutil.copyfile(source, copy)
        return
    os.replace(temporary, target)
