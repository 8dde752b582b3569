"""`open_slide` on every kind of slide and image, compared with other readers of the same files."""

import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restain.color.images import RGB8, as_rgb8
from restain.errors import OutputError, SlideError, SlideWarning
from restain.slides.icc import srgb_profile
from restain.slides.image_reader import ImageSlide, encode_image, writes_alpha
from restain.slides.reader import Mask, Slide, open_slide
from restain.slides.tiff_reader import TiffSlide
from restain.slides.writer import PyramidSettings, write_array


def whole(path: Path) -> tuple[RGB8, Mask | None]:
    with open_slide(path) as slide:
        return slide.read_region((0, 0), 0, slide.dimensions)


def write_ome(path: Path, image: RGB8, *, compression: str | None = "deflate", **physical: Any) -> None:
    """OME-TIFF as Bio-Formats writes it: smaller levels are SubIFDs."""
    options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": compression}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(image, subifds=2, metadata={"axes": "YXS", **physical}, **options)
        tiff.write(image[::2, ::2].copy(), subfiletype=1, **options)
        tiff.write(image[::4, ::4].copy(), subfiletype=1, **options)


def with_hole(image: RGB8) -> RGB8:
    """RGBA: a transparent corner of 64x64, and a stripe that is half transparent."""
    alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    alpha[:64, :64] = 0
    alpha[100:110] = 128
    return np.dstack([image, alpha])


# ---- slides that OpenSlide reads --------------------------------------------------------------------------------


