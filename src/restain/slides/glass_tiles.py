"""Tiles of empty glass, mapped without being decoded: more than half of most slides.

Where a slide's tiles are JPEG in full colour (4:4:4), and its pyramid's will be, a tile that shows nothing but glass
takes a shorter way than decoding, mapping and encoding: `restain.slides.glass_kernels`. It is taken only where it leads
to the same, nearly: blocks of one colour become what they become the usual way, and the pixels of all others lie in a
box of colours around the white point, in which the colour map is affine, within `MOST_DEVIATION` of every entry. All
else, and all that is unusual or damaged, goes the usual way.
"""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.colormap import ColorMap
from restain.slides.codecs import EncodedTile, PyramidSettings, compress
from restain.slides.jpeg_stream import JpegStream, parse_stream
from restain.slides.reader import JpegPiece, Slide

MOST_DEVIATION = 0.75
"""Levels between the affine map and an entry of the table, of which rounding the entry takes 0.5."""

MOST_BYTES = 0.25
"""Bytes a pixel above which a stream is no glass; glass has 0.02 to 0.1 at a quality of 90, tissue 0.5 and more."""

MOST_READ = 4
"""Times a tile's pixels, in source tiles that it lies in, above which it is left: those are read anew for each tile."""

MOST_SPECKS = 1 / 16
"""Share of the blocks of a tile that may hold something else than glass, such as dust; the tile is glass without."""

_SIDES = (12, 10, 8, 7, 6, 5, 4, 3)  # of the box, levels from the white point
_BLOCK = 8
_WAVES = 8  # coefficients a block, beside the mean, for which there is room; tissue has more

# Between RGB and YCbCr (JFIF, ITU-R BT.601): a matrix, and what is added; in `glass_kernels.FIXED`, as libjpeg's.
_FROM_RGB = np.array(
    [[19595, 38470, 7471, 0], [-11059, -21709, 32768, 128 << 16], [32768, -27439, -5329, 128 << 16]], np.int64
)
_TO_RGB = np.array(
    [[1 << 16, 0, 91881, -91881 << 7], [1 << 16, -22554, -46802, 69356 << 7], [1 << 16, 116130, 0, -116130 << 7]],
    np.int64,
)
_SAME = np.eye(3, 4, dtype=np.int64) << 16


@dataclass(frozen=True)
class GlassBox:
    """Colours around the white point, between which a colour map is affine.

    Attributes:
        lowest, highest: (3,) RGB levels.
        change: (3, 4), from RGB levels to RGB levels: a matrix, and what is added.
    """

    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]
    change: NDArray[np.float32]


def find_glass_box(color_map: ColorMap, white: ArrayLike) -> GlassBox | None:
    """The largest box around a white point, up to 12 levels each way, in which `color_map` is affine.

    Every colour of the box is looked at. None where there is no box worth the name.
    """
    center = np.clip(np.rint(np.asarray(white, np.float64)), 0, 255).astype(np.int64)
    largest = _SIDES[0]
    axes = [np.arange(max(level - largest, 0), min(level + largest, 255) + 1) for level in center]
    colors = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    mapped = color_map(colors[None].astype(np.uint8))[0].astype(np.float64)
    inputs = np.column_stack([colors - center, np.ones(len(colors))])
    distance = np.abs(inputs[:, :3]).max(axis=1)
    for side in _SIDES:
        inside = distance <= side
        fitted = np.linalg.lstsq(inputs[inside], mapped[inside], rcond=None)[0]
        if np.abs(inputs[inside] @ fitted - mapped[inside]).max() <= MOST_DEVIATION:
            change = fitted.T.copy()
            change[:, 3] -= change[:, :3] @ center
            low, high = colors[inside].min(axis=0) - 0.5, colors[inside].max(axis=0) + 0.5
            return GlassBox(low.astype(np.float32), high.astype(np.float32), change.astype(np.float32))
    return None


def glass_tiles(slide: Slide, color_map: ColorMap, white: ArrayLike, settings: PyramidSettings) -> "GlassTiles | None":
    """`GlassTiles` for a pass over a slide; None where its tiles, its pyramid or the colour map are of another kind."""
    if settings.codec != "jpeg" or settings.subsampling != "444":
        return None
    width, height = (slide.tile_sizes[0] if slide.tile_sizes else None) or (0, 0)
    if width * height > MOST_READ * settings.tile**2:  # before any is read
        return None
    box = find_glass_box(color_map, white)
    return None if box is None else GlassTiles(slide, color_map, box, settings)


