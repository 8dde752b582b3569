"""Too little memory is no damage: it ends a run, and never makes padding of good tiles. A false claim is damage."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

import restain
from restain.color.images import RGB8
from restain.errors import SlideError
from restain.slides import shortage, tiff_reader
from restain.slides.reader import open_slide
from restain.slides.sample import sample_slide, sample_tiles_of
from restain.slides.shortage import ROOM, is_shortage
from restain.slides.writer import PyramidSettings, write_array

from ..forking import Forks

TILE = 64 * 64 * 3


def numpy_error(*shape: int) -> MemoryError:
    """What NumPy raises where it cannot have so many bytes."""
    kind: Any = np._core._exceptions._ArrayMemoryError  # type: ignore[attr-defined]
    error = kind(shape, np.dtype(np.uint8))
    assert isinstance(error, MemoryError)
    return error


def test_what_numpy_really_raises_says_how_much_it_wanted() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty((2**30, 2**30, 3), np.uint8)
    assert not is_shortage(caught.value, TILE)
    assert is_shortage(caught.value, 2**62)


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize(
    ("error", "bounded", "with_room", "without_room"),
    [
        (numpy_error(64, 64, 3), True, True, True),  # a tile: it was not there, though it is now
        (numpy_error(ROOM * TILE), True, True, True),
        (numpy_error(ROOM * TILE + 1), True, False, False),  # nothing that a tile can take
        (MemoryError(), True, True, True),
        (MemoryError(), False, False, True),
        (ValueError("Insufficient memory (case 4)"), True, False, True),
    ],
)
def test_which_errors_are_a_shortage(
    error: Exception,
    bounded: bool,
    with_room: bool,
    without_room: bool,
    room: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shortage, "_has_room", lambda size: room)
    assert is_shortage(error, TILE, bounded=bounded) == (with_room if room else without_room)


@pytest.fixture
def lzw(tissue: RGB8, tmp_path: Path) -> Path:
    """A slide that tifffile reads, of 5 x 7 tiles."""
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(path, tissue, photometric="rgb", tile=(64, 64), compression="lzw", metadata={"axes": "YXS"})
    return path


@pytest.mark.parametrize("on_error", ["stop", "skip", "fill"])
def test_a_shortage_ends_the_sample(on_error: Any, lzw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = tiff_reader.decode_lzw, 0

    def short(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 50:  # the thumbnail has been read, and some tiles
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr(tiff_reader, "decode_lzw", short)
    with open_slide(lzw, on_error=on_error) as slide:
        with pytest.raises(MemoryError, match=r"out of memory while a tile of slide\.ome\.tif was decoded"):
            sample_slide(slide, tile=64, workers=1)
        assert slide.notes == []
    calls = 10
    with pytest.raises(MemoryError):
        sample_tiles_of([lzw], 9, 64, on_error=on_error, workers=1)


def test_a_false_claim_is_damage(lzw: Path, tissue: RGB8, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = tiff_reader.decode_lzw, 0

    def claims(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= 2:  # the first tile: read with others, and by itself
            raise numpy_error(2**31, 2**31, 3)
        return real(*arguments)

    monkeypatch.setattr(tiff_reader, "decode_lzw", claims)
    with open_slide(lzw, on_error="skip") as slide:
        pixels, known = slide.read_region((0, 0), 0, (423, 301))
    assert known is not None
    assert not known[:64, :64].any()
    assert known.sum() == 423 * 301 - 64 * 64
    np.testing.assert_array_equal(pixels[known], tissue[known])


def test_a_lerc_tile_that_claims_to_be_huge_is_damaged(tissue: RGB8, tmp_path: Path) -> None:
    """Its decoder makes an array of what is claimed: by NumPy, and 2^58 bytes of it."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, tissue[:128, :128], photometric="rgb", tile=(64, 64), compression="lerc")
    data = bytearray(path.read_bytes())
    place = data.index(b"Lerc2 ") + 14  # rows and columns, behind the version and a checksum
    data[place : place + 8] = np.array([2**28, 2**28], "<i4").tobytes()
    path.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"is damaged in the tile at \(0, 0\)"):
        slide.read_region((0, 0), 0, (128, 128))
    with open_slide(path, on_error="skip") as slide:
        assert np.count_nonzero(slide.read_region((0, 0), 0, (128, 128))[1]) == 3 * 64 * 64


