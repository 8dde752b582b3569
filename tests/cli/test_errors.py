"""What cannot be done: one line that begins with "restain: ", a status, and nothing changed."""

from pathlib import Path

import pytest
from PIL import Image

from restain.color.histogram import ColorHistogram
from restain.methods import METHODS

from ..running import Outcome, Run, contents
from .scene import TISSUE, is_one_line

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
