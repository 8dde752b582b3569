"""Cohorts on one machine: what is entered, going on after any end, and what is refused; one bad slide stops nothing."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError, OutputError
from restain.lock import Lock
from restain.methods.macenko import Macenko
from restain.methods.reinhard import Reinhard
from restain.phantom import STAINS_B, Scanner, make_phantom
from restain.saved import load
from restain.slides import cohort, cohort_work
from restain.slides.batch import BatchSettings, plan_outputs
from restain.slides.codecs import PyramidSettings
from restain.slides.cohort import CohortResult, normalize_cohort
from restain.slides.consensus import consensus_of
from restain.slides.manifest import Row, read_rows
from restain.slides.pipeline import describe
from restain.slides.sample import sample_slide
from restain.slides.writer import write_array

SETTINGS = BatchSettings(pyramid=PyramidSettings(tile=64), workers=2)
GOOD = {"a.png", "b.png", "c.jpg", "sub/slide.tif"}


@pytest.fixture
def folder(tissue: RGB8, tmp_path: Path) -> Path:
    """Three images of two labs, and a slide in a subfolder."""
    path = tmp_path / "in"
    (path / "sub").mkdir(parents=True)
    Image.fromarray(tissue).save(path / "a.png")
    Image.fromarray(make_phantom(200, 150, seed=8, stain_matrix=STAINS_B).image).save(path / "b.png")
    Image.fromarray(tissue[:100]).save(path / "c.jpg")
    write_array(path / "sub" / "slide.tif", tissue, settings=PyramidSettings(tile=64))
    return path


def pairs_of(folder: Path, out: Path) -> list[tuple[Path, Path]]:
    sources = sorted(path for path in folder.rglob("*") if path.is_file())
    return plan_outputs(sources, folder, out)


def normalized(
    folder: Path, out: Path, normalizer: Any = None, settings: Any = SETTINGS, **options: Any
) -> CohortResult:
    out.mkdir(exist_ok=True)
    normalizer = normalizer or Macenko().fit("he")
    return normalize_cohort(pairs_of(folder, out), out, normalizer, load, settings, **options)


def outputs(out: Path) -> dict[str, bytes]:
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    return {name: data for name, data in files.items() if name not in cohort.OWN_FILES}


def rows_of(out: Path) -> dict[str, Row]:
    return {row.output: row for row in read_rows(out / "manifest.csv")}


def statuses(out: Path) -> dict[str, str]:
    return {name: row.status for name, row in rows_of(out).items()}


# ---- what is entered --------------------------------------------------------------------------------------------


def test_every_slide_is_entered(folder: Path, fitted: Macenko, tmp_path: Path) -> None:
    result = normalized(folder, tmp_path / "out", fitted)
    rows = rows_of(tmp_path / "out")
    assert set(rows) == set(outputs(tmp_path / "out")) == GOOD
    assert [source.name for (source, _), _ in result.rows] == ["a.png", "b.png", "c.jpg", "slide.tif"]
    for name, row in rows.items():
        output = tmp_path / "out" / name
        assert row.status == "done"
        assert row.method == "macenko"
        assert row.input_sha256 == hashlib.sha256(row.input.read_bytes()).hexdigest()
        assert row.output_sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
        assert row.seconds > 0
        with Image.open(output) as image:
            assert (row.width, row.height) == image.size
    with Image.open(folder / "b.png") as image:
        looks = describe(fitted, fitted.estimate(np.asarray(image)))["appearance"]
    assert rows["b.png"].appearance == looks
    looks = describe(fitted, fitted.estimate(sample_slide(folder / "sub" / "slide.tif")))["appearance"]
    assert rows["sub/slide.tif"].appearance == looks


def test_what_they_were_normalized_by_is_kept(folder: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalized(folder, tmp_path / "out", fitted)
    assert load(tmp_path / "out" / "normalizer.safetensors") == fitted
    assert load(tmp_path / "out") == fitted


def test_the_number_of_workers_shows_nowhere(folder: Path, tmp_path: Path) -> None:
    seen = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        normalized(
            folder, out, settings=dataclasses.replace(SETTINGS, workers=workers), consensus=True, normalizer=Macenko()
        )
        rows = [dataclasses.replace(row, seconds=0.0) for row in rows_of(out).values()]
        seen.append((outputs(out), rows, (out / "normalizer.safetensors").read_bytes()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("estimate", ["image", "folder"])
def test_bad_slides_are_entered_and_the_rest_completes(estimate: Any, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:5000])
    (folder / "words.svs").write_text("not a slide")
    settings = dataclasses.replace(SETTINGS, estimate=estimate)
    result = normalized(folder, tmp_path / "out", settings=settings)
    assert statuses(tmp_path / "out") == dict.fromkeys(GOOD, "done") | {"bad.png": "failed", "words.tif": "failed"}
    assert {row.output: row.error for _, row in result.rows if row.error}.keys() == {"bad.png", "words.tif"}
    assert set(outputs(tmp_path / "out")) == GOOD
    assert "not a slide or image" in rows_of(tmp_path / "out")["words.tif"].error


def test_an_error_that_nobody_foresaw_stops_one_slide_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cohort_work.normalize_file

    def normalize(source: Path, *arguments: Any, **options: Any) -> Any:
        if source.name == "b.png":
            raise KeyError("odd")
        return real(source, *arguments, **options)

    monkeypatch.setattr(cohort_work, "normalize_file", normalize)
    normalized(folder, tmp_path / "out")
    assert statuses(tmp_path / "out") == dict.fromkeys(GOOD, "done") | {"b.png": "failed"}
    assert rows_of(tmp_path / "out")["b.png"].error == "unforeseen KeyError: 'odd'"


def test_a_damaged_icc_profile_does_not_stop_the_rest(folder: Path, tissue: RGB8, tmp_path: Path) -> None:
    tifffile.imwrite(folder / "icc.tif", tissue, photometric="rgb", tile=(64, 64), iccprofile=b"no profile" * 20)
    normalized(folder, tmp_path / "out")
    assert set(outputs(tmp_path / "out")) >= GOOD


def test_a_folder_that_cannot_be_made_is_reported(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder should be")
    normalized(folder, tmp_path / "out")
    assert statuses(tmp_path / "out") == dict.fromkeys(GOOD, "done") | {"sub/slide.tif": "failed"}


def test_one_estimate_for_a_folder(folder: Path, fitted: Macenko, tmp_path: Path) -> None:
    (folder / "sub" / "slide.tif").unlink()
    normalized(folder, tmp_path / "out", fitted, dataclasses.replace(SETTINGS, estimate="folder"))
    images = {name: np.asarray(Image.open(folder / name)) for name in ("a.png", "b.png", "c.jpg")}
    together = fitted.estimate(ColorHistogram.from_images(list(images.values())))
    looks = describe(fitted, together)["appearance"]
    assert [row.appearance for row in rows_of(tmp_path / "out").values()] == [looks] * 3
    with Image.open(tmp_path / "out" / "b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), fitted.transform(images["b.png"], together))


def test_nothing_but_bad_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("words")
    normalized(tmp_path / "in", tmp_path / "out")
    assert statuses(tmp_path / "out") == {"a.png": "failed"}
    with pytest.raises(InputError, match=r"none of the files could be read.*a\.png"):
        normalized(tmp_path / "in", tmp_path / "out", settings=dataclasses.replace(SETTINGS, estimate="folder"))


def test_warnings_are_entered(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (240, 240, 240)).save(folder / "blank.png")
    normalized(folder, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {name for name, row in rows.items() if row.warnings} == {"blank.png"}
    assert "stand in" in rows["blank.png"].warnings[0]


def test_progress_reaches_every_slide(folder: Path, tmp_path: Path) -> None:
    told: dict[str, list[float]] = {}
    (folder / "bad.png").write_text("words")

    def progress(stage: str, done: float, total: int) -> None:
        told.setdefault(stage, []).append(done)
        assert total == (4 if stage == "quality sheet" else 5)

    normalized(folder, tmp_path / "out", Macenko(), consensus=True, progress=progress)
    assert list(told) == ["measure", "normalize", "quality sheet"]
    assert [seen[-1] for seen in told.values()] == [5, 5, 4]
    assert all(seen == sorted(seen) for seen in told.values())


# ---- going on ---------------------------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_stopped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: what is finished is kept and entered, nothing partial is left, and the end is as if nothing had been."""
    normalized(folder, tmp_path / "whole")
    real = cohort_work.normalize_file

    def interrupted(source: Path, *arguments: Any, **options: Any) -> Any:
        if source.name == "c.jpg":
            raise KeyboardInterrupt
        return real(source, *arguments, **options)

    settings = dataclasses.replace(SETTINGS, workers=1)
    monkeypatch.setattr(cohort_work, "normalize_file", interrupted)
    said: list[str] = []
    told = r"^interrupted; 2 of 4 slides are entered, and the same command goes on from there$"
    with pytest.raises(KeyboardInterrupt, match=told):
        normalized(folder, tmp_path / "out", settings=settings, say=said.append)
    assert said == []
    assert set(outputs(tmp_path / "out")) == {"a.png", "b.png"}
    entered = statuses(tmp_path / "out")
    assert entered.pop("sub/slide.tif", "started") == "started"  # it may have been begun
    assert entered == {"a.png": "done", "b.png": "done", "c.jpg": "started"}
    monkeypatch.setattr(cohort_work, "normalize_file", real)
    result = normalized(folder, tmp_path / "out", settings=settings, say=said.append)
    assert said == ["2 outputs are finished and left as they are"]
    assert result.kept == 2
    assert [row.output for _, row in result.rows] == ["c.jpg", "sub/slide.tif"]
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
    assert [dataclasses.replace(row, seconds=0.0) for row in rows_of(tmp_path / "out").values()] == [
        dataclasses.replace(row, seconds=0.0) for row in rows_of(tmp_path / "whole").values()
    ]


