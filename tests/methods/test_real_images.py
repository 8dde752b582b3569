"""Real tissue of many labs, where it is at hand: no image makes a method fail, and measured glass is matched."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain import ColorHistogram, Macenko, Normalizer, Reinhard
from restain.color.images import as_rgb8
from restain.errors import EstimateWarning

# Every folder of tiles, and what of it is pictures.
FOLDERS = [
    "artefacts",
    "breakhis_400x",
    "classic",
    "crc_val_he_7k",
    "cric_cells",
    "cytology_pair_stainnet",
    "glas/img",
    "lc25000",
    "mendeley_lbc",
    "mitos_pairs/aperio",
    "mitos_pairs/hamamatsu",
    "monuseg/img",
    "osteosarcoma",
]
MOST_IMAGES = 12  # of a folder, spread over its subfolders
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    number = min(len(found), MOST_IMAGES)
    return [found[index * len(found) // number] for index in range(number)]


@cache
def fitted(method: type[Normalizer], folder: Path) -> Normalizer:
    return method(background="match").fit(folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_of_tiles(data: Path, folder: str) -> None:
    found = pictures(data / folder)
    if not found:
        pytest.skip(f"no pictures in {folder}")
    for path in found:
        with Image.open(path) as picture:
            image = as_rgb8(picture)
        histogram = ColorHistogram.from_image(image)
        for method in (Macenko, Reinhard):
            normalizer = fitted(method, data / "crc_val_he_7k" / "STR")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", EstimateWarning)
                appearance = normalizer.estimate(histogram)
            result = normalizer.transform(image, appearance)
            assert result.shape == image.shape
            if appearance.white_origin == "glass":
                flat = histogram.flat
                glass = flat.where((np.abs(flat.colors - appearance.white_point) <= 6).all(axis=1))
                mapped = normalizer.color_map(appearance, lazy=True)(glass.colors[None])[0]
                wanted = normalizer.reference_.white_point
                message = f"{method.__name__}, {path.relative_to(data)}"
                mean = np.average(mapped, axis=0, weights=glass.counts)
                np.testing.assert_allclose(mean, wanted, rtol=0, atol=1.5, err_msg=message)


def test_the_reference_has_glass_and_two_stains(data: Path) -> None:
    folder = data / "crc_val_he_7k" / "STR"
    appearance = fitted(Macenko, folder).reference_
    assert appearance.white_origin == "glass"
    hematoxylin, eosin = appearance.stain_matrix
    assert hematoxylin[0] > eosin[0] + 0.2
    assert 15 < appearance.angle < 60
