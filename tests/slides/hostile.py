"""Inputs that nobody should have to trust: each makes a file in a folder, and has a documented outcome.

`CASES` maps a name to a `Case`. An outcome is RESULT (it is normalized), REFUSED with a pattern that the one line of
the error matches, or EITHER (damage at random places, which may or may not be in something that is needed).
"""

import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.slides.writer import PyramidSettings, write_array

Make = Callable[[Path, RGB8], Path]
"""Makes an input in a folder, from an image (150, 200, 3), and returns what is to be named on the command line."""

RESULT, EITHER = "result", "either"
BILLION = 1_000_000_000


@dataclass(frozen=True)
class Case:
    make: Make
    outcome: str  # RESULT, EITHER, or a pattern that the error's line matches
    note: str = ""  # a pattern that is found in the notes of a result


CASES: dict[str, Case] = {}


def case(name: str, make: Make, outcome: str, note: str = "") -> None:
    assert name not in CASES, name
    CASES[name] = Case(make, outcome, note)


# ---- ways to make a file ----------------------------------------------------------------------------------------


def picture(name: str, mode: str = "RGB", **options: Any) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        Image.fromarray(image).convert(mode).save(folder / name, **options)
        return folder / name

    return make


def array(name: str, change: Callable[[RGB8], Any], **options: Any) -> Make:
    """A TIFF of what `change` makes of the image."""

    def make(folder: Path, image: RGB8) -> Path:
        tifffile.imwrite(folder / name, change(image), **options)
        return folder / name

    return make


def slide(folder: Path, image: RGB8) -> Path:
    write_array(folder / "slide.tif", image, settings=PyramidSettings(tile=64), mpp=(0.5, 0.5))
    return folder / "slide.tif"


def tiled(folder: Path, image: RGB8, **options: Any) -> Path:
    """LZW, so that damage in a tile is always noticed; OpenSlide reads it."""
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "lzw"} | options
    tifffile.imwrite(folder / "slide.tif", image, **options)
    return folder / "slide.tif"


def tags(make: Make, **values: Any) -> Make:
    """What `make` makes, with tags of its first page overwritten."""

    def changed(folder: Path, image: RGB8) -> Path:
        path = make(folder, image)
        for name, value in values.items():
            with tifffile.TiffFile(path, mode="r+b") as handle:
                tag = handle.pages.first.tags[name]
                tag.overwrite(value, dtype="I" if isinstance(value, int) else None)
        return path

    return changed


def edited(make: Make, edit: Callable[[bytearray], bytes | bytearray]) -> Make:
    def changed(folder: Path, image: RGB8) -> Path:
        path = make(folder, image)
        path.write_bytes(edit(bytearray(path.read_bytes())))
        return path

    return changed


def content(name: str, data: bytes) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def named(name: str, make: Make) -> Make:
    """The same bytes under another name."""
    return lambda folder, image: make(folder, image).rename(folder / name)


def svs(facts: str) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        text = f"Aperio Image Library v11.2.1\r\n200x150 (64x64) LZW|{facts}"
        return named("slide.svs", lambda f, i: tiled(f, i, description=text, metadata=None))(folder, image)

    return make


# ---- damage -----------------------------------------------------------------------------------------------------


def truncated(share: float) -> Callable[[bytearray], bytes]:
    return lambda data: bytes(data[: max(int(share * len(data)), 1)])


def flipped(seed: int, start: float, stop: float) -> Callable[[bytearray], bytes]:
    def edit(data: bytearray) -> bytes:
        generator = np.random.default_rng(seed)
        for place in generator.integers(int(start * len(data)), max(int(stop * len(data)), 64), 6):
            data[place % len(data)] ^= int(generator.integers(1, 256))
        return bytes(data)

    return edit


SHARES = [0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999]
for kind, maker in {"slide": slide, "png": picture("i.png"), "jpeg": picture("i.jpg")}.items():
    for share in SHARES:
        case(f"{kind} truncated at {share:g}", edited(maker, truncated(share)), EITHER)
