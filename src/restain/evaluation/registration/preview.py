"""A sheet to look at: source and target as a checkerboard, before and after. Where they lie together, edges go on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from restain.color.images import RGB8, as_rgb8
from restain.errors import OutputError
from restain.evaluation.registration.files import Outcome, read_picture
from restain.evaluation.registration.result import Registration
from restain.files import refuse_overwrite, write_atomically
from restain.slides.image_reader import encode_image

MOST_ROWS = 12
SIDE = 384
"""Pixels of a picture that are shown, from its middle and not reduced: a shift of a pixel must be seen."""

SQUARE = 48
_GAP, _CAPTION = 8, 18


def check_preview(preview: Path, overwrite: bool) -> None:
    """Raise `OutputError`, before any work is done, if the sheet may not be written."""
    if preview.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"{preview} should end in .png or .jpg")
    refuse_overwrite(preview, overwrite)


def write_preview(preview: Path, outcomes: Sequence[Outcome], overwrite: bool) -> None:
    """Write the sheet of up to twelve pairs, evenly chosen, rejected ones too; none where all failed."""
    shown = [outcome for outcome in outcomes if outcome.status != "failed"]
    if len(shown) > MOST_ROWS:
        shown = [shown[i] for i in np.linspace(0, len(shown) - 1, MOST_ROWS).astype(int)]
    if shown:
        data = encode_image(sheet(shown), preview.suffix, None)
        write_atomically(preview, lambda stream: stream.write(data), overwrite=overwrite)


def sheet(outcomes: Sequence[Outcome]) -> RGB8:
    """The sheet (H, W, 3): a row for two pairs, each before and after."""
    cells = [_cell(outcome) for outcome in outcomes]
    columns = min(2, len(cells))
    wide, tall = (max(cell.shape[axis] for cell in cells) for axis in (1, 0))
    rows = -(-len(cells) // columns)
    out = np.full((rows * (tall + _GAP) + _GAP, columns * (wide + _GAP) + _GAP, 3), 64, np.uint8)
    for i, cell in enumerate(cells):
        y, x = _GAP + i // columns * (tall + _GAP), _GAP + i % columns * (wide + _GAP)
        out[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return out


def checkerboard(a: RGB8, b: RGB8, square: int = SQUARE) -> RGB8:
    """Squares of two pictures of one size in turn."""
    rows, columns = (np.arange(side) // square for side in a.shape[:2])
    return np.where(((rows[:, None] + columns) % 2 == 0)[..., None], a, b)


def _cell(outcome: Outcome) -> RGB8:
    source, target = (as_rgb8(read_picture(path)) for path in (outcome.pair.source, outcome.pair.target))
    after = Registration.load(outcome.outputs.registration).warp(target)
    before = np.full_like(source, 255)
    height, width = (min(a, b) for a, b in zip(source.shape[:2], target.shape[:2], strict=True))
    before[:height, :width] = target[:height, :width]
    boards = [_middle(checkerboard(source, other)) for other in (before, after)]
    height, width = boards[0].shape[:2]
    image = Image.new("RGB", (2 * width + _GAP, height + _CAPTION), (64, 64, 64))
    quality = outcome.quality
    text = f"{outcome.pair.name[-40:]}: SSIM {quality.ssim_before:.2f} -> {quality.ssim_after:.2f}"
    text += "" if outcome.status == "accepted" else ", rejected"
    ImageDraw.Draw(image).text((0, 2), text.encode("ascii", "replace").decode(), fill=(255, 255, 255))
    for i, board in enumerate(boards):
        image.paste(Image.fromarray(board), (i * (width + _GAP), _CAPTION))
    return np.asarray(image)


def _middle(picture: RGB8) -> NDArray[np.uint8]:
    top, left = (max(0, (side - SIDE) // 2 // SQUARE * SQUARE) for side in picture.shape[:2])
    return picture[top : top + SIDE, left : left + SIDE]
