"""LZW tiles that tifffile reads: the same pixels as were written, and damage that ends no process."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.slides.lzw import decode_lzw
from restain.slides.reader import open_slide
from restain.slides.tiff_reader import TiffSlide

from ..forking import Forks


def unset_codes() -> bytes:
    """A stream of nine bits a code: empty tables, each with a code that it has not, and its first one."""
    codes = [code for unset in range(258, 512) for code in (256, unset, 258)]
    bits = "".join(f"{code:09b}" for code in codes)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def write(path: Path, image: np.ndarray[Any, Any], **options: Any) -> None:
    colors = "rgb" if image.ndim == 3 else "minisblack"
    extra = ["unassalpha"] if image.ndim == 3 and image.shape[2] == 4 else None
    tifffile.imwrite(path, image, photometric=colors, compression="lzw", extrasamples=extra, **options)


@pytest.mark.parametrize("layout", [{"tile": (64, 96)}, {"rowsperstrip": 37}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [1, 3, 4])
def test_every_layout(
    samples: int, bits: int, predictor: int, byteorder: Any, layout: dict[str, Any], tissue: RGB8, tmp_path: Path
) -> None:
    image = np.dstack([tissue, tissue[..., ::-1]])[:150, :200, :samples].squeeze()
    if samples == 4:
        image[..., 3] = np.where(image[..., 3] > 200, 255, 0)
    stored = image if bits == 8 else image.astype(np.uint16) * 257
    path = tmp_path / "slide.ome.tif" if samples < 4 else tmp_path / "slide.tif"
    write(path, stored, predictor=predictor == 2, byteorder=byteorder, **layout)
    slide = TiffSlide(path, tifffile.TiffFile(path))
    with slide:
        pixels, known = slide.read_region((0, 0), 0, (200, 150))
    colors = np.dstack([image] * 3) if samples == 1 else image[..., :3]
    seen = np.ones(image.shape[:2], np.bool_) if samples < 4 else image[..., 3] == 255
    np.testing.assert_array_equal(pixels[seen], colors[seen])
    np.testing.assert_array_equal(np.ones_like(seen) if known is None else known, seen)


def test_damage_is_told_where_a_trusting_decoder_would_end_the_process(
    tissue: RGB8, tmp_path: Path, forks: Forks
) -> None:
    """Or make pixels of whatever lies there in memory."""
    (tmp_path / "in").mkdir()
    for name in ("bad.ome.tif", "good.ome.tif"):
        write(tmp_path / "in" / name, np.tile(tissue, (2, 2, 1))[:512, :512], tile=(256, 256), metadata={"axes": "YXS"})
    bad = tmp_path / "in" / "bad.ome.tif"
    with tifffile.TiffFile(bad) as tiff:
        place = tiff.pages.first.dataoffsets[1]
    data = bytearray(bad.read_bytes())
    data[place : place + len(unset_codes())] = unset_codes()
    bad.write_bytes(data)
    ended = forks.run("normalize", tmp_path / "in", tmp_path / "out", "--tile-size", "256")
    assert ended.code == 1, ended
    assert "bad.ome.tif is damaged in the tile at (256, 0)" in ended.err
    assert ended.out == "1 files normalized by macenko, 1 failed\n"


@pytest.mark.parametrize("change", ["cut", "zeros", "random"])
def test_damage_further_on_is_told(change: str, tissue: RGB8, tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    write(path, tissue[:256, :256], tile=(256, 256), metadata={"axes": "YXS"})
    with tifffile.TiffFile(path) as tiff:
        place, count = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    half = slice(place + count // 2, place + count)
    data[half] = {
        "cut": bytes([0x80]) * len(data[half]),
        "zeros": bytes(len(data[half])),
        "random": np.random.default_rng(1).bytes(len(data[half])),
    }[change]
    path.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"is damaged in the tile at \(0, 0\)"):
        slide.read_region((0, 0), 0, (256, 256))


def test_streams_changed_at_random(tissue: RGB8, tmp_path: Path) -> None:
    """Where tables begin, above all: a result or an error, and the process goes on."""
    path = tmp_path / "slide.tif"
    write(path, tissue[:64, :64], tile=(64, 64))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        whole = path.read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
        generator = np.random.default_rng(0)
        told = 0
        for _ in range(400):
            data = bytearray(whole)
            for place in generator.integers(0, generator.choice([4, 40, len(data)]), 3):
                data[place] = generator.integers(256)
            try:
                assert decode_lzw(page, bytes(data), 64).shape == (64, 64, 3)
            except imagecodecs.TiffError:
                told += 1
        assert told > 300
        assert (decode_lzw(page, whole, 64) == tissue[:64, :64]).all()