for seed in range(4):
    case(f"slide, flipped bytes in the header {seed}", edited(slide, flipped(seed, 0, 0.01)), EITHER)
    case(f"slide, flipped bytes in tiles {seed}", edited(slide, flipped(seed, 0.1, 0.9)), EITHER)
    case(f"png, flipped bytes {seed}", edited(picture("i.png"), flipped(seed, 0, 1)), EITHER)
    case(f"jpeg, flipped bytes {seed}", edited(picture("i.jpg"), flipped(seed, 0, 1)), EITHER)


def tile_zeroed(number: int, **options: Any) -> Make:
    """One tile among twelve overwritten; the first 16 bytes stay, so that it still begins like a tile."""

    def make(folder: Path, image: RGB8) -> Path:
        path = tiled(folder, image, **options)
        with tifffile.TiffFile(path) as handle:
            offset, count = (handle.pages.first.tags[n].value[number] for n in ("TileOffsets", "TileByteCounts"))
        data = bytearray(path.read_bytes())
        data[offset + 16 : offset + count] = bytes(count - 16)
        path.write_bytes(data)
        return path

    return make


def tiles_missing(*numbers: int, past_the_end: bool = False) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        path = tiled(folder, image)
        with tifffile.TiffFile(path, mode="r+b") as handle:
            found = handle.pages.first.tags
            counts, offsets = list(found["TileByteCounts"].value), list(found["TileOffsets"].value)
            for number in numbers or range(len(counts)):
                counts[number], offsets[number] = (counts[number], 10**8) if past_the_end else (0, 0)
            found["TileByteCounts"].overwrite(counts)
            found["TileOffsets"].overwrite(offsets)
        return path

    return make


case("one tile of lzw damaged", tile_zeroed(5), r"damaged .*\(64, 64\)")
case("one tile of deflate damaged", tile_zeroed(5, compression="deflate"), r"damaged .*\(64, 64\)")
case("one tile of webp damaged", tile_zeroed(5, compression="webp"), r"damaged .*\(64, 64\)")
case("one tile of jpeg2000 damaged", tile_zeroed(5, compression="jpeg2000"), r"damaged .*\(64, 64\)")
case("one tile of jpeg damaged", tile_zeroed(5, compression="jpeg"), EITHER)
case("some tiles missing", tiles_missing(0, 5, 7), RESULT)
case("all tiles missing", tiles_missing(), RESULT)
case("a tile past the end of the file", tiles_missing(5, past_the_end=True), r"damaged .*\(64, 64\)")

# ---- not what the name says -------------------------------------------------------------------------------------

WORDS = b"these are words, not pixels\n" * 50


def archive(name: str) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("slide.svs", WORDS)
        return folder / name

    return make


