"""Glass that is mapped as coefficients is what decoding, mapping and encoding make of it; all else goes that way."""

import io
import math
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import idctn

import restain
from restain.color.colormap import ColorMap
from restain.color.images import RGB8
from restain.phantom import Scanner, make_phantom
from restain.slides import glass_kernels, glass_tiles
from restain.slides.codecs import EncodedTile, PyramidSettings, encode_tile
from restain.slides.glass_tiles import GlassBox, GlassTiles, find_glass_box
from restain.slides.jpeg_stream import parse_stream
from restain.slides.reader import JpegPiece, Slide, open_slide

from .jpeg_writer import write_jpeg
from .making import write_with_holes

WHITE = np.array([243.0, 240.0, 238.0])
SETTINGS = PyramidSettings(tile=64)
IDENTITY = ColorMap.identity()
EVERYTHING = GlassBox(np.full(3, -1e4, np.float32), np.full(3, 1e4, np.float32), np.eye(3, 4, dtype=np.float32))
NOTHING = GlassBox(np.full(3, 300, np.float32), np.full(3, 400, np.float32), np.eye(3, 4, dtype=np.float32))


def glass(height: int, width: int, seed: int = 0, noise: float = 0.8) -> RGB8:
    """Empty glass with a sensor's noise and a slow change of light."""
    generator = np.random.default_rng(seed)
    light = np.linspace(-1.0, 1.0, width)[None, :, None]
    return np.clip(np.rint(WHITE + light + generator.normal(0, noise, (height, width, 3))), 0, 255).astype(np.uint8)


def jpeg(pixels: RGB8, *, quality: int = 90, ycbcr: bool = True, subsampling: str = "444") -> bytes:
    colors = "ycbcr" if ycbcr else "rgb"
    return imagecodecs.jpeg8_encode(
        np.ascontiguousarray(pixels), level=quality, colorspace="rgb", outcolorspace=colors, subsampling=subsampling
    )


def scaled(gain: NDArray[Any]) -> ColorMap:
    return ColorMap.from_function(lambda colors: colors * gain, lazy=True)


class OneTile(Slide):
    """A slide of one tile, given as its stream."""

    def __init__(self, data: bytes, side: int = 64, *, ycbcr: bool = True) -> None:
        super().__init__(Path("tile.tif"), "test")
        self.level_dimensions = ((side, side),)
        window = (0, 0, side, side)
        self._piece = JpegPiece(data, b"", ycbcr, (side, side), window, (0, 0))

    def jpeg_pieces(
        self, location: tuple[int, int], size: tuple[int, int], longest: float = math.inf
    ) -> list[JpegPiece]:
        return [self._piece]


def mapped(data: bytes, color_map: ColorMap, box: GlassBox, *, ycbcr: bool = True) -> EncodedTile | None:
    return GlassTiles(OneTile(data, ycbcr=ycbcr), color_map, box, SETTINGS).encode(0, 0)


# ---- streams --------------------------------------------------------------------------------------------------------


def test_tables_are_those_of_the_standard() -> None:
    stream = parse_stream(jpeg(glass(64, 64), quality=50))
    assert stream is not None
    assert stream.size == (64, 64)
    # ITU-T T.81, tables K.1 and K.2 in zigzag order, and K.3: category 0 is 00, category 11 is 111111110.
    assert stream.quant[0, :6].tolist() == [16, 11, 12, 14, 12, 10]
    assert stream.quant[1, :6].tolist() == stream.quant[2, :6].tolist() == [17, 18, 18, 24, 21, 24]
    assert stream.dc_codes[0, 0] == 0b00 << 5 | 2
    assert stream.dc_codes[0, 11] == 0b111111110 << 5 | 9
    assert stream.ac_codes[0, 0x00] == 0b1010 << 5 | 4
    assert stream.ac_codes[0, 0xF0] == 0b11111111001 << 5 | 11


