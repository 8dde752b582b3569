"""Whole or not at all: refusals, failures in the middle, full disks, and kills leave the input and the folder alone."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

import restain
from restain import files
from restain.color.images import RGB8
from restain.errors import OutputError, SlideError
from restain.files import atomic_output, write_atomically
from restain.methods.base import Appearance
from restain.methods.macenko import Macenko
from restain.slides import mapped_tiles
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import Slide, open_slide
from restain.slides.sample import sample_slide
from restain.slides.writer import EncodedTile, PyramidSettings, encode_tile, write_array, write_pyramid

from ..running import contents
from .making import BARE, SMALL


@pytest.fixture
def folder(pyramid: Path, tmp_path: Path) -> Path:
    """A slide, and something else that nobody may touch."""
    (tmp_path / "slide.tif").write_bytes(pyramid.read_bytes())
    (tmp_path / "other.txt").write_text("keep me")
    (tmp_path / ".slide.tif.abc.part").write_text("somebody else's")
    return tmp_path


@pytest.fixture(scope="module")
def appearance(pyramid: Path, fitted: Macenko) -> Appearance:
    return fitted.estimate(sample_slide(pyramid))


# ---- refusals ---------------------------------------------------------------------------------------------------


def test_an_existing_output_is_refused(folder: Path, fitted: Macenko) -> None:
    (folder / "out.tif").write_text("precious")
    before = contents(folder)
    with pytest.raises(OutputError, match=r"out\.tif exists.*--overwrite"):
        normalize_slide(folder / "slide.tif", folder / "out.tif", fitted)
    assert contents(folder) == before


def test_an_existing_output_is_replaced_when_asked(folder: Path, fitted: Macenko) -> None:
    (folder / "out.tif").write_text("old")
    before = contents(folder)
    normalize_slide(folder / "slide.tif", folder / "out.tif", fitted, overwrite=True, settings=SMALL)
    after = contents(folder)
    with openslide.OpenSlide(str(folder / "out.tif")) as slide:
        assert slide.dimensions == (423, 301)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"out.tif"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["same", "dots", "symlink", "hard link"])
def test_the_input_is_never_the_output(kind: str, overwrite: bool, folder: Path, fitted: Macenko) -> None:
    source = folder / "slide.tif"
    output = {"same": source, "dots": folder / ".." / folder.name / "slide.tif"}.get(kind, folder / "link.tif")
    if kind == "symlink":
        output.symlink_to(source)
    elif kind == "hard link":
        os.link(source, output)
    before = contents(folder)
    with pytest.raises(OutputError, match="is the input itself"):
        normalize_slide(source, output, fitted, overwrite=overwrite)
    assert contents(folder) == before


@pytest.mark.parametrize("where", ["missing/out.tif", "other.txt/out.tif"])
def test_a_folder_that_cannot_be_written_is_one_readable_line(where: str, folder: Path, fitted: Macenko) -> None:
    before = contents(folder)
    with pytest.raises(OutputError, match="cannot write in") as caught:
        normalize_slide(folder / "slide.tif", folder / where, fitted)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_readable_line(folder: Path, fitted: Macenko) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(OutputError, match=r"cannot write in .*[Pp]ermission"):
        normalize_slide(folder / "slide.tif", closed / "out.tif", fitted)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_output(overwrite: bool, folder: Path, fitted: Macenko) -> None:
    (folder / "out.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        normalize_slide(folder / "slide.tif", folder / "out.tif", fitted, overwrite=overwrite)


# ---- failures in the middle -------------------------------------------------------------------------------------


def test_a_failing_supply_of_tiles_leaves_nothing(folder: Path, tissue: RGB8) -> None:
    before = contents(folder)

    def tiles() -> Iterator[EncodedTile]:
        for column in range(5):
            yield encode_tile(tissue[:64, 64 * column : 64 * column + 64], SMALL)
        raise RuntimeError("the scanner room is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_pyramid(folder / "out.tif", (423, 301), tiles(), settings=SMALL, **BARE)
    assert contents(folder) == before


@pytest.mark.parametrize("failing_call", [1, 9, 35, 44])  # 35 tiles of level 0, then those of the smaller levels
def test_a_failing_encoder_leaves_nothing(
    failing_call: int, folder: Path, fitted: Macenko, appearance: Appearance, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1, 1000))
    lock = threading.Lock()

    def encode(pixels: RGB8 | None, settings: PyramidSettings) -> EncodedTile:
        with lock:
            call = next(calls)
        if call >= failing_call:
            raise RuntimeError("no codec")
        return encode_tile(pixels, settings)

    monkeypatch.setattr(mapped_tiles, "encode_tile", encode)
    monkeypatch.setattr("restain.slides.levels.encode_tile", encode)
    before = contents(folder)
    with pytest.raises(RuntimeError, match="no codec"):
        normalize_slide(
            folder / "slide.tif", folder / "out.tif", fitted, appearance=appearance, settings=SMALL, workers=2
        )
    assert contents(folder) == before


def test_a_failing_write_keeps_what_was_to_be_replaced(
    folder: Path, fitted: Macenko, appearance: Appearance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "out.tif").write_text("old and good")
    before = contents(folder)

    def encode(pixels: RGB8 | None, settings: PyramidSettings) -> EncodedTile:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped_tiles, "encode_tile", encode)
    with pytest.raises(OutputError, match=r"cannot write .*out\.tif: No space left on device"):
        normalize_slide(folder / "slide.tif", folder / "out.tif", fitted, appearance=appearance, overwrite=True)
    assert contents(folder) == before


def test_a_damaged_source_is_told_as_such(
    tissue: RGB8, tmp_path: Path, fitted: Macenko, appearance: Appearance
) -> None:
    """The appearance is known, so the damage shows only while the output is being written."""
    source = tmp_path / "slide.tif"
    tifffile.imwrite(source, tissue, photometric="rgb", tile=(64, 64), compression="lzw")
    with tifffile.TiffFile(source) as tiff:
        offset, count = tiff.pages[0].dataoffsets[17], tiff.pages[0].databytecounts[17]
    with source.open("r+b") as stream:
        stream.seek(offset + count // 2)
        stream.write(bytes(64))
    before = contents(tmp_path)
    with pytest.raises(SlideError, match=r"slide\.tif is damaged") as caught:
        normalize_slide(source, tmp_path / "out.tif", fitted, appearance=appearance)
    assert "cannot write" not in str(caught.value)
    assert contents(tmp_path) == before


def test_a_slide_given_open_stays_open_and_one_opened_here_is_closed(
    folder: Path, fitted: Macenko, appearance: Appearance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(folder / "slide.tif") as slide:
        normalize_slide(slide, folder / "one.tif", fitted, appearance=appearance)
        slide.read_region((0, 0), 0, (8, 8))
    closed: list[Slide] = []
    monkeypatch.setattr(type(slide), "close", lambda self: closed.append(self))
    with pytest.raises(OutputError):
        normalize_slide(folder / "slide.tif", folder / "one.tif", fitted, appearance=appearance)
    assert len(closed) == 1


# ---- the small functions beneath --------------------------------------------------------------------------------


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "out") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "out").exists()
        assert temporary.name.startswith(".out.")
        assert temporary.suffix == ".part"
    assert contents(tmp_path) == {"out": b"whole"}


def test_two_writers_of_one_output_do_not_replace_each_other(tmp_path: Path) -> None:
    def second() -> None:
        with atomic_output(tmp_path / "out") as temporary:
            temporary.write_text("second")
            write_atomically(tmp_path / "out", lambda stream: stream.write(b"first"), overwrite=False)

    with pytest.raises(OutputError, match="written by another process"):
        second()
    assert contents(tmp_path) == {"out": b"first"}


def test_without_hard_links_it_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    write_atomically(tmp_path / "out", lambda stream: stream.write(b"x"), overwrite=False)
    assert contents(tmp_path) == {"out": b"x"}
    with pytest.raises(OutputError, match="exists"):
        write_atomically(tmp_path / "out", lambda stream: stream.write(b"y"), overwrite=False)


def test_very_long_names_can_be_written(tmp_path: Path) -> None:
    name = "n" * 250 + ".tif"
    write_atomically(tmp_path / name, lambda stream: stream.write(b"x"), overwrite=False)
    assert contents(tmp_path) == {name: b"x"}


def test_outputs_have_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    write_atomically(tmp_path / "out", lambda stream: stream.write(b"x"), overwrite=False)
    (tmp_path / "ordinary").write_bytes(b"x")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_writing_in_threads_keeps_the_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask of new files belongs to the process: whoever sets it to read it opens other threads' files."""
    real = os.umask

    def slow(mask: int) -> int:
        before = real(mask)
        time.sleep(0.002)
        return before

    (tmp_path / "ordinary").write_bytes(b"x")
    mask = real(0o022)
    real(mask)
    monkeypatch.setattr(files.os, "umask", slow)
    try:
        with ThreadPoolExecutor(8) as pool:
            for number in range(16):
                pool.submit(write_atomically, tmp_path / f"{number}", lambda s: s.write(b"x"), overwrite=False)
        assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "ordinary").stat().st_mode}
    finally:
        left = real(mask)
    assert left == mask


