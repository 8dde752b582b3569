"""Plain images through Pillow: PNG, JPEG, WebP, BMP, CMYK and palettes too; one level, held in memory."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from restain.color.images import RGB8, as_rgb8, opaque
from restain.errors import OutputError, RestainError, SlideError
from restain.slides.reader import Mask, Slide

READ_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000", "GIF")
"""Pillow's other formats are not images of tissue, and some of them start other programs."""

WRITTEN = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".webp": "WEBP",
}  # fmt: skip
"""Formats that images are written in, by extension."""


def open_image(path: Path) -> Slide | None:
    """Open with Pillow; None if it does not know the format, `SlideError` if the image is damaged or too large."""
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            return ImageSlide(path, image)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise SlideError(f"Pillow: {error}") from None
    except RestainError as error:
        raise SlideError(str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise SlideError(f"the image is damaged or truncated ({error})") from None


class ImageSlide(Slide):
    """A plain image as a slide of one level."""

    def __init__(self, path: Path, image: Image.Image) -> None:
        super().__init__(path, f"image: {image.format}")
        self.pyramidal = False
        self.mode = image.mode
        if image.mode in ("RGB", "RGBA"):
            self._believe_profile(image.info.get("icc_profile"))
        self.dpi: tuple[float, float] | None = image.info.get("dpi")
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            self._note(f"{path.name} has {frames} frames; only the first is used")
        upright = ImageOps.exif_transpose(image)
        self.pixels: RGB8 = as_rgb8(upright)
        self.mask: Mask | None = opaque(upright)
        # (H, W, 4), before transparency is composited on white; None when all of it is opaque.
        self.rgba: NDArray[np.uint8] | None = None if self.mask is None else np.asarray(upright.convert("RGBA"))
        self.level_dimensions = ((upright.width, upright.height),)
        self.level_downsamples = (1.0,)

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> tuple[RGB8, Mask | None]:
        (left, top), (width, height) = location, size
        out = np.full((height, width, 3), 255, np.uint8)
        known = np.zeros((height, width), np.bool_)
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + height, self.pixels.shape[0]), min(left + width, self.pixels.shape[1])
        if y1 > y0 and x1 > x0:
            target = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
            out[target] = self.pixels[y0:y1, x0:x1]
            known[target] = True if self.mask is None else self.mask[y0:y1, x0:x1]
        return out, None if known.all() else known

    def read_rgba(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        if self.rgba is None:
            return super().read_rgba(location, level, size)
        (x, y), (width, height) = location, size
        out = np.zeros((height, width, 4), np.uint8)
        inside = self.rgba[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        top, left = max(-y, 0), max(-x, 0)
        out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return out


def writes_alpha(suffix: str) -> bool:
    """Whether images of this extension can be transparent."""
    return suffix.lower() in (".png", ".tif", ".tiff", ".webp")


def encode_image(
    pixels: NDArray[np.uint8],
    suffix: str,
    icc_profile: bytes | None,
    *,
    description: str = "",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """Encode RGB or RGBA as the format that `suffix` names (".png", ".jpg", …); JPEG at quality 95, 4:4:4.

    The description goes where the format keeps one (TIFF's ImageDescription, PNG's text, JPEG's comment).

    Raises:
        OutputError: such files are not written, or cannot hold an image of this size.
    """
    name = WRITTEN.get(suffix.lower())
    if name is None:
        raise OutputError(f"cannot write {suffix or 'a file without extension'}; use {', '.join(WRITTEN)}")
    options: dict[str, Any] = {"icc_profile": icc_profile} if icc_profile else {}
    # JPEG counts dots an inch in 16 bits, too few for an objective of 40x; the others' fields hold more than this.
    largest = 65_535 if name == "JPEG" else 10_000_000
    if dpi is not None and name != "WEBP" and all(1 <= value <= largest for value in dpi):  # NaN fails too
        options["dpi"] = (float(dpi[0]), float(dpi[1]))
    if name in ("JPEG", "WEBP"):
        options["quality"] = 95
    if name == "JPEG":
        comment = description.encode()
        options |= {"subsampling": 0, "comment": comment if len(comment) < 65_000 else b""}  # a segment's largest size
    if name == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Description", description)
    if name == "TIFF":
        options |= {"compression": "tiff_deflate", "description": description}
    stream = io.BytesIO()
    try:
        Image.fromarray(pixels).save(stream, name, **options)
    except (OSError, ValueError) as error:
        height, width = pixels.shape[:2]
        raise OutputError(f"cannot write {width}x{height} pixels as {suffix}: {error}") from None
    return stream.getvalue()
