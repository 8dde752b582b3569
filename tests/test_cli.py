"""The command line: every command and option, exit statuses, and errors of one line that begin with "restain: "."""

import functools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

import restain
from restain import demo
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8, as_rgb8
from restain.demo import write_phantom
from restain.methods import METHODS
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.slides.cohort import OWN_FILES
from restain.slides.icc import srgb_profile
from restain.slides.writer import PyramidSettings, write_array

from .methods.making import make, stainnet_weights
from .running import Outcome, Run, contents

MEASURING = [name for name, method in METHODS.items() if not method.fixed]  # the others need weights
TISSUE = make_phantom(200, 300, seed=1, stain_matrix=STAINS_A, scanner=Scanner(noise=1.0)).image
OTHER = make_phantom(180, 240, seed=2, stain_matrix=STAINS_B, scanner=Scanner(white=(236.0, 231.0, 228.0))).image


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an image, a slide of three levels, and a folder of three images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESTAIN_DATA", raising=False)
    Image.fromarray(TISSUE).save("a.png")
    write_array(tmp_path / "slide.tif", TISSUE, settings=PyramidSettings(tile=128), mpp=(0.5, 0.5))
    (tmp_path / "tiles" / "deep").mkdir(parents=True)
    Image.fromarray(TISSUE).save("tiles/a.png")
    Image.fromarray(OTHER).save("tiles/b.jpg", quality=95)
    Image.fromarray(OTHER[:100]).save("tiles/deep/c.png")
    return tmp_path


def outputs(folder: str | Path) -> dict[str, bytes]:
    """What is in a cohort's folder beside what it keeps on itself."""
    return {name: data for name, data in contents(folder).items() if name not in OWN_FILES}


def pixels(path: str) -> RGB8:
    with Image.open(path) as image:
        return np.asarray(image)


def default(image: RGB8) -> RGB8:
    """What `restain normalize` makes of an image without options."""
    return METHODS["macenko"]().fit("he").transform(image)


def is_one_line(outcome: Outcome) -> bool:
    return outcome.err.startswith("restain: ") and outcome.err.count("\n") == 1 and "Traceback" not in outcome.err


