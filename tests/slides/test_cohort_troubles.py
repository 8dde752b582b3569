"""What befalls a cohort from outside: folders that vanish, full disks, later runs, files touched by hand."""

import dataclasses
import gc
import json
import os
import shutil
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import tifffile
from PIL import Image

from restain.color.builder import HistogramBuilder
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, OutputError
from restain.files import atomic_output
from restain.methods import METHODS
from restain.methods.macenko import Macenko
from restain.methods.reinhard import Reinhard
from restain.phantom import make_phantom
from restain.saved import load
from restain.slides import batch, cohort, cohort_work, manifest, quality_sheet
from restain.slides.batch import BatchSettings, Failure, estimate_together, plan_outputs
from restain.slides.codecs import PyramidSettings
from restain.slides.cohort import CohortResult, normalize_cohort
from restain.slides.cohort_work import LOCK, Done, Job, Work, measure_one, normalize_one
from restain.slides.manifest import Row, read_rows
from restain.slides.pipeline import describe
from restain.slides.sample import sample_tiles_of
from restain.slides.writer import write_array

from ..running import Run

SETTINGS = BatchSettings(pyramid=PyramidSettings(tile=64), workers=1)
TOGETHER = dataclasses.replace(SETTINGS, estimate="folder")
OVERWRITING = dataclasses.replace(SETTINGS, overwrite=True)


