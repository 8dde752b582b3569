"""Every test of a command runs in a folder of its own."""

from pathlib import Path

import pytest
from PIL import Image

from restain.slides.writer import PyramidSettings, write_array

from .scene import OTHER, TISSUE


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an image, a slide of three levels, and a folder of three images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESTAIN_DATA", raising=False)
    Image.fromarray(TISSUE).save("a.png")
    write_array(tmp_path / "slide.tif", TISSUE, settings=PyramidSettings(tile=128), mpp=(0.5, 0.5))
    (tmp_path / "tiles" / "deep").mkdir(parents=True)
    Image.fromarray(TISSUE).save("tiles/a.png")
    Image.fromarray(OTHER).save("tiles/b.jpg", quality=95)
    Image.fromarray(OTHER[:100]).save("tiles/deep/c.png")
    return tmp_path
