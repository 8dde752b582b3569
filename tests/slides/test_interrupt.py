"""Ctrl-C in each long stage of the command line: one line, status 130, no traceback, and nothing partial."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from restain.phantom import Scanner, make_phantom
from restain.slides.writer import PyramidSettings, write_array

from ..forking import Forks

INTERRUPT = """
import importlib, os, signal, threading

signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells let their background processes ignore
place, wanted = {place!r}, {call}
module, _, name = place.partition(":")
*path, name = name.split(".")
owner = importlib.import_module(module)
for part in path:
    owner = getattr(owner, part)
real, count, lock = getattr(owner, name), 0, threading.Lock()

def interrupted(*arguments, **options):
    global count
    with lock:
        count += 1
        now = count == wanted
    if now:
        os.kill(os.getpid(), signal.SIGINT)
    return real(*arguments, **options)

setattr(owner, name, interrupted)
"""
"""Sends the process a SIGINT when a function is called for the nth time."""

MEASURING = "interrupted while the slides were measured; the same command measures them again"


@dataclass(frozen=True)
class Stage:
    """A command, where in it Ctrl-C is pressed (module:function and which call), what is told, and what may be left."""

    command: str
    place: str
    call: int = 2
    told: str = "interrupted"
    left: str = ""


LOCK = ".restain-cohort.lock"
COHORT = f"{LOCK} manifest.csv normalizer.safetensors"
COUNTING = "restain.color.builder:HistogramBuilder.add"
ENCODING = "restain.slides.mapped_tiles:encode_tile"
SMALLER = "restain.slides.levels:encode_tile"

STAGES = {
    "one slide, measured": Stage("normalize in/a.tif out/a.tif", COUNTING),
    "one slide, mapped": Stage("normalize in/a.tif out/a.tif", ENCODING, 5),
    "one slide, its smaller levels": Stage("normalize in/a.tif out/a.tif", SMALLER),
    "one slide, as OME-Zarr": Stage("normalize in/a.tif out/a.ome.zarr", ENCODING, 5),
    "one slide, as DICOM": Stage("normalize in/a.tif out/a.dcm", ENCODING, 5),
    "one slide, at its last step": Stage("normalize in/a.tif out/a.tif", "restain.files:_rename_without_replacing", 1),
    "the preview": Stage(
        "normalize in/a.tif out/a.tif --preview out/p.png", "restain.slides.preview:_small", 1, left="a.tif"
    ),
    "a folder, measured together": Stage("normalize in out --estimate folder", COUNTING, 2, MEASURING, LOCK),
    "a folder, the last of it measured together": Stage(
        "normalize in out --estimate folder", "restain.slides.batch:open_slide", 2, MEASURING, LOCK
    ),
    "a consensus": Stage("normalize in out --target-consensus", COUNTING, 2, MEASURING, LOCK),
    "a cohort": Stage("normalize in out", ENCODING, 5, "interrupted; 0 of 2 slides are entered, and the", COHORT),
    "a quality sheet": Stage(
        "normalize in out",
        "restain.slides.quality_sheet:_look",
        1,
        "interrupted while the quality sheet was drawn; the outputs are there",
        f"{COHORT} a.tif b.tif",
    ),
    "a reference": Stage("fit in -o out/n.safetensors", COUNTING),
    "a target": Stage("normalize in/a.tif out/a.tif --target in", COUNTING),
    "a separation, measured": Stage("separate in/a.tif out", COUNTING),
    "a separation": Stage("separate in/a.tif out", ENCODING, 5),
    "separations": Stage("separate in out", ENCODING, 5),
    "a comparison": Stage("compare in/a.tif in/b.tif --preview out/p.png", COUNTING),
    "a phantom": Stage("phantom out/p.tif --size 1024x1024", "restain.slides.writer:encode_tile"),
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    for name, seed in (("a", 1), ("b", 2)):
        image = make_phantom(700, 900, seed=seed, scanner=Scanner(noise=1.0)).image
        write_array(folder / f"{name}.tif", image, settings=PyramidSettings(tile=128), mpp=(0.5, 0.5))
    return folder


@pytest.mark.parametrize("name", STAGES)
def test_ctrl_c_in_every_stage(name: str, slides: Path, forks: Forks, tmp_path: Path) -> None:
    stage = STAGES[name]
    (tmp_path / "in").symlink_to(slides)
    (tmp_path / "out").mkdir()
    before = {path.name: path.read_bytes() for path in slides.iterdir()}
    started = f"import os\nos.chdir({str(tmp_path)!r})\n" + INTERRUPT.format(place=stage.place, call=stage.call)
    options = [] if stage.command.split()[0] in ("fit", "compare", "phantom") else ["--tile-size", "128"]
    ended = forks.run(*stage.command.split(), *options, before=started)
    assert ended.code == 130, ended.err
    assert ended.out == ""
    assert ended.err.startswith(f"restain: {stage.told}"), ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(stage.left.split())
    assert {path.name: path.read_bytes() for path in slides.iterdir()} == before


SLOW = """
import importlib, time
from pathlib import Path