def image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(make_phantom(90, 120, seed=seed).image).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images."""
    for number in range(3):
        image(tmp_path / "in" / f"{number}.png", number)
    return tmp_path / "in"


def normalized(
    folder: Path, out: Path, normalizer: Any = None, settings: Any = SETTINGS, **options: Any
) -> CohortResult:
    out.mkdir(exist_ok=True)
    pairs = plan_outputs(sorted(path for path in folder.rglob("*") if path.is_file()), folder, out)
    return normalize_cohort(pairs, out, normalizer or Macenko().fit("he"), load, settings, **options)


def statuses(out: Path) -> dict[str, str]:
    return {row.output: row.status for row in read_rows(out / "manifest.csv")}


def hook(monkeypatch: pytest.MonkeyPatch, name: str, act: Any) -> None:
    """Call `act` just before the slide of this name is normalized."""
    real = cohort_work.normalize_file

    def normalize(source: Path, *arguments: Any, **options: Any) -> Any:
        if source.name == name:
            act()
        return real(source, *arguments, **options)

    monkeypatch.setattr(cohort_work, "normalize_file", normalize)


# ---- a later run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0.png", "slide.tif", "slide.ome.zarr"])
def test_what_a_later_run_wrote_stays(name: str, folder: Path, fitted: Macenko, tmp_path: Path) -> None:
    """A worker whose run was stopped comes to its end after the next run has begun."""
    if "zarr" in name:
        pytest.importorskip("zarr")
    source = folder / ("0.png" if name == "0.png" else "slide.tif")
    if name != "0.png":
        write_array(source, make_phantom(150, 200, seed=3).image, settings=PyramidSettings(tile=64))
    (tmp_path / LOCK).write_text("this run")
    pyramid = PyramidSettings(tile=64, format="ome-zarr" if "zarr" in name else "tiff")
    settings = dataclasses.replace(SETTINGS, pyramid=pyramid)
    work = Work(settings, fitted, folder=tmp_path, run="this run")
    job = Job(source, tmp_path / name, replace=True)
    done = normalize_one(job, work)
    assert isinstance(done, Done), done
    before = cohort_work.checksum(job.output)

    def progress(stage: str, count: int, total: int) -> None:
        if stage == "normalize":
            (tmp_path / LOCK).write_text("the next run")

    if name == "0.png":
        (tmp_path / LOCK).write_text("the next run")
    again = normalize_one(job, dataclasses.replace(work, normalizer=Reinhard().fit("he")), progress=progress)
    assert isinstance(again, Failure)
    assert "another run writes in" in again.error
    assert cohort_work.checksum(job.output) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_every_run_has_its_own_words(folder: Path, tmp_path: Path) -> None:
    words = set()
    for _ in range(2):
        normalized(folder, tmp_path / "out", settings=OVERWRITING)
        words.add((tmp_path / "out" / LOCK).read_text())
    assert len(words) == 2


def test_a_normalizer_that_was_replaced_is_not_applied(fitted: Macenko, tmp_path: Path) -> None:
    fitted.save(tmp_path / "normalizer.safetensors")
    image(tmp_path / "0.png")
    work = Work(SETTINGS, None, tmp_path / "normalizer.safetensors", load, "another digest")
    result = normalize_one(Job(tmp_path / "0.png", tmp_path / "out.png"), work)
    assert isinstance(result, Failure)
    assert "is not the normalizer of this run" in result.error
    assert not (tmp_path / "out.png").exists()


# ---- folders and disks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anew", [False, True])
def test_a_folder_that_vanishes(anew: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(folder / "deep" / "er" / "3.png")
    out = tmp_path / "out"

    def vanish() -> None:
        shutil.rmtree(out)
        if anew:
            out.mkdir()

    hook(monkeypatch, "1.png", vanish)
    with pytest.raises(OutputError, match=r"out was removed or replaced while it was written to"):
        normalized(folder, out)
    assert out.exists() == anew
    assert not anew or list(out.iterdir()) == []


def test_subfolders_are_made_but_never_the_cohorts_own(folder: Path, fitted: Macenko, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / LOCK).write_text("run")
    work = Work(SETTINGS, fitted, folder=out, run="run")
    job = Job(folder / "0.png", out / "a" / "b" / "0.png")
    assert isinstance(normalize_one(job, work), Done)
    shutil.rmtree(out)
    assert isinstance(normalize_one(job, work), Failure)
    assert not out.exists()


@pytest.mark.parametrize("where", ["sheet", "manifest"])
def test_a_full_disk_at_the_end(where: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All slides are reported, and the next run writes what is missing."""

    def full(*_: Any, **__: Any) -> Any:
        raise OutputError("cannot write it: No space left on device")

    with monkeypatch.context() as patch:
        if where == "sheet":
            patch.setattr(quality_sheet, "write_atomically", full)
        else:
            real = manifest.Manifest._write
            calls = iter([real])
            patch.setattr(manifest.Manifest, "_write", lambda self, rows: next(calls, full)(self, rows))
        said: list[str] = []
        result = normalized(folder, tmp_path / "out", say=said.append)
    assert [row.status for _, row in result.rows] == ["done"] * 3
    assert result.sheet is None
    assert len(said) == 1
    assert "No space left on device; the outputs are complete" in said[0]
    assert not (tmp_path / "out" / "quality.html").exists()
    again = normalized(folder, tmp_path / "out")
    assert (again.rows, again.kept) == ((), 3)
    assert again.sheet == tmp_path / "out" / "quality.html"
    assert again.sheet.is_file()
    assert normalized(folder, tmp_path / "out").sheet is None  # nothing is missing any more


