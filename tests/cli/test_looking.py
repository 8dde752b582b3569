"""`restain info`, `methods`, `phantom` and `demo`."""

import functools
from pathlib import Path

import numpy as np
import openslide
import pytest

import restain
from restain import demo
from restain.color.histogram import ColorHistogram
from restain.demo import write_phantom
from restain.methods import METHODS
from restain.phantom import STAINS_B, Scanner, make_phantom
from restain.slides.writer import write_array

from ..methods.making import make
from ..running import Outcome, Run, contents
from .scene import TISSUE, info, pixels

# ---- methods --------------------------------------------------------------------------------------------------------


def test_methods_and_profiles_are_listed(run: Run) -> None:
    outcome = run("methods")
    assert outcome.code == 0
    listed = [line.split()[0] for line in outcome.out.splitlines() if line]
    assert listed[: len(METHODS)] == list(METHODS)
    assert listed[len(METHODS) :] == ["profiles", *restain.profile_names()]
    assert all(len(line.split()) >= 3 for line in outcome.out.splitlines() if line)  # each says what it is


# ---- info -----------------------------------------------------------------------------------------------------------


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


# ---- phantom and demo -----------------------------------------------------------------------------------------------


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