def test_streams_of_another_kind_are_left_alone() -> None:
    plain = jpeg(glass(64, 64))
    buffer = io.BytesIO()
    Image.fromarray(glass(64, 64)).save(buffer, "JPEG", progressive=True, subsampling=0)
    for data in (
        b"", b"\xff\xd8", b"no JPEG at all", plain[2:], plain[:300], buffer.getvalue(),
        plain[:2] + 2 * (b"\xff\xe2\x90\x00" + bytes(0x8FFE)) + plain[2:],  # a profile in every tile
        jpeg(glass(64, 64), subsampling="420"), imagecodecs.jpeg8_encode(glass(64, 64)[..., 0].copy(), level=90),
    ):  # fmt: skip
        assert parse_stream(data) is None
    assert parse_stream(plain) is not None


def test_headers_that_no_decoder_takes_are_left_alone() -> None:
    plain = jpeg(glass(64, 64))
    frame, codes, scan = plain.index(b"\xff\xc0"), plain.index(b"\xff\xc4"), plain.index(b"\xff\xda")
    symbol = plain.index(bytes(range(12)), codes)  # the lengths of differences
    for data in (
        plain[:frame] + plain[frame : frame + 19] + plain[frame:],  # two frames
        plain[:symbol] + b"\x10" + plain[symbol + 1 :],  # a difference of 16 bits
        plain[: codes + 4] + b"\x05" + plain[codes + 5 : scan + 6] + b"\x50" + plain[scan + 7 :],  # a sixth table
    ):
        assert parse_stream(data) is None
        with pytest.raises(ValueError, match=r"."):
            simplejpeg.decode_jpeg(data, strict=True)


def test_tables_may_be_kept_apart() -> None:
    data = jpeg(glass(64, 64))
    first, frame = data.index(b"\xff\xdb"), data.index(b"\xff\xc0")
    tables, short = data[first:frame], data[:first] + data[frame:]
    with_tables, without = parse_stream(data), parse_stream(short, tables)
    assert with_tables is not None
    assert without is not None
    assert parse_stream(short) is None
    np.testing.assert_array_equal(with_tables.quant, without.quant)


