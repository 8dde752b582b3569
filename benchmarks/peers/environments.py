"""The other packages: a virtual environment and a worker process each, so that none sees another's dependencies."""

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
PEERS = ("torchstain", "tiatoolbox", "torch-staintools", "staintools")


def set_up(folder: Path) -> None:
    """Make one virtual environment a peer under `folder`, with the versions that the lists beside this file pin.

    NAME.txt is installed with what it depends on; NAME-alone.txt afterwards, without.
    """
    for name in PEERS:
        print(f"setting up {name} ...", flush=True)
        venv.create(folder / name, with_pip=True, symlinks=os.name != "nt")  # as `python -m venv` does
        for requirements, options in ((f"{name}.txt", []), (f"{name}-alone.txt", ["--no-deps"])):
            if (HERE / requirements).exists():
                pip = [str(interpreter(folder, name)), "-m", "pip", "install", "--quiet"]
                subprocess.run([*pip, *options, "-r", str(HERE / requirements)], check=True)


def interpreter(folder: Path, name: str) -> Path:
    """The Python of a peer's environment."""
    return folder / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def start(folder: Path | None) -> dict[str, "Worker"]:
    """A worker of each peer whose environment is there and runs; says what is missing and what to do."""
    workers: dict[str, Worker] = {}
    for name in PEERS:
        if folder is None or not interpreter(folder, name).exists():
            continue
        worker = Worker(name, interpreter(folder, name))
        try:
            worker.facts = worker.ask(do="hello")
        except WorkerError as error:
            print(f"{name} does not run: {error}")
            worker.close()
        else:
            workers[name] = worker
    missing = [name for name in PEERS if name not in workers]
    if missing:
        where = folder or "FOLDER"
        print(f"Without {', '.join(missing)}. To have them: python benchmarks/peers.py --setup {where}; then give")
        print(f"--environments {where}.\n")
    return workers


class WorkerError(Exception):
    """The worker process ended or could not answer."""


@dataclass(frozen=True)
class Answer:
    """What a peer made of one image, or of several in one call.

    Attributes:
        output: as the peer gave it, tensors as (H, W, C); None where it raised.
        error: the exception's class, "" without.
        message: the exception's first line.
        seconds: inside the peer's call alone.
        changed: whether the array that was handed in is another one afterwards.
    """

    output: NDArray[Any] | None
    error: str
    message: str
    seconds: float
    changed: bool


class Worker:
    """A process in a peer's environment that answers one JSON line with another; arrays travel as .npy files."""

    def __init__(self, name: str, python: Path) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="peers-")
        self._log = Path(self._folder.name) / "log.txt"
        # Compiled code (torch's, Numba's) stays in the temporary folder, too.
        caches = dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"), self._folder.name)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(HERE / "worker.py"), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **caches},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._folder.cleanup()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, wait for the reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def fit(self, method: str, target: NDArray[Any]) -> float:
        """Fit a method of the peer to an image; seconds."""
        reply = self.ask(do="fit", method=method, path=self.put("target", target))
        if reply["error"]:
            raise WorkerError(f"{self.name} {method}: {reply['error']}: {reply['message']}")
        return float(reply["seconds"])

    def put(self, key: str, array: NDArray[Any]) -> str:
        """Write an array where the process finds it; the file."""
        path = f"{self._folder.name}/{key}.npy"
        np.save(path, array)
        return path

    def load(self, images: Sequence[NDArray[Any]]) -> None:
        """Have the process hold images, for `time`."""
        self.ask(do="load", paths=[self.put(f"held{i}", image) for i, image in enumerate(images)])

    def time(self, method: str) -> float:
        """Transform the images that `load` gave, one after the other; seconds inside the calls."""
        reply = self.ask(do="time", method=method)
        if reply["error"]:
            raise WorkerError(f"{self.name} {method}: {reply['error']}: {reply['message']}")
        return float(reply["seconds"])

    def transform(self, method: str, image: NDArray[Any], *, read_only: bool = False) -> Answer:
        """Transform one image, of any shape and type."""
        out = f"{self._folder.name}/out.npy"
        reply = self.ask(do="transform", method=method, path=self.put("in", image), out=out, read_only=read_only)
        output = None if reply["error"] else np.load(out)
        return Answer(output, reply["error"], reply["message"], reply["seconds"], reply["changed"])

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"the worker of {self.name} ended without a word"


def run_setup(folder: str) -> None:
    """`--setup`: make the environments, or say which step failed."""
    try:
        set_up(Path(folder))
    except subprocess.CalledProcessError as error:
        sys.exit(f"pip failed ({' '.join(map(str, error.cmd))}); see its message above")