case("zero bytes", content("a.svs", b""), r"a\.svs is empty \(0 bytes\)")
case("one byte", content("a.svs", b"I"), "not a slide or image")
case("nothing but zeros", content("a.svs", bytes(5000)), "not a slide or image")
case("text renamed .svs", content("a.svs", WORDS), "not a slide or image")
case("text renamed .png", content("a.png", WORDS), "not a slide or image")
case("a page of HTML renamed .jpg", content("a.jpg", b"<!DOCTYPE html><html>404</html>"), "not a slide or image")
case("an archive renamed .svs", archive("a.svs"), "not a slide or image")
case("postscript renamed .png", content("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a slide")
case("random bytes", content("a.ndpi", np.random.default_rng(0).bytes(5000)), "not a slide or image")
case("a PNG renamed .svs", named("a.svs", picture("i.png")), RESULT)
case("a JPEG renamed .tif", named("a.tif", picture("i.jpg")), RESULT)
case("a slide renamed .png", named("a.png", slide), RESULT)
case("a slide without an extension", named("a", slide), RESULT)
case("TIFF's first eight bytes alone", content("a.tif", b"II*\0\x08\0\0\0"), "cannot be read")
case("DICOM's first bytes alone", content("a.dcm", bytes(128) + b"DICM" + bytes(64)), "cannot be read|not a slide")
case("a MIRAX without its folder", content("a.mrxs", b"\xff\xd8\xff\xe0" + bytes(40)), "cannot be read|not a slide")

# ---- absurd sizes -----------------------------------------------------------------------------------------------


def strips(folder: Path, image: RGB8) -> Path:
    tifffile.imwrite(folder / "strips.tif", image, photometric="rgb", compression="lzw", rowsperstrip=16)
    return folder / "strips.tif"


def webp_tiles(folder: Path, image: RGB8) -> Path:
    return tiled(folder, image, compression="webp")


def png_header(width: int, height: int, *, bits: int = 8, color: int = 2, body: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_text_bomb() -> bytes:
    data = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    plain = png_header(4, 4, body=zlib.compress(b"\0" * 4 * 13))
    return plain[:33] + chunk + plain[33:]


def jpeg_claims(width: int, height: int) -> Callable[[bytearray], bytes]:
    """A JPEG whose frame header claims another size."""

    def edit(data: bytearray) -> bytes:
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        return bytes(data)

    return edit


def tile_replaced(name: str, tile: Callable[[], bytes], **options: Any) -> Make:
    """A TIFF of 64 by 64 tiles, whose first tile is other bytes of the same codec."""

    def make(folder: Path, image: RGB8) -> Path:
        path = tiled(folder, image, **options).rename(folder / name)
        data = tile()
        with tifffile.TiffFile(path, mode="r+b") as handle:
            found = handle.pages.first.tags
            counts, offsets = list(found["TileByteCounts"].value), list(found["TileOffsets"].value)
            counts[0], offsets[0] = len(data), path.stat().st_size
            found["TileByteCounts"].overwrite(counts, dtype="I")
            found["TileOffsets"].overwrite(offsets, dtype="I")
        with path.open("ab") as stream:
            stream.write(data)
        return path

    return make


def huge_jpeg() -> bytes:
    import imagecodecs

    return bytes(jpeg_claims(65_000, 65_000)(bytearray(imagecodecs.jpeg8_encode(np.zeros((64, 64, 3), np.uint8)))))


BOMB = "claims|too large|[Ll]arge|exceeds|limit|damaged|cannot be read|pixels"
huge = {"ImageWidth": BILLION, "ImageLength": BILLION}
case("a tiled TIFF claims 10^9 by 10^9", tags(tiled, **huge), BOMB)
case("a TIFF of strips claims 10^9 by 10^9", tags(strips, **huge), BOMB)
case("a TIFF of webp tiles claims 10^9 by 10^9", tags(webp_tiles, **huge), BOMB)
case("a TIFF claims 10^9 rows", tags(tiled, ImageLength=BILLION), BOMB)
case("a TIFF claims tiles of 2^30", tags(tiled, TileWidth=2**30, TileLength=2**30), BOMB)
case("a TIFF of webp claims tiles of 2^30", tags(webp_tiles, TileWidth=2**30, TileLength=2**30), BOMB)
case("a TIFF claims one strip of 10^9 rows", tags(strips, ImageLength=BILLION, RowsPerStrip=BILLION), BOMB)
case("a TIFF claims a million by a million", tags(tiled, ImageWidth=1_000_000, ImageLength=1_000_000), BOMB)
case("a TIFF of sides 0", tags(tiled, ImageWidth=0, ImageLength=0), "cannot be read|pixels")
case("a PNG claims 10^9 by 10^9", content("a.png", png_header(BILLION, BILLION)), BOMB)
case("a PNG claims 30000 by 30000", content("a.png", png_header(30_000, 30_000)), BOMB)
case("a PNG of one colour, 20000 by 20000, 1 bit", picture("a.png"), RESULT)
case("a PNG with a text of 200 MB", content("a.png", png_text_bomb()), BOMB + "|text|[Mm]emory")
case("a JPEG claims 65000 by 65000", edited(picture("i.jpg"), jpeg_claims(65_000, 65_000)), BOMB)
case("a JPEG claims 3000 by 3000", edited(picture("i.jpg"), jpeg_claims(3_000, 3_000)), EITHER)
case("a BMP claims 10^9 by 10^9", content("a.bmp", b"BM" + bytes(8) + b"\x36\0\0\0" + struct.pack(
    "<IiiHHIIiiII", 40, BILLION, BILLION, 1, 24, 0, 0, 2835, 2835, 0, 0) + bytes(64)), BOMB)  # fmt: skip
case("a PPM claims 10^9 by 10^9", content("a.ppm", b"P6\n1000000000 1000000000\n255\n" + bytes(64)), BOMB)
case(
    "a GIF claims 65535 by 65535",
    content("a.gif", b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b";"),
    BOMB + "|not a slide",
)
case("a JPEG tile claims 65000 by 65000", tile_replaced("a.tif", huge_jpeg, compression="jpeg"), r"damaged .*\(0, 0\)")
case(
    "a deflate tile of 400 MB",
    tile_replaced("a.tif", lambda: zlib.compress(bytes(400_000_000), 9), compression="deflate"),
    EITHER,
)


def bomb(folder: Path, image: RGB8) -> Path:
    Image.new("1", (20_000, 20_000)).save(folder / "a.png")
    return folder / "a.png"


CASES["a PNG of one colour, 20000 by 20000, 1 bit"] = Case(bomb, r"400000000 pixels")

# ---- resolutions ------------------------------------------------------------------------------------------------

IMPLAUSIBLE = "taken as unknown"
for text, note in {
    "-0.5": IMPLAUSIBLE, "0": IMPLAUSIBLE, "nan": "", "inf": IMPLAUSIBLE, "1e9": IMPLAUSIBLE,
    "1e-9": IMPLAUSIBLE, "a quarter": "", "": "", "0.5": "", "1e999": "",
}.items():  # fmt: skip
    case(f"a resolution of '{text}' micrometres", svs(f"AppMag = 20|MPP = {text}"), RESULT, note)
for text in ("-20", "nan", "1e999", "x"):
    case(f"a magnification of '{text}'", svs(f"AppMag = {text}|MPP = 0.5"), RESULT)


def at(resolution: Any, unit: str = "CENTIMETER") -> Make:
    return lambda folder, image: tiled(folder, image, compression="webp", resolution=resolution, resolutionunit=unit)


case("TIFF tags: 2^31 dots a centimetre", at((2**31, 2**31)), RESULT, IMPLAUSIBLE)
case("TIFF tags: one dot a centimetre", at((1, 1)), RESULT, IMPLAUSIBLE)
case("TIFF tags: no dot a centimetre", tags(at((2, 2)), XResolution=(0, 1), YResolution=(0, 1)), RESULT)
case("TIFF tags: a fraction over zero", tags(at((2, 2)), XResolution=(1, 0), YResolution=(1, 0)), RESULT)


def ome(size: str) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        path = folder / "a.ome.tif"
        facts = {"axes": "YXS", "PhysicalSizeX": 777.25, "PhysicalSizeY": 777.25}
        tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64), metadata=facts, ome=True)
        data = path.read_bytes()
        assert data.count(b'"777.25"') == 2
        path.write_bytes(data.replace(b'"777.25"', f'"{size}"'.encode().ljust(8)))
        return path

    return make