@given(st.integers(0, 2**32 - 1), st.integers(60, 100), st.floats(0, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_what_is_written_back_is_what_was_read(seed: int, quality: int, noise: float, ycbcr: bool) -> None:
    data = jpeg(glass(64, 64, seed, noise), quality=quality, ycbcr=ycbcr)
    pixels = imagecodecs.jpeg8_decode(data)
    tile = mapped(data, IDENTITY, EVERYTHING, ycbcr=ycbcr)
    if tile is None:  # no room for so many coefficients
        assert len(data) > 64 * 64 / 4
        return
    assert tile.half is not None
    again = encode_tile(pixels, SETTINGS)
    difference = imagecodecs.jpeg8_decode(tile.data).astype(int) - pixels
    usual = imagecodecs.jpeg8_decode(again.data).astype(int) - pixels
    assert np.abs(difference).mean() <= np.abs(usual).mean() + 0.1
    assert np.abs(difference).max() <= np.abs(usual).max() + 1
    assert again.half is not None
    assert np.abs(tile.half.astype(int) - again.half).max() <= 1


@pytest.mark.parametrize("first", [-1024, -1000, 1016, 1023])
def test_codes_may_be_as_long_as_they_can_be(first: int) -> None:
    """16 bits and up to 11 behind them, from the first on; also of levels that are cut off at 0 and 255."""
    coefficients = np.zeros((64, 3, 64), np.int64)
    coefficients[:, :, 0] = np.random.default_rng(abs(first)).integers(-40, 40, (64, 3)).cumsum(axis=0)
    coefficients[:, 0, 0] = first
    data = write_jpeg(coefficients, (64, 64))
    tile = mapped(data, IDENTITY, NOTHING)
    assert tile is not None
    assert tile.data == encode_tile(simplejpeg.decode_jpeg(data, strict=True), SETTINGS).data


@given(st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=3), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_damage_is_survived(seed: int, junk: bytes, where: float) -> None:
    data = jpeg(glass(64, 64, seed % 7))
    at = int(where * len(data))
    tile = mapped(data[:at] + junk + data[at + len(junk) :], IDENTITY, EVERYTHING)
    assert tile is None or imagecodecs.jpeg8_decode(tile.data).shape == (64, 64, 3)


@given(st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=3), st.floats(0, 1), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_what_libjpeg_warns_of_goes_the_usual_way(seed: int, junk: bytes, where: float, lost: int) -> None:
    data = jpeg(glass(64, 64, seed % 7))
    scan = data.index(b"\xff\xda") + 14
    at = scan + int(where * (len(data) - scan))
    damaged = data[:at] + junk + data[at + lost :]
    if mapped(damaged, IDENTITY, EVERYTHING) is not None:
        simplejpeg.decode_jpeg(damaged, strict=True)  # raises


def test_what_has_no_end_or_more_behind_it_goes_the_usual_way() -> None:
    data = jpeg(glass(64, 64))
    assert mapped(data, IDENTITY, EVERYTHING) is not None
    for cut in (data[:-2], data[:-10] + data[-2:], data[:-2] + b"\x12" + data[-2:], data[: len(data) // 2]):
        assert mapped(cut, IDENTITY, EVERYTHING) is None


# ---- glass ----------------------------------------------------------------------------------------------------------


def test_the_box_is_where_the_map_is_affine() -> None:
    gain = np.array([0.97, 1.01, 1.02])
    box = find_glass_box(scaled(gain), WHITE)
    assert box is not None
    np.testing.assert_array_equal(box.lowest, WHITE - 12.5)
    np.testing.assert_allclose(box.change[:, :3] @ WHITE + box.change[:, 3], WHITE * gain, atol=0.5)
    np.testing.assert_allclose(box.change[:, :3].diagonal(), gain, atol=0.05)


def test_there_is_no_box_where_the_map_is_bent() -> None:
    step = ColorMap.from_function(lambda colors: np.where(colors > WHITE, 250.0, 200.0), lazy=True)
    assert find_glass_box(step, WHITE) is None
    bent = ColorMap.from_function(lambda colors: np.where(colors < WHITE - 6, colors - 30, colors * 1.0), lazy=True)
    box = find_glass_box(bent, WHITE)
    assert box is not None
    assert (box.lowest == WHITE - 6.5).all()


@pytest.mark.parametrize("ycbcr", [True, False])
def test_glass_is_mapped_as_its_pixels_are(ycbcr: bool) -> None:
    data = jpeg(glass(64, 64), ycbcr=ycbcr)
    color_map = scaled(np.array([0.97, 1.01, 1.02]))
    box = find_glass_box(color_map, WHITE)
    assert box is not None
    tile = mapped(data, color_map, box, ycbcr=ycbcr)
    assert tile is not None
    assert tile.half is not None
    wanted = color_map(imagecodecs.jpeg8_decode(data)).astype(int)
    usual = encode_tile(wanted.astype(np.uint8), SETTINGS)
    difference = imagecodecs.jpeg8_decode(tile.data).astype(int) - wanted
    theirs = imagecodecs.jpeg8_decode(usual.data).astype(int) - wanted
    assert np.abs(difference).max() <= np.abs(theirs).max() + 1
    assert np.abs(difference).mean() <= np.abs(theirs).mean() + 0.1
    assert np.abs(difference.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1))).max() < 0.375  # a step of quantization
    assert usual.half is not None
    assert np.abs(tile.half.astype(int) - usual.half).max() <= 1
    assert len(tile.data) < 1.2 * len(usual.data)


@pytest.mark.parametrize("quality", [40, 67, 90, 100])
def test_glass_without_noise_is_exactly_what_it_is_the_usual_way(quality: int) -> None:
    blocks = np.random.default_rng(quality).integers(225, 256, (8, 8, 3), dtype=np.uint8)
    blocks[::2] = np.random.default_rng(quality).choice([0, 3, 128, 251, 255], (4, 8, 3))  # whatever the colour
    data = jpeg(blocks.repeat(8, axis=0).repeat(8, axis=1), quality=quality)
    color_map = ColorMap.from_function(lambda colors: 250 * (colors / 255.0) ** 1.3, lazy=True)
    tile = mapped(data, color_map, NOTHING)
    usual = encode_tile(color_map(imagecodecs.jpeg8_decode(data)), SETTINGS)
    assert tile is not None
    assert tile.data == usual.data
    np.testing.assert_array_equal(tile.half, usual.half)


def test_dust_goes_through_the_table() -> None:
    pixels = glass(64, 64)
    pixels[20:23, 30:33] = (120, 60, 90)
    data = jpeg(pixels)
    color_map = ColorMap.from_function(lambda colors: np.minimum(colors * 0.98, 60 + colors * 1.2), lazy=True)  # bent
    box = find_glass_box(color_map, WHITE)
    assert box is not None
    tile = mapped(data, color_map, box)
    assert tile is not None
    assert tile.half is not None
    wanted = color_map(imagecodecs.jpeg8_decode(data))
    usual = encode_tile(wanted, SETTINGS)
    theirs, ours = (imagecodecs.jpeg8_decode(each.data).astype(int) for each in (usual, tile))
    assert np.abs(ours - wanted).max() <= np.abs(theirs - wanted).max() + 2
    assert np.abs(ours - theirs).max() <= 3
    assert usual.half is not None
    assert np.abs(tile.half.astype(int) - usual.half).max() <= 2


def test_waves_around_dust_are_cut_off_at_white() -> None:
    pixels = np.full((64, 64, 3), (254, 250, 240), np.uint8)
    pixels[20:22, 30:33] = (20, 0, 90)
    data = jpeg(pixels, quality=60)
    decoded = imagecodecs.jpeg8_decode(data)
    tile = GlassTiles(OneTile(data), IDENTITY, NOTHING, PyramidSettings(tile=64, quality=100)).encode(0, 0)
    assert tile is not None
    assert np.abs(imagecodecs.jpeg8_decode(tile.data).astype(int) - decoded).max() <= 3


def test_a_tile_of_tissue_goes_the_usual_way(tissue: RGB8) -> None:
    box = find_glass_box(IDENTITY, WHITE)
    assert box is not None
    assert mapped(jpeg(tissue[:64, :64]), IDENTITY, box) is None
    assert mapped(jpeg(glass(64, 64)), IDENTITY, NOTHING) is None


# ---- slides ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse() -> RGB8:
    """Tissue in a corner, glass elsewhere."""
    image = glass(512, 640)
    image[40:300, 60:330] = make_phantom(260, 270, seed=5, scanner=Scanner(white=tuple(WHITE), noise=1.0)).image
    return image


def write(path: Path, image: RGB8, tile: int, *, ycbcr: bool = True) -> None:
    rows, columns = (-(-length // tile) for length in image.shape[:2])
    rest = ((0, rows * tile - image.shape[0]), (0, columns * tile - image.shape[1]), (0, 0))
    padded = np.pad(image, rest, mode="edge")
    streams = (
        jpeg(padded[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile], ycbcr=ycbcr)
        for row in range(rows)
        for column in range(columns)
    )
    colors = {"photometric": "ycbcr"} if ycbcr else {"photometric": "rgb", "compressionargs": {"outcolorspace": "rgb"}}
    tifffile.imwrite(
        path, streams, shape=image.shape, dtype=np.uint8, tile=(tile, tile), compression="jpeg",
        subsampling=(1, 1), metadata=None, resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER", **colors,
    )  # fmt: skip


@pytest.mark.parametrize("ending", [".tif", ".ome.tif", ".dcm"])
@pytest.mark.parametrize(("tile", "ycbcr"), [(64, True), (48, True), (128, False)])
def test_a_slide_looks_as_if_every_tile_had_been_decoded(
    tile: int, ycbcr: bool, ending: str, sparse: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ending == ".dcm":
        pytest.importorskip("wsidicom")
    write(tmp_path / "slide.tif", sparse, tile, ycbcr=ycbcr)
    short: list[tuple[int, int]] = []
    encode = GlassTiles.encode

    def counted(self: GlassTiles, x: int, y: int) -> EncodedTile | None:
        result = encode(self, x, y)
        short.extend([(x, y)] if result is not None else [])
        return result

    def normalized(name: str) -> Path:
        output = tmp_path / f"{name}{ending}"
        restain.normalize_slide(
            tmp_path / "slide.tif", output, restain.Macenko().fit("he"), settings=SETTINGS, workers=2
        )
        return output

    monkeypatch.setattr(GlassTiles, "encode", counted)
    short_way = normalized("short")
    assert len(short) > 30  # of 80, 25 of which hold tissue
    monkeypatch.setattr("restain.slides.pipeline.glass_tiles", lambda *_: None)
    usual_way = normalized("usual")
    with open_slide(short_way) as first, open_slide(usual_way) as second:
        assert first.level_dimensions == second.level_dimensions
        for level, size in enumerate(first.level_dimensions):
            ours, theirs = (slide.read_region((0, 0), level, size)[0].astype(int) for slide in (first, second))
            assert np.abs(ours - theirs).mean() < 0.5
            assert (np.abs(ours - theirs) > 4).sum() <= 10 + 5e-4 * ours.size


def test_a_forgiving_slide_takes_the_same_ways(sparse: RGB8, tmp_path: Path) -> None:
    write(tmp_path / "slide.tif", sparse, 64)
    outputs = []
    for on_error in ("stop", "skip"):
        outputs.append(tmp_path / f"{on_error}.tif")
        normalizer = restain.Macenko().fit("he")
        restain.normalize_slide(
            tmp_path / "slide.tif", outputs[-1], normalizer, settings=SETTINGS, on_error=on_error, workers=2
        )
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_the_short_way_is_only_for_jpeg_in_full_color(sparse: RGB8, tmp_path: Path) -> None:
    write(tmp_path / "slide.tif", sparse, 64)
    with open_slide(tmp_path / "slide.tif") as slide:
        assert glass_tiles.glass_tiles(slide, IDENTITY, WHITE, SETTINGS) is not None
        for other in ({"subsampling": "420"}, {"compression": "deflate"}, {"format": "ome-zarr"}):
            settings = PyramidSettings(tile=64, **other)
            assert glass_tiles.glass_tiles(slide, IDENTITY, WHITE, settings) is None


def test_a_first_tile_that_is_missing_costs_the_others_nothing(tmp_path: Path) -> None:
    write_with_holes(tmp_path / "slide.tif", glass(128, 192), {(0, 0)}, settings=SETTINGS)
    with open_slide(tmp_path / "slide.tif") as slide:
        tiles = glass_tiles.glass_tiles(slide, IDENTITY, WHITE, SETTINGS)
        assert tiles is not None
        assert tiles.encode(0, 0) is None
        assert tiles.encode(64, 64) is not None


@pytest.mark.parametrize(("side", "short"), [(32, True), (112, False), (128, True), (256, False)])
def test_tiles_much_larger_than_those_written_are_decoded_once_instead(side: int, short: bool, tmp_path: Path) -> None:
    write(tmp_path / "slide.tif", glass(256, 256), side)
    with open_slide(tmp_path / "slide.tif") as slide:
        tiles = glass_tiles.glass_tiles(slide, IDENTITY, WHITE, SETTINGS)
        assert (tiles is not None and tiles.encode(64, 64) is not None) == short


def test_basis_is_the_transform_of_a_library() -> None:
    for wave in (0, 1, 2, 5, 20, 63):
        vertical, horizontal = glass_kernels._zigzag()[wave]
        one = np.zeros((8, 8))
        one[vertical, horizontal] = 1.0
        np.testing.assert_allclose(glass_kernels.BASIS[wave].reshape(8, 8), idctn(one, norm="ortho"), atol=1e-6)


@pytest.mark.parametrize("side", [16, 32])
def test_the_smallest_tiles_have_room_for_their_last_blocks(side: int) -> None:
    settings = PyramidSettings(tile=side)
    data = jpeg(glass(side, side))
    tile = GlassTiles(OneTile(data, side), IDENTITY, EVERYTHING, settings).encode(0, 0)
    assert tile is not None
    assert np.abs(imagecodecs.jpeg8_decode(tile.data).astype(int) - imagecodecs.jpeg8_decode(data)).max() <= 3
