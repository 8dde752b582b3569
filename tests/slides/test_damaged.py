"""Files that are not what they seem: a `SlideError` of one line, never another exception, never wrong pixels."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.slides.reader import open_slide
from restain.slides.writer import PyramidSettings, write_array

from .making import Write, picture, small_pyramid, tiff, tiff_with_subifds


def read_all(path: Path) -> list[RGB8]:
    """Every level, tile by tile as the pipeline reads, and a thumbnail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged resolution may be told
        with open_slide(path) as slide:
            levels = []
            for level, (width, height) in enumerate(slide.level_dimensions):
                scale = slide.level_downsamples[level]
                rows = [
                    slide.read_region((0, round(top * scale)), level, (width, min(64, height - top)))[0]
                    for top in range(0, height, 64)
                ]
                levels.append(np.concatenate(rows))
            slide.thumbnail(50)
            return levels


def refusal(path: Path) -> str | None:
    """What the `SlideError` says, None where everything can be read."""
    try:
        read_all(path)
    except SlideError as error:
        return str(error)
    return None


KINDS: dict[str, Write] = {
    "pyramid.tif": small_pyramid,
    "subifds.ome.tif": tiff_with_subifds,
    "deflate.tif": tiff(tile=(64, 64), compression="deflate"),
    "webp.tif": tiff(tile=(64, 64), compression="webp"),
    "jpeg2000.tif": tiff(tile=(64, 64), compression="jpeg2000"),
    "strips.tif": tiff(rowsperstrip=16, compression="lzw"),
    "pillow.tif": picture(),
    "i.png": picture(),
    "i.jpg": picture(),
    "progressive.jpg": picture(progressive=True),
    "i.webp": picture(),
    "i.bmp": picture(),
    "i.gif": picture(),
    "i.jp2": picture(),
    "i.ppm": picture(),
}