def test_a_pyramid(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        assert slide.format == "openslide: generic-tiff"
        assert slide.pyramidal
        assert slide.path == pyramid
        assert slide.dimensions == (423, 301)
        assert slide.level_dimensions == ((423, 301), (211, 150), (105, 75), (52, 37))
        assert slide.level_downsamples == pytest.approx((1, 2.0057, 4.021, 8.135), abs=1e-3)
        assert slide.mpp == pytest.approx((0.25, 0.3))
        assert slide.icc_profile is None
        assert slide.notes == []


def test_a_path_may_be_text(pyramid: Path) -> None:
    with open_slide(str(pyramid)) as slide:
        assert slide.dimensions == (423, 301)


def test_an_open_slide_is_returned_as_it_is(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        assert open_slide(slide) is slide


@settings(max_examples=60)
@given(st.data())
def test_regions_are_openslide_s_own(pyramid: Path, data: st.DataObject) -> None:
    level = data.draw(st.integers(0, 3))
    location = data.draw(st.tuples(st.integers(-100, 500), st.integers(-100, 400)))
    size = data.draw(st.tuples(st.integers(1, 120), st.integers(1, 120)))
    with open_slide(pyramid) as slide, openslide.OpenSlide(str(pyramid)) as other:
        pixels, known = slide.read_region(location, level, size)
        wanted = np.asarray(other.read_region(location, level, size))
    assert pixels.shape == (size[1], size[0], 3)
    assert pixels.dtype == np.uint8
    mask = wanted[..., 3] == 255
    assert (known is None) == mask.all()
    np.testing.assert_array_equal(mask if known is None else known, mask)
    np.testing.assert_array_equal(pixels[mask], wanted[mask][:, :3])
    assert (pixels[wanted[..., 3] == 0] == 255).all()


# ---- what tifffile reads ----------------------------------------------------------------------------------------


def test_ome_tiff_with_subifds(tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    write_ome(path, tissue, PhysicalSizeX=0.5, PhysicalSizeY=0.25)
    with open_slide(path) as slide:
        assert slide.format == "tiff"
        assert slide.pyramidal
        assert slide.mpp == (0.5, 0.25)
        assert slide.level_dimensions == ((423, 301), (212, 151), (106, 76))
        for level, step in enumerate((1, 2, 4)):
            pixels, known = slide.read_region((0, 0), level, slide.level_dimensions[level])
            assert known is None
            np.testing.assert_array_equal(pixels, tissue[::step, ::step])


@pytest.mark.parametrize(
    ("physical", "mpp"),
    [
        ({}, None),
        ({"PhysicalSizeX": 0.5}, None),  # half of an answer
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "µm"}, (0.5, 0.5)),
        ({"PhysicalSizeX": 500, "PhysicalSizeY": 500, "PhysicalSizeXUnit": "pixel"}, None),
    ],
)
def test_resolution_of_ome_tiff(
    physical: dict[str, Any], mpp: tuple[float, float] | None, tissue: RGB8, tmp_path: Path
) -> None:
    write_ome(tmp_path / "slide.ome.tif", tissue, **physical)
    with open_slide(tmp_path / "slide.ome.tif") as slide:
        assert slide.mpp == mpp


TIFFS: dict[str, dict[str, Any]] = {
    "tiles, none": {"tile": (64, 64)},
    "tiles, deflate": {"tile": (64, 64), "compression": "deflate"},
    "tiles, deflate, predictor": {"tile": (64, 64), "compression": "deflate", "predictor": True},
    "tiles, lzw": {"tile": (64, 64), "compression": "lzw"},
    "tiles, zstd": {"tile": (64, 64), "compression": "zstd"},
    "tiles, webp lossless": {"tile": (64, 64), "compression": "webp", "compressionargs": {"lossless": True}},
    "tiles, jpeg 2000 lossless": {"tile": (64, 64), "compression": "jpeg2000"},
    "tiles, wide": {"tile": (32, 128), "compression": "zstd"},
    "tiles, big endian": {"tile": (64, 64), "byteorder": ">"},
    "tiles, big tiff": {"tile": (64, 64), "bigtiff": True},
    "strips": {"rowsperstrip": 7},
    "strips, lzw": {"rowsperstrip": 16, "compression": "lzw", "predictor": True},
    "strips, zstd": {"rowsperstrip": 16, "compression": "zstd"},
    "one strip": {},
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_tiff_of_every_kind(kind: str, bits: int, color: str, tissue: RGB8, tmp_path: Path) -> None:
    options = TIFFS[kind]
    if "webp" in kind and (bits == 16 or color == "gray"):
        pytest.skip("WebP holds 8-bit RGB alone")
    image = tissue if color == "rgb" else tissue[..., 1]
    if bits == 16:
        image = image.astype(np.uint16) * 257 - (image > 9) * np.uint16(100)  # so that rounding has work to do
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, image, photometric="rgb" if color == "rgb" else "minisblack", **options)
    with open_slide(path) as slide:
        assert slide.pyramidal == kind.startswith("tiles")
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    assert known is None
    np.testing.assert_array_equal(pixels, as_rgb8(image))


@pytest.mark.parametrize("options", [{"tile": (64, 64)}, {"tile": (64, 64), "compression": "zstd"}, {}])
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
def test_transparent_pixels_of_rgba_tiff_are_padding(
    options: dict[str, Any], extra: str, tissue: RGB8, tmp_path: Path
) -> None:
    rgba = with_hole(tissue)
    if extra == "assocalpha":  # colours are stored multiplied by alpha
        rgba[..., :3] = np.rint(rgba[..., :3] * (rgba[..., 3:] / 255.0)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", rgba, photometric="rgb", extrasamples=[extra], **options)
    pixels, known = whole(tmp_path / "slide.tif")
    assert known is not None
    np.testing.assert_array_equal(known, rgba[..., 3] == 255)
    np.testing.assert_array_equal(pixels[known], tissue[known])
    assert (pixels[:64, :64] == 255).all()


@pytest.mark.parametrize("planar", [{"tile": (64, 64)}, {}])
def test_planar_tiff(planar: dict[str, Any], tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.moveaxis(tissue, 2, 0), photometric="rgb", planarconfig="separate", **planar)
    np.testing.assert_array_equal(whole(path)[0], tissue)


def test_white_is_zero(tissue: RGB8, tmp_path: Path) -> None:
    for name, options in {"tiles.tif": {"tile": (64, 64)}, "strips.tif": {}}.items():
        tifffile.imwrite(tmp_path / name, 255 - tissue[..., 1], photometric="miniswhite", **options)
        np.testing.assert_array_equal(whole(tmp_path / name)[0], as_rgb8(tissue[..., 1]))


@pytest.mark.parametrize("kind", ["float32", "float64", "int32", "uint32", "int16"])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_numbers_of_unknown_range_are_refused_not_guessed(kind: str, color: str, tissue: RGB8, tmp_path: Path) -> None:
    image = tissue if color == "rgb" else tissue[..., 1]
    numbers = image / 255 if kind.startswith("float") else image.astype(np.int64) * 100
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, numbers.astype(kind), photometric="rgb" if color == "rgb" else "minisblack")
    with pytest.raises(SlideError, match=rf"{kind}.*wanted 8 or 16 bits"):
        open_slide(path)


def test_the_first_of_several_pages_is_read(tissue: RGB8, tmp_path: Path) -> None:
    other = tissue[::-1, ::-1].copy()
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([tissue, other]), photometric="rgb")
    with pytest.warns(SlideWarning, match="has 2 images; only the first is used"):
        first = whole(tmp_path / "pages.tif")[0]
    np.testing.assert_array_equal(first, tissue)


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((20_000, 40_000), "CENTIMETER", (0.5, 0.25)),
        ((50_800, 50_800), "INCH", (0.5, 0.5)),
        ((72, 72), "INCH", None),  # nobody measured anything
        ((96, 96), "INCH", None),
        ((2, 2), "NONE", None),
    ],
)
def test_resolution_tags(
    resolution: tuple[int, int], unit: str, mpp: tuple[float, float] | None, tissue: RGB8, tmp_path: Path
) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, tissue, photometric="rgb", resolution=resolution, resolutionunit=unit)
    with open_slide(path) as slide:
        assert isinstance(slide, TiffSlide)
        assert slide.mpp == (pytest.approx(mpp) if mpp else None)
        assert slide.notes == []