for text in ("-1.", "nan", "inf", "9e9", "huge"):
    case(f"OME's PhysicalSize '{text}'", ome(text), RESULT, "" if text == "huge" else IMPLAUSIBLE)

# ---- directories of a TIFF --------------------------------------------------------------------------------------


def cyclic(to: int) -> Make:
    """The last directory of three points back to number `to`."""

    def make(folder: Path, image: RGB8) -> Path:
        path = folder / "slide.tif"
        with tifffile.TiffWriter(path) as writer:
            for step in (1, 2, 4):
                writer.write(image[::step, ::step].copy(), photometric="rgb", tile=(64, 64), compression="lzw",
                             subfiletype=int(step > 1), metadata=None)  # fmt: skip
        with tifffile.TiffFile(path) as handle:
            offsets = [page.offset for page in handle.pages]
        data = bytearray(path.read_bytes())
        (entries,) = struct.unpack_from("<H", data, offsets[-1])
        struct.pack_into("<I", data, offsets[-1] + 2 + 12 * entries, offsets[to])
        path.write_bytes(data)
        return path

    return make


def subifd_of_itself(folder: Path, image: RGB8) -> Path:
    path = folder / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "lzw"}
        writer.write(image, subifds=1, **options)
        writer.write(image[::2, ::2].copy(), subfiletype=1, **options)
    with tifffile.TiffFile(path, mode="r+b") as handle:
        page = handle.pages.first
        page.tags["SubIFDs"].overwrite(page.offset)
    return path


