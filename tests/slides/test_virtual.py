"""`NormalizedSlide`: OpenSlide's interface and geometry, the source's pixels mapped exactly, and padding left alone."""

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image, ImageCms

from restain.color.images import RGB8
from restain.errors import InputError, NotFittedError, SlideError, SlideWarning
from restain.methods import METHODS
from restain.methods.base import Normalizer
from restain.methods.macenko import Macenko
from restain.methods.reinhard import Reinhard
from restain.phantom import make_phantom
from restain.slides import virtual
from restain.slides.icc import srgb_profile
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import Slide, open_slide
from restain.slides.sample import sample_slide
from restain.slides.virtual import NormalizedSlide
from restain.slides.writer import encode_tile, write_array

from .making import SMALL

LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
"""Any profile that is not sRGB."""


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid whose levels are exact halves: 512x384, 256x192, 128x96, …"""
    path = tmp_path_factory.mktemp("even") / "even.tif"
    write_array(path, make_phantom(384, 512, seed=5).image, settings=SMALL, mpp=(0.5, 0.5))
    return path


@pytest.fixture(scope="module")
def normalized(pyramid: Path, fitted: Macenko) -> NormalizedSlide:
    return NormalizedSlide(pyramid, fitted)


def mapped(rgba: Any, normalizer: Normalizer, slide: NormalizedSlide) -> NDArray[np.uint8]:
    """What should come of OpenSlide's RGBA: colours by the whole table, alpha as it is, nothing under alpha 0."""
    before = np.asarray(rgba)
    after = before.copy()
    after[..., :3] = normalizer.transform(before[..., :3], slide.appearance)
    after[before[..., 3] == 0] = 0
    return after


def whole(slide: openslide.AbstractSlide, level: int = 0) -> NDArray[np.uint8]:
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))


def joined(generator: DeepZoomGenerator, level: int) -> RGB8:
    """The tiles of one Deep Zoom level, without overlap, as one image."""
    columns, rows = generator.level_tiles[level]
    tiles = [[np.asarray(generator.get_tile(level, (x, y))) for x in range(columns)] for y in range(rows)]
    return np.concatenate([np.concatenate(row, axis=1) for row in tiles])


# ---- OpenSlide's interface --------------------------------------------------------------------------------------


def test_it_is_a_slide_of_openslide_s_geometry(normalized: NormalizedSlide, pyramid: Path) -> None:
    assert isinstance(normalized, openslide.AbstractSlide)
    with openslide.OpenSlide(pyramid) as plain:
        assert normalized.dimensions == plain.dimensions
        assert normalized.level_count == plain.level_count == 4
        assert normalized.level_dimensions == plain.level_dimensions
        assert normalized.level_downsamples == plain.level_downsamples
        public = {name for name in dir(plain) if not name.startswith("_")}
    assert public <= set(dir(normalized))
    assert str(pyramid) in repr(normalized)


@given(downsample=st.floats(0.01, 100) | st.sampled_from([1.0, 2.0, 2.005703001579779, 4.020952380952381, 8.2]))
def test_the_best_level_is_openslide_s(normalized: NormalizedSlide, pyramid: Path, downsample: float) -> None:
    with openslide.OpenSlide(pyramid) as plain:
        wanted = plain.get_best_level_for_downsample(downsample)
    assert normalized.get_best_level_for_downsample(downsample) == wanted


def test_detect_format(pyramid: Path, svs: Path, tissue: RGB8, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / "i.png")
    tifffile.imwrite(tmp_path / "plain.tif", tissue, photometric="rgb", rowsperstrip=16)
    (tmp_path / "words.txt").write_text("no pixels")
    names = {svs: "aperio", pyramid: "generic-tiff", tmp_path / "plain.tif": "generic-tiff", tmp_path / "i.png": "PNG"}
    for path, wanted in names.items():
        assert NormalizedSlide.detect_format(path) == wanted
    assert NormalizedSlide.detect_format(str(svs).encode()) == "aperio"
    assert NormalizedSlide.detect_format(tmp_path / "words.txt") is None
    assert NormalizedSlide.detect_format(str(tmp_path / "absent.svs")) is None