owner = importlib.import_module("restain.color.builder").HistogramBuilder
quick, begun = owner.add, []

def slow(*arguments):
    begun.append(None)
    Path("counted").write_text(str(len(begun)))
    if len(begun) > 4:  # Ctrl-C has been pressed
        time.sleep(0.3)
    return quick(*arguments)

owner.add = slow
"""
"""Says how many tiles were counted, and takes its time from the fifth on."""


@pytest.fixture(scope="module")
def long_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of 25 tiles of a sample, all of tissue."""
    folder = tmp_path_factory.mktemp("long")
    image = np.tile(make_phantom(512, 512, seed=1, glass_fraction=0.0).image, (5, 5, 1))
    for name in ("a", "b"):
        write_array(folder / f"{name}.tif", image, settings=PyramidSettings(quality=50))
    return folder


@pytest.mark.parametrize(
    ("command", "told", "left"),
    [
        ("separate in out", "interrupted", ""),
        ("normalize in out", STAGES["a cohort"].told, COHORT),
        ("normalize in out --target-consensus", MEASURING, LOCK),
    ],
)
def test_ctrl_c_ends_the_samples_of_several_slides(
    command: str, told: str, left: str, long_samples: Path, forks: Forks, tmp_path: Path
) -> None:
    """At their next tiles, not when the last one is counted."""
    (tmp_path / "in").symlink_to(long_samples)
    (tmp_path / "out").mkdir()
    place = f"import os\nos.chdir({str(tmp_path)!r})\n"
    ended = forks.run(
        *command.split(), "--workers", "2", before=place + SLOW + INTERRUPT.format(place=COUNTING, call=4)
    )
    assert ended.code == 130, ended.err
    assert ended.out == ""
    assert ended.err.startswith(f"restain: {told}"), ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(left.split())
    assert 4 <= int((tmp_path / "counted").read_text()) <= 20


def test_ctrl_c_while_the_program_starts(tmp_path: Path) -> None:
    """By a real process of its own, whose imports take most of its time."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import restain.__main__\n"
        "print('ready', flush=True)\n"
        "import builtins, os\n"
        "real = builtins.__import__\n"
        "def interrupted(name, *rest, **more):\n"
        "    if name == 'cyclopts':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = interrupted\n"
        "sys.argv = ['restain', 'methods']\n"
        "restain.__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "ready\n", "restain: interrupted\n")


def test_ctrl_c_from_outside(slides: Path, tmp_path: Path) -> None:
    """As a terminal sends it, at a moment of nobody's choosing."""
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from restain.slides import batch\n"
        "real = batch.open_slide\n"
        "def told(*arguments, **options):\n"
        "    print('reading', flush=True)\n"
        "    return real(*arguments, **options)\n"
        "batch.open_slide = told\n"
        "from restain.__main__ import main\n"
        f"import sys; sys.argv = ['restain', 'normalize', {str(slides)!r}, 'out', '--estimate', 'folder']\n"
        "main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "reading\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    # A process that has met Ctrl-C in text that was compiled by `exec` ends as by the signal: shells say 130 to both.
    assert child.returncode in (130, -signal.SIGINT)
    assert err == f"restain: {MEASURING}\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {LOCK}
