"""Slides that are folders, OME-Zarr and DICOM: written whole or not at all, and one input among others."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.errors import OutputError, SlideError
from restain.methods.macenko import Macenko
from restain.references import find_files, read_reference
from restain.slides.batch import is_image, plan_outputs
from restain.slides.codecs import EncodedTile, encode_tile
from restain.slides.dicom_folder import one_of_each_series, series_of
from restain.slides.folders import checksum, is_output_folder, is_slide_folder
from restain.slides.formats import format_of
from restain.slides.pipeline import check_paths, normalize_slide
from restain.slides.reader import open_slide
from restain.slides.writer import write_array, write_pyramid

from ..running import Run
from .making import BARE, SMALL

zarr = pytest.importorskip("zarr")
pydicom = pytest.importorskip("pydicom")

MPP = (0.25, 0.25)
NAMES = ["out.ome.zarr", "out.dcm"]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def write(path: Path, tiles: Iterator[EncodedTile], *, overwrite: bool = False) -> None:
    settings = SMALL.in_format(format_of(path))
    write_pyramid(path, (128, 256), tiles, settings=settings, overwrite=overwrite, **BARE | {"mpp": MPP})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [RuntimeError("no codec"), OSError(28, "No space left on device")])
def test_a_failing_run_leaves_nothing(name: str, error: Exception, tissue: RGB8, tmp_path: Path) -> None:
    settings = SMALL.in_format(format_of(name))

    def tiles() -> Iterator[EncodedTile]:
        for _ in range(5):
            yield encode_tile(tissue[:64, :64], settings)
        raise error

    wanted: Any = OutputError if isinstance(error, OSError) else RuntimeError
    with pytest.raises(wanted, match=r"no codec|cannot write .*No space left on device"):
        write(tmp_path / name, tiles())
    assert contents(tmp_path) == {}
    write_array(tmp_path / name, tissue, settings=SMALL, mpp=MPP)
    before = contents(tmp_path)
    with pytest.raises(wanted):
        write(tmp_path / name, tiles(), overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_existing_outputs(name: str, tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / name, tissue, settings=SMALL, mpp=MPP)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="exists; pass overwrite=True"):
        write_array(tmp_path / name, tissue[:64, :64], settings=SMALL, mpp=MPP)
    assert contents(tmp_path) == before
    write_array(tmp_path / name, tissue[:64, :64], settings=SMALL, mpp=MPP, overwrite=True)
    with open_slide(tmp_path / name) as slide:
        assert slide.level_dimensions == ((64, 64),)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing of the larger one, nothing hidden


@pytest.mark.parametrize("name", NAMES)
def test_a_stranger_s_folder_is_never_replaced(name: str, tissue: RGB8, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="is a folder with other things in it"):
        write_array(tmp_path / name, tissue, settings=SMALL, mpp=MPP, overwrite=True)
    assert contents(tmp_path) == before


def test_a_slide_beside_other_things_is_not_replaced(tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "out.dcm", tissue, settings=SMALL, mpp=MPP)
    (tmp_path / "out.dcm" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is a folder with other things in it"):
        write_array(tmp_path / "out.dcm", tissue, settings=SMALL, mpp=MPP, overwrite=True)
    assert (tmp_path / "out.dcm" / "thesis.txt").exists()


def foreign_attributes(path: Path) -> None:
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["restain"]
    (path / "zarr.json").write_text(json.dumps(metadata))


def in_dicomdir(path: Path) -> None:
    (path / "DICOMDIR").write_bytes(b"x")


STRANGERS: list[tuple[str, str | Callable[[Path], None], str]] = [
    ("out.ome.zarr", "labels/nuclei/zarr.json", "labels"),
    ("out.ome.zarr", "notes.txt", "notes.txt"),
    ("out.ome.zarr", ".hidden/thesis.txt", ".hidden"),
    ("out.ome.zarr", "0/notes.txt", "notes.txt"),
    ("out.ome.zarr", "associated/macro/notes.txt", "associated"),
    ("out.ome.zarr", foreign_attributes, "OME-Zarr that restain did not write"),
    ("out.dcm", ".hidden", ".hidden"),
    ("out.dcm", in_dicomdir, "DICOMDIR"),
    ("out.dcm", "sub/level-0.dcm", "sub"),
]


@pytest.mark.parametrize(("name", "change", "told"), STRANGERS)
def test_what_restain_did_not_write_is_not_replaced(
    name: str, change: str | Callable[[Path], None], told: str, tissue: RGB8, tmp_path: Path
) -> None:
    path = tmp_path / name
    write_array(path, tissue[:64, :64], settings=SMALL, mpp=MPP)
    if isinstance(change, str):
        (path / change).parent.mkdir(parents=True, exist_ok=True)
        (path / change).write_text("years of work")
    else:
        change(path)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=rf"other things in it .*\({re.escape(told)}\); name another output"):
        write_array(path, tissue[:64, :64], settings=SMALL, mpp=MPP, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_all_that_restain_writes_is_replaced(name: str, svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    for _ in range(2):
        normalize_slide(svs, tmp_path / name, fitted, settings=SMALL, associated="keep", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), PermissionError(13, "Permission denied")])
def test_the_old_one_stays_if_the_new_one_cannot_have_its_name(
    name: str, error: BaseException, tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    write_array(path, tissue[:64, :64], settings=SMALL, mpp=MPP)
    before = contents(tmp_path)
    rename = os.rename

    def fail(source: str | Path, target: str | Path) -> None:
        if Path(target) == path and ".old.part" not in str(source):
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        write_array(path, tissue[:100, :64], settings=SMALL, mpp=MPP, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_of_two_that_replace_one_output_the_last_has_it(
    name: str, tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    write_array(path, tissue[:64, :64], settings=SMALL, mpp=MPP)
    rename, others = os.rename, []

    def after_another(source: str | Path, target: str | Path) -> None:
        if Path(target) == path and not others:
            others.append(source)
            write_array(path, tissue[:80, :64], settings=SMALL, mpp=MPP, overwrite=True)
        rename(source, target)

    monkeypatch.setattr(os, "rename", after_another)
    write_array(path, tissue[:100, :64], settings=SMALL, mpp=MPP, overwrite=True)
    assert others
    with open_slide(path) as slide:
        assert slide.dimensions == (64, 100)
    assert [item.name for item in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("replaced", [False, True])
def test_what_a_kill_left_aside_gets_its_name_back(
    name: str, replaced: bool, tissue: RGB8, fitted: Macenko, pyramid: Path, tmp_path: Path
) -> None:
    """Killed between the two renames, or between the second one and the end."""
    path, aside = tmp_path / name, tmp_path / f".{name}.old.part"
    write_array(path, tissue[:64, :64], settings=SMALL, mpp=MPP)
    aside.mkdir()
    path.rename(aside / name)
    if replaced:
        write_array(tmp_path / f"new-{name}", tissue[:100, :64], settings=SMALL, mpp=MPP)
        (tmp_path / f"new-{name}").rename(path)
    with pytest.raises(OutputError, match="exists; pass overwrite=True"):
        normalize_slide(pyramid, path, fitted, settings=SMALL)
    with open_slide(path) as slide:
        assert slide.dimensions == ((64, 100) if replaced else (64, 64))
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_longer_name_that_begins_alike_is_another_output(tissue: RGB8, tmp_path: Path) -> None:
    first, second = (tmp_path / f"{'n' * 110}{letter}.dcm" for letter in "ab")
    write_array(first, tissue[:64, :64], settings=SMALL, mpp=MPP)
    aside = tmp_path / f".{'n' * 100}.old.part"
    aside.mkdir()
    first.rename(aside / first.name)
    write_array(second, tissue[:100, :64], settings=SMALL, mpp=MPP)
    write_array(second, tissue[:100, :64], settings=SMALL, mpp=MPP, overwrite=True)
    assert {item.name for item in tmp_path.iterdir()} == {aside.name, second.name}
    with pytest.raises(OutputError, match="exists"):
        write_array(first, tissue[:80, :64], settings=SMALL, mpp=MPP)
    with open_slide(first) as slide:
        assert slide.dimensions == (64, 64)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_to_nothing_is_refused_before_any_work(
    name: str, pyramid: Path, fitted: Macenko, tmp_path: Path
) -> None:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"is a link to .*nowhere, which does not exist; remove the link"):
        check_paths(pyramid, tmp_path / name, overwrite=True)


KILLED = """
import os, signal, sys
import numpy as np
from restain.slides.codecs import PyramidSettings, encode_tile
from restain.slides.formats import format_of
from restain.slides.writer import write_pyramid
from pathlib import Path
path, moment = Path(sys.argv[1]), int(sys.argv[2])
settings = PyramidSettings(tile=64).in_format(format_of(path))
def tiles():
    for index in range(8):
        if index == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        yield encode_tile(np.full((64, 64, 3), 30 * index, np.uint8), settings)