@pytest.fixture(scope="module", params=KINDS)
def file(request: pytest.FixtureRequest, tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("whole") / request.param
    KINDS[request.param](path, tissue[:150, :200].copy())
    return path


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.999])
def test_truncated_files(share: float, file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    path = tmp_path / file.name
    path.write_bytes(data[: max(int(share * len(data)), 5)])
    said = refusal(path)
    if said is None:  # only what is not needed is missing, such as smaller levels or the end of a directory
        assert share > 0.5
        for level, wanted in zip(read_all(path), read_all(file), strict=False):
            np.testing.assert_array_equal(level, wanted)
    else:
        assert file.name in said
        assert "\n" not in said


def test_a_tile_cut_in_two_is_not_filled_with_gray(tissue: RGB8, tmp_path: Path) -> None:
    """JPEG decoders fill what is missing; a copy that was interrupted must not become a slide with gray tiles."""
    path = tmp_path / "slide.tif"
    write_array(path, tissue[:256, :256], settings=PyramidSettings(tile=64))
    with tifffile.TiffFile(path) as handle:
        end = handle.pages[0].dataoffsets[-1] + int(0.8 * handle.pages[0].databytecounts[-1])
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(SlideError, match=r"slide\.tif"):
        read_all(path)


@pytest.mark.parametrize("seed", range(12))
def test_bytes_changed_at_random(seed: int, file: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    data = bytearray(file.read_bytes())
    for place in generator.integers(len(data) // 20, len(data), 5):
        data[place] ^= int(generator.integers(1, 256))
    path = tmp_path / file.name
    path.write_bytes(data)
    assert "\n" not in (refusal(path) or "")


@pytest.mark.parametrize("name", ["a.tif", "a.svs", "a.png", "a.jpg", "a.dcm", "a"])
@pytest.mark.parametrize(
    "content",
    [
        b"these are words, not pixels\n" * 50,
        np.random.default_rng(0).bytes(5000),
        b"II*\0" + np.random.default_rng(1).bytes(5000),
        b"MM\0+" + np.random.default_rng(2).bytes(5000),
        b"\x89PNG\r\n\x1a\n" + np.random.default_rng(3).bytes(5000),
        b"\xff\xd8\xff\xe0" + np.random.default_rng(4).bytes(5000),
        b"II*\0\x08\0\0\0",
        b"\0" * 5000,
        b"I",
    ],
    ids=["words", "random", "II", "MM", "PNG", "JPEG", "header alone", "zeros", "one byte"],
)
def test_other_content(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    with pytest.raises(SlideError, match=r"a\.svs is empty \(0 bytes\)"):
        open_slide(tmp_path / "a.svs")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"a\.svs does not exist"):
        open_slide(tmp_path / "a.svs")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="is a folder"):
        open_slide(tmp_path)


def test_a_folder_that_only_claims_to_be_dicom(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_text("no DICOM")
    with pytest.raises(SlideError):
        open_slide(tmp_path)


def test_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "a.svs").symlink_to(tmp_path / "gone.svs")
    with pytest.raises(SlideError, match="does not exist"):
        open_slide(tmp_path / "a.svs")


@pytest.mark.parametrize("name", ["tiles.tif", "i.png", "i.jpg"])
def test_a_damaged_icc_profile(name: str, tissue: RGB8, tmp_path: Path) -> None:
    """The pixels are whole: whether they are read or refused, it is with one readable line."""
    path = tmp_path / name
    if name == "tiles.tif":
        tifffile.imwrite(path, tissue, photometric="rgb", tile=(64, 64), iccprofile=b"no profile" * 20)
    else:
        Image.fromarray(tissue).save(path, icc_profile=b"no profile" * 20)
    assert "\n" not in (refusal(path) or "")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("TileWidth", 0),
        ("TileLength", 0),
        ("ImageWidth", 0),
        ("ImageLength", 0),
        ("SamplesPerPixel", 2),
        ("PlanarConfiguration", 9),
        ("PhotometricInterpretation", 77),
        ("Compression", 4242),
        ("XResolution", (1, 0)),
        ("XResolution", (0, 0)),
        ("ResolutionUnit", 99),
    ],
)
@pytest.mark.parametrize("compression", ["deflate", "webp"])  # OpenSlide reads the one and not the other
def test_impossible_tags(tag: str, value: Any, compression: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    options: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, tissue, photometric="rgb", tile=(64, 64), compression=compression, **options)
    with tifffile.TiffFile(path, mode="r+b") as handle:
        handle.pages[0].tags[tag].overwrite(value)
    assert "\n" not in (refusal(path) or "")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A small file that claims more pixels than fit in memory."""
    image = Image.new("1", (20_000, 20_000))
    image.save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(SlideError, match=r"\(400000000 pixels\)"):
        open_slide(tmp_path / "bomb.png")


# ---- JPEG that is decoded as if nothing were wrong --------------------------------------------------------------


def zeros_to_the_end(tile: bytes) -> bytes:
    """As a copy leaves it that was interrupted after its space had been set aside."""
    return tile[: len(tile) // 2] + bytes(len(tile) - len(tile) // 2)


def end_in_the_middle(tile: bytes) -> bytes:
    at = len(tile) // 2
    return tile[:at] + b"\xff\xd9" + tile[at + 2 :]


JPEG_KINDS: dict[str, Write] = {
    "OpenSlide": lambda path, image: write_array(path, image, settings=PyramidSettings(tile=64)),
    "tifffile": lambda path, image: tifffile.imwrite(
        path, image, photometric="ycbcr", tile=(64, 64), compression="jpeg", ome=True
    ),
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("damage", [zeros_to_the_end, end_in_the_middle])
def test_a_jpeg_tile_that_is_not_whole(
    damage: Callable[[bytes], bytes], kind: str, tissue: RGB8, tmp_path: Path
) -> None:
    """Other decoders fill it with gray, and say nothing: Pillow does so here."""
    path = tmp_path / "slide.tif"
    JPEG_KINDS[kind](path, tissue[:256, :256].copy())
    with open_slide(path) as slide:
        whole, _ = slide.read_region((0, 0), 0, (256, 256))
        assert slide.format.startswith("openslide" if kind == "OpenSlide" else "tiff")
    with tifffile.TiffFile(path) as handle:
        offset, count = handle.pages.first.dataoffsets[6], handle.pages.first.databytecounts[6]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = damage(bytes(data[offset : offset + count]))
    path.write_bytes(data)
    with Image.open(path) as image:
        assert not np.array_equal(np.asarray(image.convert("RGB"))[64:128, 128:192], whole[64:128, 128:192])
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"damaged in the tile at \(128, 64\)"):
            slide.read_region((100, 50), 0, (64, 64))
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (128, 256))[0], whole[:, :128])
    with open_slide(path, on_error="skip") as slide:
        pixels, known = slide.read_region((0, 0), 0, (256, 256))
    wanted = np.ones((256, 256), np.bool_)
    wanted[64:128, 128:192] = False
    assert known is not None
    np.testing.assert_array_equal(known, wanted)
    np.testing.assert_array_equal(pixels[wanted], whole[wanted])


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("padding", [bytes(100), b"\xff" * 7, bytes(1)], ids=["zeros", "ones", "one"])
def test_padding_behind_a_jpeg_is_no_damage(padding: bytes, kind: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    JPEG_KINDS[kind](path, tissue[:64, :64].copy())
    (whole,) = read_all(path)
    with tifffile.TiffFile(path, mode="r+b") as handle:
        tags = handle.pages.first.tags
        data = path.read_bytes()[tags["TileOffsets"].value[0] :][: tags["TileByteCounts"].value[0]]
        tags["TileOffsets"].overwrite([path.stat().st_size])
        tags["TileByteCounts"].overwrite([len(data) + len(padding)])
    with path.open("ab") as stream:
        stream.write(data + padding)
    np.testing.assert_array_equal(read_all(path)[0], whole)