class GlassTiles:
    """Maps tiles of glass of one slide for one pyramid.

    Args:
        slide: the source.
        color_map: for what is not glass in them.
        box: where that map is affine.
        settings: of the pyramid.
    """

    def __init__(self, slide: Slide, color_map: ColorMap, box: GlassBox, settings: PyramidSettings) -> None:
        self._slide = slide
        self._color_map = color_map
        self._box = box
        self._settings = settings
        side = settings.tile
        written = compress(np.full((side, side, 3), 255, np.uint8), settings)
        self._written = parse_stream(written) if settings.codec == "jpeg" and side % _BLOCK == 0 else None
        self._from_rgb = _FROM_RGB if settings.ycbcr else _SAME
        self._header = b"" if self._written is None else written[: self._written.start]
        self._local = threading.local()

    def encode(self, x: int, y: int) -> EncodedTile | None:
        """The mapped tile at (x, y), level-0 pixels; None where it is not glass, or has to go the usual way."""
        from restain.slides.glass_kernels import BASIS, HALVED  # Numba takes long to import
        from restain.slides.glass_reading import read_blocks
        from restain.slides.glass_writing import write_blocks

        written = self._written
        if written is None:
            return None
        side = self._settings.tile
        pieces = self._slide.jpeg_pieces((x, y), (side, side), MOST_BYTES)
        if pieces is None or sum(piece.size[0] * piece.size[1] for piece in pieces) > MOST_READ * side**2:
            return None
        grid = self._grid()
        counts = np.array([0, grid.most_specks])
        ycbcr = pieces[0].ycbcr
        to_rgb = _TO_RGB if ycbcr else _SAME
        for piece in pieces:
            stream = self._parsed(piece)
            if stream is None or piece.ycbcr != ycbcr:
                return None
            wide, tall = (-(-length // _BLOCK) for length in stream.size)
            glass = read_blocks(
                np.frombuffer(piece.data, np.uint8), stream.start, wide, tall, stream.quant, stream.tables,
                np.array([*piece.window, *piece.place]) // _BLOCK, to_rgb, self._box.lowest, self._box.highest,
                BASIS, grid.means, grid.runs, grid.waves, grid.weights, grid.specks, counts,
            )  # fmt: skip
            if not glass:
                return None
        half = np.empty((side // 2, side // 2, 3), np.uint8)
        length = -1
        while length < 0:
            length = write_blocks(
                grid.means, grid.runs, grid.waves, grid.weights, grid.specks, self._color_map.entries, to_rgb,
                self._box.change, self._from_rgb, BASIS, HALVED,
                written.quant, written.dc_codes, written.ac_codes, grid.stream, half, grid.missing,
            )  # fmt: skip
            if length < 0:
                self._color_map.evaluate(grid.missing[:-length])
        return EncodedTile(self._header + grid.stream[:length].tobytes() + b"\xff\xd9", half) if length else None

    def _parsed(self, piece: JpegPiece) -> JpegStream | None:
        """The header of a stream, if it is one that can be glass and lies on the grid of blocks."""
        stream = parse_stream(piece.data, piece.tables)
        if stream is None or stream.size != piece.size or any(v % _BLOCK for v in (*piece.window, *piece.place)):
            return None
        return stream

    def _grid(self) -> "_Grid":
        grid: _Grid | None = getattr(self._local, "grid", None)
        if grid is None:
            grid = self._local.grid = _Grid(self._settings.tile // _BLOCK)
        return grid


class _Grid:
    """The blocks of one tile, as `read_blocks` fills them in; each thread has its own."""

    def __init__(self, side: int) -> None:
        from restain.slides.glass_writing import LONGEST

        room = side * side * _WAVES
        self.means = np.empty((side, side, 3), np.float32)
        self.runs = np.empty((side, side, 4), np.int32)
        self.waves = np.empty(room, np.int32)
        self.weights = np.empty(room, np.float32)
        self.specks = np.empty((side, side), np.bool_)
        self.most_specks = int(MOST_SPECKS * side * side)
        self.missing = np.empty(self.most_specks * _BLOCK**2 + side * side, np.uint32)
        self.stream = np.empty(side * side * _BLOCK**2 + LONGEST, np.uint8)  # a byte a pixel, and the last blocks
