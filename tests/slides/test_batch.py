"""Many files: where outputs go, that one bad file does not stop the rest, and one estimate for a folder."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8, as_rgb8
from restain.errors import EstimateWarning, OutputError, SlideWarning
from restain.methods.macenko import Macenko
from restain.slides import batch
from restain.slides.batch import (
    BatchSettings,
    is_image,
    normalize_file,
    plan_outputs,
)
from restain.slides.icc import srgb_profile
from restain.slides.reader import open_slide
from restain.slides.writer import PyramidSettings

SETTINGS = BatchSettings(pyramid=PyramidSettings(tile=64))


def pixels(path: Path) -> RGB8:
    with Image.open(path) as image:
        return np.asarray(image)


# ---- where outputs go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a.png", "a.png"),
        ("a.PNG", "a.PNG"),
        ("deep/er/a.jpg", "deep/er/a.jpg"),
        ("a.tif", "a.tif"),
        ("a.tiff", "a.tiff"),
        ("a.bmp", "a.bmp"),
        ("a.webp", "a.webp"),
        ("a.ppm", "a.png"),  # read, but not written
        ("a.jp2", "a.png"),
        ("a.svs", "a.tif"),
        ("a.b.NDPI", "a.b.tif"),
        ("a.mrxs", "a.tif"),
        ("a.dcm", "a.tif"),
    ],
)
def test_names_of_outputs(source: str, output: str) -> None:
    root, folder = Path("in"), Path("out")
    assert plan_outputs([root / source], root, folder) == [(root / source, folder / output)]


def test_every_source_has_its_output() -> None:
    sources = [Path(f"in/{name}") for name in ("b.png", "a.png", "x/a.png", "x/a.svs")]
    planned = plan_outputs(sources, Path("in"), Path("out"))
    assert [source for source, _ in planned] == sources
    assert len({output for _, output in planned}) == 4


@pytest.mark.parametrize("names", [("a.svs", "a.tif"), ("a.ppm", "a.png"), ("a.svs", "a.ndpi")])
def test_two_sources_with_one_output_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(OutputError, match=r"would both be written to out.a\.\w+; rename one"):
        plan_outputs([Path("in") / name for name in names], Path("in"), Path("out"))


@pytest.mark.parametrize("name", ["a.png", "a.TIFF", "a.svs", "a.dcm", "a.b.mrxs"])
def test_images_are_known_by_extension(name: str) -> None:
    assert is_image(Path(name))


@pytest.mark.parametrize("name", ["a.txt", "a", ".png", "a.png.txt", "a.csv", "a.safetensors"])
def test_and_other_files_too(name: str) -> None:
    assert not is_image(Path(name))


# ---- one file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_an_image_becomes_what_transform_makes_of_it(
    suffix: str, tissue: RGB8, fitted: Macenko, tmp_path: Path
) -> None:
    Image.fromarray(tissue).save(tmp_path / "in.png")
    result = normalize_file(tmp_path / "in.png", tmp_path / f"out{suffix}", fitted, SETTINGS)
    np.testing.assert_array_equal(pixels(tmp_path / f"out{suffix}"), fitted.transform(tissue))
    assert result.appearance == fitted.estimate(tissue)
    assert result.size == (423, 301)
    assert result.warnings == ()


@pytest.mark.parametrize("kind", ["gray", "16 bits", "CMYK", "palette"])
def test_other_kinds_of_image(kind: str, tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    source = tmp_path / ("in.jpg" if kind == "CMYK" else "in.png")
    image = Image.fromarray(tissue)
    if kind == "gray":
        image.convert("L").save(source)
    elif kind == "16 bits":
        Image.fromarray(tissue[..., 1].astype(np.uint16) * 257).save(source)
    elif kind == "CMYK":
        image.convert("CMYK").save(source, quality=95)
    else:
        image.quantize(200).save(source)
    with Image.open(source) as saved:
        wanted = as_rgb8(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EstimateWarning)  # gray has no stains
        normalize_file(source, tmp_path / "out.png", fitted, SETTINGS)
        transformed = fitted.transform(wanted)
    assert pixels(tmp_path / "out.png").shape == (301, 423, 3)
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), transformed)


@pytest.fixture
def rgba(tissue: RGB8) -> RGB8:
    """A transparent corner with colours beneath that nobody should count, and a half transparent stripe."""
    image = np.dstack([tissue, np.full(tissue.shape[:2], 255, np.uint8)])
    image[:100, :200] = (0, 255, 0, 0)
    image[200:220, :, 3] = 128
    return image


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_transparent_images_stay_transparent(suffix: str, rgba: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    Image.fromarray(rgba).save(tmp_path / "in.png")
    result = normalize_file(tmp_path / "in.png", tmp_path / f"out{suffix}", fitted, SETTINGS)
    after = pixels(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(after[..., 3], rgba[..., 3])
    opaque = rgba[..., 3] == 255
    known = fitted.estimate(ColorHistogram.from_image(rgba[..., :3], mask=opaque))
    assert result.appearance == known
    np.testing.assert_array_equal(after[opaque][:, :3], fitted.transform(rgba[..., :3], known)[opaque])


def test_transparent_images_become_white_where_the_format_has_no_alpha(
    rgba: RGB8, fitted: Macenko, tmp_path: Path
) -> None:
    Image.fromarray(rgba).save(tmp_path / "in.png")
    normalize_file(tmp_path / "in.png", tmp_path / "out.bmp", fitted, SETTINGS)
    after = pixels(tmp_path / "out.bmp")
    assert (after[rgba[..., 3] == 0] == 255).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_tiff_stays_transparent(bits: int, rgba: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    image = rgba if bits == 8 else rgba.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "in.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    normalize_file(tmp_path / "in.tif", tmp_path / "out.png", fitted, SETTINGS)
    after = pixels(tmp_path / "out.png")
    assert after.shape[2] == 4
    opaque = rgba[..., 3] == 255
    assert (after[opaque, 3] == 255).all()
    assert (after[rgba[..., 3] == 0, 3] == 0).all()
    known = fitted.estimate(ColorHistogram.from_image(rgba[..., :3], mask=opaque))
    np.testing.assert_array_equal(after[opaque][:, :3], fitted.transform(rgba[..., :3], known)[opaque])


def test_the_icc_profile_of_images(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / "in.png", icc_profile=b"a camera's own")
    with pytest.warns(SlideWarning, match=r"the ICC profile of in\.png is damaged"):
        normalize_file(tmp_path / "in.png", tmp_path / "out.png", fitted, SETTINGS)
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["icc_profile"] == srgb_profile()


def test_resolution_of_a_plain_tiff_travels(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    unit: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "in.tif", tissue, photometric="rgb", **unit)
    normalize_file(tmp_path / "in.tif", tmp_path / "out.tif", fitted, SETTINGS)
    with open_slide(tmp_path / "out.tif") as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5))


def test_a_slide_becomes_a_pyramid(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalize_file(pyramid, tmp_path / "out.tif", fitted, SETTINGS)
    with openslide.OpenSlide(str(tmp_path / "out.tif")) as slide:
        assert slide.level_count == 4


def test_a_slide_does_not_become_a_plain_image(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"ends in \.tif"):
        normalize_file(pyramid, tmp_path / "out.png", fitted, SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_large_image_becomes_a_pyramid(
    tissue: RGB8, fitted: Macenko, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "SLIDE_PIXELS", tissue[..., 0].size - 1)
    Image.fromarray(tissue).save(tmp_path / "in.png")
    normalize_file(tmp_path / "in.png", tmp_path / "out.tif", fitted, SETTINGS)
    with openslide.OpenSlide(str(tmp_path / "out.tif")) as slide:
        assert slide.level_count == 4


@pytest.mark.parametrize("name", ["in.png", "out.png"])
def test_existing_images_are_not_replaced(name: str, tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / "in.png")
    (tmp_path / "out.png").write_text("precious")
    before = (tmp_path / name).read_bytes()
    with pytest.raises(OutputError):
        normalize_file(tmp_path / "in.png", tmp_path / name, fitted, SETTINGS)
    if name == "in.png":
        with pytest.raises(OutputError, match="input itself"):
            normalize_file(tmp_path / "in.png", tmp_path / name, fitted, BatchSettings(overwrite=True))
    assert (tmp_path / name).read_bytes() == before


def test_blank_and_black_images(fitted: Macenko, tmp_path: Path) -> None:
    for level in (255, 240, 0):
        Image.new("RGB", (50, 40), (level,) * 3).save(tmp_path / f"{level}.png")
        with pytest.warns(EstimateWarning):
            result = normalize_file(tmp_path / f"{level}.png", tmp_path / f"out{level}.png", fitted, SETTINGS)
        assert len(result.warnings) == 1
    white = fitted.reference_.white_point if fitted.reference_ else None
    np.testing.assert_allclose(pixels(tmp_path / "out240.png").mean(axis=(0, 1)), white, atol=1)


# ---- what travels with a plain image ----------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [0.1, 0.25, 0.5, 2.0])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp", ".webp"])
def test_any_resolution_can_be_written_or_left_out(
    suffix: str, mpp: float, tissue: RGB8, fitted: Macenko, tmp_path: Path
) -> None:
    """JPEG has 16 bits for dots an inch, and a microscope has more."""
    unit: dict[str, Any] = {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "in.tif", tissue, photometric="rgb", **unit)
    normalize_file(tmp_path / "in.tif", tmp_path / f"out{suffix}", fitted, SETTINGS)
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.size == (423, 301)
        said = float(image.info.get("dpi", (96.0,))[0])
        # BMP has a field for it that must hold something, and 96 is what programs write that measured nothing.
        assert said == pytest.approx(25_400 / mpp, rel=1e-3) or round(said) == 96


@pytest.mark.parametrize("value", [(0, 0), (1, 0), (4_000_000_000, 1)])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp", ".webp"])
def test_an_impossible_resolution_is_no_obstacle(
    suffix: str, value: tuple[int, int], tissue: RGB8, fitted: Macenko, tmp_path: Path
) -> None:
    Image.fromarray(tissue).quantize(200).save(tmp_path / "in.tif", dpi=(300, 300))
    with tifffile.TiffFile(tmp_path / "in.tif", mode="r+b") as tiff:
        for name in ("XResolution", "YResolution"):
            tiff.pages[0].tags[name].overwrite(value)
    normalize_file(tmp_path / "in.tif", tmp_path / f"out{suffix}", fitted, SETTINGS)
    assert pixels(tmp_path / f"out{suffix}").shape == (301, 423, 3)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp", ".webp"])
def test_a_long_story_of_the_reference_is_no_obstacle(suffix: str, tissue: RGB8, tmp_path: Path) -> None:
    """A comment of JPEG has room for 65,533 bytes."""
    reference = replace(ColorHistogram.from_image(tissue), provenance={"images": ["a name of one of many"] * 5000})
    Image.fromarray(tissue).save(tmp_path / "in.png")
    normalize_file(tmp_path / "in.png", tmp_path / f"out{suffix}", Macenko().fit(reference), SETTINGS)
    assert pixels(tmp_path / f"out{suffix}").shape == (301, 423, 3)


@pytest.mark.parametrize(("suffix", "key"), [(".png", "Description"), (".jpg", "comment")])
def test_how_an_image_was_made_is_written_into_it(
    suffix: str, key: str, tissue: RGB8, fitted: Macenko, tmp_path: Path
) -> None:
    Image.fromarray(tissue).save(tmp_path / "Jane Doe.png")
    normalize_file(tmp_path / "Jane Doe.png", tmp_path / f"out{suffix}", fitted, SETTINGS)
    with Image.open(tmp_path / f"out{suffix}") as image:
        facts = json.loads(image.info[key])
    assert facts["method"] == "macenko"
    assert facts["appearance"]["white_origin"] == "glass"
    assert b"Jane" not in (tmp_path / f"out{suffix}").read_bytes()


def test_a_picture_taken_upright_stays_so(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise to show
    Image.fromarray(tissue).save(tmp_path / "in.png", exif=exif)
    normalize_file(tmp_path / "in.png", tmp_path / "out.png", fitted, SETTINGS)
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), fitted.transform(np.rot90(tissue, -1)))


def test_frames_that_are_left_out_are_noted(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    image = Image.fromarray(tissue)
    image.save(tmp_path / "in.webp", save_all=True, append_images=[image.rotate(180)], lossless=True)
    with pytest.warns(SlideWarning, match="2 frames"):
        result = normalize_file(tmp_path / "in.webp", tmp_path / "out.png", fitted, SETTINGS)
    assert result.warnings == ("in.webp has 2 frames; only the first is used",)
    np.testing.assert_array_equal(pixels(tmp_path / "out.png"), fitted.transform(tissue))