def test_ctrl_c_ends_a_slide_in_its_midst(tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its next tile, without a partial file."""
    (tmp_path / "in").mkdir()
    for number in range(2):
        write_array(tmp_path / "in" / f"{number}.tif", tissue, settings=PyramidSettings(tile=64))
    tiles = []

    def progress(stage: str, done: float, total: int) -> None:
        if stage == "normalize" and 0 < done < total:
            tiles.append(done)
            raise KeyboardInterrupt  # as the main thread gets it

    slow = cohort_work.normalize_file

    def normalize(*arguments: Any, **options: Any) -> Any:
        report = options["progress"]

        def slowly(stage: str, done: int, total: int) -> None:
            if stage == "normalize":
                time.sleep(0.1)
            report(stage, done, total)

        return slow(*arguments, **options | {"progress": slowly})

    monkeypatch.setattr(cohort_work, "normalize_file", normalize)
    with pytest.raises(KeyboardInterrupt):
        normalized(tmp_path / "in", tmp_path / "out", progress=progress)
    assert tiles
    assert [p.name for p in (tmp_path / "out").iterdir() if p.suffix in (".tif", ".part")] == []


KILLED = """
import sys
from pathlib import Path
from restain.methods.macenko import Macenko
from restain.saved import load
from restain.slides.batch import BatchSettings, plan_outputs
from restain.slides.cohort import normalize_cohort
folder, out = map(Path, sys.argv[1:])
pairs = plan_outputs(sorted(folder.iterdir()), folder, out)
normalize_cohort(pairs, out, Macenko(), load, BatchSettings(workers=2), consensus=True)
"""


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(20):
        Image.fromarray(make_phantom(120, 160, seed=number).image).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / "out")]
    manifest = tmp_path / "out" / "manifest.csv"
    process = subprocess.Popen(command)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if manifest.is_file() and manifest.read_bytes().count(b",done,") >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    done = {name for name, status in statuses(tmp_path / "out").items() if status == "done"}
    assert 2 <= len(done) < 20
    assert done <= outputs(tmp_path / "out").keys()
    before = (tmp_path / "out" / "normalizer.safetensors").read_bytes()
    said: list[str] = []
    settings = BatchSettings(workers=1)
    result = normalized(tmp_path / "in", tmp_path / "out", Macenko(), settings, consensus=True, say=said.append)
    assert result.kept == len(done)
    assert "the consensus of 20 slides" in said[0]
    assert set(statuses(tmp_path / "out").values()) == {"done"}
    normalized(tmp_path / "in", tmp_path / "whole", Macenko(), settings, consensus=True)
    finished = {name: data for name, data in outputs(tmp_path / "out").items() if not name.endswith(".part")}
    assert finished == outputs(tmp_path / "whole")
    assert before == (tmp_path / "whole" / "normalizer.safetensors").read_bytes()


def test_failed_slides_are_tried_again(folder: Path, tissue: RGB8, tmp_path: Path) -> None:
    (folder / "late.png").write_text("not copied yet")
    normalized(folder, tmp_path / "out")
    Image.fromarray(tissue).save(folder / "late.png")
    result = normalized(folder, tmp_path / "out")
    assert [row.output for _, row in result.rows] == ["late.png"]
    assert statuses(tmp_path / "out")["late.png"] == "done"


def test_what_was_under_way_is_written_again(folder: Path, tmp_path: Path) -> None:
    """Killed between the output's appearing and its row's."""
    normalized(folder, tmp_path / "out")
    whole = outputs(tmp_path / "out")
    lines = (tmp_path / "out" / "manifest.csv").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "manifest.csv").write_text("".join([*lines[:2], lines[2].replace(",done,", ",started,")]))
    (tmp_path / "out" / "b.png").write_text("what it was writing")
    normalized(folder, tmp_path / "out", settings=SETTINGS)
    again = outputs(tmp_path / "out")
    assert again["b.png"] == whole["b.png"]
    # Outputs without any row are nobody's, and stay.
    assert statuses(tmp_path / "out") == {"a.png": "done", "b.png": "done", "c.jpg": "found", "sub/slide.tif": "found"}


def test_other_settings_do_not_mix(folder: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalized(folder, tmp_path / "out", fitted)
    before = outputs(tmp_path / "out")
    (tmp_path / "out" / "b.png").unlink()
    others = [
        (Reinhard().fit("he"), SETTINGS),
        (Macenko().fit("pap"), SETTINGS),
        (Macenko(background="keep").fit("he"), SETTINGS),
        (fitted, dataclasses.replace(SETTINGS, seed=1)),
        (fitted, dataclasses.replace(SETTINGS, pyramid=PyramidSettings(tile=128))),
    ]
    for normalizer, settings in others:
        with pytest.raises(OutputError, match=r"a\.png and 2 more outputs were made by another method.*--overwrite"):
            normalized(folder, tmp_path / "out", normalizer, settings)
    assert outputs(tmp_path / "out") == {name: data for name, data in before.items() if name != "b.png"}
    normalized(folder, tmp_path / "out", fitted, dataclasses.replace(SETTINGS, workers=1))  # which is no such setting
    assert outputs(tmp_path / "out") == before


def test_another_source_of_the_same_name_is_refused(folder: Path, tmp_path: Path) -> None:
    normalized(folder, tmp_path / "out")
    (tmp_path / "other").mkdir()
    Image.fromarray(make_phantom(100, 100, seed=30).image).save(tmp_path / "other" / "a.png")
    with pytest.raises(OutputError, match=r"a\.png was made from .*in/a\.png, not from .*other/a\.png"):
        normalized(tmp_path / "other", tmp_path / "out")
    (folder / "a.png").rename(tmp_path / "other" / "a.png")  # but moved it may be
    assert normalized(tmp_path / "other", tmp_path / "out").kept == 1


def test_two_cohorts_in_one_folder(folder: Path, tissue: RGB8, tmp_path: Path) -> None:
    normalized(folder, tmp_path / "out")
    (tmp_path / "more").mkdir()
    Image.fromarray(tissue).save(tmp_path / "more" / "d.png")
    normalized(tmp_path / "more", tmp_path / "out")
    assert statuses(tmp_path / "out") == dict.fromkeys(GOOD | {"d.png"}, "done")


@pytest.mark.parametrize("resume", [True, False])
def test_overwriting(resume: bool, folder: Path, tmp_path: Path) -> None:
    """Everything anew; with `resume`, but what these settings had finished already."""
    normalized(folder, tmp_path / "out", Reinhard().fit("he"))
    overwriting = dataclasses.replace(SETTINGS, overwrite=True)
    assert len(normalized(folder, tmp_path / "out", settings=overwriting, resume=resume).rows) == 4
    again = normalized(folder, tmp_path / "out", settings=overwriting, resume=resume)
    assert (len(again.rows), again.kept) == ((0, 4) if resume else (4, 0))
    assert {row.method for row in rows_of(tmp_path / "out").values()} == {"macenko"}


def test_not_resuming_needs_overwriting(folder: Path, tmp_path: Path) -> None:
    normalized(folder, tmp_path / "out", resume=False)
    before = outputs(tmp_path / "out")
    with pytest.raises(OutputError, match=r"a\.png exists; --no-resume .* needs --overwrite"):
        normalized(folder, tmp_path / "out", resume=False)
    assert outputs(tmp_path / "out") == before


# ---- what is refused --------------------------------------------------------------------------------------------


def test_one_process_at_a_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    lock = Lock(tmp_path / "out" / cohort.LOCK, "written to")
    with pytest.raises(OutputError, match=f"out is being written to by process {os.getpid()}"):
        normalized(folder, tmp_path / "out")
    assert outputs(tmp_path / "out") == {}
    lock.release()
    normalized(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["normalizer.safetensors", "quality.html", "manifest.csv"])
def test_files_of_others_are_not_replaced(name: str, folder: Path, tmp_path: Path) -> None:
    """A training run's weights, say."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("precious")
    with pytest.raises(OutputError, match=f"{name}.* move it"):
        normalized(folder, tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "precious"
    assert outputs(tmp_path / "out") == {}


# ---- consensus --------------------------------------------------------------------------------------------------


def test_the_consensus_is_that_of_the_samples(folder: Path, tmp_path: Path) -> None:
    result = normalized(folder, tmp_path / "out", Macenko(), consensus=True)
    samples = []
    for source, _ in pairs_of(folder, tmp_path / "out"):
        if source.suffix == ".tif":
            samples.append(sample_slide(source))
        else:
            with Image.open(source) as image:
                samples.append(ColorHistogram.from_image(np.asarray(image)))
    assert result.normalizer == Macenko().fit(consensus_of(samples))
    assert load(tmp_path / "out").provenance_["consensus_of"] == 4


def test_slides_that_come_later_get_the_same_consensus(folder: Path, tissue: RGB8, tmp_path: Path) -> None:
    first = normalized(folder, tmp_path / "out", Macenko(), consensus=True)
    before = outputs(tmp_path / "out")
    odd = make_phantom(200, 200, seed=40, stain_matrix=STAINS_B, scanner=Scanner(white=(220.0, 220.0, 250.0)))
    Image.fromarray(odd.image).save(folder / "late.png")
    again = normalized(folder, tmp_path / "out", Macenko(), consensus=True)
    assert again.normalizer == first.normalizer
    assert [row.output for _, row in again.rows] == ["late.png"]
    after = outputs(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    overwriting = dataclasses.replace(SETTINGS, overwrite=True)
    anew = normalized(folder, tmp_path / "out", Macenko(), overwriting, consensus=True, resume=False)
    assert anew.normalizer.provenance_["consensus_of"] == 5
    assert anew.normalizer != first.normalizer


def test_a_consensus_without_any_tissue(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        Image.new("RGB", (50, 50), (240, 240, 240 + number)).save(tmp_path / "in" / f"{number}.png")
    said: list[str] = []
    with pytest.raises(InputError, match="none of the slides shows stained tissue"):
        normalized(tmp_path / "in", tmp_path / "out", Macenko(), consensus=True, say=said.append)
    assert said == ["2 of 2 slides show no tissue and have no part in the consensus"]
    assert outputs(tmp_path / "out") == {}