@pytest.mark.parametrize("mpp", [(1000.0, 1000.0), (0.001, 0.001), (0.25, 1000.0)])
@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_implausible_resolution_is_told_and_not_believed(
    reader: str, mpp: tuple[float, float], tissue: RGB8, tmp_path: Path
) -> None:
    path = tmp_path / "slide.tif"
    if reader == "openslide":
        write_array(path, tissue, mpp=mpp)
    else:
        write_ome(path, tissue, PhysicalSizeX=mpp[0], PhysicalSizeY=mpp[1])
    with pytest.warns(SlideWarning, match=r"slide\.tif claims .* micrometres"):
        slide = open_slide(path)
    with slide:
        assert slide.mpp is None
        assert len(slide.notes) == 1
        implausible = next(value for value in mpp if not 0.02 <= value <= 100)
        assert f"{implausible:g}" in slide.notes[0]


def test_plausible_resolution_warns_of_nothing(pyramid: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_slide(pyramid).close()


# ---- plain images -----------------------------------------------------------------------------------------------


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


MakeImage = Callable[[Path, Image.Image], Path]

IMAGES: dict[str, MakeImage] = {
    "PNG": lambda folder, image: save(folder / "i.png", image),
    "JPEG": lambda folder, image: save(folder / "i.jpg", image, quality=90),
    "progressive JPEG": lambda folder, image: save(folder / "i.jpg", image, progressive=True),
    "CMYK JPEG": lambda folder, image: save(folder / "i.jpg", image.convert("CMYK")),
    "gray JPEG": lambda folder, image: save(folder / "i.jpg", image.convert("L")),
    "WebP": lambda folder, image: save(folder / "i.webp", image),
    "BMP": lambda folder, image: save(folder / "i.bmp", image),
    "PPM": lambda folder, image: save(folder / "i.ppm", image),
    "JPEG 2000": lambda folder, image: save(folder / "i.jp2", image),
    "palette PNG": lambda folder, image: save(folder / "i.png", image.quantize(64)),
    "gray PNG": lambda folder, image: save(folder / "i.png", image.convert("L")),
    "1-bit PNG": lambda folder, image: save(folder / "i.png", image.convert("1")),
    "animated GIF": lambda folder, image: save(
        folder / "i.gif", image, save_all=True, append_images=[image.rotate(180)]
    ),
    "palette TIFF": lambda folder, image: save(folder / "i.tif", image.quantize(64)),
    "1-bit TIFF": lambda folder, image: save(folder / "i.tif", image.convert("1")),
    "CMYK TIFF": lambda folder, image: save(folder / "i.tif", image.convert("CMYK")),
    "wrong extension": lambda folder, image: save(folder / "i.svs", image, format="PNG"),
    "no extension": lambda folder, image: save(folder / "image", image, format="JPEG"),
}


@pytest.mark.filterwarnings("ignore:.*only the first is used")
@pytest.mark.parametrize("kind", IMAGES)
def test_plain_image_of_every_kind(kind: str, tissue: RGB8, tmp_path: Path) -> None:
    path = IMAGES[kind](tmp_path, Image.fromarray(tissue))
    with Image.open(path) as image:
        wanted = np.asarray(image.convert("RGB"))
    with open_slide(path) as slide:
        assert not slide.pyramidal
        assert slide.level_dimensions == ((423, 301),)
        assert slide.mpp is None
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    assert known is None
    np.testing.assert_array_equal(pixels, wanted)


def test_16_bit_gray_png_is_scaled_not_clipped(tissue: RGB8, tmp_path: Path) -> None:
    gray = tissue[..., 1].astype(np.uint16) * 257
    Image.fromarray(gray).save(tmp_path / "i.png")
    pixels, known = whole(tmp_path / "i.png")
    assert known is None
    np.testing.assert_array_equal(pixels, as_rgb8(tissue[..., 1]))


def test_16_bit_rgb_png_is_scaled_not_clipped(tissue: RGB8, tmp_path: Path) -> None:
    import imagecodecs

    (tmp_path / "i.png").write_bytes(imagecodecs.png_encode(tissue.astype(np.uint16) * 257))
    np.testing.assert_array_equal(whole(tmp_path / "i.png")[0], tissue)


@pytest.mark.parametrize("name", ["i.png", "i.webp", "i.tif"])
def test_transparent_pixels_of_images_are_padding(name: str, tissue: RGB8, tmp_path: Path) -> None:
    rgba = with_hole(tissue)
    Image.fromarray(rgba).save(tmp_path / name, **({"lossless": True, "exact": True} if name == "i.webp" else {}))
    pixels, known = whole(tmp_path / name)
    assert known is not None
    np.testing.assert_array_equal(known, rgba[..., 3] == 255)
    np.testing.assert_array_equal(pixels[known], tissue[known])
    assert (pixels[:64, :64] == 255).all()


@pytest.mark.parametrize("kind", ["gray", "palette with alpha", "palette with one transparent colour"])
def test_other_kinds_of_transparency(kind: str, tissue: RGB8, tmp_path: Path) -> None:
    rgba = Image.fromarray(with_hole(tissue))
    if kind == "gray":
        rgba.convert("LA").save(tmp_path / "i.png")
    elif kind == "palette with alpha":
        rgba.quantize(32).save(tmp_path / "i.png")
    else:
        palette = Image.fromarray(tissue).quantize(32)
        palette.paste(palette.getpixel((300, 200)), (0, 0, 64, 64))
        palette.save(tmp_path / "i.png", transparency=palette.getpixel((300, 200)))
    _, known = whole(tmp_path / "i.png")
    assert known is not None
    assert not known[:64, :64].any()
    assert known[150:, :200].mean() > 0.5


def test_an_opaque_alpha_channel_is_nothing_special(tissue: RGB8, tmp_path: Path) -> None:
    rgba = np.dstack([tissue, np.full(tissue.shape[:2], 255, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "i.png")
    with open_slide(tmp_path / "i.png") as slide:
        assert isinstance(slide, ImageSlide)
        assert slide.rgba is None
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
    assert known is None
    np.testing.assert_array_equal(pixels, tissue)


def test_the_icc_profile_of_an_image(tissue: RGB8, tmp_path: Path) -> None:
    Image.fromarray(tissue).save(tmp_path / "with.png", icc_profile=srgb_profile())
    Image.fromarray(tissue).save(tmp_path / "without.png")
    # The profile of CMYK pixels says nothing on the RGB that they are converted to.
    Image.fromarray(tissue).convert("CMYK").save(tmp_path / "cmyk.jpg", icc_profile=b"a CMYK profile")
    with open_slide(tmp_path / "with.png") as slide:
        assert slide.icc_profile == srgb_profile()
    for name in ("without.png", "cmyk.jpg"):
        with open_slide(tmp_path / name) as slide:
            assert slide.icc_profile is None


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_encoded_images_are_lossless_where_the_format_is(suffix: str, tissue: RGB8, tmp_path: Path) -> None:
    (tmp_path / f"i{suffix}").write_bytes(encode_image(tissue, suffix, None))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"i{suffix}").convert("RGB")), tissue)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_encoded_images_keep_alpha_and_profile(suffix: str, tissue: RGB8, tmp_path: Path) -> None:
    assert writes_alpha(suffix)
    rgba = with_hole(tissue)
    (tmp_path / f"i{suffix}").write_bytes(encode_image(rgba, suffix, srgb_profile()))
    with Image.open(tmp_path / f"i{suffix}") as image:
        assert image.info["icc_profile"] == srgb_profile()
        np.testing.assert_array_equal(np.asarray(image.convert("RGBA"))[..., 3], rgba[..., 3])


