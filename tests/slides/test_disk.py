"""What a disk, a folder, a link, a clock or another process can do to a run: one clear line, and nothing lost."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.errors import OutputError
from restain.methods.macenko import Macenko
from restain.slides.pipeline import normalize_slide
from restain.slides.writer import PyramidSettings, write_array

from ..forking import Finished, Forks
from ..running import Outcome, Run, contents

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")

SMALL = ("--tile-size", "64", "--max-pixels", "100000")


@pytest.fixture(scope="module")
def source(tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "slide.tif"
    write_array(path, np.tile(tissue, (2, 2, 1)), settings=PyramidSettings(tile=64))
    return path


def refused(done: Finished | Outcome, *words: str) -> None:
    """That a command ended with one line that has these words."""
    assert done.code == 2, done.err
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("restain: ")
    for word in words:
        assert word in done.err


# ---- disks ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["full", "read-only"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A small disk of its own: of 200 kB, or on which nothing can be written."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = {"full": "size=200k", "read-only": "ro"}[request.param]
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("disks cannot be mounted here")
    try:
        yield request.param, folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


SAID = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif", "out.ome.zarr"])
def test_a_slide_to_a_disk(name: str, disk: tuple[str, Path], source: Path, run: Run) -> None:
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    kind, folder = disk
    refused(run("normalize", source, folder / name, *SMALL), str(folder), SAID[kind])
    assert not list(folder.iterdir())


def test_a_folder_to_a_disk(disk: tuple[str, Path], source: Path, tissue: RGB8, tmp_path: Path, run: Run) -> None:
    """What fits is there, whole; what does not is told, a line each, and is done when there is room."""
    kind, folder = disk
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "slide.tif").write_bytes(source.read_bytes())
    Image.fromarray(tissue[:50, :50]).save(tmp_path / "in" / "a.png")
    done = run("normalize", tmp_path / "in", folder / "out", *SMALL)
    assert "Traceback" not in done.err
    assert SAID[kind] in done.err
    if kind == "read-only":
        refused(done)
        return
    assert done.code == 1
    assert (folder / "out" / "a.png").exists()
    assert not (folder / "out" / "slide.tif").exists()
    assert not [path for path in folder.rglob("*") if path.name.endswith(".part")]
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
    assert run("normalize", tmp_path / "in", folder / "out", *SMALL).code == 0
    assert (folder / "out" / "slide.tif").exists()


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("after", [0, 1, 20])
def test_a_write_that_fails(
    number: int, after: int, source: Path, tmp_path: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota, say, at once or in the middle: what was to be replaced is still there."""
    count = iter(range(10**6))

    def failing(real: Any) -> Any:
        def write(*arguments: Any, **options: Any) -> Any:
            if next(count) >= after:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        return write

    (tmp_path / "out.tif").write_bytes(b"old and good")
    for name in ("write", "write_array", "write_empty"):
        monkeypatch.setattr(tifffile.FileHandle, name, failing(getattr(tifffile.FileHandle, name)))
    with pytest.raises(OutputError, match=rf"cannot write .*out\.tif: {os.strerror(number)}"):
        normalize_slide(source, tmp_path / "out.tif", fitted, overwrite=True, settings=PyramidSettings(tile=64))
    assert contents(tmp_path) == {"out.tif": b"old and good"}


@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_output_s_folder_vanishes(name: str, share: float, source: Path, tmp_path: Path, fitted: Macenko) -> None:
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    folder = tmp_path / "gone"
    folder.mkdir()

    def vanish(stage: str, done: int, total: int) -> None:
        if stage == "normalize" and done >= share * total and folder.exists():
            shutil.rmtree(folder)

    before = source.read_bytes()
    with pytest.raises(OutputError, match=rf"cannot write .*{name}") as caught:
        normalize_slide(source, folder / name, fitted, settings=PyramidSettings(tile=64), progress=vanish)
    assert "\n" not in str(caught.value)
    assert source.read_bytes() == before
    assert not [path for path in tmp_path.rglob("*") if not path.is_relative_to(folder) or path.name == name]