def self_pointing(data: bytearray) -> bytes:
    struct.pack_into("<I", data, 4, 8)
    return bytes(data[:8]) + struct.pack("<HI", 0, 8) + bytes(64)


for number in range(3):
    case(f"a cycle of directories, back to {number}", cyclic(number), EITHER)
case("a directory that is its own SubIFD", subifd_of_itself, EITHER)
case("an empty directory that follows itself", edited(tiled, self_pointing), "cannot be read|not a slide")
case("a directory of 65535 entries", edited(tiled, lambda d: d[:8] + b"\xff\xff" + d[10:]), EITHER)
case("the first directory past the end", edited(tiled, lambda d: d[:4] + b"\xff\xff\xff\x7f" + d[8:]), "cannot be read")

# ---- kinds of pixels --------------------------------------------------------------------------------------------

case("gray PNG", picture("a.png", "L"), RESULT)
case("gray with alpha", picture("a.png", "LA"), RESULT)
case("RGBA PNG", picture("a.png", "RGBA"), RESULT)
case("palette PNG", picture("a.png", "P"), RESULT)
case("1-bit PNG", picture("a.png", "1"), RESULT)
case("1-bit TIFF", picture("a.tif", "1"), RESULT)
case("palette TIFF", picture("a.tif", "P"), RESULT)
case("CMYK JPEG", picture("a.jpg", "CMYK"), RESULT)
case("CMYK TIFF", picture("a.tif", "CMYK"), RESULT)
case("LAB TIFF", picture("a.tif", "LAB"), EITHER)
case("16-bit gray PNG", picture("a.png", "I;16"), EITHER)
case("16-bit RGB TIFF", array("a.tif", lambda i: i.astype(np.uint16) * 257, photometric="rgb"), RESULT)
case("16-bit tiled TIFF", array("a.tif", lambda i: i.astype(np.uint16) * 257, photometric="rgb", tile=(64, 64)), RESULT)
case("float TIFF", array("a.tif", lambda i: i / np.float32(255), photometric="rgb"), "float32")
case("float TIFF of NaN", array("a.tif", lambda i: i * np.float32(np.nan), photometric="rgb"), "float32")
case("signed TIFF", array("a.tif", lambda i: i.astype(np.int16), photometric="rgb"), "int16")
case("32-bit TIFF", array("a.tif", lambda i: i.astype(np.uint32), photometric="rgb"), "uint32")
case("complex TIFF", array("a.tif", lambda i: i[..., 0].astype(np.complex64)), "complex64")
case("planar TIFF", array("a.tif", lambda i: i.transpose(2, 0, 1).copy(), photometric="rgb", planarconfig=2), RESULT)
case("five channels", array("a.tif", lambda i: i[..., [0, 1, 2, 0, 1]], photometric="rgb"), "5 samples")
case("a volume", array("a.tif", lambda i: np.stack([i] * 16), photometric="rgb", tile=(16, 64, 64), volumetric=True),
     "volume|damaged")  # fmt: skip
case(
    "all black", array("a.tif", lambda i: i * np.uint8(0), photometric="rgb", tile=(64, 64), compression="lzw"), RESULT
)
case(
    "all white",
    array("a.tif", lambda i: i | np.uint8(255), photometric="rgb", tile=(64, 64), compression="lzw"),
    RESULT,
)

# ---- shapes and frames ------------------------------------------------------------------------------------------


def shaped(name: str, width: int, height: int, **options: Any) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        rows, columns = np.arange(height) % image.shape[0], np.arange(width) % image.shape[1]
        pixels = image[rows[:, None], columns]
        if options:
            tifffile.imwrite(folder / name, pixels, photometric="rgb", **options)
        else:
            Image.fromarray(pixels).save(folder / name)
        return folder / name

    return make


for width, height in ((1, 1), (1, 100_000), (100_000, 1), (2, 3)):
    case(f"a PNG of {width} by {height}", shaped("a.png", width, height), RESULT)
    for codec in ("lzw", "webp"):  # OpenSlide reads the one and not the other
        make = shaped("a.tif", width, height, tile=(256, 256), compression=codec)
        case(f"a slide of {codec}, {width} by {height}", make, RESULT)


