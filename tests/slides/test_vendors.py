"""Vendors' formats of which no real file is at hand: synthetic ones, as much as OpenSlide asks of them.

They are not what a scanner writes: they show that OpenSlide takes them for that vendor's and that pixels, levels,
resolution and magnification come through restain, not that every file of that vendor is read.
"""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.methods.macenko import Macenko
from restain.slides import claims
from restain.slides.batch import is_image
from restain.slides.codecs import PyramidSettings
from restain.slides.pipeline import normalize_slide
from restain.slides.reader import open_slide

SIDE = 64
LOSSLESS: dict[str, Any] = {"photometric": "rgb", "compression": "deflate", "metadata": None}
TILED: dict[str, Any] = {**LOSSLESS, "tile": (SIDE, SIDE)}


def halved(image: RGB8) -> RGB8:
    blocks = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


# ---- Leica ------------------------------------------------------------------------------------------------------


def scn(path: Path, levels: list[RGB8], macro: RGB8) -> None:
    """A collection of two images: a macro that fills it, and the slide itself, in nanometres of the glass."""
    (height, width), nanometres = levels[0].shape[:2], 500
    dimensions = [
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{number}" ifd="{number + 1}"/>'
        for number, level in enumerate(levels)
    ]
    lit = "<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>"

    def image(size: tuple[int, int], power: str, pixels: str) -> str:
        settings = f"<objectiveSettings><objective>{power}</objective></objectiveSettings>{lit}"
        view = f'<view sizeX="{size[0]}" sizeY="{size[1]}" offsetX="0" offsetY="0"/>'
        return f"<image><pixels>{pixels}</pixels>{view}<scanSettings>{settings}</scanSettings></image>"

    whole = (width * nanometres, height * nanometres)
    small = f'<dimension sizeX="{macro.shape[1]}" sizeY="{macro.shape[0]}" r="0" ifd="0"/>'
    text = (
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="{whole[0]}" sizeY="{whole[1]}">{image(whole, "0.6", small)}'
        # What is as large as the collection is a macro.
        f"{image((whole[0], whole[1] - 1), '20', ''.join(dimensions))}</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(macro, description=text, **TILED)
        for number, level in enumerate(levels):
            step = 10_000 / (nanometres / 1000 * 2**number)
            tiff.write(level, resolution=(step, step), resolutionunit="CENTIMETER", **TILED)


# ---- Philips ----------------------------------------------------------------------------------------------------


def philips(path: Path, levels: list[RGB8], macro: RGB8) -> None:
    def attribute(name: str, value: str) -> str:
        return f'<Attribute Name="{name}">{value}</Attribute>'

    def array(kind: str, *items: str) -> str:
        objects = (f'<DataObject ObjectType="{kind}">{item}</DataObject>' for item in items)
        return f"<Array>{''.join(objects)}</Array>"

    spacings = [f"&quot;{0.0005 * 2**number}&quot; &quot;{0.0005 * 2**number}&quot;" for number in range(len(levels))]
    pixels = array("PixelDataRepresentation", *(attribute("DICOM_PIXEL_SPACING", each) for each in spacings))
    whole = (
        attribute("PIM_DP_IMAGE_TYPE", "WSI")
        + attribute("DICOM_PIXEL_SPACING", spacings[0])
        + attribute("DICOM_DERIVATION_DESCRIPTION", "tiff-useBigTIFF=1-levels=20,10002-compression=JPEG")
        + attribute("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", pixels)
    )
    images = attribute("PIM_DP_SCANNED_IMAGES", array("DPScannedImage", whole))
    text = f'<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">{images}</DataObject>'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            facts = {"subfiletype": int(number > 0), "description": text if number == 0 else ""}
            tiff.write(level, software="Philips DP v1.0", **facts, **TILED)
        tiff.write(macro, description="Macro", software="Philips DP v1.0", **LOSSLESS)


# ---- Ventana ----------------------------------------------------------------------------------------------------


def bif(path: Path, levels: list[RGB8], macro: RGB8) -> None:
    """One area of tiles that lie side by side. They are numbered from below, every other row from right to left."""
    across, down = levels[0].shape[1] // SIDE, levels[0].shape[0] // SIDE

    def number(column: int, row: int) -> int:
        below = down - 1 - row
        return below * across + (across - 1 - column if below % 2 else column) + 1

    def joint(direction: str, first: int, second: int) -> str:
        facts = 'FlagJoined="1" Confidence="100" OverlapX="0" OverlapY="0"'
        return f'<TileJointInfo {facts} Direction="{direction}" Tile1="{first}" Tile2="{second}"/>'

    places = [(column, row) for row in range(down) for column in range(across)]
    joints = [joint("RIGHT", number(x, y), number(x + 1, y)) for x, y in places if x + 1 < across]
    joints += [joint("UP", number(x, y), number(x, y - 1)) for x, y in places if y > 0]
    area = f'AOIScanned="1" Width="{SIDE}" Height="{SIDE}" NumCols="{across}" NumRows="{down}" Pos-X="0" Pos-Y="0"'
    encoded = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo {area}>{"".join(joints)}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    scanned = '<Metadata><iScan Magnification="20" ScanRes="0.5" Z-layers="1" UnitNumber="1"/></Metadata>'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(macro, description="Label Image", extratags=[packet(scanned)], **LOSSLESS)
        for level, image in enumerate(levels):
            tags = [packet(encoded)] if level == 0 else []
            text = f"level={level} mag={20 / 2**level:g} quality=95"
            tiff.write(image, description=text, extratags=tags, **TILED)


def packet(text: str) -> tuple[Any, ...]:
    return (700, "B", len(text), text.encode(), True)  # XMLPacket


# ---- Hamamatsu --------------------------------------------------------------------------------------------------


def ndpi(path: Path, levels: list[RGB8], macro: RGB8) -> None:
    """A TIFF of 64 bits with 32 in the usual places; levels are single JPEG strips with restart markers."""
    data = bytearray(b"II*\0" + bytes(8))
    pointer = 4
    for number, (image, lens) in enumerate([*((level, 20.0) for level in levels), (macro, -1.0)]):
        (height, width), step = image.shape[:2], round(10_000 / (0.5 * 2**number))
        at, strip = len(data), as_jpeg(image, restart_marker_blocks=SIDE // 8)
        data += strip + bytes(len(strip) % 2)
        rational, name = len(data), len(data) + 8
        data += struct.pack("<II", step, 1) + b"Hamamatsu\0"
        entries = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 6),
            (271, 2, 10, name), (273, 4, 1, at), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(strip)),
            (282, 5, 1, rational), (283, 5, 1, rational), (296, 3, 1, 3), (65420, 4, 1, 1),
            (65421, 11, 1, struct.unpack("<I", struct.pack("<f", lens))[0]), (65424, 9, 1, 0),
        ]  # fmt: skip
        struct.pack_into("<Q", data, pointer, len(data))
        data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        pointer = len(data)
        data += bytes(8 + 4 * len(entries))  # where the next is, and the upper halves of this one's values
    path.write_bytes(data)