# ---- disk full, and kills: in processes of their own ------------------------------------------------------------

PYTHONPATH = str(Path(restain.__file__).parents[1])


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


DISK_FULL = """
import os, resource, sys
from restain.cli import main
try:  # the kernels are compiled now, because what is cached of them is a file too
    main(["normalize", sys.argv[1], sys.argv[2] + ".first.tif", "--tile-size", "64"])
except SystemExit:
    os.remove(sys.argv[2] + ".first.tif")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
main(["normalize", sys.argv[1], sys.argv[2], "--tile-size", "64", "--workers", "2"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize("limit", [0, 20_000, 60_000])
def test_a_full_disk_is_one_readable_line(limit: int, folder: Path) -> None:
    before = contents(folder)
    process = start(DISK_FULL, folder / "slide.tif", folder / "out.tif", limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert err.count("\n") == 1
    assert err.startswith(f"restain: cannot write {folder / 'out.tif'}: ")
    assert contents(folder) == before


KILLED = """
import sys
from restain.methods.macenko import Macenko
from restain.slides.pipeline import normalize_slide
from restain.slides.writer import PyramidSettings

def say(stage, done, total):
    print(stage, done, total, flush=True)

normalize_slide(
    sys.argv[1], sys.argv[2], Macenko().fit("he"), settings=PyramidSettings(tile=64), workers=2, progress=say
)
print("complete", flush=True)
"""


@pytest.fixture(scope="module")
def large(tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "slide.tif"
    write_array(path, np.tile(tissue, (5, 5, 1)), settings=PyramidSettings(tile=256))
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("moment", [1, 60, 500, 816])  # lines of progress: 1 of the estimate, then 24 x 34 tiles
def test_a_kill_leaves_the_input_and_no_output(moment: int, large: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "slide.tif", tmp_path / "out.tif"
    source.write_bytes(large.read_bytes())
    process = start(KILLED, source, output)
    assert process.stdout is not None
    for _ in range(moment):
        line = process.stdout.readline()
        assert line.startswith(("estimate", "normalize")), line
    time.sleep(random.Random(moment).uniform(0, 0.01))
    process.kill()
    process.communicate(timeout=60)
    assert source.read_bytes() == large.read_bytes()
    if output.exists():  # it was complete before the signal came
        assert moment == 816
        with openslide.OpenSlide(str(output)) as slide:
            np.asarray(slide.read_region((0, 0), slide.level_count - 1, slide.level_dimensions[-1]))
    else:
        left = {path.name for path in tmp_path.iterdir()} - {"slide.tif"}
        assert all(name.startswith(".out.tif.") and name.endswith(".part") for name in left)
    # What a killed run left behind is in nobody's way.
    normalize_slide(source, output, Macenko().fit("he"), overwrite=True, max_pixels=300_000)
    with openslide.OpenSlide(str(output)) as slide:
        assert slide.dimensions == (423 * 5, 301 * 5)
