"""What Bio-Formats, and so QuPath, OMERO and ImageJ, want of an OME-TIFF that tifffile reads without it.

Bio-Formats itself needs Java and is not run here; `docs/formats.md` says what it made of these files.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from restain.color.images import RGB8
from restain.errors import SlideError
from restain.slides.codecs import PyramidSettings
from restain.slides.reader import open_slide
from restain.slides.writer import write_array

from .making import SMALL, raw_tiles


def first_page(path: Path) -> tuple[int, bytes]:
    """Its photometric interpretation, and its ImageDescription as it lies in the file."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tag = page.tags["ImageDescription"]
        return int(page.photometric), path.read_bytes()[tag.valueoffset : tag.valueoffset + tag.count].rstrip(b"\0")


def test_units_are_spelt_out(tissue: RGB8, tmp_path: Path) -> None:
    """Bio-Formats makes " #" of "&#", and takes a file whose unit it then does not know for no OME-TIFF."""
    path = tmp_path / "out.ome.tif"
    write_array(path, tissue, settings=SMALL, mpp=(0.25, 0.3), software="this & that", objective_power=20.0)
    text = first_page(path)[1]
    assert b"&#" not in text
    assert text.count('Unit="µm"'.encode()) == 2
    root = ElementTree.fromstring(text)
    assert root.attrib["Creator"] == "this & that"
    with open_slide(path) as slide:
        assert slide.mpp == (0.25, 0.3)


@pytest.mark.parametrize(("subsampling", "photometric"), [("444", 2), ("422", 6), ("420", 6)])
def test_colours_of_jpeg_that_are_not_subsampled_are_rgb(
    subsampling: str, photometric: int, tissue: RGB8, tmp_path: Path
) -> None:
    """Bio-Formats converts YCbCr to RGB twice where it is not subsampled."""
    path = tmp_path / "out.ome.tif"
    write_array(path, tissue, settings=PyramidSettings(tile=64, subsampling=subsampling))
    assert first_page(path)[0] == photometric
    write_array(tmp_path / "out.tif", tissue, settings=PyramidSettings(tile=64, subsampling=subsampling))
    assert first_page(tmp_path / "out.tif")[0] == 6  # smaller, and right wherever libtiff reads it
    with Image.open(path) as by_libtiff, openslide.OpenSlide(str(path)) as by_openslide, open_slide(path) as ours:
        pixels = tifffile.imread(path, level=0).astype(int)
        assert np.abs(pixels - tissue).mean() < 5
        assert np.abs((pixels - tissue.astype(float)).mean(axis=(0, 1))).max() < 0.5
        for others in (
            np.asarray(by_libtiff.convert("RGB")),
            np.asarray(by_openslide.read_region((0, 0), 0, (423, 301)))[..., :3],
            ours.read_region((0, 0), 0, (423, 301))[0],
        ):
            # Where chroma is shared, decoders may fill in what lies between differently.
            assert np.abs(others - pixels).max() <= (0 if subsampling == "444" else 40)
            assert np.abs(others - pixels).mean() < 1


def test_damage_in_such_tiles_is_told(tissue: RGB8, tmp_path: Path) -> None:
    """They say of their own that they hold RGB (Adobe's APP14), which is no reason to decode them less strictly."""
    path = tmp_path / "out.ome.tif"
    write_array(path, tissue, settings=SMALL)
    tile = raw_tiles(path)[8]
    assert b"Adobe" in tile[:32]
    data = path.read_bytes()
    middle = data.index(tile) + len(tile) // 2
    path.write_bytes(data[:middle] + b"\xff\xd9" + data[middle + 2 :])
    with open_slide(path) as slide, pytest.raises(SlideError, match=r"\(64, 64\)"):
        slide.read_region((0, 0), 0, slide.dimensions)