def test_a_cache_is_passed_on(pyramid: Path, fitted: Macenko, tissue: RGB8, tmp_path: Path) -> None:
    with NormalizedSlide(pyramid, fitted) as slide:
        before = whole(slide)
        slide.set_cache(openslide.OpenSlideCache(1 << 20))
        np.testing.assert_array_equal(whole(slide), before)
        with pytest.raises(TypeError, match="Not a cache object"):
            slide.set_cache("1 GB")  # type: ignore[arg-type]
    Image.fromarray(tissue).save(tmp_path / "i.png")
    with NormalizedSlide(tmp_path / "i.png", fitted, appearance=slide.appearance) as image:
        before = whole(image)
        image.set_cache(openslide.OpenSlideCache(0))
        np.testing.assert_array_equal(whole(image), before)


# ---- pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["match", "none"])
@pytest.mark.parametrize("method", ["macenko", "reinhard", "histogram"])
def test_every_level_is_the_source_s_own_mapped(method: str, background: Any, pyramid: Path) -> None:
    normalizer = METHODS[method](background=background).fit("he")
    with NormalizedSlide(pyramid, normalizer) as slide, openslide.OpenSlide(pyramid) as plain:
        for level in range(plain.level_count):
            np.testing.assert_array_equal(whole(slide, level), mapped(whole(plain, level), normalizer, slide))


@settings(max_examples=60)
@given(
    location=st.tuples(st.integers(-300, 600), st.integers(-300, 600)),
    level=st.integers(0, 3),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_regions_wherever_they_are(
    normalized: NormalizedSlide,
    pyramid: Path,
    fitted: Macenko,
    location: tuple[int, int],
    level: int,
    size: tuple[int, int],
) -> None:
    """At odd places of lower levels OpenSlide resamples; its alpha, 254 at some seams, must not become a hole."""
    with openslide.OpenSlide(pyramid) as plain:
        before = plain.read_region(location, level, size)
    after = normalized.read_region(location, level, size)
    assert (after.mode, after.size) == ("RGBA", size)
    np.testing.assert_array_equal(np.asarray(after), mapped(before, fitted, normalized))


@pytest.mark.parametrize("options", [{"icc": "srgb"}, {"on_error": "skip"}, {"icc": "srgb", "on_error": "fill"}])
def test_seams_do_not_become_holes_behind_other_slides(
    options: dict[str, Any], fitted: Macenko, tmp_path: Path
) -> None:
    """A slide that is converted, or forgiven its damage, has the transparency of the one behind it."""
    path = tmp_path / "a.tif"
    image = make_phantom(515, 643, seed=5).image
    write_array(path, image, settings=SMALL, mpp=(0.5, 0.5), icc_profile=srgb_profile())
    with open_slide(path) as plain, open_slide(path, **options) as slide:
        assert type(slide) is not type(plain)
        virtual = NormalizedSlide(slide, fitted)
        seams = 0
        for x, y in np.random.default_rng(0).integers(3, 200, (20, 2)).tolist():
            wanted = plain.read_rgba((x, y), 3, (60, 50))[..., 3]
            seams += int(((wanted > 0) & (wanted < 255)).sum())
            np.testing.assert_array_equal(np.asarray(virtual.read_region((x, y), 3, (60, 50)))[..., 3], wanted)
        assert seams > 0


def test_seams_between_tiles_do_not_become_holes(
    normalized: NormalizedSlide, pyramid: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch
) -> None:
    with openslide.OpenSlide(pyramid) as plain:
        region = np.array(plain.read_region((0, 0), 2, (80, 50)))
    region[20, :, 3] = 254  # what OpenSlide leaves of a pixel that it gathers from two tiles
    monkeypatch.setattr(openslide.OpenSlide, "read_region", lambda *_: Image.fromarray(region))
    after = np.asarray(normalized.read_region((2, 2), 2, (80, 50)))
    np.testing.assert_array_equal(after, mapped(region, fitted, normalized))
    assert after[..., 3].min() == 254


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_level_zero_is_what_normalize_slide_encodes(method: str, pyramid: Path, tmp_path: Path) -> None:
    normalizer = METHODS[method]().fit("he")
    result = normalize_slide(pyramid, tmp_path / "out.tif", normalizer, settings=SMALL)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        page = tiff.pages[0]
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    data = (tmp_path / "out.tif").read_bytes()
    with NormalizedSlide(pyramid, normalizer) as slide:
        assert slide.appearance == result.appearance
        pixels = whole(slide)[..., :3]
    wanted = [
        encode_tile(pixels[y : y + 64, x : x + 64], SMALL).data for y in range(0, 301, 64) for x in range(0, 423, 64)
    ]
    assert [data[offset : offset + count] for offset, count in places] == wanted


def test_lower_levels_are_not_the_mapped_level_averaged(even: Path, fitted: Macenko) -> None:
    with NormalizedSlide(even, fitted) as slide:
        mean = whole(slide)[..., :3].reshape(192, 2, 256, 2, 3).mean(axis=(1, 3))
        difference = np.abs(mean - whole(slide, 1)[..., :3])
    assert difference.max() > 4
    assert difference.mean() < 4  # yet it is the same picture


def test_only_colours_that_were_read_are_evaluated(pyramid: Path, fitted: Macenko) -> None:
    with NormalizedSlide(pyramid, fitted) as slide:
        assert slide.color_map._function is not None
        slide.read_region((0, 0), 0, (50, 50))
        assert 0 < np.count_nonzero(slide.color_map._packed) <= 2500


def test_many_threads_read_the_same(pyramid: Path, fitted: Macenko) -> None:
    generator = np.random.default_rng(0)
    places = [(int(x), int(y), int(level)) for x, y, level in generator.integers(-50, (400, 300, 4), (80, 3))]
    places = [(x, y, level % 4) for x, y, level in places]
    with NormalizedSlide(pyramid, fitted) as slide:

        def read(place: tuple[int, int, int]) -> bytes:
            return slide.read_region(place[:2], place[2], (90, 70)).tobytes()

        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(read, places))
    with NormalizedSlide(pyramid, fitted) as slide:
        assert together == [read(place) for place in places]