# ---- errors -----------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[list[str], str]] = {
    "unknown command": (["paint"], "paint"),
    "unknown option": (["normalize", "a.png", "o.png", "--shiny"], "--shiny"),
    "no source": (["normalize"], "SOURCE"),
    "no output": (["normalize", "a.png"], "OUTPUT"),
    "too many": (["normalize", "a.png", "o.png", "p.png"], "p.png"),
    "missing input": (["normalize", "gone.png", "o.png"], "gone.png does not exist"),
    "empty pattern": (["normalize", "gone*.png", "o"], "gone*.png"),
    "empty folder": (["normalize", "empty", "o"], "empty"),
    "no images": (["normalize", "texts", "o"], "none of 1 files"),
    "text as image": (["normalize", "words.png", "o.png"], "words.png is not a slide or image"),
    "nothing in it": (["normalize", "zero.svs", "o.tif"], "zero.svs is empty"),
    "a method that needs weights": (["normalize", "a.png", "o.png", "--method", "stainnet"], "restain import stainnet"),
    "fit by a method that needs weights": (["fit", "a.png", "-o", "o.safetensors", "--method", "stainnet"], "weights"),
    "unknown method": (["normalize", "a.png", "o.png", "--method", "magic"], "macenko"),
    "no method": (["normalize", "a.png", "o.png", "--method"], "--method"),
    "missing target": (["normalize", "a.png", "o.png", "--target", "gone"], "gone names no file"),
    "text as target": (["normalize", "a.png", "o.png", "--target", "words.png"], "words.png"),
    "blank target": (["normalize", "a.png", "o.png", "--target", "blank.png"], "cannot fit macenko"),
    "missing normalizer": (["normalize", "a.png", "o.png", "--normalizer", "gone.safetensors"], "gone.safetensors"),
    "text as normalizer": (["normalize", "a.png", "o.png", "--normalizer", "words.png"], "words.png"),
    "histogram as normalizer": (["normalize", "a.png", "o.png", "--normalizer", "h.safetensors"], "histogram"),
    "normalizer and method": (
        ["normalize", "a.png", "o.png", "--normalizer", "n.safetensors", "--method", "macenko"],
        "--normalizer already holds",
    ),
    "normalizer and target": (
        ["normalize", "a.png", "o.png", "--normalizer", "n.safetensors", "--target", "he"],
        "--normalizer already holds",
    ),
    "normalizer made bare": (
        ["normalize", "a.png", "o.png", "--normalizer", "n.safetensors", "--background", "none"],
        "restain fit",
    ),
    "unknown background": (["normalize", "a.png", "o.png", "--background", "blue"], "blue"),
    "unknown estimate": (["normalize", "a.png", "o.png", "--estimate", "tile"], "tile"),
    "unknown associated": (["normalize", "a.png", "o.png", "--associated", "yes"], "yes"),
    "unknown subsampling": (["normalize", "slide.tif", "o.tif", "--subsampling", "411"], "411"),
    "no workers": (["normalize", "a.png", "o.png", "--workers", "0"], "--workers 0"),
    "fewer workers": (["normalize", "a.png", "o.png", "--workers=-3"], "--workers -3"),
    "workers in words": (["normalize", "a.png", "o.png", "--workers", "two"], "two"),
    "no quality": (["normalize", "slide.tif", "o.tif", "--quality", "0"], "quality=0"),
    "odd tiles": (["normalize", "slide.tif", "o.tif", "--tile-size", "100"], "tile=100"),
    "no pixels": (["normalize", "slide.tif", "o.tif", "--max-pixels", "0"], "max_pixels=0"),
    "negative seed": (["normalize", "slide.tif", "o.tif", "--seed=-1"], "seed"),
    "output exists": (["normalize", "a.png", "words.png"], "words.png exists"),
    "output is input": (["normalize", "a.png", "a.png", "--overwrite"], "is the input itself"),
    "output is input by another name": (["normalize", "a.png", "tiles/../a.png", "--overwrite"], "is the input itself"),
    "no folder for output": (["normalize", "a.png", "gone/o.png"], "cannot write in gone"),
    "unknown format": (["normalize", "a.png", "o.xyz"], ".xyz"),
    "no format": (["normalize", "a.png", "o"], "without extension"),
    "slide to image": (["normalize", "slide.tif", "o.png"], ".tif"),
    "several to a file": (["normalize", "tiles", "a.png"], "a.png is a file, or named like one"),
    "several to what looks like a file": (["normalize", "tiles", "o.tif"], "o.tif is a file, or named like one"),
    "colliding outputs": (["normalize", "collide", "o"], "would both be written"),
    "preview of another kind": (["normalize", "a.png", "o.png", "--preview", "p.txt"], ".png or .jpg"),
    "preview exists": (["normalize", "a.png", "o.png", "--preview", "blank.png"], "blank.png exists"),
    "preview without folder": (["normalize", "a.png", "o.png", "--preview", "gone/p.png"], "gone"),
    "preview is output": (["normalize", "a.png", "o.png", "--preview", "o.png"], "o.png"),
    "preview is output, twice": (["normalize", "a.png", "o.png", "--preview", "o.png", "--overwrite"], "o.png"),
    "preview is input": (["normalize", "a.png", "o.png", "--preview", "a.png", "--overwrite"], "a.png"),
    "preview is an input": (["normalize", "tiles", "o", "--preview", "tiles/a.png", "--overwrite"], "a.png"),
    "fit nothing": (["fit", "-o", "o.safetensors"], "REFERENCE"),
    "fit without output": (["fit", "a.png"], "--output"),
    "fit a missing file": (["fit", "gone", "-o", "o.safetensors"], "gone"),
    "fit to another format": (["fit", "a.png", "-o", "o.npz"], ".safetensors"),
    "fit over something": (["fit", "a.png", "-o", "n.safetensors"], "n.safetensors exists"),
    "fit glass": (["fit", "blank.png", "-o", "o.safetensors"], "cannot fit macenko"),
    "fit by an unknown method": (["fit", "a.png", "-o", "o.safetensors", "--method", "magic"], "magic"),
    "fit to no folder": (["fit", "a.png", "-o", "gone/o.safetensors"], "gone"),
    "fit to its own reference": (["fit", "h.safetensors", "-o", "h.safetensors", "--overwrite"], "h.safetensors"),
    "info on nothing": (["info", "gone"], "gone does not exist"),
    "info on words": (["info", "words.png"], "words.png is not a slide or image"),
    "info on a folder": (["info", "tiles"], "is a folder"),
    "info on broken arrays": (["info", "broken.safetensors"], "broken.safetensors"),
    "demo in a file": (["demo", "-o", "a.png", "--offline"], "a.png is a file"),
    "demo of nothing": (["demo", "-o", "o", "--offline", "--slide", "gone.svs"], "gone.svs"),
    "phantom of no size": (["phantom", "o.png", "--size", "0x0"], "0"),
    "phantom of one size": (["phantom", "o.png", "--size", "64"], "WIDTHxHEIGHT"),
    "phantom of words": (["phantom", "o.png", "--size", "big"], "--size 2048x2048"),
    "phantom of half a pixel": (["phantom", "o.png", "--size", "1.5x2"], "1.5x2"),
    "phantom with two whites": (["phantom", "o.png", "--white", "1,2"], "R,G,B"),
    "phantom with wordy white": (["phantom", "o.png", "--white", "a,b,c"], "--white 243,243,243"),
    "phantom too white": (["phantom", "o.png", "--size", "9x9", "--white", "300,1,1"], "300"),
    "phantom of unknown lab": (["phantom", "o.png", "--lab", "c"], "c"),
    "phantom with negative seed": (["phantom", "o.png", "--size", "9x9", "--seed=-1"], "negative"),
    "phantom over something": (["phantom", "a.png", "--size", "9x9"], "a.png exists"),
    "phantom of unknown format": (["phantom", "o.xyz", "--size", "9x9"], ".xyz"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_done_is_told_in_one_line(case: str, here: Path, run: Run) -> None:
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    (here / "texts" / "words.txt").write_text("words")
    (here / "words.png").write_text("these are words")
    (here / "zero.svs").touch()
    Image.new("RGB", (64, 64), (240, 240, 240)).save("blank.png")
    (here / "collide").mkdir()
    for name in ("x.ppm", "x.png"):
        Image.fromarray(TISSUE).save(here / "collide" / name)
    METHODS["macenko"]().fit("he").save(here / "n.safetensors")
    ColorHistogram.from_image(TISSUE).save(here / "h.safetensors")
    (here / "broken.safetensors").write_bytes((here / "n.safetensors").read_bytes()[:300])
    before = contents()

    arguments, said = ERRORS[case]
    outcome = run(*arguments)
    assert outcome.code == 2
    assert is_one_line(outcome), outcome.err
    assert said in outcome.err
    assert outcome.out == ""
    assert contents() == before


def test_an_interrupt_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("restain.slides.batch.normalize_file", interrupted)
    assert run("normalize", "a.png", "o.png") == Outcome(130, "", "restain: interrupted\n")


def test_too_little_memory_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("restain.slides.batch.normalize_file", exhausted)
    outcome = run("normalize", "a.png", "o.png")
    assert outcome.code == 2
    assert is_one_line(outcome)
    assert "memory" in outcome.err


# ---- help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(arguments: list[str], run: Run) -> None:
    outcome = run(*arguments)
    assert outcome.code == 0
    assert outcome.err == ""
    for command in ("normalize", "fit", "info", "methods", "demo", "phantom"):
        assert command in outcome.out


@pytest.mark.parametrize("command", ["normalize", "fit", "info", "methods", "demo", "phantom"])
def test_help_of_a_command(command: str, run: Run) -> None:
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert f"Usage: restain {command}" in outcome.out


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(0, f"{restain.__version__}\n", "")


def test_methods_and_profiles_are_listed(run: Run) -> None:
    outcome = run("methods")
    assert outcome.code == 0
    listed = [line.split()[0] for line in outcome.out.splitlines() if line]
    assert listed[: len(METHODS)] == list(METHODS)
    assert listed[len(METHODS) :] == ["profiles", *restain.profile_names()]
    assert all(len(line.split()) >= 3 for line in outcome.out.splitlines() if line)  # each says what it is


# ---- normalize: one file ----------------------------------------------------------------------------------------


def test_an_image(run: Run) -> None:
    outcome = run("normalize", "a.png", "o.png")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("o.png: 300x200, macenko, ")
    assert outcome.out.count("\n") == 1
    np.testing.assert_array_equal(pixels("o.png"), default(TISSUE))
    with Image.open("o.png") as image:
        assert image.info["icc_profile"] == srgb_profile()


def test_a_slide(run: Run) -> None:
    outcome = run("normalize", "slide.tif", "o.tif")
    assert outcome.code == 0
    assert outcome.out.startswith("o.tif: 300x200, macenko, ")
    with openslide.OpenSlide("o.tif") as slide:
        assert slide.dimensions == (300, 200)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert slide.color_profile is not None


def test_an_image_into_a_folder(here: Path, run: Run) -> None:
    (here / "o").mkdir()
    assert run("normalize", "a.png", "o").code == 0
    assert set(outputs("o")) == {"a.png"}
    assert run("normalize", "slide.tif", "o").code == 0
    assert set(outputs("o")) == {"a.png", "slide.tif"}


@pytest.mark.parametrize("name", ["o.jpg", "o.jpeg", "o.tif", "o.tiff", "o.bmp", "o.webp", "O.PNG"])
def test_the_extension_decides_the_format(name: str, run: Run) -> None:
    assert run("normalize", "a.png", name).code == 0
    error = np.abs(pixels(name).astype(int) - default(TISSUE)).mean()
    assert error < (3 if name in ("o.jpg", "o.jpeg", "o.webp") else 1e-9)


@pytest.mark.parametrize("method", MEASURING)
def test_every_method(method: str, run: Run) -> None:
    outcome = run("normalize", "a.png", "o.png", "--method", method, "--json")
    assert outcome.code == 0
    assert outcome.json["method"] == method
    np.testing.assert_array_equal(pixels("o.png"), METHODS[method]().fit("he").transform(TISSUE))


@pytest.mark.parametrize("background", ["match", "keep", "white", "none"])
def test_every_background(background: Any, run: Run) -> None:
    assert run("normalize", "a.png", "o.png", "--background", background).code == 0
    wanted = METHODS["macenko"](background=background).fit("he").transform(TISSUE)
    np.testing.assert_array_equal(pixels("o.png"), wanted)


@pytest.mark.parametrize("target", ["pap", "tiles/b.jpg", "tiles", "tiles/*.jpg", "slide.tif", "h.safetensors"])
def test_every_kind_of_target(target: str, here: Path, run: Run) -> None:
    ColorHistogram.from_image(OTHER).save(here / "h.safetensors")
    assert run("normalize", "a.png", "o.png", "--target", target).code == 0
    np.testing.assert_array_equal(pixels("o.png"), METHODS["macenko"]().fit(target).transform(TISSUE))


def test_an_existing_output_is_replaced_when_asked(here: Path, run: Run) -> None:
    (here / "o.png").write_text("old")
    assert run("normalize", "a.png", "o.png", "--overwrite").code == 0
    np.testing.assert_array_equal(pixels("o.png"), default(TISSUE))


def test_a_transparent_image_stays_transparent(run: Run) -> None:
    alpha = np.full(TISSUE.shape[:2], 255, np.uint8)
    alpha[:50, :80] = 0
    alpha[100:120] = 77
    Image.fromarray(np.dstack([TISSUE, alpha])).save("t.png")
    assert run("normalize", "t.png", "o.png").code == 0
    np.testing.assert_array_equal(pixels("o.png")[..., 3], alpha)


@pytest.mark.parametrize("kind", ["16 bits", "gray", "CMYK", "palette"])
def test_other_kinds_of_image(kind: str, run: Run) -> None:
    name = "k.jpg" if kind == "CMYK" else "k.png"
    image = Image.fromarray(TISSUE)
    if kind == "16 bits":
        Image.fromarray(TISSUE[..., 1].astype(np.uint16) * 257).save(name)
    else:
        {"gray": image.convert("L"), "CMYK": image.convert("CMYK"), "palette": image.quantize(99)}[kind].save(name)
    with Image.open(name) as saved:
        wanted = as_rgb8(saved)
    assert run("normalize", name, "o.png").code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gray has no stains
        np.testing.assert_array_equal(pixels("o.png"), default(wanted))


def test_options_of_slides_reach_the_file(run: Run) -> None:
    options = ["--quality", "50", "--subsampling", "420", "--tile-size", "64", "--seed", "5", "--max-pixels", "1000"]
    assert run("normalize", "slide.tif", "o.tif", *options, "--workers", "2").code == 0
    with tifffile.TiffFile("o.tif") as tiff:
        page = tiff.pages[0]
        assert (page.tilewidth, page.tilelength) == (64, 64)
        assert page.subsampling == (2, 2)
        facts = json.loads(page.description)
        assert facts["sample"]["seed"] == 5
        assert facts["sample"]["tissue_tiles"] == 1
    assert run("normalize", "slide.tif", "fine.tif", "--tile-size", "64").code == 0
    assert Path("fine.tif").stat().st_size > 1.5 * Path("o.tif").stat().st_size


@pytest.mark.parametrize("associated", ["drop", "keep"])
def test_labels(associated: str, run: Run) -> None:
    plain: dict[str, Any] = {"photometric": "rgb", "compression": "lzw", "metadata": None}
    head = "Aperio Image Library v11.2.1\r\n"
    with tifffile.TiffWriter("a.svs") as tiff:
        tiff.write(TISSUE, tile=(64, 64), description=f"{head}300x200 (64x64)|AppMag = 20|MPP = 0.5", **plain)
        tiff.write(TISSUE[::4, ::4].copy(), description=f"{head}300x200 -> 75x50", **plain)
        tiff.write(TISSUE[:50, :70].copy(), description=f"{head}label 70x50", subfiletype=1, **plain)
    assert run("normalize", "a.svs", "o.tif", "--associated", associated).code == 0
    with tifffile.TiffFile("o.tif") as tiff:
        assert [page.description for page in tiff.pages if not page.is_tiled] == ["label"] * (associated == "keep")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_does_not_show(workers: int, here: Path, run: Run) -> None:
    assert run("normalize", "slide.tif", "one.tif", "--workers", 1, "--tile-size", 64).code == 0
    assert run("normalize", "slide.tif", "o.tif", "--workers", workers, "--tile-size", 64).code == 0
    assert (here / "o.tif").read_bytes() == (here / "one.tif").read_bytes()


def test_notes_are_told(run: Run) -> None:
    Image.new("RGB", (64, 64), (240, 240, 240)).save("blank.png")
    outcome = run("normalize", "blank.png", "o.png")
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("restain: note: ")
    assert "stand in" in outcome.err
    assert outcome.out.startswith("o.png: 64x64")


def test_implausible_resolution_is_told_once(here: Path, run: Run) -> None:
    write_array(here / "s.tif", TISSUE, mpp=(1000.0, 1000.0))
    outcome = run("normalize", "s.tif", "o.tif", "--preview", "p.png")
    assert outcome.code == 0
    assert outcome.err == "restain: note: s.tif claims 1000 micrometres per pixel; taken as unknown\n"


# ---- normalize: many files --------------------------------------------------------------------------------------


def test_a_folder(run: Run) -> None:
    outcome = run("normalize", "tiles", "o")
    assert outcome == Outcome(0, "3 files normalized by macenko\n", "")
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}
    np.testing.assert_array_equal(pixels("o/a.png"), default(TISSUE))
    np.testing.assert_array_equal(pixels("o/deep/c.png"), default(OTHER[:100]))


