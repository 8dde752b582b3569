"""The pyramid writer, read back by OpenSlide and by tifffile, and compared with Pillow's own JPEG encoder."""

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from restain.color.images import RGB8
from restain.errors import InputError
from restain.slides.icc import srgb_profile
from restain.slides.reader import open_slide
from restain.slides.writer import PyramidSettings, write_array

from .making import SATURATED_IMAGE, saturated_error, write_with_holes

Ints = NDArray[np.int64]
PILLOW_SUBSAMPLING = {"444": 0, "422": 1, "420": 2}


def by_openslide(path: Path) -> list[RGB8]:
    """Every level, (H, W, 4)."""
    with openslide.OpenSlide(str(path)) as slide:
        sizes = slide.level_dimensions
        return [np.asarray(slide.read_region((0, 0), level, size)) for level, size in enumerate(sizes)]


def by_tifffile(path: Path) -> list[RGB8]:
    """Every page that is tiled, (H, W, 3)."""
    with tifffile.TiffFile(path) as tiff:
        return [page.asarray() for page in tiff.pages if page.is_tiled]


def halved(image: RGB8) -> RGB8:
    """The mean of 2x2 pixels, halves rounded up; odd last rows and columns are left out, but one always stays."""
    image = np.pad(image, ((0, int(image.shape[0] == 1)), (0, int(image.shape[1] == 1)), (0, 0)), mode="edge")
    height, width = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).astype(np.float64)
    return np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def levels_of(image: RGB8, tile: int) -> list[RGB8]:
    levels = [image]
    while max(levels[-1].shape[:2]) > tile:
        levels.append(halved(levels[-1]))
    return levels


def through_pillow(image: RGB8, options: PyramidSettings) -> RGB8:
    """The image after JPEG, tile by tile, edge tiles filled by repetition."""
    side = options.tile
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    out = np.empty_like(padded)
    for y in range(0, padded.shape[0], side):
        for x in range(0, padded.shape[1], side):
            stream = io.BytesIO()
            subsampling = PILLOW_SUBSAMPLING[options.subsampling]
            part = Image.fromarray(padded[y : y + side, x : x + side])
            part.save(stream, "JPEG", quality=options.quality, subsampling=subsampling)
            out[y : y + side, x : x + side] = np.asarray(Image.open(stream))
    return out[:height, :width]


def difference(one: RGB8, other: RGB8) -> float:
    """Mean absolute difference, grey levels."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).mean())


def check_pyramid(path: Path, image: RGB8, options: PyramidSettings) -> None:
    """Both readers see the same levels, and these are what Pillow's encoder makes of the means of the image."""
    wanted = levels_of(image, options.tile)
    seen, also_seen = by_openslide(path), by_tifffile(path)
    assert [level.shape[:2] for level in seen] == [level.shape[:2] for level in wanted]
    assert [level.shape for level in also_seen] == [level.shape for level in wanted]
    if min(image.shape[:2]) >> (len(wanted) - 1) > 0:  # tifffile groups no levels of which a side stays at 1 pixel
        with tifffile.TiffFile(path) as tiff:
            assert [level.shape for level in tiff.series[0].levels] == [level.shape for level in wanted]
    for level, other, mean in zip(seen, also_seen, wanted, strict=True):
        assert (level[..., 3] == 255).all()
        np.testing.assert_array_equal(level[..., :3], other)
        # Encoders of one standard may round a coefficient differently; a shifted or wrong pixel costs far more.
        assert difference(other, through_pillow(mean, options)) < 0.05


# ---- geometry ---------------------------------------------------------------------------------------------------

SIZES = [
    (1, 1),
    (3000, 1),
    (1, 3000),
    (63, 63),
    (64, 64),
    (65, 65),
    (128, 64),
    (129, 127),
    (128, 256),
    (257, 129),
    (333, 200),
    (513, 511),
]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_level_is_the_mean_of_the_one_above(width: int, height: int, tmp_path: Path) -> None:
    tall, wide = np.mgrid[:height, :width]
    image = np.stack([wide * 3 % 256, tall * 5 % 256, (wide + tall) % 256], axis=2).astype(np.uint8)
    options = PyramidSettings(tile=64)
    write_array(tmp_path / "slide.tif", image, settings=options)
    check_pyramid(tmp_path / "slide.tif", image, options)