# ---- 3DHISTECH --------------------------------------------------------------------------------------------------


def mirax(path: Path, levels: list[RGB8], macro: RGB8) -> None:
    """A folder beside the slide: settings, JPEG tiles end to end, and an index of lists that point to them.

    White tiles are left out, as the scanner leaves out most of the glass.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    across, down = levels[0].shape[1] // SIDE, levels[0].shape[0] // SIDE
    data, lists = bytearray(), []
    for level, image in enumerate(levels):
        entries = []
        for row in range(image.shape[0] // SIDE):
            for column in range(image.shape[1] // SIDE):
                tile = image[row * SIDE : row * SIDE + SIDE, column * SIDE : column * SIDE + SIDE]
                if (tile == 255).all():
                    continue
                jpeg = as_jpeg(tile)
                entries.append((row * 2**level * across + column * 2**level, len(data), len(jpeg), 0))
                data += jpeg
        lists.append(entries)
    lists.append([(0, len(data), len(as_jpeg(macro)), 0)])
    data += as_jpeg(macro)
    (folder / "Data0000.dat").write_bytes(data)

    index = bytearray(b"01.02" + b"0123" + bytes(8))
    pointers = []
    for number, entries in enumerate(lists):
        pointers.append(len(index))
        index += struct.pack("<ii", 0, len(index) + 8)
        if number < len(levels):
            index += struct.pack("<ii", len(entries), 0) + b"".join(struct.pack("<4i", *entry) for entry in entries)
        else:  # what is no level has two zeros before it
            ((_, at, count, file),) = entries
            index += struct.pack("<ii5i", 1, 0, 0, 0, at, count, file)
    struct.pack_into("<ii", index, 9, len(index), len(index) + 4 * len(levels))
    index += struct.pack(f"<{len(pointers)}i", *pointers)
    (folder / "Index.dat").write_bytes(index)

    sections = [f"LAYER_0_LEVEL_{level}_SECTION" for level in range(len(levels))]
    lines = [
        "[GENERAL]", "SLIDE_VERSION = 01.02", "SLIDE_ID = 0123", f"IMAGENUMBER_X = {across}",
        f"IMAGENUMBER_Y = {down}", "OBJECTIVE_MAGNIFICATION = 20", "[HIERARCHICAL]", "INDEXFILE = Index.dat",
        "HIER_COUNT = 1", "HIER_0_NAME = Slide zoom level", f"HIER_0_COUNT = {len(levels)}",
        *(f"HIER_0_VAL_{level}_SECTION = {section}" for level, section in enumerate(sections)),
        "NONHIER_COUNT = 1", "NONHIER_0_NAME = Scan data layer", "NONHIER_0_COUNT = 1",
        "NONHIER_0_VAL_0 = ScanDataLayer_SlideThumbnail", "NONHIER_0_VAL_0_SECTION = THUMBNAIL",
        "[DATAFILE]", "FILE_COUNT = 1", "FILE_0 = Data0000.dat",
        "[THUMBNAIL]", "THUMBNAIL_IMAGE_TYPE = JPEG",
    ]  # fmt: skip
    for level, section in enumerate(sections):
        lines += [
            f"[{section}]", "OVERLAP_X = 0", "OVERLAP_Y = 0", f"MICROMETER_PER_PIXEL_X = {0.5 * 2**level}",
            f"MICROMETER_PER_PIXEL_Y = {0.5 * 2**level}", "IMAGE_FORMAT = JPEG", "IMAGE_FILL_COLOR_BGR = 16777215",
            f"DIGITIZER_WIDTH = {SIDE}", f"DIGITIZER_HEIGHT = {SIDE}", f"IMAGE_CONCAT_FACTOR = {int(level > 0)}",
        ]  # fmt: skip
    (folder / "Slidedat.ini").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig", newline="")
    path.write_bytes(as_jpeg(macro))


def as_jpeg(image: RGB8, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "jpeg", quality=100, subsampling=0, **options)
    return stream.getvalue()


# ---- what comes through -----------------------------------------------------------------------------------------

VENDORS: dict[str, tuple[Callable[[Path, list[RGB8], RGB8], None], str]] = {
    "leica": (scn, "slide.scn"),
    "philips": (philips, "slide.tiff"),
    "ventana": (bif, "slide.bif"),
    "hamamatsu": (ndpi, "slide.ndpi"),
    "mirax": (mirax, "slide.mrxs"),
}
JPEG = ("hamamatsu", "mirax")


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(vendor: str, tissue: RGB8, folder: Path) -> tuple[Path, list[RGB8]]:
    write, name = VENDORS[vendor]
    levels = [tissue[:256, :384]]
    levels.append(halved(levels[0]))
    write(folder / name, levels, tissue[:128, :192])
    return folder / name, levels


def test_a_synthetic_slide(vendor: str, tissue: RGB8, tmp_path: Path) -> None:
    path, levels = written(vendor, tissue, tmp_path)
    with open_slide(path) as slide:
        assert slide.format == f"openslide: {vendor}"
        # Of JPEG OpenSlide makes smaller levels on its own.
        assert slide.level_dimensions[: 2 if vendor == "hamamatsu" else None] == ((384, 256), (192, 128))
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert slide.objective_power == 20
        assert "macro" in slide.associated_images
        for number, level in enumerate(levels):
            pixels, known = slide.read_region((0, 0), number, slide.level_dimensions[number])
            assert known is None
            error = np.abs(pixels.astype(int) - level)
            assert error.max() <= (12 if vendor in JPEG else 0)
            assert error.mean() < 1
        x, y = 67, 129
        pixels, _ = slide.read_region((x, y), 0, (130, 70))
        assert np.abs(pixels.astype(int) - levels[0][y : y + 70, x : x + 130]).max() <= 12


def test_a_synthetic_slide_normalized(vendor: str, fitted: Macenko, tissue: RGB8, tmp_path: Path) -> None:
    path, levels = written(vendor, tissue, tmp_path)
    settings = PyramidSettings(tile=64, compression="deflate")
    normalize_slide(path, tmp_path / "out.tif", fitted, settings=settings)
    tifffile.imwrite(tmp_path / "plain.tif", levels[0], **TILED, resolution=(20_000, 20_000), resolutionunit=3)
    normalize_slide(tmp_path / "plain.tif", tmp_path / "wanted.tif", fitted, settings=settings)
    got, wanted = (tifffile.imread(tmp_path / name, level=0).astype(int) for name in ("out.tif", "wanted.tif"))
    assert np.abs(got - wanted).mean() <= (1.5 if vendor in JPEG else 0)
    with open_slide(tmp_path / "out.tif") as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5))


def test_folders_are_searched_for_every_vendor_s_slides(tmp_path: Path) -> None:
    for ending in ("svs", "ndpi", "vms", "scn", "mrxs", "bif", "svslide", "czi", "tiff", "dcm"):
        assert is_image(tmp_path / f"SLIDE.{ending.upper()}")


def test_tiles_that_a_scanner_left_out_stay_left_out(tissue: RGB8, fitted: Macenko, tmp_path: Path) -> None:
    levels = [tissue[:256, :384].copy()]
    levels[0][64:128, 128:192] = 255
    mirax(tmp_path / "slide.mrxs", levels, tissue[:128, :192])
    normalize_slide(tmp_path / "slide.mrxs", tmp_path / "out.tif", fitted, settings=PyramidSettings(tile=64))
    hole = np.zeros((256, 384), np.bool_)
    hole[64:128, 128:192] = True
    for name in ("slide.mrxs", "out.tif"):
        with open_slide(tmp_path / name) as slide:
            _, known = slide.read_region((0, 0), 0, slide.dimensions)
            assert known is not None
            np.testing.assert_array_equal(~known, hole)


def test_levels_of_one_strip_are_no_reason_to_refuse_a_slide(
    tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hamamatsu's are as high as the slide; what would have to be decoded as a whole elsewhere is read in pieces."""
    path, levels = written("hamamatsu", tissue, tmp_path)
    monkeypatch.setattr(claims, "LARGEST_TILE", 64 * 64)
    with open_slide(path) as slide:
        assert slide.dimensions == (384, 256)
    tifffile.imwrite(tmp_path / "strip.tif", levels[0], photometric="rgb", rowsperstrip=256)
    with pytest.raises(SlideError, match="tiles or strips of 384x256"):
        open_slide(tmp_path / "strip.tif")
