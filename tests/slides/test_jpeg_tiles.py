"""JPEG tiles that are read raw are OpenSlide's pixels; where they cannot be, OpenSlide is asked."""

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restain.errors import SlideError
from restain.phantom import Scanner, make_phantom
from restain.slides import jpeg_tiles
from restain.slides.jpeg_tiles import JpegTiles, open_jpeg_tiles
from restain.slides.openslide_reader import OpenSlideSlide
from restain.slides.reader import open_slide

WIDTH, HEIGHT = 700, 500
REAL = "wsi/CMU-1-Small-Region.svs"


def write_tiff(path: Path, *, tile: int = 240, subsampling: tuple[int, int] = (2, 2), missing: bool = False) -> Path:
    """A phantom in two levels; tiles (0, 0) and the last one may be missing."""
    image = make_phantom(HEIGHT, WIDTH, seed=3, scanner=Scanner(noise=1.0)).image
    with tifffile.TiffWriter(path) as tiff:
        for level, pixels in enumerate((image, image[::2, ::2])):
            tiff.write(
                tiles(pixels, tile, subsampling, missing and level == 0),
                shape=pixels.shape,
                dtype=np.uint8,
                photometric="ycbcr",
                compression="jpeg",
                subsampling=subsampling,
                tile=(tile, tile),
                subfiletype=level,
                metadata=None,
            )
    return path


def tiles(pixels, side, subsampling, missing):
    rows, columns = -(-pixels.shape[0] // side), -(-pixels.shape[1] // side)
    padded = np.pad(pixels, ((0, rows * side - pixels.shape[0]), (0, columns * side - pixels.shape[1]), (0, 0)))
    names = {(1, 1): "444", (2, 1): "422", (2, 2): "420"}
    for row in range(rows):
        for column in range(columns):
            if missing and (row, column) in ((0, 0), (rows - 1, columns - 1)):
                yield b""
                continue
            piece = np.ascontiguousarray(padded[row * side : (row + 1) * side, column * side : (column + 1) * side])
            yield imagecodecs.jpeg8_encode(
                piece, level=90, colorspace="rgb", outcolorspace="ycbcr", subsampling=names[subsampling]
            )


def through_openslide(path: Path, location, level, size):
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region(location, level, size))


@pytest.fixture(scope="module", params=[(240, (2, 2)), (256, (1, 1)), (128, (2, 1))], ids=["420", "444", "422"])
def path(request, tmp_path_factory) -> Path:
    tile, subsampling = request.param
    return write_tiff(tmp_path_factory.mktemp("tiles") / "slide.tif", tile=tile, subsampling=subsampling)


@settings(max_examples=40, deadline=None)
@given(
    left=st.integers(-20, WIDTH + 20),
    top=st.integers(-20, HEIGHT + 20),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    level=st.integers(0, 1),
)
def test_any_rectangle_is_openslides(path, left, top, width, height, level):
    with open_slide(path) as slide:
        assert isinstance(slide, OpenSlideSlide)
        assert slide._tiles is not None
        pixels, known = slide.read_region((left, top), level, (width, height))
        rgba = slide.read_rgba((left, top), level, (width, height))
    wanted = through_openslide(path, (left, top), level, (width, height))
    np.testing.assert_array_equal(rgba, wanted)
    np.testing.assert_array_equal(np.ones(wanted.shape[:2], bool) if known is None else known, wanted[..., 3] == 255)
    np.testing.assert_array_equal(pixels[wanted[..., 3] == 255], wanted[wanted[..., 3] == 255][:, :3])


def test_the_real_slide_is_openslides(data):

    with warnings.catch_warnings(action="ignore"), open_slide(data / REAL) as slide:
        assert slide._tiles is not None  # JPEG in RGB, tiles of 240
        pixels, known = slide.read_region((0, 0), 0, slide.dimensions)
        size = slide.dimensions
    assert known is None
    np.testing.assert_array_equal(pixels, through_openslide(data / REAL, (0, 0), 0, size)[..., :3])


def test_what_a_tile_is_read_into_is_used_when_it_can_be(path):
    with open_slide(path) as slide:
        side = slide._tiles.levels[0].side
        out = np.empty((side[1], side[0], 3), np.uint8)
        pixels, known = slide.read_tile((side[0], 0), side, out)
        assert pixels is out
        assert known is None
        np.testing.assert_array_equal(out, slide.read_region((side[0], 0), 0, side)[0])


def test_missing_tiles_are_left_to_openslide(tmp_path):
    path = write_tiff(tmp_path / "gaps.tif", tile=240, subsampling=(1, 1), missing=True)
    with open_slide(path) as slide:
        pixels, known = slide.read_region((0, 0), 0, (WIDTH, HEIGHT))
        inside, everywhere = slide.read_region((240, 0), 0, (240, 240))
    assert not known[:240, :240].any()
    assert known[:240, 240:].all()
    assert everywhere is None
    np.testing.assert_array_equal(inside, pixels[:240, 240:480])


def test_a_tile_of_another_size_than_it_says_is_left_to_openslide(tmp_path):
    path = write_tiff(tmp_path / "slide.tif", tile=256, subsampling=(1, 1))
    small = imagecodecs.jpeg8_encode(np.full((64, 64, 3), 9, np.uint8), level=90)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    with path.open("rb+") as stream:
        stream.seek(offset)
        stream.write(small.ljust(count, b"\0"))
    found = open_jpeg_tiles(path, ((WIDTH, HEIGHT),))
    out = np.zeros((256, 256, 3), np.uint8)
    assert found.read(0, 0, 0, 256, 256) is None
    assert found.read(0, 0, 0, 256, 256, out) is None
    assert found.read(0, 256, 0, 256, 200) is not None
    found.close()