@settings(max_examples=40)
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([16, 32]), st.integers(0, 1000))
def test_any_size(tmp_path_factory: pytest.TempPathFactory, width: int, height: int, tile: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("any") / "slide.tif"
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    options = PyramidSettings(tile=tile, quality=95)
    write_array(path, image, settings=options)
    check_pyramid(path, image, options)


def test_the_default_tile_is_512_and_a_slide_of_that_size_has_one_level(tmp_path: Path) -> None:
    write_array(tmp_path / "slide.tif", np.full((512, 512, 3), 200, np.uint8))
    with tifffile.TiffFile(tmp_path / "slide.tif") as tiff:
        assert [(page.tilewidth, page.tilelength) for page in tiff.pages] == [(512, 512)]


def test_smaller_levels_are_pages_that_say_so(tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "slide.tif", tissue, settings=PyramidSettings(tile=64))
    with tifffile.TiffFile(tmp_path / "slide.tif") as tiff:
        assert tiff.is_bigtiff
        assert [page.subfiletype for page in tiff.pages] == [0, 1, 1, 1]
        assert all(page.photometric.name == "YCBCR" and page.compression.name == "JPEG" for page in tiff.pages)


# ---- colours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_saturated_colours_come_back(subsampling: str, tmp_path: Path) -> None:
    # A wrong photometric tag or a wrong colour space in the JPEG stream opens in every reader, in other colours.
    write_array(tmp_path / "slide.tif", SATURATED_IMAGE, settings=PyramidSettings(tile=64, subsampling=subsampling))
    for level in (by_openslide(tmp_path / "slide.tif")[0][..., :3], by_tifffile(tmp_path / "slide.tif")[0]):
        assert saturated_error(level).max() <= 2


@pytest.mark.parametrize("quality", [50, 90, 100])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_jpeg_options_do_what_they_do_in_pillow(quality: int, subsampling: str, tissue: RGB8, tmp_path: Path) -> None:
    options = PyramidSettings(tile=64, quality=quality, subsampling=subsampling)
    write_array(tmp_path / "slide.tif", tissue, settings=options)
    check_pyramid(tmp_path / "slide.tif", tissue, options)
    ours, theirs = by_tifffile(tmp_path / "slide.tif")[0], through_pillow(tissue, options)
    assert difference(ours, tissue) == pytest.approx(difference(theirs, tissue), rel=0.02)


def test_the_default_keeps_colours_better_than_subsampling_does(tissue: RGB8, tmp_path: Path) -> None:
    error = {}
    for subsampling in (PyramidSettings().subsampling, "422", "420"):
        path = tmp_path / f"{subsampling}.tif"
        write_array(path, tissue, settings=PyramidSettings(subsampling=subsampling))
        error[subsampling] = difference(by_tifffile(path)[0], tissue)
    assert error["444"] < error["422"] < error["420"]


@pytest.mark.parametrize(
    "arguments", [{"tile": 0}, {"tile": 17}, {"tile": -16}, {"quality": 0}, {"quality": 101}, {"subsampling": "411"}]
)
def test_settings_that_jpeg_or_tiff_cannot_have_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"wanted"):
        PyramidSettings(**arguments)


