"""`separate_file`: what is written for images and slides, read back by second readers; refusals; many files."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from restain import Macenko
from restain.color.images import RGB8
from restain.errors import InputError, OutputError, SlideError
from restain.methods.separation import Separator
from restain.methods.separation import separate as separate_array
from restain.phantom import Phantom
from restain.slides import separate
from restain.slides.batch import Failure
from restain.slides.icc import srgb_profile
from restain.slides.reader import open_slide
from restain.slides.sample import sample_slide
from restain.slides.separate import SeparationResult, SeparationSettings, separate_file, separate_files
from restain.slides.writer import encode_tile, write_array

from ..running import contents
from .making import SMALL, raw_tiles, write_with_holes

PAP = [[0.66, 0.70, 0.28], [0.95, 0.20, 0.25], [0.02, 0.35, 0.93]]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def description(path: Path, page: int = 0) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tiff:
        text = tiff.pages[page].description
    assert text.isascii()
    facts = json.loads(text)
    assert isinstance(facts, dict)
    return facts


@pytest.fixture
def image(tissue: RGB8, tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.b.png"
    path.parent.mkdir()
    Image.fromarray(tissue).save(path, dpi=(300, 300))
    return path


# ---- images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stains", "labels"),
    [
        ("he", ["hematoxylin", "eosin", "residual"]),
        ("hdab", ["hematoxylin", "dab", "residual"]),
        ("hed", ["hematoxylin", "eosin", "dab"]),
        (PAP, ["stain-1", "stain-2", "stain-3"]),
    ],
    ids=["he", "hdab", "hed", "pap"],
)
def test_an_image_gives_renderings_and_concentrations(
    stains: Any, labels: list[str], image: Path, tissue: RGB8, tmp_path: Path
) -> None:
    before = image.read_bytes()
    result = separate_file(image, tmp_path / "out", SeparationSettings(stains=stains))
    expected = separate_array(tissue, stains)
    assert result.size == (423, 301)
    assert result.facts == expected.facts()
    assert result.warnings == result.kept == ()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*(f"a.b.{label}.png" for label in labels), "a.b.concentrations.tif"]
    )
    for name, label in zip(expected.names, labels, strict=True):
        path = tmp_path / "out" / f"a.b.{label}.png"
        assert result.outputs[name] == path
        np.testing.assert_array_equal(pixels(path), expected.render(name))
        with Image.open(path) as picture:
            assert "icc_profile" not in picture.info
            assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            assert json.loads(picture.info["Description"])["stain"] == name
    assert image.read_bytes() == before


def test_concentrations_are_read_by_two_readers(image: Path, tissue: RGB8, tmp_path: Path) -> None:
    settings = SeparationSettings(stains="hdab", white_point=(236.0, 231.0, 228.0))
    path = separate_file(image, tmp_path / "out", settings).outputs["concentrations"]
    expected = separate_array(tissue, "hdab", white_point=(236.0, 231.0, 228.0))
    planes = tifffile.imread(path)
    assert planes.dtype == np.float32
    np.testing.assert_array_equal(planes, np.moveaxis(expected.concentrations, 2, 0))
    with Image.open(path) as picture:
        assert (picture.mode, picture.n_frames) == ("F", 3)
        for number in range(3):
            picture.seek(number)
            np.testing.assert_array_equal(np.asarray(picture), expected.concentrations[..., number])
    for number, name in enumerate(expected.names):
        facts = description(path, number)
        assert facts["stain"] == name
        assert facts["names"] == ["hematoxylin", "dab", "residual"]
        assert facts["white_point"] == [236.0, 231.0, 228.0]
        assert facts["white_origin"] == "given"
        np.testing.assert_allclose(facts["stain_matrix"], expected.stain_matrix, atol=1e-6)
        assert facts["percentiles"]["dab"]["99"] == pytest.approx(expected.percentiles["dab"][99], abs=1e-6)
        assert facts["software"].startswith("restain ")
        assert "a.b" not in json.dumps(facts)  # a file's name may be a patient's
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].get_resolution("INCH") == pytest.approx((300, 300), abs=0.1)
    np.testing.assert_array_equal(expected.compose(np.moveaxis(planes, 0, 2)), tissue)


def test_padding_of_an_image_stays_padding(tissue: RGB8, tmp_path: Path) -> None:
    alpha = np.full(tissue.shape[:2], 255, np.uint8)
    alpha[:40], alpha[40:50] = 0, 90
    rgba = np.dstack([tissue, alpha])
    Image.fromarray(rgba).save(tmp_path / "in.png")
    result = separate_file(tmp_path / "in.png", tmp_path / "out")
    expected = separate_array(rgba)
    for name in expected.names:
        picture = pixels(result.outputs[name])
        np.testing.assert_array_equal(picture[..., 3], alpha)
        np.testing.assert_array_equal(picture[..., :3], expected.render(name))
        assert (picture[:50, :, :3] == 255).all()
    planes = tifffile.imread(result.outputs["concentrations"])
    np.testing.assert_array_equal(np.isnan(planes), np.broadcast_to(alpha < 255, planes.shape))


def test_the_profile_of_an_image_travels(tissue: RGB8, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / "in.tif", icc_profile=srgb_profile())
    result = separate_file(tmp_path / "in.tif", tmp_path)
    assert not (tmp_path / "in.eosin.tif").exists()
    with Image.open(result.outputs["eosin"]) as picture:
        assert picture.info["icc_profile"] == srgb_profile()


def test_vectors_and_white_of_an_appearance(image: Path, phantom: Phantom, tmp_path: Path) -> None:
    appearance = Macenko().estimate(phantom.image)
    result = separate_file(image, tmp_path / "out", SeparationSettings(stains=appearance, names=("h", "e")))
    np.testing.assert_allclose(result.facts["stain_matrix"][:2], appearance.stain_matrix, atol=1e-6)
    np.testing.assert_allclose(result.facts["white_point"], appearance.white_point, atol=1e-6)
    assert (tmp_path / "out" / "a.b.h.png").exists()


def test_a_gray_image_of_one_pixel(tmp_path: Path) -> None:
    Image.fromarray(np.array([[200]], np.uint8)).save(tmp_path / "one.png")
    result = separate_file(tmp_path / "one.png", tmp_path)
    assert pixels(result.outputs["eosin"]).shape == (1, 1, 3)
    assert tifffile.imread(result.outputs["concentrations"]).shape == (3, 1, 1)


# ---- slides -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stains", ["he", "hed"])
def test_a_slide_gives_a_pyramid_for_each_stain(stains: str, pyramid: Path, tmp_path: Path) -> None:
    before = pyramid.read_bytes()
    result = separate_file(pyramid, tmp_path / "out", SeparationSettings(stains=stains, pyramid=SMALL))
    separator = Separator.measure(sample_slide(pyramid), stains)
    assert result.facts == separator.facts()
    assert any("concentrations are not written" in note for note in result.warnings)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"pyramid.{name}.tif" for name in separator.names}
    with open_slide(pyramid) as slide:
        whole, _ = slide.read_region((0, 0), 0, slide.dimensions)
    for name in separator.names:
        rendering = separator.separate(whole).render(name)
        wanted = [
            encode_tile(rendering[y : y + 64, x : x + 64], SMALL).data
            for y in range(0, rendering.shape[0], 64)
            for x in range(0, rendering.shape[1], 64)
        ]
        assert list(raw_tiles(result.outputs[name])) == wanted
    assert pyramid.read_bytes() == before


def test_what_travels_with_a_slide(svs: Path, tmp_path: Path) -> None:
    result = separate_file(svs, tmp_path, SeparationSettings(pyramid=SMALL))
    for name, path in result.outputs.items():
        with openslide.OpenSlide(str(path)) as slide:
            assert slide.dimensions == (423, 301)
            assert slide.level_count > 2
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
            assert not slide.associated_images
        facts = description(path)
        assert facts["stain"] == name
        assert facts["slide"]["objective_power"] == 20
        assert facts["sample"]["seed"] == 0
        assert "Secret" not in json.dumps(facts)


def test_colours_keep_the_source_s_profile(tissue: RGB8, tmp_path: Path) -> None:
    profile = srgb_profile()[:24] + b"\7\xd0\0\1" + srgb_profile()[28:]  # another, by its date
    write_array(tmp_path / "with.tif", tissue, settings=SMALL, icc_profile=profile)
    write_array(tmp_path / "without.tif", tissue, settings=SMALL)
    for name, expected in (("with", profile), ("without", None)):
        result = separate_file(tmp_path / f"{name}.tif", tmp_path, SeparationSettings(pyramid=SMALL))
        with tifffile.TiffFile(result.outputs["eosin"]) as tiff:
            tag = tiff.pages[0].tags.get(34675)
            assert (None if tag is None else tag.value) == expected


def test_padding_of_a_slide_stays_padding(tissue: RGB8, tmp_path: Path) -> None:
    write_with_holes(tmp_path / "in.tif", tissue, {(row, 0) for row in range(5)})
    result = separate_file(tmp_path / "in.tif", tmp_path / "out", SeparationSettings(pyramid=SMALL))
    for path in result.outputs.values():
        assert [index for index, data in enumerate(raw_tiles(path)) if not data] == list(range(0, 35, 7))


def test_the_number_of_workers_does_not_show(pyramid: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        separate_file(pyramid, tmp_path / str(workers), SeparationSettings(pyramid=SMALL, workers=workers))
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_a_very_large_image_is_written_like_a_slide(
    image: Path, tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separate, "SLIDE_PIXELS", tissue[..., 0].size - 1)
    result = separate_file(image, tmp_path / "out")
    assert {path.name for path in result.outputs.values()} == {
        "a.b.hematoxylin.tif", "a.b.eosin.tif", "a.b.residual.tif",
    }  # fmt: skip


def test_progress_is_told_to_its_end(pyramid: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    separate_file(pyramid, tmp_path, SeparationSettings(pyramid=SMALL), progress=lambda *report: told.append(report))
    assert told[0][0] == "estimate"
    steps = [done for stage, done, _ in told if stage == "separate"]
    assert steps == sorted(steps)
    assert told[-1] == ("separate", 3 * 423 * 301, 3 * 423 * 301)


# ---- refusals and failures --------------------------------------------------------------------------------------


def test_an_existing_output_is_refused_before_any_work(image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.b.residual.png").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"a\.b\.residual\.png exists.*--overwrite"):
        separate_file(image, tmp_path / "out")
    assert contents(tmp_path) == before
    separate_file(image, tmp_path / "out", SeparationSettings(overwrite=True))
    assert pixels(tmp_path / "out" / "a.b.residual.png").shape == (301, 423, 3)


def test_the_input_is_never_an_output(image: Path, pyramid: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.b.eosin.png").symlink_to(image)
    slide = tmp_path / "slide.tif"
    slide.write_bytes(pyramid.read_bytes())
    (tmp_path / "out" / "slide.eosin.tif").hardlink_to(slide)
    before = contents(tmp_path)
    for source in (image, slide):
        with pytest.raises(OutputError, match="is the input itself"):
            separate_file(source, tmp_path / "out", SeparationSettings(overwrite=True))
    assert contents(tmp_path) == before


def test_what_exists_is_kept_on_the_way_on(image: Path, tmp_path: Path) -> None:
    whole = separate_file(image, tmp_path / "whole")
    separate_file(image, tmp_path / "out")
    (tmp_path / "out" / "a.b.eosin.png").unlink()
    (tmp_path / "out" / "a.b.residual.png").write_text("mine")
    result = separate_file(image, tmp_path / "out", resume=True)
    assert {path.name for path in result.kept} == {
        "a.b.hematoxylin.png", "a.b.residual.png", "a.b.concentrations.tif",
    }  # fmt: skip
    assert (tmp_path / "out" / "a.b.residual.png").read_text() == "mine"
    assert (tmp_path / "out" / "a.b.eosin.png").read_bytes() == whole.outputs["eosin"].read_bytes()
    again = separate_file(image, tmp_path / "out", resume=True)
    assert set(again.kept) == set(again.outputs.values())
    assert again.facts == {}


@pytest.mark.parametrize("stage", ["first", "third"])
def test_a_failure_leaves_whole_files_alone(
    stage: str, pyramid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = separate.write_mapped, []

    def failing(slide: Any, path: Path, color_map: Any, **arguments: Any) -> None:
        calls.append(path)
        if len(calls) == {"first": 1, "third": 3}[stage]:
            raise OSError(28, "No space left on device")
        real(slide, path, color_map, **arguments)

    monkeypatch.setattr(separate, "write_mapped", failing)
    with pytest.raises(OSError, match="No space left"):
        separate_file(pyramid, tmp_path / "out", SeparationSettings(pyramid=SMALL))
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == [] if stage == "first" else ["pyramid.eosin.tif", "pyramid.hematoxylin.tif"]
    for name in left:
        with openslide.OpenSlide(str(tmp_path / "out" / name)) as slide:
            slide.read_region((0, 0), 0, slide.dimensions)


def test_a_failing_tiff_leaves_nothing_of_it(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        separate_file(image, tmp_path / "out")
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".png"] * 3


def test_a_source_that_cannot_be_read_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    for source in ("bad.png", "missing.png"):
        with pytest.raises(SlideError):
            separate_file(tmp_path / source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [
        SeparationSettings(stains="blue"),
        SeparationSettings(stains=[[1, 2, 3], [2, 4, 6]]),
        SeparationSettings(white_point=300),
        SeparationSettings(luminosity=2),
        SeparationSettings(names=("a", "A")),  # one file on some systems
        SeparationSettings(names=("a b", "a/b")),
        SeparationSettings(names=("..", "b")),
        SeparationSettings(names=("concentrations", "b")),
        SeparationSettings(names=("a",)),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_told_at_once(settings: SeparationSettings, image: Path, tmp_path: Path) -> None:
    for call in (separate_file, lambda *a: separate_files([a[0]], a[0].parent, *a[1:])):
        with pytest.raises(InputError) as caught:
            call(image, tmp_path / "out", settings)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_names_become_safe_file_names(image: Path, tmp_path: Path) -> None:
    names = ("../Häm: 1", "light green (SF)")
    result = separate_file(image, tmp_path / "out", SeparationSettings(names=names))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a.b.---Häm--1.png", "a.b.light-green--SF-.png", "a.b.residual.png", "a.b.concentrations.tif",
    }  # fmt: skip
    assert description(result.outputs["concentrations"])["names"] == [*names, "residual"]


def test_a_folder_that_is_a_file(image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="cannot make the folder"):
        separate_file(image, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


# ---- many files -------------------------------------------------------------------------------------------------


def test_one_bad_file_does_not_stop_the_rest(tissue: RGB8, pyramid: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    Image.fromarray(tissue[:90, :80]).save(source / "a.png")
    (source / "b.png").write_bytes(b"not a picture")
    (source / "deep" / "c.tif").write_bytes(pyramid.read_bytes())
    files = [source / "a.png", source / "b.png", source / "deep" / "c.tif"]
    told: list[Path] = []
    settings = SeparationSettings(pyramid=SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = list(
            separate_files(files, source, tmp_path / "out", settings, progress=lambda *report: told.append(report[2]))
        )
    assert told == files == [result.source for result in results]
    good, bad, slide = results
    assert isinstance(good, SeparationResult)
    assert isinstance(bad, Failure)
    assert isinstance(slide, SeparationResult)
    assert "\n" not in bad.error
    assert {path.relative_to(tmp_path / "out").as_posix() for path in slide.outputs.values()} == {
        f"deep/c.{name}.tif" for name in ("hematoxylin", "eosin", "residual")
    }
    before = contents(tmp_path / "out")
    assert len(before) == 7
    again = list(separate_files(files, source, tmp_path / "out", settings))
    assert all(isinstance(result, Failure) for result in again)
    on = list(separate_files(files, source, tmp_path / "out", settings, resume=True))
    assert [isinstance(result, Failure) for result in on] == [False, True, False]
    assert contents(tmp_path / "out") == before


def test_two_sources_of_one_name_are_refused(tissue: RGB8, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(tissue[:50, :50]).save(tmp_path / name)
    with pytest.raises(OutputError, match="rename one of them"):
        separate_files([tmp_path / "a.jpg", tmp_path / "a.png"], tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- real tissue ------------------------------------------------------------------------------------------------


def test_real_nuclei_and_stroma_come_apart(data: Path) -> None:
    """Lymphocytes hold hematoxylin; smooth muscle holds eosin, with few nuclei."""
    shares = {}
    for kind in ("LYM", "MUS"):
        tables = []
        for path in sorted((data / "crc_val_he_7k" / kind).glob("*"))[:5]:
            with Image.open(path) as picture:
                table = separate_array(picture).percentiles
            tables.append(table["hematoxylin"][50] / max(table["eosin"][50], 0.01))
        if not tables:
            pytest.skip(f"no pictures of {kind}")
        shares[kind] = np.median(tables)
    assert shares["LYM"] > 1.5 * shares["MUS"]