def sync(number):
    if moment == 100:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = sync
write_pyramid(path, (128, 256), tiles(), settings=settings, mpp=(1, 1), icc_profile=None, description="", software="",
              associated={}, pool=None)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("moment", [4, 100])  # while tiles are written; when all are, before they are safe on disk
def test_a_kill_leaves_hidden_things_alone(name: str, moment: int, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name), str(moment)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = [path.name for path in tmp_path.iterdir()]
    assert left
    assert all(item.startswith(f".{name}.") and item.endswith(".part") for item in left)
    assert find_files(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_the_user_s(name: str, tissue: RGB8, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_array(tmp_path / name, tissue[:64, :64], settings=SMALL, mpp=MPP)
    assert os.stat(tmp_path / name).st_mode == os.stat(tmp_path / "mine").st_mode


@pytest.mark.parametrize("name", ["in.ome.zarr", "in.dcm"])
def test_the_input_is_never_the_output(name: str, tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    write_array(tmp_path / name, tissue, settings=SMALL, mpp=MPP)
    before = contents(tmp_path)
    for output in (name, f"{name}/out.tif"):
        with pytest.raises(OutputError, match="the input is never changed"):
            normalize_slide(tmp_path / name, tmp_path / output, fitted, overwrite=True)
    if name == "in.dcm":  # one of its files stands for the slide
        with pytest.raises(OutputError, match=r"in\.dcm holds the input"):
            normalize_slide(tmp_path / name / "level-1.dcm", tmp_path / name, fitted, overwrite=True)
        with pytest.raises(OutputError, match=r"out\.tif lies in the input .*in\.dcm; name"):
            normalize_slide(tmp_path / name / "level-1.dcm", tmp_path / name / "out.tif", fitted)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("undefined", [True, False])
def test_the_series_is_the_file_s_own(explicit: bool, undefined: bool, tissue: RGB8, tmp_path: Path) -> None:
    """Not one that it refers to, in a sequence before it."""
    path = tmp_path / "a.dcm"
    write_array(path, tissue, settings=replace(SMALL, compression="none"), mpp=MPP)
    wanted = pydicom.dcmread(path / "level-0.dcm").SeriesInstanceUID
    for number, file in enumerate(sorted(path.iterdir())):
        data = pydicom.dcmread(file)
        inner, outer = pydicom.Dataset(), pydicom.Dataset()
        inner.SeriesInstanceUID = f"1.2.3.{number}"
        outer.ReferencedSeriesSequence = [inner]
        outer.SeriesInstanceUID = f"1.2.4.{number}"
        for item in (inner, outer):
            item.is_undefined_length_sequence_item = undefined
        data.ReferencedSeriesSequence = [inner, outer]
        data["ReferencedSeriesSequence"].is_undefined_length = undefined
        data.EncapsulatedDocument = bytes(200_000)  # behind it
        data.add_new(0x00091010, "OB", bytes(100_000))  # before it, longer than any head
        if not explicit:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        pydicom.dcmwrite(file, data, implicit_vr=not explicit, little_endian=True, enforce_file_format=True)
        assert series_of(file) == wanted
    assert is_slide_folder(path)


def test_headers_without_an_end(tmp_path: Path) -> None:
    for number, data in enumerate((b"", bytes(132), bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(3_000_000))):
        (tmp_path / f"{number}.dcm").write_bytes(data)
        assert series_of(tmp_path / f"{number}.dcm") is None


# ---- folders as inputs ------------------------------------------------------------------------------------------


@pytest.fixture
def cohort(tissue: RGB8, tmp_path: Path) -> Path:
    """Two OME-Zarr, two DICOM slides, one of them among other files, and a plain image."""
    folder = tmp_path / "cohort"
    (folder / "sub").mkdir(parents=True)
    write_array(folder / "a.ome.zarr", tissue, settings=SMALL, mpp=MPP)
    write_array(folder / "b.zarr", tissue, settings=SMALL, mpp=MPP)
    write_array(folder / "c.x.dcm", tissue, settings=SMALL, mpp=MPP)
    write_array(tmp_path / "loose.dcm", tissue, settings=SMALL, mpp=MPP)
    for file in (tmp_path / "loose.dcm").iterdir():
        file.rename(folder / "sub" / file.name)
    (tmp_path / "loose.dcm").rmdir()
    write_array(folder / "sub" / "d.tif", tissue, settings=SMALL, mpp=MPP)
    return folder


def test_a_slide_that_is_a_folder_is_one_input(cohort: Path) -> None:
    found = find_files(cohort)
    names = [path.relative_to(cohort).as_posix() for path in found]
    assert names == ["a.ome.zarr", "b.zarr", "c.x.dcm", "sub/d.tif", "sub/level-0.dcm"]
    assert all(is_image(path) for path in found)
    outputs = [output.as_posix() for _, output in plan_outputs(found, cohort, Path("o"))]
    assert outputs == ["o/a.tif", "o/b.tif", "o/c.x.tif", "o/sub/d.tif", "o/sub/level-0.tif"]
    assert find_files(cohort / "a.ome.zarr") == [cohort / "a.ome.zarr"]
    assert find_files(cohort / "*.zarr") == [cohort / "a.ome.zarr", cohort / "b.zarr"]


@pytest.mark.parametrize(
    ("format", "ending"), [("tiff", ".tif"), ("ome-tiff", ".ome.tif"), ("ome-zarr", ".ome.zarr"), ("dicom", ".dcm")]
)
def test_outputs_in_another_format(format: str, ending: str) -> None:
    sources = [Path(f"in/{name}") for name in ("a.b.svs", "c.png", "d.jp2", "e.dcm")]
    tiff = Path("in/f.ome.tif")
    planned = [output.name for _, output in plan_outputs([*sources, tiff], Path("in"), Path("o"), format)]
    kept = "f.ome.tif" if format == "tiff" else f"f{ending}"
    assert planned == [f"a.b{ending}", "c.png", "d.png", f"e{ending}", kept]


def test_which_folders_are_slides(cohort: Path) -> None:
    assert [is_slide_folder(cohort / name) for name in ("a.ome.zarr", "c.x.dcm", "sub", ".")] == [
        True,
        True,
        False,
        False,
    ]
    assert [is_output_folder(cohort / name) for name in ("a.ome.zarr", "c.x.dcm", "sub", "sub/d.tif", "none")] == [
        False, False, True, False, False,
    ]  # fmt: skip
    # The instances of one slide are one, whatever their folder is called; one instance alone is a file.
    (cohort / "c.x.dcm").rename(cohort / "plain")
    assert is_slide_folder(cohort / "plain")
    for level in (1, 2, 3):
        (cohort / "plain" / f"level-{level}.dcm").unlink()
    assert not is_slide_folder(cohort / "plain")
    with open_slide(cohort / "plain") as slide:
        assert slide.level_dimensions == ((423, 301),)


def test_a_folder_of_two_dicom_slides_is_not_guessed_at(tissue: RGB8, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_array(tmp_path / f"{name}.dcm", tissue[:64, :64], settings=SMALL, mpp=MPP)
    (tmp_path / "both").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"{name}.dcm" / "level-0.dcm").rename(tmp_path / "both" / f"{name}.dcm")
    with pytest.raises(SlideError, match=r"holds 2 DICOM slides; name a file of one, such as one\.dcm"):
        open_slide(tmp_path / "both")
    assert len(find_files(tmp_path / "both")) == 2


def test_series_are_told_apart_as_pydicom_does(cohort: Path, tmp_path: Path) -> None:
    files = [*sorted((cohort / "c.x.dcm").iterdir()), *sorted((cohort / "sub").glob("*.dcm"))]
    assert [series_of(file) for file in files] == [pydicom.dcmread(file).SeriesInstanceUID for file in files]
    assert one_of_each_series(files) == [files[0], files[4]]
    (tmp_path / "no.dcm").write_bytes(b"no DICOM" * 100)
    assert series_of(tmp_path / "no.dcm") is None


def test_the_checksum_of_a_folder_is_of_what_is_in_it(cohort: Path) -> None:
    slide = cohort / "a.ome.zarr"
    before = checksum(slide)
    assert checksum(cohort / "b.zarr") == before  # the same slide under another name
    shard = slide / "0" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert checksum(slide) != before


def test_a_folder_can_be_the_reference(cohort: Path, tissue: RGB8) -> None:
    histogram = read_reference(cohort / "a.ome.zarr")
    assert histogram.pixels > 50_000
    assert histogram.provenance["sha256"] == checksum(cohort / "a.ome.zarr")


# ---- the command ------------------------------------------------------------------------------------------------


def test_the_command_writes_what_the_name_says(run: Run, pyramid: Path, tmp_path: Path) -> None:
    for name, more in (
        ("o.ome.zarr", ["--compression", "deflate"]),
        ("o.dcm", []),
        ("o.ome.tif", ["--compression", "none"]),
    ):
        outcome = run("normalize", pyramid, tmp_path / name, "--tile-size", 64, *more)
        assert (outcome.code, outcome.err) == (0, "")
    assert type(zarr.open_group(tmp_path / "o.ome.zarr", mode="r")["0"].compressors[0]) is zarr.codecs.GzipCodec
    pixels = []
    for name in ("o.ome.zarr", "o.ome.tif"):
        with open_slide(tmp_path / name) as slide:
            assert slide.mpp == pytest.approx((0.25, 0.3))
            pixels.append(slide.read_region((0, 0), 0, slide.dimensions)[0])
    np.testing.assert_array_equal(*pixels)
    outcome = run("normalize", tmp_path / "o.ome.zarr", tmp_path / "again.tif", "--tile-size", 64)
    assert outcome.code == 0
    outcome = run("normalize", pyramid, tmp_path / "o.ome.zarr", "--overwrite", "--tile-size", 64)
    assert (outcome.code, outcome.err) == (0, "")


def test_the_command_says_what_a_format_cannot_hold(run: Run, pyramid: Path, tmp_path: Path) -> None:
    outcome = run("normalize", pyramid, tmp_path / "o.ome.zarr", "--compression", "jpeg")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "got compression 'jpeg' for OME-Zarr; wanted one of zstd, deflate, none" in outcome.err
    outcome = run("normalize", pyramid, tmp_path / "o.svs")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "name an output that ends in .tif, .ome.tif, .ome.zarr, .dcm, not o.svs" in outcome.err


def test_the_command_takes_folders_among_a_cohort(run: Run, cohort: Path, tmp_path: Path) -> None:
    outcome = run("normalize", cohort, tmp_path / "o", "--tile-size", 64)
    assert outcome.code == 0, outcome.err
    found = {path.relative_to(tmp_path / "o").as_posix() for path in (tmp_path / "o").rglob("*.tif")}
    assert found == {"a.tif", "b.tif", "c.x.tif", "sub/d.tif", "sub/level-0.tif"}
    outcome = run("normalize", cohort, tmp_path / "p.ome.zarr")
    assert outcome.code == 2
    assert "named like one; several inputs need a folder" in outcome.err


@pytest.mark.parametrize("name", NAMES)
def test_the_command_separates_a_slide_that_is_a_folder(run: Run, name: str, tissue: RGB8, tmp_path: Path) -> None:
    """It is one slide, and no folder to be searched through: its stains are those of the same pixels in a file."""
    write_array(tmp_path / name, tissue, settings=SMALL, mpp=MPP)
    with open_slide(tmp_path / name) as slide:
        decoded, _ = slide.read_region((0, 0), 0, slide.dimensions)
    Image.fromarray(decoded).save(tmp_path / "same.png")
    outcome = run("separate", tmp_path / name, tmp_path / "folder", "--tile-size", 64, "--white", "236,231,228")
    assert (outcome.code, outcome.err.count("Traceback")) == (0, 0), outcome.err
    assert run("separate", tmp_path / "same.png", tmp_path / "file", "--white", "236,231,228").code == 0
    for stain in ("hematoxylin", "eosin"):
        [written] = (tmp_path / "folder").glob(f"*{stain}.tif")
        [wanted] = (tmp_path / "file").glob(f"*{stain}.png")
        apart = np.abs(tifffile.imread(written).astype(int) - np.asarray(Image.open(wanted)))
        assert apart.mean() < 3  # of JPEG


def test_the_command_writes_a_cohort_in_another_format(run: Run, cohort: Path, tissue: RGB8, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(cohort / "e.png")
    arguments = ["normalize", cohort, tmp_path / "o", "--tile-size", 64, "--format", "ome-zarr"]
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.err
    found = {path.relative_to(tmp_path / "o").as_posix() for path in find_files(tmp_path / "o") if is_image(path)}
    assert found == {"a.ome.zarr", "b.ome.zarr", "c.x.ome.zarr", "sub/d.ome.zarr", "sub/level-0.ome.zarr", "e.png"}
    assert zarr.open_group(tmp_path / "o" / "b.ome.zarr", mode="r")["0"].shape == (3, 301, 423)
    again = run(*arguments)
    assert again.code == 0
    outcome = run("normalize", cohort / "b.zarr", tmp_path / "x.tif", "--format", "dicom")
    assert outcome.code == 2
    assert "--format dicom and the name x.tif say different things" in outcome.err
    outcome = run("normalize", cohort, tmp_path / "p", "--format", "dicom", "--compression", "webp")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "got compression 'webp' for DICOM" in outcome.err
