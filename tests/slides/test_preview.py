"""Contact sheets: source on the left, output on the right, for any number and size of files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.slides.preview import MOST_ROWS, contact_sheet, encode_sheet

RED, BLUE = (200, 30, 40), (30, 40, 200)


def make_pairs(folder: Path, sizes: list[tuple[int, int]]) -> list[tuple[Path, Path]]:
    """Red sources and blue outputs."""
    pairs = []
    for number, size in enumerate(sizes):
        source, output = folder / f"source{number}.png", folder / f"output{number}.png"
        Image.new("RGB", size, RED).save(source)
        Image.new("RGB", size, BLUE).save(output)
        pairs.append((source, output))
    return pairs


def area(sheet: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == color).all(axis=2).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 9, 12])
def test_every_pair_is_shown_whole(count: int, tmp_path: Path) -> None:
    sheet = contact_sheet(make_pairs(tmp_path, [(60, 40)] * count))
    assert area(sheet, RED) == area(sheet, BLUE) == count * 60 * 40


def test_the_source_is_on_the_left(tmp_path: Path) -> None:
    sheet = np.asarray(contact_sheet(make_pairs(tmp_path, [(60, 40)])))
    red = np.argwhere((sheet == RED).all(axis=2))
    blue = np.argwhere((sheet == BLUE).all(axis=2))
    assert red[:, 1].max() < blue[:, 1].min()
    assert red[:, 0].min() == blue[:, 0].min()


def test_of_many_files_some_are_shown_the_first_and_last_among_them(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, [(40, 40)] * 30)
    Image.new("RGB", (40, 40), (0, 255, 0)).save(pairs[0][0])
    Image.new("RGB", (40, 40), (255, 255, 0)).save(pairs[-1][0])
    sheet = contact_sheet(pairs)
    assert area(sheet, BLUE) == MOST_ROWS * 40 * 40
    assert area(sheet, (0, 255, 0)) == area(sheet, (255, 255, 0)) == 40 * 40


def test_sizes_may_differ_and_large_ones_are_made_smaller(tmp_path: Path) -> None:
    sizes = [(1500, 1000), (30, 200), (200, 30), (1, 1), (1, 900)]
    sheet = contact_sheet(make_pairs(tmp_path, sizes))
    shown = 480 * 320 + 30 * 200 + 200 * 30 + 1 + 480  # at most 480 a side
    assert area(sheet, RED) == area(sheet, BLUE) == shown


@pytest.mark.parametrize(("suffix", "name"), [(".png", "PNG"), (".jpg", "JPEG")])
def test_encoding(suffix: str, name: str, tmp_path: Path) -> None:
    sheet = contact_sheet(make_pairs(tmp_path, [(60, 40)]))
    with Image.open(io.BytesIO(encode_sheet(sheet, suffix))) as image:
        assert image.format == name
        assert image.size == sheet.size
