"""What the tests of slides share: tissue on disk as a small pyramid, and a fitted normalizer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile

from restain.color.images import RGB8
from restain.methods.macenko import Macenko
from restain.phantom import Scanner, make_phantom
from restain.slides.writer import write_array

from ..forking import Forks
from .making import SMALL, write_with_holes


@pytest.fixture(scope="session")
def tissue() -> RGB8:
    """Odd sides, pinkish glass, a little noise."""
    return make_phantom(301, 423, seed=3, scanner=Scanner(white=(236.0, 231.0, 228.0), noise=1.0)).image


@pytest.fixture(scope="session")
def pyramid(tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tissue` as a slide of four levels, 0.25 by 0.3 micrometres a pixel."""
    path = tmp_path_factory.mktemp("slides") / "pyramid.tif"
    write_array(path, tissue, settings=SMALL, mpp=(0.25, 0.3))
    return path


@pytest.fixture(scope="session")
def holey(tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tissue` as a slide whose first row of tiles, and one further tile, were never scanned."""
    path = tmp_path_factory.mktemp("holey") / "slide.tif"
    write_with_holes(path, tissue, {(2, 3), *((0, column) for column in range(7))})
    return path


@pytest.fixture(scope="session")
def fitted() -> Macenko:
    return Macenko().fit("he")


@pytest.fixture(scope="session")
def svs(tissue: RGB8, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tissue` as an Aperio slide: 20x, half a micrometre, label, macro and thumbnail, and names nobody may copy."""
    path = tmp_path_factory.mktemp("aperio") / "aperio.svs"
    head = "Aperio Image Library v11.2.1\r\n"
    plain = {"photometric": "rgb", "compression": "lzw", "metadata": None}
    facts = "423x301 (64x64) LZW|AppMag = 20|MPP = 0.5|User = Dr Secret|Date = 01/02/03"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(tissue, tile=(64, 64), description=head + facts, **plain)
        tiff.write(tissue[::4, ::4].copy(), description=f"{head}423x301 -> 106x76 - |AppMag = 20", **plain)
        tiff.write(tissue[:50, :70].copy(), description=f"{head}label 70x50", subfiletype=1, **plain)
        tiff.write(tissue[:60, :100].copy(), description=f"{head}macro 100x60", subfiletype=9, **plain)
    return path


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Commands in processes of their own."""
    server = Forks()
    yield server
    server.close()