def test_jpeg_images_keep_their_colours(tissue: RGB8, tmp_path: Path) -> None:
    (tmp_path / "i.jpg").write_bytes(encode_image(tissue, ".jpg", srgb_profile()))
    with Image.open(tmp_path / "i.jpg") as image:
        assert image.info["icc_profile"] == srgb_profile()
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # no chroma subsampling
        assert np.abs(np.asarray(image).astype(int) - tissue).mean() < 2


@pytest.mark.parametrize("suffix", ["", ".xyz", ".txt", ".gif", ".pdf"])  # GIF would lose colours
def test_formats_that_cannot_be_written(suffix: str, tissue: RGB8) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        encode_image(tissue, suffix, None)


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16_384), (".jpg", 65_536)])
def test_images_too_long_for_their_format_are_one_readable_line(suffix: str, side: int) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        encode_image(np.zeros((1, side, 3), np.uint8), suffix, None)


# ---- the same questions to every reader -------------------------------------------------------------------------


def save_ome(path: Path, image: RGB8) -> Path:
    write_ome(path, image)
    return path


def save_tiff(path: Path, image: RGB8, **options: Any) -> Path:
    tifffile.imwrite(path, image, photometric="rgb", **options)
    return path


KINDS: dict[str, Callable[[Path, RGB8], Path]] = {
    "openslide": lambda folder, image: save_tiff(folder / "s.tif", image, tile=(64, 64), compression="lzw"),
    "ome": lambda folder, image: save_ome(folder / "s.ome.tif", image),
    "tiles": lambda folder, image: save_tiff(folder / "s.tif", image, tile=(48, 80), compression="jpeg2000"),
    "strips": lambda folder, image: save_tiff(folder / "s.tif", image, rowsperstrip=11),
    "image": lambda folder, image: save(folder / "s.png", Image.fromarray(image)),
}


