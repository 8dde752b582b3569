"""Validation sheets show the tiles they were given, where they say, at a size a screen takes."""

import numpy as np
import pytest
from PIL import Image

from restain.errors import InputError
from restain.training.sheet import LONGEST_SIDE, MOST_ROWS, validation_sheet


def flat(color: tuple[int, int, int], height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def box(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Where a colour is: left, top, right, bottom."""
    rows, columns = np.nonzero((np.asarray(sheet) == color).all(axis=2))
    assert len(rows), color
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_row_per_tile_and_a_column_per_kind() -> None:
    colors = {(j, i): (10 + 40 * i, 200 - 30 * j, 99) for i in range(3) for j in range(2)}
    columns = {name: [flat(colors[j, i]) for i in range(3)] for j, name in enumerate(("source", "normalized"))}
    sheet = validation_sheet(columns, "step 3")
    boxes = {place: box(sheet, color) for place, color in colors.items()}
    for (j, i), (left, top, right, bottom) in boxes.items():
        assert (right - left, bottom - top) == (256, 256)  # enlarged by a whole number
        assert left == boxes[j, 0][0]
        assert top == boxes[0, i][1]
    assert boxes[0, 0][2] < boxes[1, 0][0]
    assert boxes[0, 0][3] < boxes[0, 1][1]


def test_small_tiles_are_enlarged_pixel_for_pixel() -> None:
    tile = np.random.default_rng(0).integers(60, 255, (50, 40, 3), dtype=np.uint8)
    tile[0, 0] = tile[-1, -1] = (1, 2, 3)
    sheet = validation_sheet({"source": [tile]}, cell=200)
    left, top, right, bottom = box(sheet, (1, 2, 3))
    assert (right - left, bottom - top) == (160, 200)
    shown = np.asarray(sheet)[top:bottom, left:right]
    np.testing.assert_array_equal(shown, tile.repeat(4, 0).repeat(4, 1))


def test_tiles_keep_their_shape() -> None:
    sheet = validation_sheet({"a": [flat((200, 1, 1), 300, 600)], "b": [flat((1, 200, 1), 500, 250)]})
    left, top, right, bottom = box(sheet, (200, 1, 1))
    assert (right - left, bottom - top) == (256, 128)
    left, top, right, bottom = box(sheet, (1, 200, 1))
    assert (right - left, bottom - top) == (128, 256)


@pytest.mark.parametrize(("count", "kinds", "side"), [(1, 1, 4), (50, 8, 400), (8, 2, 1500), (30, 1, 16)])
def test_the_sheet_is_bounded(count: int, kinds: int, side: int) -> None:
    columns = {f"column {j}": [flat((i, j, 9), side, side) for i in range(count)] for j in range(kinds)}
    sheet = validation_sheet(columns, "a title " * 100, cell=1000)
    assert max(sheet.size) <= LONGEST_SIDE
    pixels = np.asarray(sheet).reshape(-1, 3)
    shown = np.unique(pixels[pixels[:, 2] == 9][:, 0])
    assert len(shown) == min(count, MOST_ROWS)
    assert {0, count - 1} <= set(shown.tolist())  # evenly chosen: the first and the last are among them


def test_captions_are_drawn_and_stay_above_their_column() -> None:
    columns = {"source": [flat((1, 2, 3))], "": [flat((3, 2, 1))], "a caption that is wider than its column" * 3: []}
    columns[list(columns)[2]] = [flat((2, 2, 2))]
    sheet = np.asarray(validation_sheet(columns)).astype(int)
    top = sheet[:28].sum(axis=2) > 3 * 200
    assert top[:, 6:262].any()
    assert not top[:, 268:524].any()
    assert top[:, 530:786].any()
    assert not top[:, 786:].any()


def test_other_images_are_taken_too() -> None:
    gray = np.full((64, 64), 200, np.uint8)
    sheet = validation_sheet({"gray": [gray], "floats": [np.full((64, 64, 3), 0.5)]})
    assert box(sheet, (200, 200, 200))
    assert box(sheet, (128, 128, 128))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "got 0 columns"),
        ({str(j): [flat((1, 1, 1))] for j in range(9)}, "got 9 columns; wanted 1 to 8"),
        ({"a": []}, "at least one"),
        ({"a": [flat((1, 1, 1))], "b": []}, "equally many"),
        ({"a": [np.zeros((3, 64, 64), np.uint8)]}, "move the channel axis last"),
    ],
)
def test_what_makes_no_sheet(columns: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validation_sheet(columns)