def test_other_files_of_a_folder_are_passed_over(here: Path, run: Run) -> None:
    (here / "tiles" / "notes.txt").write_text("words")
    (here / "tiles" / ".hidden.png").write_text("words")
    assert run("normalize", "tiles", "o").code == 0
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [("tiles/*.png", {"a.png"}), ("tiles/*", {"a.png", "b.jpg"}), ("tiles/**/*.png", {"a.png", "deep/c.png"})],
)
def test_a_pattern(pattern: str, wanted: set[str], run: Run) -> None:
    assert run("normalize", pattern, "o").code == 0
    assert set(outputs("o")) == wanted


def test_a_folder_with_a_slide(here: Path, run: Run) -> None:
    (here / "slide.tif").rename(here / "tiles" / "slide.tif")
    assert run("normalize", "tiles", "o").code == 0
    with openslide.OpenSlide("o/slide.tif") as slide:
        assert slide.dimensions == (300, 200)


def test_a_bad_file_is_named_and_the_rest_is_done(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_bytes((here / "a.png").read_bytes()[:3000])
    (here / "tiles" / "words.svs").write_text("words")
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 1
    assert outcome.out == "3 files normalized by macenko, 2 failed\n"
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("restain: tiles/bad.png: ")
    assert lines[1].startswith("restain: tiles/words.svs: ")
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}


