"""One way to read any slide or image: `open_slide`, and what it returns.

Positions are (x, y) in level-0 pixels; sizes are (width, height); pixels are (height, width, 3) uint8 arrays.
"""

import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from restain.color.images import RGB8
from restain.errors import SlideError, SlideWarning

Mask = NDArray[np.bool_]

PLAUSIBLE_MPP = (0.02, 100.0)
"""Micrometres per pixel that a microscope or an overview camera can have; other values count as unknown."""

PLAUSIBLE_POWER = (0.1, 1000.0)
"""Magnifications that an objective can have, scanners' products with further optics included."""

UNKNOWN_TILE = 256
"""Side in which damage is narrowed down where a file does not say how large its tiles are."""


class Slide:
    """A slide or image, opened for reading. Safe to read from many threads. Closes as a context manager.

    Attributes:
        path: the file.
        format: "openslide: aperio", "tiff", "image: PNG", …
        pyramidal: whether it is a slide (tiled or with levels) rather than a plain image.
        level_dimensions: (width, height) of each level, the full one first.
        level_downsamples: how many level-0 pixels one pixel of each level spans.
        tile_sizes: (width, height) of the file's own tiles at each level, in its pixels; None where it does not say.
        mpp: (x, y) micrometres per level-0 pixel, None where unknown or implausible.
        objective_power: magnification of the objective, None where unknown.
        icc_profile: None for sRGB.
        icc_error: what is wrong with the file's profile, whose pixels are then taken as sRGB; None if nothing is.
        properties: everything else the file says, as text.
        associated_images: label, macro, thumbnail by name; each is read when asked for.
        notes: what of the file's own claims was not believed; each was also issued as a `SlideWarning`.
    """

    def __init__(self, path: Path, format: str) -> None:
        self.path = path
        self.format = format
        self.pyramidal = True
        self.level_dimensions: tuple[tuple[int, int], ...] = ()
        self.level_downsamples: tuple[float, ...] = ()
        self.tile_sizes: tuple[tuple[int, int] | None, ...] = ()
        self.mpp: tuple[float, float] | None = None
        self.objective_power: float | None = None
        self.icc_profile: bytes | None = None
        self.icc_error: str | None = None
        self.properties: Mapping[str, str] = {}
        self.associated_images: Mapping[str, Callable[[], RGB8]] = {}
        self.notes: list[str] = []

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        return self.level_dimensions[0]

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        """Read a rectangle.

        Args:
            location: (x, y) of its top left corner in level-0 pixels.
            level: the level to read.
            size: (width, height) in pixels of that level.

        Returns:
            Pixels (height, width, 3) uint8, the caller's own, and where they are real, (height, width) bool; None when
            all are. Padding (missing tiles, transparent pixels, outside the slide) is white.

        Raises:
            SlideError: the file is damaged there.
        """
        raise NotImplementedError

    def read_rgba(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """A rectangle with its transparency as it is: (height, width, 4), not premultiplied, the caller's own.

        `read_region` knows only opaque or not. That is too little for who passes transparency on: where a level's
        pixels do not begin at a whole level-0 pixel, OpenSlide resamples, and leaves an alpha of 254 here and there
        where its tiles meet; they would become holes.

        Raises:
            SlideError: the file is damaged there, or was closed.
        """
        pixels, known = self.read_region(location, level, size)
        alpha = np.full(pixels.shape[:2], 255, np.uint8) if known is None else known.astype(np.uint8) * np.uint8(255)
        return np.dstack([pixels, alpha])

    def read_opaque(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> RGB8 | None:
        """As `read_region`, the caller's own, where a reader has pixels without transparency and all are real; or None.

        For who would make RGBA of them: mapped before, they are mapped in one piece of memory.
        """
        return None

    def read_tile(self, location: tuple[int, int], size: tuple[int, int], out: RGB8) -> tuple[RGB8, Mask | None]:
        """As `read_region` of level 0, for passes over the whole slide: a reader may write the pixels to `out`.

        Args:
            location: (x, y) of the top left corner.
            size: (width, height).
            out: a contiguous array (height, width, 3), used where that saves time.

        Returns:
            Pixels, in `out` or in an array of their own, and where they are real.
        """
        return self.read_region(location, 0, size)

    def jpeg_pieces(
        self, location: tuple[int, int], size: tuple[int, int], longest: float = math.inf
    ) -> "list[JpegPiece] | None":
        """The JPEG streams that a rectangle of level 0 is made of, as they are in the file, if it is of nothing else.

        Args:
            location: (x, y) of the top left corner.
            size: (width, height).
            longest: most bytes a pixel; longer streams are not read, and the answer is None.

        Returns:
            None where a reader has no streams to give, one is missing, or the rectangle reaches beyond the slide. What
            is damaged is not found out here.
        """
        return None

    def thumbnail(self, longest: int = 2048) -> tuple[RGB8, Mask | None]:
        """The whole slide, at most `longest` pixels a side, by averaging; pixels and mask as `read_region`."""
        width, height = self.dimensions
        wanted = max(1.0, max(width, height) / longest)
        level = max(i for i, d in enumerate(self.level_downsamples) if d <= wanted * 1.001)
        width, height = self.level_dimensions[level]
        step = max(1, int(np.ceil(max(width, height) / longest)))
        out = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
        known = np.ones(out.shape[:2], np.bool_)
        # In bands, so that a slide without small levels is never in memory whole.
        band = max(step, 4_000_000 // width // step * step)
        scale = self.level_downsamples[level]
        for top in range(0, height, band):
            rows = min(band, height - top)
            pixels, mask = self.read_region((0, round(top * scale)), level, (width, rows))
            first, last = top // step, -(-(top + rows) // step)
            out[first:last] = _shrunk(pixels, step)
            if mask is not None:
                known[first:last] = _shrunk(mask[..., None].astype(np.uint8) * 255, step)[..., 0] == 255
        return out, None if known.all() else known

    def _measure_as(self, slide: "Slide") -> None:
        """Take the levels, tiles, resolution and magnification of the slide that this one wraps."""
        self.pyramidal = slide.pyramidal
        self.level_dimensions = slide.level_dimensions
        self.level_downsamples = slide.level_downsamples
        self.tile_sizes = slide.tile_sizes
        self.mpp = slide.mpp
        self.objective_power = slide.objective_power

    def _believe_mpp(self, x: float | None, y: float | None) -> None:
        """Set `mpp` if both values are plausible; note it where something implausible was claimed."""
        if x is None or y is None:
            return
        low, high = PLAUSIBLE_MPP
        if low <= x <= high and low <= y <= high:
            self.mpp = (x, y)
            return
        wrong = y if low <= x <= high else x
        self._note(f"{self.path.name} claims {wrong:g} micrometres per pixel; taken as unknown")

    def _believe_power(self, power: float | None) -> None:
        """Set `objective_power` if it is plausible; note it where something implausible was claimed."""
        if power is None:
            return
        low, high = PLAUSIBLE_POWER
        if low <= power <= high:
            self.objective_power = power
        else:
            self._note(f"{self.path.name} claims an objective of {power:g}x; taken as unknown")

    def _note(self, message: str) -> None:
        """Keep a note, and tell it at once."""
        self.notes.append(message)
        warnings.warn(message, SlideWarning, stacklevel=2)

    def _believe_profile(self, profile: bytes | None) -> None:
        """Set `icc_profile` if it can be that of RGB pixels; note it where it cannot."""
        from restain.slides.icc import profile_error

        if not profile:
            return
        self.icc_error = profile_error(profile)
        if self.icc_error is None:
            self.icc_profile = profile
        else:
            self._note(f"the ICC profile of {self.path.name} is {self.icc_error}; its pixels are taken as sRGB")

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@dataclass(frozen=True)
class JpegPiece:
    """A part of a rectangle that comes from one JPEG tile.

    Attributes:
        data: the tile's stream.
        tables: segments that it does not repeat, without SOI and EOI.
        ycbcr: whether its components are YCbCr; else they are RGB.
        size: (width, height) that the file says the tile has.
        window: (left, top, right, bottom) of the part, in pixels of the tile.
        place: (x, y) of the part, in pixels of the rectangle.
    """

    data: bytes
    tables: bytes
    ycbcr: bool
    size: tuple[int, int]
    window: tuple[int, int, int, int]
    place: tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """A part of a rectangle, cut along the file's own tiles.

    Attributes:
        location: (x, y) of its top left corner in level-0 pixels.
        size: (width, height) in pixels of the level.
        tile: (x, y) of the tile that it is a part of, level-0 pixels.
        offset: (x, y) in the rectangle, in pixels of the level.
    """

    location: tuple[int, int]
    size: tuple[int, int]
    tile: tuple[int, int]
    offset: tuple[int, int] = (0, 0)


def pieces(slide: Slide, location: tuple[int, int], level: int, size: tuple[int, int]) -> Iterator[Piece]:
    """The parts of a rectangle of `slide` that lie inside it, one for each tile of the file, in reading order."""
    scale = slide.level_downsamples[level]
    tile = slide.tile_sizes[level] if level < len(slide.tile_sizes) else None
    cuts: list[list[tuple[int, int, int]]] = []
    for axis, side in enumerate(tile or (UNKNOWN_TILE, UNKNOWN_TILE)):
        start = location[axis] / scale
        first, last = max(start, 0), min(start + size[axis], slide.level_dimensions[level][axis])
        numbers = range(math.floor(first / side), math.ceil(last / side))
        # Where the level's grid does not meet the rectangle's pixels, a piece begins at the first one inside a tile.
        found = [
            (n, max(math.ceil(n * side - start), 0), min(math.ceil((n + 1) * side - start), math.ceil(last - start)))
            for n in numbers
        ]
        cuts.append([(round(n * side * scale), begin, end) for n, begin, end in found if end > begin])
    for tile_y, top, bottom in cuts[1]:
        for tile_x, left, right in cuts[0]:
            place = (location[0] + round(left * scale), location[1] + round(top * scale))
            yield Piece(place, (right - left, bottom - top), (tile_x, tile_y), (left, top))


def damaged(name: str, piece: Piece, level: int, reason: object) -> str:
    """The line that says where a file is damaged."""
    where = f"at {piece.tile}" + (f", level {level}" if level else "")
    return f"{name} is damaged in the tile {where} (x, y in level-0 pixels): {reason}"


OnError = Literal["stop", "skip", "fill"]
"""What becomes of a damaged tile: reading it is an error, it is padding, or it is glass."""


def open_slide(
    path: str | os.PathLike[str] | Slide, *, icc: Literal["keep", "srgb"] = "keep", on_error: OnError = "stop"
) -> Slide:
    """Open a slide or image: OpenSlide's formats, other tiled or pyramidal TIFF, plain images, tried in this order.

    A folder is opened if it is an OME-Zarr, or holds the instances of one DICOM slide.

    Args:
        path: of a file or folder; an opened slide is returned as it is.
        icc: "srgb" to convert pixels to sRGB by the file's ICC profile, "keep" to leave them.
        on_error: "stop" to raise `SlideError` where a tile is damaged, "skip" or "fill" to get padding there; see
            `restain.slides.forgiving`. A plain image is read whole or not at all.

    Raises:
        SlideError: there is no such file, none of the readers knows it, or its profile cannot be converted; the message
            says what to do.
    """
    from restain.slides.forgiving import check_on_error, forgiving
    from restain.slides.icc import check_icc, slide_in_srgb

    check_icc(icc)
    check_on_error(on_error)
    if isinstance(path, Slide):
        return path
    slide = _open_as_it_is(path)
    if icc == "srgb":
        try:
            slide = slide_in_srgb(slide)
        except SlideError:
            slide.close()
            raise
    return forgiving(slide, on_error)


def _open_as_it_is(path: str | os.PathLike[str]) -> Slide:
    from restain.slides import image_reader, openslide_reader, tiff_reader
    from restain.slides.claims import check_tiff, is_tiff

    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise SlideError(f"{path} does not exist")
    special = _special(path)
    if special is not None:  # to read from it may never end
        raise SlideError(f"{path} is a {special}; wanted a slide or image file")
    if path.is_file() and path.stat().st_size == 0:
        raise SlideError(f"{path} is empty (0 bytes); it was probably not copied completely")
    if path.is_file() and is_tiff(path):
        try:
            check_tiff(path)
        except SlideError as error:
            raise SlideError(f"{path} cannot be read: {error}") from None
    reasons = []
    readers = (openslide_reader.open_openslide, tiff_reader.open_tiff, image_reader.open_image)
    for reader in readers:
        try:
            slide = reader(path)
        except SlideError as error:
            reasons.append(str(error))
            if reader is tiff_reader.open_tiff:
                break  # Pillow would open what tifffile refuses, and get its numbers wrong
        else:
            if slide is not None:
                return slide
    if reasons:
        raise SlideError(f"{path} cannot be read: {'; '.join(dict.fromkeys(reasons))}")
    raise SlideError(f"{path} is not a slide or image of a known format (OpenSlide's formats, TIFF, PNG, JPEG, …)")


def _open_folder(path: Path) -> Slide:
    """Open a folder that is one slide: an OME-Zarr, or the instances of one DICOM series."""
    from restain.slides import dicom_folder, folders, openslide_reader, zarr_reader

    if folders.is_zarr(path):
        return zarr_reader.open_zarr(path)
    indexed = (path / "DICOMDIR").exists()
    files = [path] if indexed else dicom_folder.one_of_each_series(dicom_folder.instances(path))
    if not files:
        raise SlideError(f"{path} is a folder; wanted a slide or image file, OME-Zarr, or a folder of one DICOM slide")
    if len(files) > 1:
        raise SlideError(f"{path} holds {len(files)} DICOM slides; name a file of one, such as {files[0].name}")
    slide = openslide_reader.open_openslide(files[0])
    if slide is None:
        raise SlideError(f"{path} cannot be read: OpenSlide does not know {files[0].name}")
    return slide


def _special(path: Path) -> str | None:
    """What a path is that is neither file nor folder."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def _shrunk(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Box average by `step`; the last box of a side may be smaller."""
    if step == 1:
        return pixels
    rows, columns = (np.arange(0, n, step) for n in pixels.shape[:2])
    total = np.add.reduceat(np.add.reduceat(pixels.astype(np.uint32), rows, axis=0), columns, axis=1)
    height = np.minimum(step, pixels.shape[0] - rows)
    width = np.minimum(step, pixels.shape[1] - columns)
    area = (height[:, None] * width)[..., None]
    mean: NDArray[np.uint8] = ((total + area // 2) // area).astype(np.uint8)
    return mean