@pytest.fixture(scope="module", params=KINDS)
def lossless(request: pytest.FixtureRequest, tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tissue` in a file of one of the kinds, exact."""
    return KINDS[request.param](tmp_path_factory.mktemp("lossless"), tissue)


@settings(max_examples=40)
@given(st.tuples(st.integers(-150, 550), st.integers(-150, 450)), st.tuples(st.integers(1, 200), st.integers(1, 200)))
def test_outside_the_slide_is_padding(
    lossless: Path, tissue: RGB8, location: tuple[int, int], size: tuple[int, int]
) -> None:
    room = 400
    padded = np.pad(tissue, ((room, room), (room, room), (0, 0)), constant_values=255)
    inside = np.pad(np.ones(tissue.shape[:2], np.bool_), room)
    rows = slice(location[1] + room, location[1] + room + size[1])
    columns = slice(location[0] + room, location[0] + room + size[0])
    with open_slide(lossless) as slide:
        pixels, known = slide.read_region(location, 0, size)
    np.testing.assert_array_equal(pixels, padded[rows, columns])
    assert (known is None) == inside[rows, columns].all()
    if known is not None:
        np.testing.assert_array_equal(known, inside[rows, columns])


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as Python can, so that what is not guarded goes wrong."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_reading_from_many_threads(lossless: Path, tissue: RGB8) -> None:
    generator = np.random.default_rng(0)
    corners = [(int(x), int(y)) for x, y in generator.integers(0, 230, (200, 2))]
    with open_slide(lossless) as slide, ThreadPoolExecutor(8) as pool:
        regions = list(pool.map(lambda corner: slide.read_region(corner, 0, (70, 70))[0], corners))
    for (x, y), pixels in zip(corners, regions, strict=True):
        np.testing.assert_array_equal(pixels, tissue[y : y + 70, x : x + 70])


def test_what_is_read_may_be_changed(lossless: Path, tissue: RGB8) -> None:
    """The pipeline maps regions in place: the next read must not see that."""
    with open_slide(lossless) as slide:
        first, _ = slide.read_region((0, 0), 0, slide.dimensions)
        first[...] = 0
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, slide.dimensions)[0], tissue)


def test_no_associated_images(lossless: Path) -> None:
    with open_slide(lossless) as slide:
        assert dict(slide.associated_images) == {}


def test_objective_power_that_restain_noted(tissue: RGB8, tmp_path: Path) -> None:
    description = '{"slide": {"objective_power": 20.0}}'
    write_array(tmp_path / "a.tif", tissue, description=description)
    tifffile.imwrite(tmp_path / "b.tif", tissue, photometric="rgb", description=description, metadata=None)
    for name in ("a.tif", "b.tif"):
        with open_slide(tmp_path / name) as slide:
            assert slide.objective_power == 20.0


@pytest.mark.parametrize("description", ["", "{}", "[]", '{"slide": 3}', '{"slide": {"objective_power": null}}', "{"])
def test_other_descriptions_say_nothing_on_the_objective(description: str, tissue: RGB8, tmp_path: Path) -> None:
    write_array(tmp_path / "a.tif", tissue, description=description)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.objective_power is None


# ---- thumbnails -------------------------------------------------------------------------------------------------


def box_mean(image: RGB8, longest: int) -> RGB8:
    """Pixel by pixel, the slow and obvious way."""
    height, width = image.shape[:2]
    step = -(-max(height, width) // longest)
    out = np.empty((-(-height // step), -(-width // step), image.shape[2]), np.uint8)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            box = image[row * step : (row + 1) * step, column * step : (column + 1) * step].astype(np.float64)
            out[row, column] = np.floor(box.mean(axis=(0, 1)) + 0.5)
    return out


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 45), st.integers(0, 99))
def test_thumbnails_of_images_are_box_means(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, longest: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("thumbnail") / "i.png"
    generator = np.random.default_rng(seed)
    rgba = generator.integers(0, 256, (height, width, 4), dtype=np.uint8)
    rgba[..., 3] = np.where(generator.random((height, width)) < 0.02, 0, 255)
    Image.fromarray(rgba).save(path)
    with open_slide(path) as slide:
        thumbnail, known = slide.thumbnail(longest)
    opaque = rgba[..., 3:] == 255
    np.testing.assert_array_equal(thumbnail, box_mean(np.where(opaque, rgba[..., :3], 255), longest))
    # A pixel is known if all of its box is.
    wanted = box_mean(np.where(opaque, 255, 0).astype(np.uint8), longest)[..., 0]
    whole_boxes = wanted == 255
    assert (known is None) == whole_boxes.all()
    if known is not None:
        np.testing.assert_array_equal(known, whole_boxes)


@pytest.mark.parametrize("longest", [1, 10, 53, 100, 300, 423, 2048])
def test_thumbnails_of_pyramids(longest: int, pyramid: Path, tissue: RGB8) -> None:
    with open_slide(pyramid) as slide:
        thumbnail, known = slide.thumbnail(longest)
    assert known is None
    assert max(thumbnail.shape[:2]) <= longest
    assert max(thumbnail.shape[:2]) >= min(longest / 2, 423)  # and not coarser than it need be
    with tifffile.TiffFile(pyramid) as tiff:
        assert any(np.array_equal(thumbnail, box_mean(page.asarray(), longest)) for page in tiff.pages)
    if longest > 50:  # edge pixels of a very small thumbnail stand for less than the others
        assert np.abs(thumbnail.mean(axis=(0, 1)) - tissue.mean(axis=(0, 1))).max() < 2


def test_thumbnails_are_read_in_bands_that_fit_together(tmp_path: Path) -> None:
    """Above four megapixels a level is read in several pieces."""
    image = np.zeros((2300, 2100, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, 2300)[:, None]
    image[..., 1] = np.linspace(0, 255, 2100)
    Image.fromarray(image).save(tmp_path / "i.bmp")
    with open_slide(tmp_path / "i.bmp") as slide:
        thumbnail, known = slide.thumbnail(100)
    assert known is None
    np.testing.assert_array_equal(thumbnail, box_mean(image, 100))


def test_thumbnails_of_thin_slides(tmp_path: Path) -> None:
    for name, shape in {"wide.tif": (1, 3000, 3), "tall.tif": (3000, 1, 3)}.items():
        write_array(tmp_path / name, np.full(shape, 200, np.uint8), settings=PyramidSettings(tile=64))
        with open_slide(tmp_path / name) as slide:
            thumbnail, _ = slide.thumbnail(100)
            assert max(thumbnail.shape) <= 100
            assert np.abs(thumbnail.astype(int) - 200).max() <= 1


def test_the_base_class_reads_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError):
        Slide(tmp_path, "none").read_region((0, 0), 0, (1, 1))