@pytest.mark.parametrize("claimed", [2**33, 2**62, 2**63, 2**64 - 1])
def test_a_tile_that_claims_more_bytes_than_there_are_is_damaged(claimed, tmp_path):
    path, image = tmp_path / "slide.tif", np.full((128, 128, 3), 200, np.uint8)
    layout = {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (1, 1), "tile": (64, 64), "metadata": None}
    encoded = tiles(image, 64, (1, 1), missing=False)
    tifffile.imwrite(path, encoded, shape=image.shape, dtype=np.uint8, bigtiff=True, **layout)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        entry, counts = tag.offset, list(tag.value)
    counts[3] = claimed
    data = path.read_bytes()
    moved = struct.pack("<HHQQ", tag.code, tifffile.DATATYPE.LONG8, 4, len(data))  # to the end, in 64 bits each
    path.write_bytes(data[:entry] + moved + data[entry + 20 :] + struct.pack("<4Q", *counts))
    with open_slide(path) as slide:
        assert slide._tiles is not None
        assert slide.jpeg_pieces((0, 64), (64, 64)) is not None
        assert slide.jpeg_pieces((64, 64), (64, 64)) is None
        with pytest.raises(SlideError, match=r"damaged in the tile at \(64, 64\)"):
            slide.read_region((0, 0), 0, (128, 128))


def test_a_pass_in_reading_order_decodes_each_tile_once(path, monkeypatch):
    decoded = []
    decode = JpegTiles._decode

    def counting(self, grid, index, out):
        decoded.append(index)
        return decode(self, grid, index, out)

    monkeypatch.setattr(JpegTiles, "_decode", counting)
    found = open_jpeg_tiles(path, ((WIDTH, HEIGHT),))
    for top in range(0, HEIGHT, 100):
        for left in range(0, WIDTH, 100):
            found.read(0, left, top, min(100, WIDTH - left), min(100, HEIGHT - top))
    found.close()
    assert sorted(decoded) == list(range(len(found.levels[0].places)))


def test_what_is_kept_is_bounded_and_does_not_change_pixels(path, monkeypatch):
    places = [(x, y) for y in range(0, HEIGHT - 90, 70) for x in range(0, WIDTH - 90, 70)]
    with open_slide(path) as slide:
        wanted = [slide.read_region(place, 0, (90, 90))[0] for place in places]
    monkeypatch.setattr(jpeg_tiles, "LEAST_KEPT", 0)
    monkeypatch.setattr(jpeg_tiles, "MOST_KEPT", 3 * 256 * 256 * 3)
    with open_slide(path) as slide, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: slide.read_region(place, 0, (90, 90))[0], places))
        assert 0 < slide._tiles._bytes <= 3 * 256 * 256 * 3
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("compression", ["deflate", None])
def test_other_compressions_are_not_served(tmp_path, compression):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.zeros((300, 300, 3), np.uint8), tile=(128, 128), compression=compression)
    assert open_jpeg_tiles(path, ((300, 300),)) is None


def test_neither_a_file_without_levels_nor_one_that_is_no_tiff(tmp_path):
    path = tmp_path / "text.svs"
    path.write_text("not a slide")
    assert open_jpeg_tiles(path, ((300, 300),)) is None


def lose_bytes(data: bytes) -> bytes:
    """A stream without 300 bytes of its middle; its end is there, and zeros behind it."""
    middle = len(data) // 2
    return data[:middle] + data[middle + 300 :] + bytes(300)


@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif"])
def test_damage_that_decoders_only_warn_of_is_told_with_its_position(tmp_path, name):
    path = tmp_path / name
    image = make_phantom(HEIGHT, WIDTH, seed=3, scanner=Scanner(noise=1.0)).image
    encoded = list(tiles(image, 256, (1, 1), False))
    encoded[4] = lose_bytes(encoded[4])
    layout = {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (1, 1), "tile": (256, 256)}
    with tifffile.TiffWriter(path, ome=".ome" in name) as tiff:
        tiff.write(iter(encoded), shape=image.shape, dtype=np.uint8, **layout)
    assert imagecodecs.jpeg8_decode(encoded[4]).shape == (256, 256, 3)  # without a word
    with open_slide(path) as slide:
        slide.read_region((0, 0), 0, (256, 500))
        with pytest.raises(SlideError, match=r"256, 256"):
            slide.read_region((200, 200), 0, (100, 100))


def test_scans_that_are_lost_are_damage(tmp_path: Path) -> None:
    """Of a progressive stream the first scans alone make a picture, blurred, of which no decoder warns."""
    pixels = make_phantom(256, 256, seed=3).image
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=90, subsampling=0, progressive=True)
    whole = stream.getvalue()
    second = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 2)
    for name, data in (("whole", whole), ("lost", whole[: second + 1] + b"\xd9" + whole[second + 2 :])):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tiff:
            tiff.write(
                iter([data]), shape=pixels.shape, dtype=np.uint8, photometric="ycbcr", compression="jpeg",
                subsampling=(1, 1), tile=(256, 256), metadata=None,
            )  # fmt: skip
    with open_slide(tmp_path / "whole.tif") as slide:
        assert np.abs(slide.read_region((0, 0), 0, (256, 256))[0].astype(int) - pixels).mean() < 3
    with open_slide(tmp_path / "lost.tif") as slide, pytest.raises(SlideError, match="not whole"):
        slide.read_region((0, 0), 0, (256, 256))