# ---- what the file says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [(0.25, 0.25), (0.4999, 0.4999), (0.2277, 0.5), (12.3, 11.1)])
def test_resolution(mpp: tuple[float, float], tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_array(path, tissue, settings=PyramidSettings(tile=64), mpp=mpp)
    with openslide.OpenSlide(str(path)) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(mpp[0], rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(mpp[1], rel=1e-6)
    with open_slide(path) as opened:
        assert opened.mpp == pytest.approx(mpp, rel=1e-6)
    with tifffile.TiffFile(path) as tiff:
        for level, page in enumerate(tiff.pages):
            assert page.tags["ResolutionUnit"].value == 3  # centimetre
            x, y = (np.divide(*page.tags[name].value) for name in ("XResolution", "YResolution"))
            # A pixel of a smaller level spans more.
            assert 10_000 / x == pytest.approx(mpp[0] * 2**level, rel=1e-6)
            assert 10_000 / y == pytest.approx(mpp[1] * 2**level, rel=1e-6)


def test_unknown_resolution_stays_unknown(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_array(path, tissue, mpp=None)
    with openslide.OpenSlide(str(path)) as slide:
        assert "openslide.mpp-x" not in slide.properties
    with open_slide(path) as opened:
        assert opened.mpp is None
        assert opened.notes == []
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].tags["ResolutionUnit"].value == 1  # none


def test_the_icc_profile_is_embedded(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_array(path, tissue, settings=PyramidSettings(tile=64), icc_profile=srgb_profile())
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.color_profile is not None
        assert slide.color_profile.tobytes() == srgb_profile()
    with tifffile.TiffFile(path) as tiff:
        assert all(page.iccprofile == srgb_profile() for page in tiff.pages)
    with open_slide(path) as opened:
        assert opened.icc_profile == srgb_profile()


def test_the_srgb_profile_has_no_date() -> None:
    profile = srgb_profile()
    assert struct.unpack(">I", profile[:4])[0] == len(profile)
    assert profile[24:36] == bytes(12)  # ICC.1:2022, 7.2: date and time
    assert profile[36:40] == b"acsp"


def test_no_icc_profile_unless_given(tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "slide.tif", tissue)
    with openslide.OpenSlide(str(tmp_path / "slide.tif")) as slide:
        assert slide.color_profile is None


def test_description_and_software(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_array(path, tissue, settings=PyramidSettings(tile=64), description='{"a": 1}', software="restain 9")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].description == '{"a": 1}'
        assert tiff.pages[0].software == "restain 9"
        assert all(page.description == "" for page in tiff.pages[1:])


# ---- missing tiles, further images, workers ---------------------------------------------------------------------


def test_missing_tiles_stay_missing(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    image = tissue[:256, :256]
    # All four tiles under one tile of level 1, below four that are there, one tile apart, and the last.
    missing = {(2, 0), (2, 1), (3, 0), (3, 1), (0, 3), (3, 3)}
    write_with_holes(path, image, missing)
    hole = np.zeros((256, 256), np.bool_)
    for row, column in missing:
        hole[64 * row : 64 * row + 64, 64 * column : 64 * column + 64] = True
    first, second, third = by_openslide(path)
    np.testing.assert_array_equal(first[..., 3] == 0, hole)
    assert difference(first[~hole][:, :3], image[~hole]) < 4
    # Level 1 is missing where nothing is known, and white where a part of its tile is.
    assert (second[64:, :64, 3] == 0).all()
    assert (second[:64, :, 3] == 255).all()
    assert (second[64:, 64:, 3] == 255).all()
    assert second[2:30, 98:126, :3].min() >= 250
    assert (third[..., 3] == 255).all()
    assert third[34:62, 2:30, :3].min() >= 250
    with open_slide(path) as slide:
        pixels, known = slide.read_region((0, 0), 0, (256, 256))
        assert known is not None
        np.testing.assert_array_equal(~known, hole)
        assert (pixels[hole] == 255).all()


@pytest.mark.parametrize(("height", "width", "real"), [(64, 65, (0, 1)), (65, 64, (1, 0))])
def test_pixels_that_are_halved_to_nothing_make_no_tile(
    height: int, width: int, real: tuple[int, int], tissue: RGB8, tmp_path: Path
) -> None:
    """Of a last row or column of one pixel, smaller levels have nothing."""
    missing = {(0, 0), (0, 1), (1, 0)} - {real}
    write_with_holes(tmp_path / "slide.tif", tissue[:height, :width], missing)
    first, second = by_openslide(tmp_path / "slide.tif")
    assert first[..., 3].any()
    assert not second[..., 3].any()


def test_a_slide_of_missing_tiles_alone(tissue: RGB8, tmp_path: Path) -> None:
    write_with_holes(tmp_path / "slide.tif", tissue[:128, :128], {(row, column) for row in (0, 1) for column in (0, 1)})
    for level in by_openslide(tmp_path / "slide.tif"):
        assert (level[..., 3] == 0).all()


def test_further_images_are_pages_of_their_own_and_no_levels(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    label, macro = tissue[:50, :70], tissue[100:200, :128]
    write_with_holes(path, tissue[:128, :256], set(), associated={"label": label, "macro": macro})
    with tifffile.TiffFile(path) as tiff:
        assert [series.shape[:2] for series in tiff.series] == [(128, 256), (50, 70), (100, 128)]
        assert [level.shape[:2] for level in tiff.series[0].levels] == [(128, 256), (64, 128), (32, 64)]
        assert [page.description for page in tiff.pages[-2:]] == ["label", "macro"]
        np.testing.assert_array_equal(tiff.series[1].asarray(), label)
        np.testing.assert_array_equal(tiff.series[2].asarray(), macro)
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.level_dimensions == ((256, 128), (128, 64), (64, 32))


def test_the_bytes_do_not_depend_on_the_number_of_threads(tissue: RGB8, tmp_path: Path) -> None:
    write_with_holes(tmp_path / "serial.tif", tissue, {(1, 2)})
    for workers in (1, 2, 5):
        with ThreadPoolExecutor(workers) as pool:
            write_with_holes(tmp_path / f"{workers}.tif", tissue, {(1, 2)}, pool=pool)
        assert (tmp_path / f"{workers}.tif").read_bytes() == (tmp_path / "serial.tif").read_bytes()


def test_the_caller_s_array_is_not_changed(tissue: RGB8, tmp_path: Path) -> None:
    before = tissue.copy()
    write_array(tmp_path / "slide.tif", tissue, settings=PyramidSettings(tile=64))
    np.testing.assert_array_equal(tissue, before)


def test_arrays_that_are_views_are_written_as_they_look(tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "view.tif", tissue[::-1, ::2])
    write_array(tmp_path / "copy.tif", tissue[::-1, ::2].copy())
    assert (tmp_path / "view.tif").read_bytes() == (tmp_path / "copy.tif").read_bytes()
