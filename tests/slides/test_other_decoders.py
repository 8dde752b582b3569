"""TIFF's tiles, which tifffile and imagecodecs wrote, decoded by libraries that had no part in it.

Pillow brings libtiff, libjpeg-turbo, OpenJPEG and libwebp of its own. JPEG XL it does not know.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.slides.codecs import PyramidSettings
from restain.slides.icc import srgb_profile
from restain.slides.writer import write_array

MPP = (0.25, 0.3)
NAMES = {"tiff": "out.tif", "ome-tiff": "out.ome.tif"}


def write(path: Path, image: RGB8, codec: str) -> None:
    settings = PyramidSettings(tile=64, quality=90 if codec == "jpeg" else 100, compression=codec)
    write_array(path, image, settings=settings, mpp=MPP, icc_profile=srgb_profile())


def check(pixels: np.ndarray, wanted: np.ndarray, codec: str) -> None:
    if codec == "jpeg":
        assert np.abs(pixels.astype(int) - wanted).mean() < 5
        assert np.abs((pixels.astype(float) - wanted).mean(axis=(0, 1))).max() < 0.5
    else:
        np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("codec", ["jpeg", "deflate", "zstd", "none"])
def test_libtiff_reads_the_first_page(format: str, codec: str, tissue: RGB8, tmp_path: Path) -> None:
    write(tmp_path / NAMES[format], tissue, codec)
    with Image.open(tmp_path / NAMES[format]) as image:
        assert image.mode in ("RGB", "YCbCr")
        check(np.asarray(image.convert("RGB")), tissue, codec)
        assert image.info["icc_profile"][: len(srgb_profile())] == srgb_profile()
        assert image.tag_v2[296] == 3  # centimetres
        assert [10_000 / float(image.tag_v2[tag]) for tag in (282, 283)] == pytest.approx(MPP)
        assert image.n_frames == (4 if format == "tiff" else 1)


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "webp"])
def test_every_tile_of_every_level_is_a_stream_of_its_own(
    format: str, codec: str, tissue: RGB8, tmp_path: Path
) -> None:
    path = tmp_path / NAMES[format]
    write(path, tissue, codec)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        levels = [level.pages[0] for level in tiff.series[0].levels]
        assert [(page.imagewidth, page.imagelength) for page in levels] == [(423, 301), (211, 150), (105, 75), (52, 37)]
        for page in levels:
            across = -(-page.imagewidth // 64)
            whole = np.zeros((-(-page.imagelength // 64) * 64, across * 64, 3), np.uint8)
            for index, (at, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                with Image.open(io.BytesIO(data[at : at + count])) as tile:
                    y, x = index // across * 64, index % across * 64
                    whole[y : y + 64, x : x + 64] = np.asarray(tile.convert("RGB"))
            check(whole[: page.imagelength, : page.imagewidth], page.asarray(), "jpeg" if codec == "jpeg" else "")
            if page is levels[0]:
                check(whole[:301, :423], tissue, codec)
