"""`restain normalize` of one image or slide: its options, and what is written and told."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from restain.color.histogram import ColorHistogram
from restain.color.images import as_rgb8
from restain.methods import METHODS
from restain.slides.icc import srgb_profile
from restain.slides.writer import write_array

from ..running import Run
from .scene import MEASURING, OTHER, TISSUE, default, outputs, pixels


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
