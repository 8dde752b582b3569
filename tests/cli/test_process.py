"""`restain` in a process of its own: statuses, streams and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import restain

from ..running import Outcome, Run
from .scene import is_one_line


def process(*arguments: str, **environment: str) -> Outcome:
    path = str(Path(restain.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "restain.cli", *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_process_that_succeeds(run: Run) -> None:
    outcome = process("normalize", "a.png", "o.png", "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.json["failed"] == []
    assert run("normalize", "a.png", "in-process.png").code == 0
    assert Path("o.png").read_bytes() == Path("in-process.png").read_bytes()


def test_a_process_where_one_file_fails(here: Path) -> None:
    (here / "tiles" / "bad.tif").write_bytes((here / "slide.tif").read_bytes()[:9000])
    outcome = process("normalize", "tiles", "o")
    assert outcome.code == 1
    assert is_one_line(outcome), outcome.err
    assert outcome.err.startswith("restain: tiles/bad.tif: ")
    assert outcome.out == "3 files normalized by macenko, 1 failed\n"


@pytest.mark.parametrize("arguments", [["normalize", "gone", "o"], ["info", "cut.tif"], ["info", "cut.jpg"]])
def test_a_process_that_cannot_do_it(arguments: list[str], here: Path) -> None:
    (here / "cut.tif").write_bytes((here / "slide.tif").read_bytes()[:9000])
    (here / "cut.jpg").write_bytes((here / "tiles" / "b.jpg").read_bytes()[:3000])
    outcome = process(*arguments)
    assert outcome.code == 2
    assert is_one_line(outcome), outcome.err
    assert outcome.out == ""


def test_a_process_without_a_cache_folder(here: Path) -> None:
    """A file where the cache folder should be: kernels are compiled anew, and nothing is said about it."""
    (here / "file").touch()
    outcome = process("info", "a.png", NUMBA_CACHE_DIR=str(here / "file" / "cache"))
    assert outcome.code == 0
    assert outcome.err == ""
