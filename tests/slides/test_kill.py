"""Killed at any moment, by a signal that cannot be caught: nothing is lost, and the same command again completes it.

RESTAIN_KILLS sets how many times runs are killed (12 by default); `benchmarks/faults.py` does it more often, and prints
a table.
"""

import hashlib
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.slides.writer import PyramidSettings, write_array

from ..forking import Forks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

KILLS = int(os.environ.get("RESTAIN_KILLS", "12"))
OPTIONS = ("--tile-size", "64", "--workers", "2", "--max-pixels", "100000")


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, by its checksum."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def pixels(folder: Path) -> dict[str, list[RGB8]]:
    """All levels of every image that has a name of its own, by an independent reader."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        if path.suffix == ".tif":
            with tifffile.TiffFile(path) as handle:
                found[str(name)] = [page.asarray() for page in handle.pages]
        elif path.suffix == ".png" and path.is_file():
            found[str(name)] = [np.asarray(Image.open(path))]
    return found


def same(some: dict[str, list[RGB8]], wanted: dict[str, list[RGB8]]) -> bool:
    """Whether all of `some` are as wanted, which may be more."""
    return all(
        len(levels) == len(wanted[name]) and all(map(np.array_equal, levels, wanted[name]))
        for name, levels in some.items()
    )


@pytest.fixture(scope="module", params=["slide.tif", "slide.ome.zarr", "cohort"])
def task(
    request: pytest.FixtureRequest, tissue: RGB8, tmp_path_factory: pytest.TempPathFactory, forks: Forks
) -> tuple[Path, str, dict[str, list[RGB8]], float]:
    """An input, the name of its output, what an undisturbed run makes of it, and how long that takes."""
    folder: Path = tmp_path_factory.mktemp("task")
    settings = PyramidSettings(tile=128)
    large = np.tile(tissue, (3, 4, 1))
    if request.param == "slide.ome.zarr":
        pytest.importorskip("zarr")
    if request.param == "cohort":
        source = folder / "in"
        (source / "deep").mkdir(parents=True)
        for number in range(3):
            write_array(source / f"{number}.tif", np.roll(large[:600], 50 * number, axis=1), settings=settings)
            Image.fromarray(np.roll(tissue, 30 * number, axis=0)).save(source / "deep" / f"{number}.png")
    else:
        source = folder / "in.tif"
        write_array(source, large, settings=settings)
    name = "out" if request.param == "cohort" else f"out{request.param.removeprefix('slide')}"
    begin = time.perf_counter()
    done = forks.run("normalize", source, folder / name, *OPTIONS)
    seconds = time.perf_counter() - begin
    assert done.code == 0, done.err
    return source, name, read(folder / name), seconds


def read(output: Path) -> dict[str, list[RGB8]]:
    """What an output holds: a file, a folder of them, or a Zarr; nothing where it is not there."""
    if output.suffix == ".zarr":
        if not output.exists():
            return {}
        import zarr

        group = zarr.open_group(output, mode="r")
        return {output.name: [np.asarray(group[key]) for key in sorted(group.array_keys())]}
    if output.suffix == ".tif":
        return {name: levels for name, levels in pixels(output.parent).items() if name == output.name}
    return pixels(output)


def test_kills_at_random_moments(
    task: tuple[Path, str, dict[str, list[RGB8]], float], tmp_path: Path, forks: Forks
) -> None:
    source, name, wanted, seconds = task
    before = digests(source.parent)
    generator = random.Random(f"{name} 0")
    output = tmp_path / name
    for _ in range(-(-KILLS // 3)):
        child = forks.start("normalize", source, output, *OPTIONS)
        time.sleep(generator.uniform(0, 1.1 * seconds))
        child.kill()
        child.wait()
        assert digests(source.parent) == before
        assert same(read(output), wanted)  # each is there whole or not at all
        if name != "out" and output.exists():  # it was quicker than the signal
            break
    # The same command again: a single output that is there already is refused, a folder's are left.
    done = forks.run("normalize", source, output, *OPTIONS)
    complete = "exists" in done.err and done.code == 2
    assert done.code == 0 or complete, done.err
    found = read(output)
    assert found.keys() == wanted.keys()
    assert same(found, wanted)
    assert digests(source.parent) == before
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_a_kill_while_an_output_is_replaced(
    task: tuple[Path, str, dict[str, list[RGB8]], float], tmp_path: Path, forks: Forks
) -> None:
    """The old output stays until the new one is complete."""
    source, name, wanted, seconds = task
    if name != "out.tif":
        pytest.skip("a folder cannot be replaced in one step; the others are done by the same code as this one")
    output = tmp_path / name
    output.write_bytes(b"old and good")
    generator = random.Random(1)
    for _ in range(3):
        child = forks.start("normalize", source, output, "--overwrite", *OPTIONS)
        time.sleep(generator.uniform(0, 0.9 * seconds))
        child.kill()
        child.wait()
        assert output.read_bytes() == b"old and good" or same(read(output), wanted)
    assert forks.run("normalize", source, output, "--overwrite", *OPTIONS).code == 0
    assert same(read(output), wanted)
    assert [path.name for path in tmp_path.iterdir()] == [name]