def test_a_folder_in_which_one_may_not_write(
    source: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:  # where others may look in, too
        folder = Path(name)
        folder.chmod(0o755)
        copy = folder / "slide.tif"
        copy.write_bytes(source.read_bytes())
        copy.chmod(0o644)
        (folder / "out").mkdir(mode=0o555)
        other = 65534 if os.geteuid() == 0 else None  # root may write everywhere
        refused(forks.run("normalize", copy, folder / "out" / "out.tif", user=other), "Permission denied")
        assert not list((folder / "out").iterdir())


# ---- two at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_processes_write_one_output(overwrite: bool, source: Path, tmp_path: Path, forks: Forks) -> None:
    output = tmp_path / "out.tif"
    more = ["--overwrite"] if overwrite else []
    children = [forks.start("normalize", source, output, *SMALL, *more) for _ in range(2)]
    ended = sorted((child.wait() for child in children), key=lambda done: done.code)
    assert ended[0].code == 0, ended[0].err
    if overwrite:
        assert ended[1].code == 0, ended[1].err
    else:
        refused(ended[1], "out.tif")
    alone = forks.run("normalize", source, tmp_path / "alone.tif", *SMALL)
    assert alone.code == 0
    assert contents(tmp_path).keys() == {"out.tif", "alone.tif"}
    with tifffile.TiffFile(output) as one, tifffile.TiffFile(tmp_path / "alone.tif") as two:
        for first, second in zip(one.pages, two.pages, strict=True):
            np.testing.assert_array_equal(first.asarray(), second.asarray())


def test_two_processes_do_one_folder(source: Path, tissue: RGB8, tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        Image.fromarray(np.roll(tissue, 20 * number, axis=1)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "slide.tif").write_bytes(source.read_bytes())
    before = contents(tmp_path / "in")
    children = [forks.start("normalize", tmp_path / "in", tmp_path / "out", *SMALL) for _ in range(2)]
    for done in [child.wait() for child in children]:
        assert done.code in (0, 1, 2)
        assert "Traceback" not in done.err
        assert "unforeseen" not in done.err
    again = forks.run("normalize", tmp_path / "in", tmp_path / "out", *SMALL)
    assert again.code == 0 or "exist already" in again.err, again.err
    assert contents(tmp_path / "in") == before
    assert forks.run("normalize", tmp_path / "in", tmp_path / "alone", *SMALL).code == 0
    for name in before:
        with Image.open(tmp_path / "out" / name) as one, Image.open(tmp_path / "alone" / name) as two:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".part")]


# ---- clocks -----------------------------------------------------------------------------------------------------

BACKWARDS = """
import itertools, time
hours = itertools.count(0, -3600)
time.time = lambda: float(next(hours))
time.time_ns = lambda: int(time.time() * 1e9)
"""


@pytest.mark.parametrize("stamp", [0, 4_102_444_800], ids=["1970", "2100"])
def test_nothing_depends_on_clocks(stamp: int, source: Path, tmp_path: Path, forks: Forks) -> None:
    assert forks.run("normalize", source, tmp_path / "out.tif", *SMALL).code == 0
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "slide.tif").write_bytes(source.read_bytes())
    os.utime(tmp_path / "in" / "slide.tif", (stamp, stamp))
    done = forks.run("normalize", tmp_path / "in", tmp_path / "other", *SMALL, before=BACKWARDS)
    assert done.code == 0, done.err
    assert (tmp_path / "other" / "slide.tif").read_bytes() == (tmp_path / "out.tif").read_bytes()
    # What is done stays done, whatever its dates say.
    os.utime(tmp_path / "other" / "slide.tif", (4_102_444_800 - stamp, 4_102_444_800 - stamp))
    written = (tmp_path / "other" / "slide.tif").stat().st_ino
    again = forks.run("normalize", tmp_path / "in", tmp_path / "other", *SMALL, before=BACKWARDS)
    assert "finished" in again.err
    assert (tmp_path / "other" / "slide.tif").stat().st_ino == written


# ---- names and links --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["切片 αβγ é.tif", "two\nlines.tif", "n" * 251 + ".tif", "\x1b[31mred.tif", "a[1]*?.tif", os.fsdecode(b"\xff.tif")],
    ids=["unicode", "line break", "255 bytes", "colour code", "pattern", "no unicode"],
)
def test_outputs_of_every_name(name: str, source: Path, tmp_path: Path, run: Run) -> None:
    done = run("normalize", source, tmp_path / name, *SMALL)
    assert done.code == 0, done.err
    assert contents(tmp_path).keys() == {name}


