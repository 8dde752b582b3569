"""Before/after contact sheets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from restain.slides.image_reader import encode_image
from restain.slides.reader import open_slide

MOST_ROWS = 12
_CELL = 480
_GAP = 8
_CAPTION = 18


def contact_sheet(pairs: Sequence[tuple[Path, Path]], title: tuple[str, str] = ("before", "after")) -> Image.Image:
    """Source (left) and output (right) of up to twelve files, evenly chosen, with their names."""
    if len(pairs) > MOST_ROWS:
        pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, MOST_ROWS).astype(int)]
    rows = [(source.name, _small(source), _small(output)) for source, output in pairs]
    # Tiles are arranged in columns of pairs, so that a sheet of many stays near square.
    columns = 1 if len(rows) <= 3 else 2 if len(rows) <= 8 else 3
    lines = -(-len(rows) // columns)
    heights = [max(r[1].shape[0] for r in rows[i * columns : (i + 1) * columns]) for i in range(lines)]
    wide = max(row[1].shape[1] for row in rows)
    pair_width = 2 * wide + _GAP
    sheet = Image.new(
        "RGB",
        (columns * (pair_width + 3 * _GAP), sum(heights) + lines * (_CAPTION + _GAP) + _GAP),
        (64, 64, 64),
    )
    draw = ImageDraw.Draw(sheet)
    y = _GAP
    for line, height in enumerate(heights):
        for column, (name, before, after) in enumerate(rows[line * columns : (line + 1) * columns]):
            x = _GAP + column * (pair_width + 3 * _GAP)
            draw.text((x, y), f"{name[:60]}: {title[0]} | {title[1]}", fill=(255, 255, 255))
            sheet.paste(Image.fromarray(before), (x, y + _CAPTION))
            sheet.paste(Image.fromarray(after), (x + wide + _GAP, y + _CAPTION))
        y += height + _CAPTION + _GAP
    return sheet


def encode_sheet(sheet: Image.Image, suffix: str) -> bytes:
    """The sheet as PNG or JPEG bytes, by extension."""
    return encode_image(np.asarray(sheet), suffix, None)


def _small(path: Path) -> NDArray[np.uint8]:
    with open_slide(path, on_error="skip") as slide:  # a hole in a picture spoils nothing else
        pixels, _ = slide.thumbnail(2 * _CELL)
    # A slide's levels need not halve as the output's do; scaled to one size, before and after lie side by side.
    image = Image.fromarray(pixels)
    image.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    return np.asarray(image)