def test_a_bad_tiff_says_nothing_besides(here: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """tifffile logs what it stumbles over, and logging prints warnings on standard error where nobody asked it."""
    (here / "tiles" / "bad.tif").write_bytes((here / "slide.tif").read_bytes()[:9000])
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert caplog.records == []


@pytest.mark.parametrize("estimate", ["image", "folder"])
def test_again_does_what_is_missing(estimate: str, here: Path, run: Run) -> None:
    """A run that was stopped goes on, and ends with the pixels that it would have had."""
    assert run("normalize", "tiles", "o", "--estimate", estimate).code == 0
    first = outputs("o")
    (here / "o" / "b.jpg").unlink()
    outcome = run("normalize", "tiles", "o", "--estimate", estimate)
    assert outcome.code == 0
    assert outcome.err == "restain: note: 2 outputs are finished and left as they are\n"
    assert outputs("o") == first


def test_when_nothing_is_missing_nothing_is_done(run: Run) -> None:
    assert run("normalize", "tiles", "o").code == 0
    first = contents("o")
    outcome = run("normalize", "tiles", "o")
    note = "restain: note: 3 outputs are finished and left as they are\n"
    assert outcome == Outcome(0, "0 files normalized by macenko\n", note)
    assert {name: data for name, data in contents("o").items() if not name.endswith("lock")} == {
        name: data for name, data in first.items() if not name.endswith("lock")
    }


def test_outputs_that_nobody_knows_are_left(here: Path, run: Run) -> None:
    assert run("normalize", "tiles", "o").code == 0
    (here / "o" / "manifest.csv").unlink()
    (here / "o" / "normalizer.safetensors").unlink()
    first = contents("o")
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 2
    assert is_one_line(outcome)
    assert "all 3 outputs exist already" in outcome.err
    assert outputs("o") == {name: data for name, data in first.items() if name not in OWN_FILES}


def test_resuming_and_overwriting(run: Run) -> None:
    assert run("normalize", "tiles", "o").out == "3 files normalized by macenko\n"
    refused = run("normalize", "tiles", "o", "--no-resume")
    assert refused.code == 2
    assert "needs --overwrite" in refused.err
    mixed = run("normalize", "tiles", "o", "--method", "reinhard")
    assert mixed.code == 2
    assert "made by another method, reference or settings" in mixed.err
    assert run("normalize", "tiles", "o", "--overwrite").out == "3 files normalized by macenko\n"
    assert run("normalize", "tiles", "o", "--overwrite", "--resume").out == "0 files normalized by macenko\n"
    other = ("normalize", "tiles", "o", "--overwrite", "--resume", "--method", "reinhard")
    assert run(*other).out == "3 files normalized by reinhard\n"
    assert run(*other).out == "0 files normalized by reinhard\n"


def test_the_consensus_of_a_folder(here: Path, run: Run) -> None:
    assert run("normalize", "tiles", "o", "--target-consensus", "--method", "reinhard") == Outcome(
        0, "3 files normalized by reinhard\n", ""
    )
    consensus = restain.load(here / "o")
    assert consensus.provenance_["consensus_of"] == 3
    np.testing.assert_array_equal(pixels("o/a.png"), consensus.transform(TISSUE))
    assert run("normalize", "a.png", "one.png", "--normalizer", "o").code == 0
    np.testing.assert_array_equal(pixels("one.png"), pixels("o/a.png"))


def test_outputs_within_the_inputs_are_not_normalized_again(here: Path, run: Run) -> None:
    assert run("normalize", "tiles", "tiles/o").code == 0
    first = outputs("tiles/o")
    assert set(first) == {"a.png", "b.jpg", "deep/c.png"}
    assert run("normalize", "tiles", "tiles/o", "--overwrite").code == 0
    assert outputs("tiles/o") == first
    assert run("normalize", "tiles/**/*.png", here / "tiles" / "o", "--overwrite").code == 0
    assert set(outputs("tiles/o")) == {"a.png", "b.jpg", "deep/c.png"}


def test_a_folder_into_itself_is_refused(run: Run) -> None:
    before = contents()
    for output in ("tiles", "tiles/", ".", "tiles/deep/.."):
        outcome = run("normalize", "tiles", output, "--overwrite")
        assert outcome.code == 2
        assert is_one_line(outcome)
    assert contents() == before


def test_one_estimate_for_a_folder(run: Run) -> None:
    outcome = run("normalize", "tiles", "o", "--estimate", "folder", "--json")
    assert outcome.code == 0
    white, *others = [result["appearance"] for result in outcome.json["results"]]
    assert others == [white, white]
    normalizer = METHODS["macenko"]().fit("he")
    together = normalizer.estimate([pixels(f"tiles/{name}") for name in ("a.png", "b.jpg", "deep/c.png")])
    np.testing.assert_array_equal(pixels("o/a.png"), normalizer.transform(TISSUE, together))


def test_one_estimate_for_a_folder_with_a_bad_file(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_text("words")
    outcome = run("normalize", "tiles", "o", "--estimate", "folder")
    assert outcome.code == 1
    assert is_one_line(outcome)
    assert outcome.err.startswith("restain: tiles/bad.png: ")
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}


def test_notes_on_many_files_name_them(run: Run) -> None:
    Image.new("RGB", (64, 64), (240, 240, 240)).save("tiles/blank.png")
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("restain: note: tiles/blank.png: ")


@pytest.mark.parametrize("more", ["nothing", "a bad file"])
def test_notes_on_the_only_good_file_are_told_too(more: str, here: Path, run: Run) -> None:
    (here / "few").mkdir()
    Image.new("RGB", (64, 64), (240, 240, 240)).save("few/blank.png")
    if more == "a bad file":
        (here / "few" / "z.png").write_text("words")
    outcome = run("normalize", "few", "o")
    assert sum(line.startswith("restain: note: ") and "stand in" in line for line in outcome.err.splitlines()) == 1


def test_of_many_notes_some_are_told_and_counted(here: Path, run: Run) -> None:
    (here / "blank").mkdir()
    for number in range(13):
        Image.new("RGB", (32, 32), (240, 240, 240)).save(f"blank/{number}.png")
    outcome = run("normalize", "blank", "o")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "restain: note: 3 more notes; --json has them all"
    outcome = run("normalize", "blank", "o", "--overwrite", "--json")
    assert sum(len(result["warnings"]) for result in outcome.json["results"]) == 13


# ---- normalize: --json and --preview ----------------------------------------------------------------------------


def test_json(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_text("words")
    outcome = run("normalize", "tiles", "o", "--json", "--target", "pap")
    assert outcome.code == 1
    summary = outcome.json
    assert set(summary) == {"software", "method", "settings", "reference", "results", "failed"}
    assert summary["software"] == f"restain {restain.__version__}"
    assert summary["method"] == "macenko"
    assert summary["settings"] == METHODS["macenko"]().settings()
    assert summary["reference"]["profile"] == "pap"
    assert [result["source"] for result in summary["results"]] == ["tiles/a.png", "tiles/b.jpg", "tiles/deep/c.png"]
    first = summary["results"][0]
    assert set(first) == {"source", "output", "size", "seconds", "appearance", "warnings"}
    assert first["output"] == "o/a.png"
    assert first["size"] == [300, 200]
    assert first["warnings"] == []
    assert first["appearance"]["white_origin"] == "glass"
    assert first["appearance"]["white_point"] == pytest.approx([243, 243, 243], abs=0.5)
    (failed,) = summary["failed"]
    assert failed["source"] == "tiles/bad.png"
    assert "not a slide or image" in failed["error"]


@pytest.mark.parametrize("arguments", [["a.png", "o.png"], ["slide.tif", "o.tif"]])
def test_json_of_one_file(arguments: list[str], run: Run) -> None:
    summary = run("normalize", *arguments, "--json").json
    assert [result["output"] for result in summary["results"]] == [arguments[1]]
    assert summary["failed"] == []


@pytest.mark.parametrize(("preview", "kind"), [("p.png", "PNG"), ("p.jpg", "JPEG")])
def test_preview(preview: str, kind: str, run: Run) -> None:
    assert run("normalize", "a.png", "o.png", "--preview", preview).code == 0
    with Image.open(preview) as sheet:
        assert sheet.format == kind
        found = np.asarray(sheet)
    if kind == "PNG":  # both pictures are there, side by side
        for picture in (TISSUE, pixels("o.png")):
            places = np.argwhere((found[:-199, :-299] == picture[0, 0]).all(axis=2))
            assert any(np.array_equal(found[y : y + 200, x : x + 300], picture) for y, x in places)


def test_preview_of_a_folder_and_of_a_slide(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_text("words")
    assert run("normalize", "tiles", "o", "--preview", "p.png").code == 1
    assert run("normalize", "slide.tif", "o.tif", "--preview", "q.png").code == 0
    assert pixels("p.png").shape[0] > pixels("q.png").shape[0] > 200


def test_preview_is_replaced_when_asked(here: Path, run: Run) -> None:
    (here / "p.png").write_text("old")
    assert run("normalize", "a.png", "o.png", "--preview", "p.png", "--overwrite").code == 0
    assert pixels("p.png").shape[2] == 3


# ---- fit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MEASURING)
def test_fit_then_normalize(method: str, run: Run) -> None:
    outcome = run("fit", "tiles/b.jpg", "--method", method, "-o", "n.safetensors")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith(f"n.safetensors: {method}, white point 236")
    assert run("normalize", "a.png", "o.png", "--normalizer", "n.safetensors").code == 0
    np.testing.assert_array_equal(pixels("o.png"), METHODS[method]().fit("tiles/b.jpg").transform(TISSUE))


def test_fit_several_references(run: Run) -> None:
    assert run("fit", "tiles/b.jpg", "a.png", "he", "--output", "n.safetensors").code == 0
    wanted = METHODS["macenko"]().fit(["tiles/b.jpg", "a.png", "he"])
    assert restain.load("n.safetensors") == wanted


def test_fit_keeps_the_background(run: Run) -> None:
    assert run("fit", "a.png", "--background", "keep", "-o", "n.safetensors").code == 0
    assert restain.load("n.safetensors").background == "keep"
    assert run("normalize", "a.png", "o.png", "--normalizer", "n.safetensors", "--background", "white").code == 0
    wanted = METHODS["macenko"](background="white").fit("a.png").transform(TISSUE)
    np.testing.assert_array_equal(pixels("o.png"), wanted)


def test_fit_replaces_when_asked(here: Path, run: Run) -> None:
    (here / "n.safetensors").write_text("old")
    assert run("fit", "a.png", "-o", "n.safetensors", "--overwrite").code == 0
    assert restain.load("n.safetensors").name == "macenko"


# ---- info -------------------------------------------------------------------------------------------------------


def info(run: Run, path: str) -> dict[str, Any]:
    """The facts, after a look at the readable form of them."""
    readable = run("info", path)
    outcome = run("info", path, "--json")
    assert readable.code == outcome.code == 0
    assert readable.err == outcome.err == ""
    facts = outcome.json
    assert [line.split()[0] for line in readable.out.splitlines()] == list(facts)
    assert isinstance(facts, dict)
    return facts


def test_info_on_a_slide(run: Run) -> None:
    facts = info(run, "slide.tif")
    white = facts.pop("white_point")
    assert white == pytest.approx([243, 243, 243], abs=1)
    assert facts == {
        "kind": "slide",
        "format": "openslide: generic-tiff",
        "size": "300x200",
        "levels": ["300x200", "150x100", "75x50"],
        "mpp": [0.5, 0.5],
        "objective_power": None,
        "icc_profile": "none (sRGB)",
        "associated_images": [],
        "white_origin": "glass",
    }


def test_info_on_an_image(run: Run) -> None:
    facts = info(run, "a.png")
    assert facts["kind"] == "image"
    assert facts["format"] == "image: PNG"
    assert facts["mode"] == "RGB"
    assert facts["mpp"] is None


def test_info_on_a_profile(run: Run) -> None:
    facts = info(run, "he")
    assert facts["profile"] == "he"
    assert facts["kind"] == "colour histogram"
    assert facts["white_origin"] == "glass"
    assert facts["provenance"]["licence"]


def test_info_on_a_histogram(here: Path, run: Run) -> None:
    ColorHistogram.from_image(TISSUE).save(here / "h.safetensors")
    facts = info(run, "h.safetensors")
    assert facts["kind"] == "colour histogram"
    assert facts["pixels"] == 60_000
    assert facts["white_point"] == pytest.approx([243, 243, 243], abs=0.5)


def test_import_of_released_weights(here: Path, run: Run) -> None:
    import torch

    state = {}
    for layer, place in enumerate((0, 2, 4), 1):
        weight = torch.tensor(stainnet_weights()[f"weight{layer}"], dtype=torch.float32)
        state[f"rgb_trans.{place}.weight"] = weight[:, :, None, None]
        state[f"rgb_trans.{place}.bias"] = torch.tensor(stainnet_weights()[f"bias{layer}"], dtype=torch.float32)
    torch.save(state, here / "released.pth")
    outcome = run(
        "import",
        "stainnet",
        "released.pth",
        "-o",
        "s.safetensors",
        "--target",
        "tiles/b.jpg",
        "--training-data-license",
        "CC0-1.0",
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("s.safetensors: stainnet, white point 236")
    assert run("normalize", "a.png", "o.png", "--normalizer", "s.safetensors").code == 0
    weights = {
        f"{kind}{layer}": np.squeeze(state[f"rgb_trans.{place}.{kind}"].numpy()).astype(np.float64)
        for layer, place in enumerate((0, 2, 4), 1)
        for kind in ("weight", "bias")
    }
    expected = restain.StainNet(weights=weights).fit("tiles/b.jpg")
    np.testing.assert_array_equal(pixels("o.png"), expected.transform(TISSUE))
    facts = info(run, "s.safetensors")
    assert len(facts["reference"]["weights"]["sha256"]) == 64
    assert facts["reference"]["weights"]["training_data_license"] == "CC0-1.0"
    assert "released" not in json.dumps(facts["reference"])  # file names stay at home
    assert run("import", "stainnet", "released.pth", "-o", "s.safetensors").code == 2  # it exists


@pytest.mark.parametrize("method", METHODS)
def test_info_on_a_normalizer(method: str, here: Path, run: Run) -> None:
    make(method).fit("he").save(here / "n.safetensors")
    facts = info(run, "n.safetensors")
    assert facts["kind"] == "normalizer"
    assert facts["method"] == method
    assert facts["settings"]["background"] == "match"
    assert facts["reference"]["profile"] == "he"
    assert facts["reference_appearance"]["white_origin"] == "glass"


def test_info_on_an_output_says_how_it_was_made(run: Run) -> None:
    assert run("normalize", "slide.tif", "o.tif").code == 0
    facts = info(run, "o.tif")
    assert facts["icc_profile"] == "embedded"


def test_info_tells_what_is_not_believed(here: Path, run: Run) -> None:
    write_array(here / "s.tif", TISSUE, mpp=(1000.0, 1000.0))
    facts = info(run, "s.tif")
    assert facts["mpp"] is None
    assert facts["notes"] == ["s.tif claims 1000 micrometres per pixel; taken as unknown"]


# ---- phantom and demo -------------------------------------------------------------------------------------------


def test_phantom_image(run: Run) -> None:
    options = ["--size", "90x70", "--lab", "b", "--white", "230,235,240", "--gamma", "1.2", "--blur", "0.5"]
    outcome = run("phantom", "p.png", *options, "--noise", "1", "--seed", "4")
    assert outcome == Outcome(0, "p.png: synthetic tissue, 90x70, lab b, seed 4\n", "")
    scanner = Scanner(white=(230.0, 235.0, 240.0), gamma=1.2, blur=0.5, noise=1.0)
    np.testing.assert_array_equal(
        pixels("p.png"), make_phantom(70, 90, seed=4, stain_matrix=STAINS_B, scanner=scanner).image
    )


def test_phantom_slide(run: Run) -> None:
    assert run("phantom", "p.tif", "--size", "700X300").code == 0
    with openslide.OpenSlide("p.tif") as slide:
        assert slide.level_dimensions == ((700, 300), (350, 150))


def test_phantom_replaces_when_asked(run: Run) -> None:
    assert run("phantom", "a.png", "--size", "30x20", "--overwrite").code == 0
    assert pixels("a.png").shape == (20, 30, 3)


@pytest.mark.parametrize("data", [None, "empty"])
def test_demo(data: str | None, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "write_phantom", functools.partial(write_phantom, size=(400, 300)))
    (here / "empty").mkdir()
    if data is not None:
        monkeypatch.setenv("RESTAIN_DATA", data)
    outcome = run("demo", "--offline", "-o", "shown")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("a synthetic slide")
    assert set(contents("shown")) == {"phantom.tif", "normalized.tif", "before-after.png"}
    assert run("demo", "--offline", "-o", "shown").code == 2
    assert run("demo", "--offline", "-o", "shown", "--overwrite").code == 0


def test_demo_of_a_slide(here: Path, run: Run) -> None:
    before = contents()
    outcome = run("demo", "--slide", "slide.tif", "--offline")
    assert outcome.code == 0
    assert outcome.out.startswith("the slide you named: slide.tif\n")
    assert contents().keys() - before.keys() == {"demo/normalized.tif", "demo/before-after.png"}


# ---- in a process of its own ------------------------------------------------------------------------------------


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