def frames(name: str, **options: Any) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        more = [Image.fromarray(np.roll(image, 9 * n, axis=1)) for n in range(1, 4)]
        Image.fromarray(image).save(folder / name, save_all=True, append_images=more, **options)
        return folder / name

    return make


case("an animated GIF", frames("a.gif"), RESULT, "only the first")
case("an animated PNG", frames("a.png"), RESULT, "only the first")
case("an animated WebP", frames("a.webp"), RESULT, "only the first")
case("a TIFF of four pages", frames("a.tif"), RESULT, "only the first")
case("a tiled TIFF of four pages", array("a.tif", lambda i: np.stack([i] * 4), photometric="rgb", tile=(64, 64),
     compression="webp"), EITHER)  # fmt: skip

# ---- names and kinds of files -----------------------------------------------------------------------------------


def folder_of(**files: bytes) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        (folder / "in").mkdir()
        for name, data in files.items():
            (folder / "in" / name.replace("_", ".")).write_bytes(data)
        return folder / "in"

    return make


def fifo(folder: Path, image: RGB8) -> Path:
    os.mkfifo(folder / "a.svs")
    return folder / "a.svs"


def unix_socket(folder: Path, image: RGB8) -> Path:
    before = Path.cwd()
    os.chdir(folder)  # a socket's path may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("a.svs")
    finally:
        os.chdir(before)
    return folder / "a.svs"


def link(target: str) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        (folder / "a.svs").symlink_to(target)
        return folder / "a.svs"

    return make


def loop(folder: Path, image: RGB8) -> Path:
    (folder / "b.svs").symlink_to("a.svs")
    return link("b.svs")(folder, image)


def linked(folder: Path, image: RGB8) -> Path:
    slide(folder, image)
    return link("slide.tif")(folder, image)


def inside(name: str) -> Make:
    def make(folder: Path, image: RGB8) -> Path:
        (folder / name).mkdir()
        return slide(folder / name, image)

    return make


def nothing(name: str) -> Make:
    return lambda folder, image: folder / name


SPECIAL = "is a (pipe|device|socket)"
case("an empty folder", folder_of(), "does not exist|no file")
case("a folder of words", folder_of(a_txt=WORDS, b_csv=WORDS), "none of 2 files")
case("a folder named like a slide", lambda f, i: folder_of()(f, i).rename(f / "a.svs"), "does not exist|no file")
case("a named pipe", fifo, SPECIAL)
case("a link to a named pipe", lambda f, i: (fifo(f, i), link("a.svs")(f / "..", i))[0], SPECIAL)
case("a socket", unix_socket, SPECIAL)
case("an endless device", nothing("/dev/zero"), SPECIAL)
case("an empty device", nothing("/dev/null"), SPECIAL)
case("a link to an endless device", link("/dev/zero"), SPECIAL)
case("a broken link", link("gone.svs"), "does not exist")
case("a loop of links", loop, "does not exist|symbolic links")
case("a link to a slide", linked, RESULT)
case("no such file", nothing("gone.svs"), "does not exist")
case("no such folder", nothing("gone/slide.svs"), "does not exist")
case("a file taken for a folder", lambda f, i: slide(f, i) / "a.svs", "does not exist|[Nn]ot a directory")
case("a name of 255 bytes", named("n" * 251 + ".tif", slide), RESULT)
case("a name of 300 bytes", nothing("n" * 300 + ".tif"), "too long")
case("a path of 5000 bytes", nothing("/".join(["folder"] * 800)), "too long")
case("a name in Chinese, Greek and combining letters", named("切片 αβγ é ñ.tif", slide), RESULT)
case("a name with a line break", named("two\nlines.tif", slide), RESULT)
case("a damaged file whose name has a line break", named("two\nlines.svs", content("a", WORDS)), "not a slide or image")
case("a name with a colour code", named("\x1b[31mred.tif", slide), RESULT)
case("a name that is no Unicode", named(os.fsdecode(b"a\xff\xfe.tif"), slide), RESULT)
case("a name like a pattern", named("a[1]*?.tif", slide), RESULT)
case("a name like an option", named("--help.tif", slide), RESULT)
case("a folder with a line break", inside("two\nlines"), RESULT)
case("a folder in Chinese", inside("切片"), RESULT)