def test_very_long_paths(source: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path.joinpath(*["folder " + "x" * 193] * 15)  # 3000 bytes; 4096 are the most
    folder.mkdir(parents=True)
    (folder / "slide.tif").write_bytes(source.read_bytes())
    assert run("normalize", folder / "slide.tif", folder / "out.tif", *SMALL).code == 0
    assert contents(folder).keys() == {"slide.tif", "out.tif"}
    refused(run("normalize", source, folder.joinpath(*["y" * 250] * 6, "out.tif"), *SMALL), "long")
    refused(run("normalize", source, tmp_path / ("n" * 252 + ".tif"), *SMALL), "long")


def test_a_link_as_output_is_replaced_and_not_what_it_leads_to(source: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "precious.tif").write_bytes(b"precious")
    (tmp_path / "out.tif").symlink_to("precious.tif")
    refused(run("normalize", source, tmp_path / "out.tif", *SMALL), "exists")
    assert run("normalize", source, tmp_path / "out.tif", "--overwrite", *SMALL).code == 0
    assert (tmp_path / "precious.tif").read_bytes() == b"precious"
    assert not (tmp_path / "out.tif").is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_broken_link_as_output_is_told_before_any_work_is_done(
    overwrite: bool, source: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "out.tif").symlink_to("gone.tif")
    more = ["--overwrite"] if overwrite else []
    refused(run("normalize", source, tmp_path / "out.tif", *more, *SMALL), "is a link to gone.tif")
    assert not contents(tmp_path)


@pytest.mark.parametrize("how", ["input by a link", "output by a link", "folder by a link", "hard link", "dots"])
def test_the_input_is_not_replaced_whatever_it_is_called(how: str, source: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "slide.tif"
    real.write_bytes(source.read_bytes())
    before = contents(tmp_path)
    given, output = real, tmp_path / "link.tif"
    match how:
        case "input by a link":
            output.symlink_to(real)
            given, output = output, real
        case "output by a link":
            output.symlink_to(real)
        case "folder by a link":
            (tmp_path / "linked").symlink_to("real", target_is_directory=True)
            output = tmp_path / "linked" / "slide.tif"
        case "hard link":
            os.link(real, output)
            before = contents(tmp_path)
        case "dots":
            output = tmp_path / "real" / ".." / "real" / "slide.tif"
    refused(run("normalize", given, output, "--overwrite", *SMALL), "is the input itself")
    assert real.read_bytes() == before["real/slide.tif"]


@pytest.mark.parametrize("how", ["the same", "a link to it", "above it", "dots"])
def test_a_folder_is_not_written_over_itself(how: str, source: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "a" / "in"
    folder.mkdir(parents=True)
    (folder / "slide.tif").write_bytes(source.read_bytes())
    before = contents(tmp_path)
    (tmp_path / "link").symlink_to("a/in", target_is_directory=True)
    output = {"the same": folder, "a link to it": tmp_path / "link", "above it": tmp_path / "a"}.get(how, folder / ".")
    refused(run("normalize", folder, output, "--overwrite", *SMALL), "is, or holds, the input folder")
    assert contents(tmp_path / "a") == {name.removeprefix("a/"): data for name, data in before.items()}


def test_an_output_folder_inside_the_input_is_no_input(source: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "slide.tif").write_bytes(source.read_bytes())
    assert run("normalize", tmp_path, tmp_path / "out", *SMALL).code == 0
    first = contents(tmp_path)
    again = run("normalize", tmp_path, tmp_path / "out", *SMALL)
    assert "finished" in again.err
    assert run("normalize", tmp_path, tmp_path / "out", "--overwrite", *SMALL).code == 0
    second = contents(tmp_path)
    assert second.keys() == first.keys()
    assert {name for name in first if name.endswith(".tif")} == {"slide.tif", "out/slide.tif"}
    assert second["slide.tif"] == first["slide.tif"]


def test_an_output_folder_that_is_a_link_is_written_into(source: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "slide.tif").write_bytes(source.read_bytes())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere", target_is_directory=True)
    assert run("normalize", tmp_path / "in", tmp_path / "out", *SMALL).code == 0
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / "slide.tif").is_file()