def test_a_full_disk_in_the_midst(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest cannot take a row: the run ends, and what it had entered is still there."""
    real = manifest.Manifest.add

    def add(self: Any, row: Row, *, sync: bool = True) -> None:
        if row.output == "1.png" and row.status == "done":
            raise OutputError("cannot write manifest.csv: No space left on device")
        real(self, row, sync=sync)

    with monkeypatch.context() as patch:
        patch.setattr(manifest.Manifest, "add", add)
        with pytest.raises(OutputError, match="No space left"):
            normalized(folder, tmp_path / "out")
    assert statuses(tmp_path / "out")["0.png"] == "done"
    assert statuses(tmp_path / "out")["1.png"] == "started"
    assert normalized(folder, tmp_path / "out").kept >= 1
    assert set(statuses(tmp_path / "out").values()) == {"done"}


def test_a_run_that_ended_before_its_sheet(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quality_sheet, "write", die)
        with pytest.raises(KeyboardInterrupt):
            normalized(folder, tmp_path / "out")
    again = normalized(folder, tmp_path / "out")
    assert (again.kept, again.rows) == (3, ())
    assert again.sheet is not None
    assert "0.png" in again.sheet.read_text()


def test_a_part_that_was_replaced_does_not_become_the_output(tmp_path: Path) -> None:
    def write(path: Path) -> Path:
        with atomic_output(path) as temporary:
            temporary.unlink()
            temporary.write_bytes(b"another's")
        return path

    with pytest.raises(OutputError, match="was replaced meanwhile"):
        write(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"another's"]


def test_a_checksum_that_cannot_be_had(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is written: that is no failure."""
    real = cohort_work.checksum

    def checksum(path: Path) -> str:
        if path.name == "1.png" and path.parent.name == "in":
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(cohort_work, "checksum", checksum)
    result = normalized(folder, tmp_path / "out")
    row = result.rows[1][1]
    assert (row.status, row.input_sha256) == ("done", "")
    assert "no checksum of" in row.warnings[0]
    assert "Input/output error" in row.warnings[0]


# ---- what may be mixed ------------------------------------------------------------------------------------------


def test_an_older_output_of_a_slide_that_failed_is_replaced(folder: Path, tmp_path: Path) -> None:
    """Of other settings: it must not pass for finished."""
    normalized(folder, tmp_path / "out", Reinhard().fit("he"))
    picture = (folder / "1.png").read_bytes()
    (folder / "1.png").write_text("being copied")
    normalized(folder, tmp_path / "out", settings=OVERWRITING)
    assert statuses(tmp_path / "out")["1.png"] == "failed"
    (folder / "1.png").write_bytes(picture)
    normalized(folder, tmp_path / "out")
    normalized(folder, tmp_path / "whole")
    assert (tmp_path / "out" / "1.png").read_bytes() == (tmp_path / "whole" / "1.png").read_bytes()
    assert set(statuses(tmp_path / "out").values()) == {"done"}


def test_estimates_together_do_not_mix(folder: Path, tmp_path: Path) -> None:
    normalized(folder, tmp_path / "out", settings=TOGETHER)
    assert normalized(folder, tmp_path / "out", settings=TOGETHER).kept == 3
    image(folder / "late.png", 7)
    with pytest.raises(OutputError, match=r"other settings|settings than these.*--estimate folder found other files"):
        normalized(folder, tmp_path / "out", settings=TOGETHER)
    assert not (tmp_path / "out" / "late.png").exists()
    overwriting = dataclasses.replace(TOGETHER, overwrite=True)
    result = normalized(folder, tmp_path / "out", settings=overwriting)
    assert len({json.dumps(row.appearance) for _, row in result.rows}) == 1
    assert len(result.rows) == 4


def test_a_consensus_that_was_measured_otherwise_is_measured_anew(folder: Path, tmp_path: Path) -> None:
    first = normalized(folder, tmp_path / "out", Macenko(), consensus=True)
    other = dataclasses.replace(SETTINGS, seed=5)
    with pytest.raises(OutputError, match="settings than these"):
        normalized(folder, tmp_path / "out", Macenko(), other, consensus=True)
    said: list[str] = []
    anew = normalized(
        folder, tmp_path / "out", Macenko(), dataclasses.replace(other, overwrite=True), consensus=True, say=said.append
    )
    assert said == []
    assert anew.normalizer.provenance_["sampling"] != first.normalizer.provenance_["sampling"]


def test_another_normalizer_is_not_put_in_anothers_place(folder: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalized(folder, tmp_path / "out", fitted)
    before = (tmp_path / "out" / "normalizer.safetensors").read_bytes()
    image(tmp_path / "more" / "d.png", 5)
    with pytest.raises(OutputError, match=r"out/0\.png was made by the normalizer in .*--overwrite"):
        normalized(tmp_path / "more", tmp_path / "out", Reinhard().fit("he"))
    assert (tmp_path / "out" / "normalizer.safetensors").read_bytes() == before
    normalized(tmp_path / "more", tmp_path / "out", Reinhard().fit("he"), OVERWRITING)
    assert (tmp_path / "out" / "normalizer.safetensors").read_bytes() != before


def test_finished_and_found_are_counted_apart(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    image(tmp_path / "out" / "0.png", 9)
    normalized(folder, tmp_path / "out")
    image(folder / "late.png")
    said: list[str] = []
    result = normalized(folder, tmp_path / "out", say=said.append)
    assert (result.kept, result.found) == (2, 1)
    assert said == [
        "2 outputs are finished and left as they are",
        "1 outputs exist that no run of this folder made, and are left as they are",
    ]


# ---- one estimate for all ---------------------------------------------------------------------------------------


def test_a_wholly_damaged_slide_has_no_part(folder: Path, tmp_path: Path) -> None:
    path = folder / "slide.tif"
    write_array(path, make_phantom(128, 128, seed=2).image, settings=PyramidSettings(tile=64))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for level in file.series[0].levels:
            for page in level.pages:
                for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    result = normalized(folder, tmp_path / "out", settings=dataclasses.replace(TOGETHER, on_error="skip"))
    assert statuses(tmp_path / "out") == {"0.png": "done", "1.png": "done", "2.png": "done", "slide.tif": "failed"}
    assert "nothing of slide.tif could be read" in result.rows[3][1].error


def test_an_unforeseen_error_of_one_file(folder: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch) -> None:
    real = batch.open_slide

    def odd(path: Path, **options: Any) -> Any:
        if path.name == "1.png":
            raise KeyError("odd")
        return real(path, **options)

    monkeypatch.setattr(batch, "open_slide", odd)
    sources = sorted(folder.iterdir())
    _, failed = estimate_together(sources, fitted, SETTINGS)
    assert {path.name: failure.error for path, failure in failed.items()} == {"1.png": "unforeseen KeyError: 'odd'"}


def test_histograms_are_not_gathered(folder: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time are more than the sum and the one that is added to it alive."""
    alive: list[Any] = []
    most = 0
    real = ColorHistogram.from_image

    def counted(*arguments: Any, **options: Any) -> ColorHistogram:
        nonlocal most
        made = real(*arguments, **options)
        alive.append(weakref.ref(made))
        gc.collect()
        most = max(most, sum(reference() is not None for reference in alive))
        return made

    for number in range(3, 8):
        image(folder / f"{number}.png", number)
    monkeypatch.setattr(ColorHistogram, "from_image", counted)
    estimate_together(sorted(folder.iterdir()), fitted, SETTINGS)
    assert len(alive) == 8
    assert most <= 3


def test_tiles_for_norm_statistics_are_read_as_the_slides_are(
    folder: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "slide.tif"
    write_array(path, make_phantom(256, 256, seed=2).image, settings=PyramidSettings(tile=64))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, size = page.dataoffsets[5], page.databytecounts[5]
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    assert sample_tiles_of([path], 4, 64) == []
    assert len(sample_tiles_of([path], 4, 64, on_error="skip")) == 4
    asked: dict[str, Any] = {}
    monkeypatch.setattr(Macenko, "statistics_tiles", 4)
    monkeypatch.setattr(Macenko, "estimate", lambda self, histogram, *, tiles: tiles)
    monkeypatch.setattr("restain.slides.sample.sample_tiles_of", lambda *_, **options: asked.update(options))
    settings = dataclasses.replace(SETTINGS, icc="srgb", on_error="fill")
    estimate_together([folder / "0.png"], fitted, settings)
    assert (asked["icc"], asked["on_error"]) == ("srgb", "fill")


# ---- words ------------------------------------------------------------------------------------------------------


def test_halves_of_characters_do_not_end_the_cohort(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd() -> None:
        raise InputError("an axis is called '\ud800'")

    hook(monkeypatch, "1.png", odd)
    normalized(folder, tmp_path / "out")
    rows = {row.output: row for row in read_rows(tmp_path / "out" / "manifest.csv")}
    assert {name: row.status for name, row in rows.items()} == {"0.png": "done", "1.png": "failed", "2.png": "done"}
    assert rows["1.png"].error == r"an axis is called '\ud800'"


@pytest.mark.parametrize(
    "looks",
    [
        {"white_point": [1, 2]},
        {"white_point": "white"},
        {"white_point": [240.0, 240.0, float("nan")]},
        {"white_point": [240.0, 240.0, 240.0], "stain_matrix": [1.0, 2.0, 3.0]},
        {"white_point": [240.0, 240.0, 240.0], "stain_matrix": [[1.0, 2.0, 3.0]], "max_concentrations": 2.0},
        {"white_point": [240.0, 240.0, 240.0], "max_concentrations": ["much"]},
        {"white_point": [240.0, 240.0, 240.0], "angle": {"degrees": 3}},
        {"white_point": [240.0, 240.0, 240.0], "weights": [[1.0], [1.0, 2.0]]},
    ],
)
def test_a_manifest_that_was_touched_by_hand(looks: dict[str, Any], tmp_path: Path) -> None:
    """Such a row is none: its output is one that nobody knows, and nothing of it reaches the sheet."""
    row = Row(Path("/a.png"), "a.png", "done", appearance=looks)
    with pytest.raises(ValueError, match=r"."):
        Row.from_cells(row.cells())
    path = tmp_path / "manifest.csv"
    with manifest.Manifest(tmp_path) as book:
        book.add(row)
    assert list(read_rows(path)) == []


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.fixed])
def test_what_every_method_sees_is_read_again(name: str, phantom: Any, tmp_path: Path) -> None:
    method = METHODS[name]().fit("he")
    looks = describe(method, method.estimate(phantom.image[:200, :200]))["appearance"]
    row = Row(Path("/a.png"), "a.png", "done", name, appearance=looks)
    with manifest.Manifest(tmp_path) as book:
        book.add(row)
    assert list(read_rows(tmp_path / "manifest.csv")) == [row]


@pytest.mark.parametrize("cell", [("seconds", "nan"), ("seconds", "-1"), ("width", "-3"), ("height", "1.5")])
def test_numbers_that_were_touched_by_hand(cell: tuple[str, str]) -> None:
    cells = Row(Path("/a.png"), "a.png", "done").cells()
    cells[manifest.COLUMNS.index(cell[0])] = cell[1]
    with pytest.raises(ValueError, match=r"."):
        Row.from_cells(cells)


def test_a_file_name_with_line_breaks_is_told_in_one_line(folder: Path, tmp_path: Path, run: Run) -> None:
    (folder / "words\nx.svs").write_text("words")
    outcome = run("normalize", folder, tmp_path / "out", "--workers", "1")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"restain: {folder}/words x.svs: ")


def test_the_words_of_a_normalizer_are_no_markup(folder: Path, tmp_path: Path) -> None:
    fitted = Macenko().fit("he")
    fitted.provenance_ = {"consensus_of": "<script>alert(1)</script>"}
    normalized(folder, tmp_path / "out", fitted)
    page = (tmp_path / "out" / "quality.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


# ---- Ctrl-C -----------------------------------------------------------------------------------------------------


def test_measuring_ends_at_the_next_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_array(tmp_path / "s.tif", make_phantom(1200, 1600, seed=2).image, settings=PyramidSettings(tile=256))
    counted = []
    real = HistogramBuilder.add

    def add(self: HistogramBuilder, image: RGB8, mask: Any = None) -> None:
        time.sleep(0.15)  # so that there is something to interrupt
        counted.append(image.shape)
        real(self, image, mask)

    def progress(stage: str, done: float, total: int) -> None:
        assert total == 12
        raise KeyboardInterrupt

    monkeypatch.setattr(HistogramBuilder, "add", add)
    with pytest.raises(KeyboardInterrupt):
        measure_one(Job(tmp_path / "s.tif", tmp_path / "o.tif"), Work(SETTINGS), progress=progress)
    assert len(counted) < 10


def test_ctrl_c_while_measuring_is_told(folder: Path, tmp_path: Path) -> None:
    def progress(stage: str, done: float, total: int) -> None:
        if done >= 1:
            raise KeyboardInterrupt

    told = "^interrupted while the slides were measured; the same command measures them again$"
    with pytest.raises(KeyboardInterrupt, match=told):
        normalized(folder, tmp_path / "out", Macenko(), consensus=True, progress=progress)
    assert set(os.listdir(tmp_path / "out")) == {cohort.LOCK}
