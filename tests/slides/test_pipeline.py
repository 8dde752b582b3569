"""`normalize_slide`: one estimate, one map, and the same picture however it is cut; what travels and what does not."""

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

import restain
from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import EstimateWarning, InputError, NotFittedError, SlideError, SlideWarning
from restain.methods import METHODS
from restain.methods.base import Appearance, Normalizer
from restain.methods.macenko import Macenko
from restain.phantom import STAINS_B, Scanner, make_phantom
from restain.slides import pipeline
from restain.slides.icc import srgb_profile
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import Slide, open_slide
from restain.slides.sample import sample_slide
from restain.slides.writer import PyramidSettings, encode_tile, write_array, write_pyramid

from ..methods.making import make
from .making import BARE, SMALL, raw_tiles


def level_zero(path: Path) -> RGB8:
    """(H, W, 4), by OpenSlide."""
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))


def description(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tiff:
        text = tiff.pages[0].description
    assert text.isascii()
    facts = json.loads(text)
    assert isinstance(facts, dict)
    return facts


# ---- promise 1 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("background", ["match", "keep", "white", "none"])
def test_tiles_joined_are_the_whole_mapped(method: str, background: Any, pyramid: Path, tmp_path: Path) -> None:
    normalizer = make(method, background=background).fit("he")
    result = normalize_slide(pyramid, tmp_path / "out.tif", normalizer, settings=SMALL)
    with open_slide(pyramid) as slide:
        whole, _ = slide.read_region((0, 0), 0, slide.dimensions)
    mapped = normalizer.transform(whole, result.appearance)
    wanted = [
        encode_tile(mapped[y : y + 64, x : x + 64], SMALL).data
        for y in range(0, mapped.shape[0], 64)
        for x in range(0, mapped.shape[1], 64)
    ]
    assert raw_tiles(tmp_path / "out.tif") == wanted


def test_the_size_of_tiles_does_not_show(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    """JPEG blocks of 8 pixels divide every size of tile, so even their rounding is the same."""
    seen = []
    for tile in (16, 64, 176, 512):
        output = tmp_path / f"{tile}.tif"
        normalize_slide(pyramid, output, fitted, settings=PyramidSettings(tile=tile))
        seen.append(level_zero(output))
    for other in seen[1:]:
        np.testing.assert_array_equal(other, seen[0])


def test_one_estimate_of_one_sample(
    pyramid: Path, fitted: Macenko, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates: list[Appearance] = []
    real = Macenko.estimate

    def estimate(self: Macenko, source: Any) -> Appearance:
        estimates.append(real(self, source))
        return estimates[-1]

    monkeypatch.setattr(Macenko, "estimate", estimate)
    result = normalize_slide(pyramid, tmp_path / "out.tif", fitted, settings=SMALL)
    assert estimates == [result.appearance]
    assert result.appearance == real(fitted, sample_slide(pyramid))


@pytest.mark.parametrize("most", [0, 2, 9])
def test_tiles_of_the_sample_are_read_once(
    most: int, fitted: Macenko, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are kept; the file is the same as from a sample that was taken before, of which none are."""
    image = make_phantom(1100, 1100, seed=4, stain_matrix=STAINS_B).image
    write_array(tmp_path / "in.tif", image, settings=PyramidSettings(tile=256, quality=95))
    monkeypatch.setattr("restain.slides.sample._MOST_KEPT", most * 3 * 512**2)
    with open_slide(tmp_path / "in.tif") as slide:
        sample = sample_slide(slide)
        normalize_slide(slide, tmp_path / "before.tif", fitted, histogram=sample)
        read: list[tuple[int, int]] = []
        kind = type(slide)
        real = kind.read_region

        def read_region(self: Slide, location: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
            read.append(location)
            return real(self, location, level, size)

        monkeypatch.setattr(kind, "read_region", read_region)
        monkeypatch.setattr(kind, "read_tile", lambda self, place, size, out: read_region(self, place, 0, size))
        normalize_slide(slide, tmp_path / "once.tif", fitted)
    places = [(x, y) for y in range(0, 1100, 512) for x in range(0, 1100, 512)]
    assert sample.provenance["tissue_tiles"] == len(places)
    # The corner is read for the thumbnail, too.
    assert sum(read.count(place) for place in places) == 1 + 2 * len(places) - min(most, len(places))
    assert (tmp_path / "once.tif").read_bytes() == (tmp_path / "before.tif").read_bytes()


def test_an_appearance_that_is_given_is_used(
    pyramid: Path, fitted: Macenko, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = fitted.estimate(make_phantom(200, 200, seed=9, stain_matrix=STAINS_B).image)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("there is nothing to estimate")

    monkeypatch.setattr(pipeline, "sample_slide", never)
    monkeypatch.setattr(Macenko, "estimate", never)
    result = normalize_slide(pyramid, tmp_path / "out.tif", fitted, appearance=known, settings=SMALL)
    assert result.appearance is known
    assert description(tmp_path / "out.tif")["sample"] == {}


def test_the_file_is_the_same_for_any_number_of_workers(svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    for workers in (1, 2, 5):
        normalize_slide(svs, tmp_path / f"{workers}.tif", fitted, settings=SMALL, workers=workers, associated="keep")
    first = (tmp_path / "1.tif").read_bytes()
    assert (tmp_path / "2.tif").read_bytes() == first
    assert (tmp_path / "5.tif").read_bytes() == first


def test_seed_and_bound_reach_the_sample(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalize_slide(pyramid, tmp_path / "out.tif", fitted, max_pixels=1, seed=7)
    assert description(tmp_path / "out.tif")["sample"] == {
        "tissue_tiles": 1,
        "of_tissue_tiles": 1,
        "glass_tiles": 0,
        "tile": 512,
        "seed": 7,
    }


def test_plain_images_become_slides_too(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / "in.png")
    result = normalize_slide(tmp_path / "in.png", tmp_path / "out.tif", fitted)
    wanted = encode_tile(fitted.transform(tissue, result.appearance), PyramidSettings()).data
    assert raw_tiles(tmp_path / "out.tif") == [wanted]


# ---- glass and padding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("white", [(243.0, 243.0, 243.0), (255.0, 255.0, 255.0), (232.0, 236.0, 240.0)])
def test_glass_becomes_the_reference_s_glass(method: str, white: tuple[float, float, float], tmp_path: Path) -> None:
    pinkish = Scanner(white=(236.0, 231.0, 228.0), noise=1.0)
    reference = make_phantom(256, 256, seed=2, stain_matrix=STAINS_B, scanner=pinkish)
    source = make_phantom(256, 320, seed=1, scanner=Scanner(white=white, noise=1.0))
    write_array(tmp_path / "in.tif", source.image, settings=PyramidSettings(tile=64, quality=95))
    normalizer = make(method).fit(reference.image)
    normalize_slide(tmp_path / "in.tif", tmp_path / "out.tif", normalizer, settings=PyramidSettings(64, 95))
    glass = level_zero(tmp_path / "out.tif")[..., :3][source.glass]
    np.testing.assert_allclose(glass.mean(axis=0), reference.image[reference.glass].mean(axis=0), atol=1.5)


@pytest.mark.parametrize("background", ["match", "keep", "white", "none"])
def test_missing_tiles_stay_missing(background: Any, holey: Path, tmp_path: Path) -> None:
    normalizer = Macenko(background=background).fit("he")
    normalize_slide(holey, tmp_path / "out.tif", normalizer, settings=SMALL)
    before, after = level_zero(holey), level_zero(tmp_path / "out.tif")
    np.testing.assert_array_equal(after[..., 3], before[..., 3])
    assert (before[..., 3] == 0).any()


def test_padding_in_a_tile_that_also_shows_something_stays_white(holey: Path, tmp_path: Path) -> None:
    darker = Macenko().fit(make_phantom(256, 256, seed=2, scanner=Scanner(white=(215.0, 214.0, 213.0))).image)
    normalize_slide(holey, tmp_path / "out.tif", darker, settings=PyramidSettings(tile=96, quality=100))
    before, after = level_zero(holey), level_zero(tmp_path / "out.tif")
    assert (after[:64, :, 3] == 255).all()
    hole = before[..., 3] == 0
    inside = np.zeros_like(hole)
    inside[:56] = True  # a block of JPEG away from what is seen
    assert after[hole & inside][:, :3].min() >= 254
    glass = (before[..., :3] > 225).all(axis=2) & ~hole
    assert after[glass][:, :3].mean() < 225  # glass was mapped


def test_transparent_pixels_are_padding(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    rgba = np.dstack([tissue, np.full(tissue.shape[:2], 255, np.uint8)])
    rgba[64:128, 128:256, 3] = 0
    tifffile.imwrite(tmp_path / "in.tif", rgba, photometric="rgb", tile=(64, 64), extrasamples=["unassalpha"])
    normalize_slide(tmp_path / "in.tif", tmp_path / "out.tif", fitted, settings=SMALL)
    np.testing.assert_array_equal(level_zero(tmp_path / "out.tif")[..., 3], rgba[..., 3])


def test_a_slide_of_padding_alone_is_possible(fitted: Macenko, tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    write_pyramid(path, (64, 64), iter([encode_tile(None, SMALL)]), settings=SMALL, **BARE)
    with pytest.warns(EstimateWarning):
        result = normalize_slide(path, tmp_path / "out.tif", fitted)
    assert result.appearance.fallback
    assert (level_zero(tmp_path / "out.tif")[..., 3] == 0).all()


# ---- what travels -----------------------------------------------------------------------------------------------


def test_resolution_and_magnification_travel(svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalize_slide(svs, tmp_path / "out.tif", fitted)
    with open_slide(svs) as before, open_slide(tmp_path / "out.tif") as after:
        assert before.mpp == after.mpp == pytest.approx((0.5, 0.5))
        assert before.objective_power == after.objective_power == 20.0
        assert after.dimensions == before.dimensions
    # And once more, through restain's own output.
    normalize_slide(tmp_path / "out.tif", tmp_path / "again.tif", fitted)
    with open_slide(tmp_path / "again.tif") as again:
        assert again.mpp == pytest.approx((0.5, 0.5))
        assert again.objective_power == 20.0


def test_pixels_that_are_not_square_travel(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalize_slide(pyramid, tmp_path / "out.tif", fitted)
    with openslide.OpenSlide(str(tmp_path / "out.tif")) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.3, rel=1e-6)


def test_implausible_resolution_does_not_travel_and_is_noted(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    write_array(tmp_path / "in.tif", tissue, mpp=(1000.0, 1000.0))
    with pytest.warns(SlideWarning):
        result = normalize_slide(tmp_path / "in.tif", tmp_path / "out.tif", fitted)
    assert len(result.warnings) == 1
    assert "1000" in result.warnings[0]
    with openslide.OpenSlide(str(tmp_path / "out.tif")) as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_the_icc_profile_is_srgb_where_the_reference_has_none(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    write_array(tmp_path / "in.tif", tissue, icc_profile=other_profile())
    normalize_slide(tmp_path / "in.tif", tmp_path / "out.tif", fitted)
    with openslide.OpenSlide(str(tmp_path / "out.tif")) as slide:
        assert slide.color_profile is not None
        assert slide.color_profile.tobytes() == srgb_profile()


def test_the_icc_profile_is_the_reference_s(tissue: RGB8, pyramid: Path, tmp_path: Path) -> None:
    reference = replace(ColorHistogram.from_image(tissue), icc_profile=other_profile())
    normalizer = Macenko().fit(reference)
    normalize_slide(pyramid, tmp_path / "out.tif", normalizer, settings=SMALL)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert {page.iccprofile for page in tiff.pages} == {other_profile()}


def test_the_profile_of_a_reference_slide_survives_saving(tissue: RGB8, pyramid: Path, tmp_path: Path) -> None:
    write_array(tmp_path / "reference.tif", tissue, icc_profile=other_profile())
    Macenko().fit(tmp_path / "reference.tif").save(tmp_path / "n.safetensors")
    normalize_slide(pyramid, tmp_path / "out.tif", restain.load(tmp_path / "n.safetensors"))
    with open_slide(tmp_path / "out.tif") as slide:
        assert slide.icc_profile == other_profile()


def other_profile() -> bytes:
    """A valid profile that is not `srgb_profile()`: its creation date differs."""
    data = bytearray(srgb_profile())
    data[24:36] = bytes([7, 230, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    return bytes(data)


def test_labels_do_not_travel_by_default(svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    with open_slide(svs) as slide:
        assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
    normalize_slide(svs, tmp_path / "out.tif", fitted, settings=SMALL)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert len(tiff.series) == 1
        assert all(page.is_tiled for page in tiff.pages)


def test_label_and_macro_travel_when_asked(svs: Path, tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    normalize_slide(svs, tmp_path / "out.tif", fitted, settings=SMALL, associated="keep")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        further = {page.description: page.asarray() for page in tiff.pages if not page.is_tiled}
        assert [level.shape[:2] for level in tiff.series[0].levels] == [(301, 423), (150, 211), (75, 105), (37, 52)]
    assert set(further) == {"label", "macro"}  # a thumbnail would show the old colours
    np.testing.assert_array_equal(further["label"], tissue[:50, :70])
    np.testing.assert_array_equal(further["macro"], tissue[:60, :100])
    with openslide.OpenSlide(str(tmp_path / "out.tif")) as slide:
        assert slide.level_count == 4


def test_an_unknown_wish_for_labels_is_refused(svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="drop or keep"):
        normalize_slide(svs, tmp_path / "out.tif", fitted, associated="yes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_description(svs: Path, tmp_path: Path) -> None:
    normalizer = Macenko(background="white").fit("he")
    result = normalize_slide(svs, tmp_path / "out.tif", normalizer, settings=SMALL, seed=3)
    facts = description(tmp_path / "out.tif")
    assert set(facts) == {"software", "method", "settings", "reference", "appearance", "slide", "sample"}
    assert facts["software"] == f"restain {restain.__version__}"
    assert facts["method"] == "macenko"
    assert facts["settings"] == normalizer.settings()
    assert facts["reference"] == dict(restain.load_profile("he").provenance)
    assert facts["appearance"]["white_point"] == pytest.approx(result.appearance.white_point.tolist(), abs=1e-6)
    assert facts["appearance"]["white_origin"] == "glass"
    assert facts["slide"] == {
        "objective_power": 20.0,
        "mpp": [0.5, 0.5],
        "openslide.vendor": "aperio",
        "openslide.objective-power": "20",
        "aperio.AppMag": "20",
    }
    assert facts["sample"]["seed"] == 3


def test_names_and_dates_do_not_travel(svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    source = tmp_path / "Jane Doe 1950.svs"
    source.write_bytes(svs.read_bytes())
    normalize_slide(source, tmp_path / "out.tif", fitted, associated="keep")
    data = (tmp_path / "out.tif").read_bytes()
    for secret in (b"Secret", b"01/02/03", b"Jane", b"1950", b"Aperio Image Library"):
        assert secret not in data


def test_the_software_tag(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    normalize_slide(pyramid, tmp_path / "out.tif", fitted)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages[0].software == f"restain {restain.__version__}"


# ---- what is told -----------------------------------------------------------------------------------------------


def test_progress_is_steady_and_complete(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    normalize_slide(
        pyramid, tmp_path / "out.tif", fitted, settings=SMALL, workers=2, progress=lambda *told_: told.append(told_)
    )
    assert told[0][0] == "estimate"
    assert [stage for stage, _, _ in told] == sorted(stage for stage, _, _ in told)  # estimate, then normalize
    done = [done for stage, done, _ in told if stage == "normalize"]
    assert {total for stage, _, total in told if stage == "normalize"} == {423 * 301}
    assert done == sorted(done)
    assert len(done) == 35
    assert done[-1] == 423 * 301


def test_the_result(pyramid: Path, fitted: Macenko, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = normalize_slide(str(pyramid), str(tmp_path / "out.tif"), fitted)
    assert result.source == pyramid
    assert result.output == tmp_path / "out.tif"
    assert result.size == (423, 301)
    assert result.seconds > 0
    assert result.warnings == ()


def test_a_slide_of_glass_alone_says_that_the_reference_stood_in(fitted: Macenko, tmp_path: Path) -> None:
    glass = np.random.default_rng(0).normal(240, 1, (200, 200, 3))
    write_array(tmp_path / "in.tif", np.rint(glass).astype(np.uint8))
    with pytest.warns(EstimateWarning, match="stand in"):
        result = normalize_slide(tmp_path / "in.tif", tmp_path / "out.tif", fitted)
    assert len(result.warnings) == 1
    assert "the reference's statistics stand in" in result.warnings[0]
    assert fitted.reference_ is not None
    np.testing.assert_allclose(
        level_zero(tmp_path / "out.tif")[..., :3].mean(axis=(0, 1)), fitted.reference_.white_point, atol=1.5
    )


def test_a_normalizer_that_is_not_fitted(pyramid: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        normalize_slide(pyramid, tmp_path / "out.tif", Macenko())
    assert list(tmp_path.iterdir()) == []


def test_an_appearance_of_another_method(pyramid: Path, fitted: Macenko, tissue: RGB8, tmp_path: Path) -> None:
    other: Normalizer = METHODS["reinhard"]().fit("he")
    with pytest.raises(InputError, match="wanted the"):
        normalize_slide(pyramid, tmp_path / "out.tif", fitted, appearance=other.estimate(tissue))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_slide(fitted: Macenko, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="does not exist"):
        normalize_slide(tmp_path / "in.tif", tmp_path / "out.tif", fitted)
    assert list(tmp_path.iterdir()) == []