def test_nothing_is_written(svs: Path, fitted: Macenko) -> None:
    before = {path: path.read_bytes() for path in svs.parent.iterdir()}
    with NormalizedSlide(svs, fitted) as slide:
        whole(slide)
        slide.get_thumbnail((50, 50))
        dict(slide.associated_images)
    assert {path: path.read_bytes() for path in svs.parent.iterdir()} == before


# ---- padding ----------------------------------------------------------------------------------------------------


def test_missing_tiles_are_transparent_at_every_level(holey: Path, fitted: Macenko) -> None:
    with NormalizedSlide(holey, fitted) as slide, openslide.OpenSlide(holey) as plain:
        for level in range(slide.level_count):
            np.testing.assert_array_equal(whole(slide, level), mapped(whole(plain, level), fitted, slide))
        alpha = whole(slide)[..., 3]
    assert not alpha[:64].any()
    assert not alpha[128:192, 192:256].any()
    assert alpha[192:].all()


def test_missing_tiles_by_tifffile(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    """OME-TIFF is read by tifffile."""
    pieces = [tissue[y : y + 64, x : x + 64] for y in (0, 64, 128) for x in (0, 64, 128, 192)]
    tiles = (b"" if i == 5 else piece.tobytes() for i, piece in enumerate(pieces))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(tiles, shape=(192, 256, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb")
    with NormalizedSlide(tmp_path / "a.ome.tif", fitted) as slide:
        pixels = whole(slide)
        wanted = np.dstack([fitted.transform(tissue[:192, :256], slide.appearance), np.full((192, 256), 255, np.uint8)])
    wanted[64:128, 64:128] = 0
    np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("name", ["i.png", "i.tif"])
def test_transparency_of_images_is_kept(name: str, tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    rgba = np.dstack([tissue, np.full(tissue.shape[:2], 255, np.uint8)])
    rgba[64:128, 128:256, 3] = 0
    rgba[200:220, :, 3] = 100
    Image.fromarray(rgba).save(tmp_path / name)
    with NormalizedSlide(tmp_path / name, fitted) as slide:
        np.testing.assert_array_equal(whole(slide), mapped(rgba, fitted, slide))
        inside = np.asarray(slide.read_region((-7, 100), 0, (200, 300)))
        np.testing.assert_array_equal(inside[:201, 7:], mapped(rgba, fitted, slide)[100:, :193])
        assert not inside[:, :7].any()
        assert not inside[201:].any()
        for location in ((-500, 0), (0, -500), (423, 0), (10_000, 10_000)):
            assert not np.asarray(slide.read_region(location, 0, (50, 60))).any()


# ---- Deep Zoom --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_deep_zoom_of_one_level_is_that_of_the_mapped_picture(
    overlap: int, tissue: RGB8, fitted: Macenko, tmp_path: Path
) -> None:
    Image.fromarray(tissue).save(tmp_path / "i.png")
    with NormalizedSlide(tmp_path / "i.png", fitted) as slide:
        picture = openslide.ImageSlide(Image.fromarray(fitted.transform(tissue, slide.appearance)).convert("RGBA"))
        check_deep_zoom(*(DeepZoomGenerator(each, tile_size=100, overlap=overlap) for each in (slide, picture)))


def check_deep_zoom(ours: DeepZoomGenerator, theirs: DeepZoomGenerator) -> None:
    """Every tile of every level is the same."""
    assert ours.level_dimensions == theirs.level_dimensions
    assert ours.level_tiles == theirs.level_tiles
    for level, (columns, rows) in enumerate(ours.level_tiles):
        for address in np.ndindex(columns, rows):
            tile, wanted = ours.get_tile(level, address), theirs.get_tile(level, address)
            np.testing.assert_array_equal(np.asarray(tile), np.asarray(wanted))


def test_deep_zoom_tiles_joined_are_the_levels_mapped(even: Path, fitted: Macenko) -> None:
    """Of exact halves each Deep Zoom level is a level of the slide, where it has one."""
    with NormalizedSlide(even, fitted) as slide, openslide.OpenSlide(even) as plain:
        generator = DeepZoomGenerator(slide, tile_size=60, overlap=0)
        seen = {size: joined(generator, level) for level, size in enumerate(generator.level_dimensions)}
        for level, size in enumerate(plain.level_dimensions):
            np.testing.assert_array_equal(seen[size], mapped(whole(plain, level), fitted, slide)[..., :3])
        assert len(plain.level_dimensions) >= 3


def test_deep_zoom_within_bounds(even: Path, fitted: Macenko) -> None:
    bounds = {"x": 64, "y": 32, "width": 256, "height": 192}
    with open_slide(even) as source:
        source.properties = dict(source.properties) | {f"openslide.bounds-{k}": str(v) for k, v in bounds.items()}
        slide = NormalizedSlide(source, fitted)
        generator = DeepZoomGenerator(slide, tile_size=50, overlap=0, limit_bounds=True)
        assert generator.level_dimensions[-1] == (256, 192)
        for level, scale in ((-1, 1), (-2, 2)):
            cut = whole(slide, scale - 1)[32 // scale : 224 // scale, 64 // scale : 320 // scale, :3]
            np.testing.assert_array_equal(joined(generator, generator.level_count + level), cut)


def test_deep_zoom_tiles_are_saved_and_described(pyramid: Path, fitted: Macenko) -> None:
    with NormalizedSlide(pyramid, fitted) as slide:
        generator = DeepZoomGenerator(slide, tile_size=126, overlap=1)
        size = ElementTree.fromstring(generator.get_dzi("jpeg"))[0]
        assert size.attrib == {"Width": "423", "Height": "301"}
        tile = generator.get_tile(generator.level_count - 1, (1, 1))
        assert tile.mode == "RGB"
        for kind in ("png", "jpeg"):
            stream = BytesIO()
            tile.save(stream, kind, icc_profile=tile.info["icc_profile"], quality=95)
            again = Image.open(stream)
            assert again.info["icc_profile"] == srgb_profile()
            error = np.abs(np.asarray(again).astype(int) - np.asarray(tile))
            assert error.max() == 0 if kind == "png" else error.mean() < 4


def test_deep_zoom_shows_padding_in_the_background_s_colour(holey: Path, fitted: Macenko) -> None:
    with open_slide(holey) as source:
        source.properties = dict(source.properties) | {"openslide.background-color": "102030"}
        generator = DeepZoomGenerator(NormalizedSlide(source, fitted), tile_size=64, overlap=0)
        tile = np.asarray(generator.get_tile(generator.level_count - 1, (0, 0)))
        np.testing.assert_array_equal(tile, np.full((64, 64, 3), (0x10, 0x20, 0x30)))


# ---- the colour space -------------------------------------------------------------------------------------------


def test_pixels_are_in_srgb_whatever_the_source_s_profile_was(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    write_array(tmp_path / "a.tif", tissue, settings=SMALL, icc_profile=LAB)
    with openslide.OpenSlide(tmp_path / "a.tif") as plain:
        assert plain.properties["openslide.icc-size"] == str(len(LAB))
    with (
        pytest.warns(SlideWarning, match="one of an abstract effect"),
        NormalizedSlide(tmp_path / "a.tif", fitted) as slide,
    ):
        check_profile(slide, srgb_profile())


def test_pixels_are_in_the_reference_s_colour_space(svs: Path, fitted: Macenko) -> None:
    normalizer = Macenko().fit("he")
    assert normalizer.reference_ is not None
    normalizer.reference_ = replace(normalizer.reference_, icc_profile=LAB)
    with NormalizedSlide(svs, normalizer) as slide:
        check_profile(slide, LAB)
        assert slide.associated_images["thumbnail"].info["icc_profile"] == LAB
        assert "icc_profile" not in slide.associated_images["macro"].info
        assert slide.properties["openslide.associated.thumbnail.icc-size"] == str(len(LAB))
        assert "openslide.associated.macro.icc-size" not in slide.properties


def check_profile(slide: NormalizedSlide, profile: bytes) -> None:
    assert slide.color_profile is not None
    assert slide.color_profile.tobytes() == ImageCms.getOpenProfile(BytesIO(profile)).tobytes()
    assert slide.read_region((0, 0), 0, (5, 5)).info["icc_profile"] == profile
    assert slide.read_region((0, 0), 0, (0, 5)).info["icc_profile"] == profile
    assert slide.get_thumbnail((20, 20)).info["icc_profile"] == profile
    assert slide.properties["openslide.icc-size"] == str(len(profile))
    generator = DeepZoomGenerator(slide)
    assert generator.get_tile(generator.level_count - 1, (0, 0)).info["icc_profile"] == profile


# ---- properties -------------------------------------------------------------------------------------------------


def test_properties_are_the_source_s(svs: Path, fitted: Macenko) -> None:
    with NormalizedSlide(svs, fitted) as slide, openslide.OpenSlide(svs) as plain:
        added = {"openslide.icc-size", "openslide.associated.thumbnail.icc-size"}
        assert {k: v for k, v in slide.properties.items() if k not in added} == dict(plain.properties)
        assert slide.properties["aperio.AppMag"] == "20"
    with pytest.raises(TypeError):
        slide.properties["openslide.mpp-x"] = "1"  # type: ignore[index]


def test_standard_properties_of_other_sources(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        physical = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.3}
        writer.write(tissue, photometric="rgb", tile=(64, 64), subifds=1, metadata=physical)
        writer.write(tissue[::2, ::2].copy(), photometric="rgb", tile=(64, 64), subfiletype=1)
    with NormalizedSlide(tmp_path / "a.ome.tif", fitted) as slide:
        known = {k: v for k, v in slide.properties.items() if k.startswith("openslide.")}
        assert known == {
            "openslide.vendor": "generic-tiff",
            "openslide.level-count": "2",
            "openslide.level[0].width": "423",
            "openslide.level[0].height": "301",
            "openslide.level[0].downsample": "1",
            "openslide.level[1].width": "212",
            "openslide.level[1].height": "151",
            "openslide.level[1].downsample": repr(slide.level_downsamples[1]),
            "openslide.mpp-x": "0.25",
            "openslide.mpp-y": "0.3",
            "openslide.icc-size": str(len(srgb_profile())),
        }
    Image.fromarray(tissue).save(tmp_path / "i.png")
    with NormalizedSlide(tmp_path / "i.png", fitted) as slide:
        assert slide.properties["openslide.vendor"] == "PNG"
        assert slide.properties["openslide.level-count"] == "1"
        assert "openslide.mpp-x" not in slide.properties


def test_the_objective_of_restain_s_own_output(svs: Path, fitted: Macenko, tmp_path: Path) -> None:
    """OpenSlide does not see it there."""
    normalize_slide(svs, tmp_path / "out.tif", fitted, settings=SMALL)
    with NormalizedSlide(tmp_path / "out.tif", fitted) as slide:
        assert slide.properties[openslide.PROPERTY_NAME_OBJECTIVE_POWER] == "20"
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == 0.5


def test_implausible_resolution_is_not_presented(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    write_array(tmp_path / "a.tif", tissue, settings=SMALL, mpp=(1000, 1000))
    with openslide.OpenSlide(tmp_path / "a.tif") as plain:
        assert openslide.PROPERTY_NAME_MPP_X in plain.properties
    with (
        pytest.warns(UserWarning, match="1000 micrometres per pixel"),
        NormalizedSlide(tmp_path / "a.tif", fitted) as slide,
    ):
        assert not [key for key in slide.properties if key.startswith("openslide.mpp")]


# ---- associated images and thumbnails ---------------------------------------------------------------------------


def test_associated_images(svs: Path, fitted: Macenko) -> None:
    with NormalizedSlide(svs, fitted) as slide, openslide.OpenSlide(svs) as plain:
        images = slide.associated_images
        assert isinstance(images, Mapping)
        assert set(images) == set(plain.associated_images) == {"label", "macro", "thumbnail"}
        assert len(images) == 3
        for name in ("label", "macro"):
            assert images[name].mode == "RGBA"
            np.testing.assert_array_equal(np.asarray(images[name]), np.asarray(plain.associated_images[name]))
        wanted = mapped(plain.associated_images["thumbnail"], fitted, slide)
        np.testing.assert_array_equal(np.asarray(images["thumbnail"]), wanted)
        with pytest.raises(KeyError):
            images["overview"]
        assert images.get("overview") is None
        assert "label" in repr(images)
    with pytest.raises(SlideError, match="was closed"):
        images["label"]


def test_associated_images_are_read_on_demand(svs: Path, fitted: Macenko) -> None:
    reads = []
    with open_slide(svs) as source:
        real = source.associated_images["label"]
        source.associated_images = {"label": lambda: reads.append(1) or real()}  # type: ignore[func-returns-value]
        slide = NormalizedSlide(source, fitted)
        assert list(slide.associated_images) == ["label"]
        assert not reads
        assert slide.associated_images["label"].size == (70, 50)
    assert reads == [1]


@pytest.mark.parametrize("size", [(400, 300), (150, 150), (100, 40), (31, 500), (1, 1), (5000, 5000)])
def test_a_thumbnail_is_openslide_s_of_the_mapped_levels(
    size: tuple[int, int], holey: Path, normalized: NormalizedSlide, fitted: Macenko
) -> None:
    with NormalizedSlide(holey, fitted, appearance=normalized.appearance) as gaps:
        for slide in (normalized, gaps):
            wanted = openslide.AbstractSlide.get_thumbnail(slide, size)
            got = slide.get_thumbnail(size)
            assert got.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))


@pytest.mark.parametrize("band", [1, 5_000, 40_000])
@pytest.mark.parametrize("size", [(400, 400), (60, 60), (40, 90), (20, 20)])
def test_a_thumbnail_in_bands_is_the_same_picture(
    band: int, size: tuple[int, int], tissue: RGB8, fitted: Macenko, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(tissue).save(tmp_path / "i.png")
    with NormalizedSlide(tmp_path / "i.png", fitted) as slide:
        wanted = slide.get_thumbnail(size)
        heights = []
        real = slide.read_region
        monkeypatch.setattr(slide, "read_region", lambda *a: heights.append(a[2][1]) or real(*a))
        monkeypatch.setattr(virtual, "BAND", band)
        got = slide.get_thumbnail(size)
    assert len(heights) > 1
    assert sum(heights) == 301
    assert got.size == wanted.size
    assert np.abs(np.asarray(got).astype(int) - np.asarray(wanted)).mean() < 1


# ---- what it estimates ------------------------------------------------------------------------------------------


def test_the_estimate_is_made_once_of_one_sample(
    pyramid: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def sample(slide: Slide, **arguments: Any) -> Any:
        calls.append(arguments)
        return sample_slide(slide, **arguments)

    monkeypatch.setattr(virtual, "sample_slide", sample)
    with NormalizedSlide(pyramid, fitted, max_pixels=1_000_000, seed=7) as slide:
        whole(slide)
        slide.get_thumbnail((50, 50))
    assert [(call["max_pixels"], call["seed"]) for call in calls] == [(1_000_000, 7)]
    assert slide.appearance == fitted.estimate(sample_slide(pyramid, max_pixels=1_000_000, seed=7))


def test_an_appearance_that_is_given_is_used(pyramid: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("there is nothing to estimate")

    known = fitted.estimate(make_phantom(200, 200, seed=9).image)
    monkeypatch.setattr(virtual, "sample_slide", never)
    monkeypatch.setattr(Macenko, "estimate", never)
    with NormalizedSlide(pyramid, fitted, appearance=known) as slide, openslide.OpenSlide(pyramid) as plain:
        assert slide.appearance is known
        np.testing.assert_array_equal(whole(slide, 1), mapped(whole(plain, 1), fitted, slide))


# ---- errors and closing -----------------------------------------------------------------------------------------


def test_an_unfitted_normalizer_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="Macenko is not fitted"):
        NormalizedSlide(tmp_path / "absent.svs", Macenko())
    with pytest.raises(InputError, match="got str; wanted a normalizer"):
        NormalizedSlide(tmp_path / "absent.svs", "he")  # type: ignore[arg-type]


def test_sources_that_cannot_be_read(fitted: Macenko, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="does not exist"):
        NormalizedSlide(tmp_path / "absent.svs", fitted)
    (tmp_path / "a.svs").write_text("no pixels")
    with pytest.raises(SlideError, match="not a slide"):
        NormalizedSlide(str(tmp_path / "a.svs"), fitted)


def test_a_failed_start_closes_what_it_opened(pyramid: Path, fitted: Macenko, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_slide(pyramid)
    monkeypatch.setattr(virtual, "open_slide", lambda _, **options: opened)
    other = Reinhard().fit("he").estimate(make_phantom(100, 100, seed=1).image)
    with pytest.raises(InputError, match="wanted the StainAppearance"):
        NormalizedSlide(pyramid, fitted, appearance=other)
    for location in ((0, 0), (-5, 0)):  # from the tiles themselves, through OpenSlide
        with pytest.raises(SlideError, match="was closed"):
            opened.read_region(location, 0, (10, 10))


def test_reading_after_closing(pyramid: Path, fitted: Macenko) -> None:
    slide = NormalizedSlide(pyramid, fitted)
    slide.close()
    slide.close()
    assert slide.dimensions == (423, 301)  # what is known stays known
    for read in (lambda: whole(slide), lambda: slide.get_thumbnail((9, 9)), lambda: slide.set_cache(None)):
        with pytest.raises(SlideError, match=r"pyramid\.tif was closed; open it again"):
            read()


def test_a_slide_that_is_given_stays_open(pyramid: Path, fitted: Macenko) -> None:
    with open_slide(pyramid) as source:
        with NormalizedSlide(source, fitted) as slide:
            whole(slide)
        assert source.read_region((0, 0), 0, (5, 5))[1] is None
        slide = NormalizedSlide(source, fitted)
    with pytest.raises(SlideError, match="closed"):  # by its owner
        whole(slide)


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_damaged_tiles(reader: str, tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    if reader == "openslide":
        write_array(path, tissue[:256, :256], settings=SMALL)
    else:
        tifffile.imwrite(path, tissue[:256, :256], photometric="rgb", tile=(64, 64), compression="webp")
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(count)
    path.write_bytes(data)
    known = fitted.estimate(tissue)
    with NormalizedSlide(path, fitted, appearance=known) as slide:
        assert slide.read_region((128, 128), 0, (64, 64)).getpixel((0, 0))[3] == 255
        with pytest.raises(SlideError, match=r"a\.tif") as caught:
            slide.read_region((0, 0), 0, (200, 200))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 0), 4, (5, 5)), "got level=4; wanted 0 to 3"),
        (((0, 0), -1, (5, 5)), "got level=-1; wanted 0 to 3"),
        (((0, 0), 0, (-1, 5)), "wanted no negative"),
        (((0, 0), 0, (5, -1)), "wanted no negative"),
        (((0, 0), 0, (5, 5, 5)), "wanted 2 whole numbers"),
        (((0.5, 0), 0, (5, 5)), r"got location=\(0\.5, 0\); wanted 2 whole numbers"),
        ((7, 0, (5, 5)), "got location=7"),
        (((0, 0), "0", (5, 5)), "wanted 1 whole number"),
    ],
)
def test_arguments_that_cannot_be(normalized: NormalizedSlide, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalized.read_region(*arguments)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (5.0, 5.0)])
def test_thumbnails_that_cannot_be(normalized: NormalizedSlide, size: Any) -> None:
    with pytest.raises(InputError, match="got size="):
        normalized.get_thumbnail(size)


def test_sizes_of_nothing_and_numbers_of_numpy(normalized: NormalizedSlide) -> None:
    assert normalized.read_region((0, 0), 0, (0, 7)).size == (0, 7)
    region = normalized.read_region(tuple(np.array([3, 4])), np.int64(1), tuple(np.array([9, 8])))  # type: ignore
    assert region.tobytes() == normalized.read_region((3, 4), 1, (9, 8)).tobytes()


# ---- real slides ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "multiframe_camelyon_challenge_image.dcm"])
def test_real_slides(name: str, data: Path, fitted: Macenko) -> None:
    path = data / "wsi" / name
    if not path.is_file():
        pytest.skip(f"no {name} in {data / 'wsi'}")
    with NormalizedSlide(path, fitted) as slide, openslide.OpenSlide(path) as plain:
        assert slide.appearance == fitted.estimate(sample_slide(path))
        assert slide.level_dimensions == plain.level_dimensions
        wanted = mapped(whole(plain), fitted, slide)
        np.testing.assert_array_equal(whole(slide), wanted)
        for key in ("openslide.vendor", "openslide.mpp-x", "openslide.mpp-y", "openslide.quickhash-1"):
            assert slide.properties[key] == plain.properties[key]
        picture = openslide.ImageSlide(Image.fromarray(wanted))
        check_deep_zoom(DeepZoomGenerator(slide), DeepZoomGenerator(picture))
        for kind, image in plain.associated_images.items():
            same = np.array_equal(np.asarray(image), np.asarray(slide.associated_images[kind]))
            assert same == (kind != "thumbnail")


def test_a_real_pyramid(data: Path) -> None:
    path = data / "scanners4_cytology/563479/NanoZoomerS210_563479.tif"
    if not path.is_file():
        pytest.skip(f"no {path}")
    normalizer = Macenko().fit("pap")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it claims 1000 micrometres a pixel
        slide = NormalizedSlide(path, normalizer, max_pixels=2_000_000)
    with slide, openslide.OpenSlide(path) as plain:
        generator = DeepZoomGenerator(slide, tile_size=256, overlap=0)
        for level in range(2, plain.level_count):
            wanted = mapped(whole(plain, level), normalizer, slide)
            np.testing.assert_array_equal(joined(generator, generator.level_count - 1 - level), wanted[..., :3])
        assert "openslide.mpp-x" not in slide.properties