def test_a_process_with_too_little_memory_says_so(tissue: RGB8, tmp_path: Path, forks: Forks) -> None:
    """Not that a good tile is damaged, and not without it."""
    path = tmp_path / "slide.ome.tif"
    image = np.tile(tissue[:256, :256], (20, 20, 1))  # 79 MB, in one tile
    tifffile.imwrite(path, image, photometric="rgb", tile=(5120, 5120), compression="zstd", metadata={"axes": "YXS"})
    options = ("--on-error", "skip", "--workers", 1)
    ended = forks.run("normalize", path, tmp_path / "out.tif", *options, limits={"more memory": 70 << 20})
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("restain: out of memory"), ended.err
    assert not (tmp_path / "out.tif").exists()


LITTLE = """
import resource, sys
from pathlib import Path
import numpy as np
from restain.slides.jpeg_tiles import decode_strictly, jpeg_header

stream = Path(sys.argv[1]).read_bytes()
out = np.zeros((2048, 2048, 3), np.uint8)
header = jpeg_header(None, ycbcr=True)
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (4 << 20), resource.RLIM_INFINITY))
try:
    decode_strictly(stream, header, (2048, 2048), out)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory is in use")
def test_what_libjpeg_says_of_a_shortage_is_understood(tissue: RGB8, tmp_path: Path) -> None:
    """Of a progressive JPEG it keeps all coefficients, 25 MB here; in words of its own it tells that it could not."""
    image = Image.fromarray(np.tile(tissue[:256, :256], (8, 8, 1)))
    image.save(tmp_path / "tile.jpg", progressive=True)
    place = {"env": os.environ | {"PYTHONPATH": str(Path(restain.__file__).parents[1])}}
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, tmp_path / "tile.jpg"], capture_output=True, text=True, check=False, **place
    )
    assert done.stdout == "out of memory while a JPEG tile was decoded\n", done.stderr


@pytest.mark.parametrize("name", ["OpenSlide", "tifffile"])
def test_a_shortage_in_jpeg_tiles_makes_no_padding(
    name: str, tissue: RGB8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ("slide.tif" if name == "OpenSlide" else "slide.ome.tif")
    write_array(path, tissue, settings=PyramidSettings(tile=64, format="tiff" if name == "OpenSlide" else "ome-tiff"))

    def short(*_: Any, **__: Any) -> None:
        raise ValueError("Insufficient memory (case 4)")

    with open_slide(path, on_error="skip") as slide:
        monkeypatch.setattr(simplejpeg, "decode_jpeg", short)
        with pytest.raises(MemoryError, match="out of memory"):
            slide.read_region((0, 0), 0, (64, 64))


# ---- OME-Zarr, by the zarr package ------------------------------------------------------------------------------


@pytest.fixture
def claiming(tissue: RGB8, tmp_path: Path) -> Path:
    """An OME-Zarr of 16 bits, the first of whose chunks is a zstd frame that claims 2^60 bytes."""
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "slide.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    image = np.ascontiguousarray(tissue[:128, :128].transpose(2, 0, 1)).astype(np.uint16) * 257
    array = group.create_array(
        "0", shape=image.shape, chunks=(3, 64, 64), dtype="uint16", compressors=zarr.codecs.ZstdCodec()
    )
    array[:] = image
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    image_facts = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image_facts]}
    chunk = path / "0" / "c" / "0" / "0" / "0"
    assert chunk.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    chunk.write_bytes(b"\x28\xb5\x2f\xfd\xe0" + (2**60).to_bytes(8, "little") + bytes(20))
    return path


def test_a_chunk_that_claims_too_much_is_damage(claiming: Path, tissue: RGB8) -> None:
    with open_slide(claiming) as slide, pytest.raises(SlideError, match=r"is damaged in the tile at \(0, 0\)"):
        slide.read_region((0, 0), 0, (128, 128))
    with open_slide(claiming, on_error="skip") as slide:
        pixels, known = slide.read_region((0, 0), 0, (128, 128))
    assert known is not None
    assert known.sum() == 3 * 64 * 64
    np.testing.assert_array_equal(pixels[known], tissue[:128, :128][known])


def test_a_shortage_while_a_chunk_is_read(claiming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortage, "_has_room", lambda size: False)
    with open_slide(claiming, on_error="skip") as slide, pytest.raises(MemoryError, match=r"slide\.ome\.zarr was read"):
        slide.read_region((0, 0), 0, (128, 128))
