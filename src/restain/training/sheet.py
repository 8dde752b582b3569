"""Validation pictures: a sheet of source, normalized and target tiles that a person judges at a glance."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restain.color.images import RGB8, as_rgb8
from restain.errors import InputError

MOST_ROWS = 8
MOST_COLUMNS = 8
LONGEST_SIDE = 2400
"""Pixels; a sheet is no larger, whatever its tiles are."""

_CELL = 256
_LEAST_CELL = 64
_GAP = 6
_LINE = 22
_DARK, _LIGHT = (48, 48, 48), (240, 240, 240)


def validation_sheet(columns: Mapping[str, Sequence[RGB8]], title: str = "", *, cell: int = _CELL) -> Image.Image:
    """Tiles side by side: a row per tile, a column per kind, captions on top.

    Tiles keep their shape: large ones are reduced to a cell, small ones enlarged by a whole number, pixel for pixel.

    Args:
        columns: by caption (source, normalized, target, …), equally many (H, W, 3) uint8 tiles each, tile i of all
            from the same place. Beyond `MOST_ROWS`, evenly chosen rows are shown.
        title: one line on top, such as the step.
        cell: longest side of a shown tile, in pixels; less where the sheet would exceed `LONGEST_SIDE`.

    Returns:
        An RGB image.

    Raises:
        InputError: no column or too many, no tile, unequally many tiles, or what is no image.
    """
    counts = {len(tiles) for tiles in columns.values()}
    if not 1 <= len(columns) <= MOST_COLUMNS:
        raise InputError(f"got {len(columns)} columns; wanted 1 to {MOST_COLUMNS}")
    if len(counts) != 1 or 0 in counts:
        raise InputError(f"got columns of {sorted(counts)} tiles; wanted equally many in each, at least one")
    count = counts.pop()
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).round().astype(int))
    room = (LONGEST_SIDE - _GAP) // max(len(columns), len(chosen)) - 2 * _GAP
    cell = max(min(cell, room), _LEAST_CELL)
    rows = [[_fitted(as_rgb8(tiles[i]), cell) for tiles in columns.values()] for i in chosen]

    widths = [max(row[j].width for row in rows) for j in range(len(columns))]
    heights = [max(tile.height for tile in row) for row in rows]
    font = ImageFont.load_default(size=14)
    top = _GAP + (_LINE if title else 0) + _LINE
    size = (_GAP + sum(widths) + _GAP * len(widths), top + sum(heights) + _GAP * len(heights))
    sheet = Image.new("RGB", size, _DARK)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_GAP, _GAP), _shortened(draw, title, size[0] - 2 * _GAP, font), fill=_LIGHT, font=font)
    x = _GAP
    for j, caption in enumerate(columns):
        draw.text((x, top - _LINE), _shortened(draw, caption, widths[j], font), fill=_LIGHT, font=font)
        y = top
        for row, height in zip(rows, heights, strict=True):
            sheet.paste(row[j], (x, y))
            y += height + _GAP
        x += widths[j] + _GAP
    return sheet


def _fitted(tile: RGB8, cell: int) -> Image.Image:
    """A tile in a cell."""
    image = Image.fromarray(tile)
    longest = max(image.size)
    if longest > cell:
        image.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    elif cell // longest > 1:
        factor = cell // longest
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image


def _shortened(
    draw: ImageDraw.ImageDraw, text: str, width: int, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont"
) -> str:
    """As much of a text, on one line, as `width` pixels hold."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
