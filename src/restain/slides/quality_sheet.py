"""`quality.html`: every slide of a cohort before and after, with its stains and its glass, the odd ones first.

One page without a network: pictures are small and inside it, which a browser decodes as they come into view. Of a
large cohort the thousand slides furthest from the median are shown; the manifest has all.
"""

import base64
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from restain import __version__
from restain.color.glass import find_white_point
from restain.color.histogram import ColorHistogram
from restain.errors import OutputError, RestainError
from restain.files import write_atomically
from restain.methods.base import Normalizer
from restain.slides import quality_html as page
from restain.slides.folders import checksum
from restain.slides.manifest import NAME as MANIFEST
from restain.slides.manifest import Row
from restain.slides.outliers import Score, scores
from restain.slides.pipeline import describe
from restain.slides.reader import Slide, open_slide

NAME = "quality.html"

MOST_SLIDES = 1000
SIDE = 220  # of a picture, pixels
LOOKED_AT = 512  # side of the overview that glass is measured on
WEBP_QUALITY = 60  # half of what JPEG takes, and nothing of it is seen at this size

GENERATOR = "restain quality sheet"


@dataclass(frozen=True)
class Card:
    """What the page shows of one slide.

    Attributes:
        row: of the manifest.
        score: how far it is from the others; None where that is not known.
        before, after: pictures as data URIs; "" where there is none.
        glass: (R, G, B) of the output's glass, measured on the output; None where none is seen.
        trouble: why there are no pictures.
    """

    row: Row
    score: Score | None
    before: str = ""
    after: str = ""
    glass: tuple[float, float, float] | None = None
    trouble: str = ""


def refuse_stranger(folder: Path) -> None:
    """Raise `OutputError` if a page of that name lies there that restain did not make."""
    path = folder / NAME
    if path.exists() and (not path.is_file() or GENERATOR.encode() not in path.read_bytes()[:2000]):
        raise OutputError(f"{path} is there already, and restain did not make it; name another folder, or move it")


def is_current(folder: Path) -> bool:
    """Whether the page of a cohort's folder was drawn from the manifest as it is now."""
    path = folder / NAME
    return path.is_file() and _manifest(folder).encode() in path.read_bytes()[:2000]


def write(
    folder: Path,
    rows: Sequence[Row],
    normalizer: Normalizer,
    *,
    workers: int | None = None,
    progress: Callable[[str, float, int], None] = lambda stage, done, total: None,
) -> Path:
    """Look at the slides of a cohort's manifest and write the page.

    Args:
        folder: the cohort's.
        rows: of the manifest.
        normalizer: what they were normalized by.
        workers: reading threads; None for one a core.
        progress: called with "quality sheet", the slides looked at, and how many there are.

    Returns:
        Its path.
    """
    done = [row for row in rows if row.status == "done"]
    scored = sorted(zip(done, scores([row.appearance for row in done]), strict=True), key=_place)
    shown = scored[:MOST_SLIDES]
    cards = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for number, card in enumerate(pool.map(lambda pair: _look(folder, *pair), shown), start=1):
            cards.append(card)
            progress("quality sheet", number, len(shown))
    reference = normalizer.reference_
    text = page.draw(
        title=f"Quality of {folder.absolute().name or folder}",
        generator=GENERATOR,
        manifest=_manifest(folder),
        software=f"restain {__version__}",
        method=normalizer.name,
        reference={} if reference is None else describe(normalizer, reference)["appearance"],
        provenance=dict(normalizer.provenance_),
        cards=cards,
        appearances=[row.appearance for row in done],
        more=len(scored) - len(shown),
        failed=[row for row in rows if row.status == "failed"],
        found=sum(row.status == "found" for row in rows),
    )
    path = folder / NAME
    write_atomically(path, lambda stream: stream.write(text.encode("utf-8", "replace")), overwrite=True)
    return path


def _manifest(folder: Path) -> str:
    """What tells the manifest of a folder from another: no date, as clocks may be wrong."""
    path = folder / MANIFEST
    return f"sha256 {checksum(path)}" if path.is_file() else "none"


def _place(pair: tuple[Row, Score | None]) -> tuple[int, float, str]:
    """What could not be measured first, then the furthest from the others; without scores by name."""
    row, score = pair
    if row.appearance.get("fallback"):
        return (0, 0.0, row.output)
    return (1, -score.value if score else 0.0, row.output)


def _look(folder: Path, row: Row, score: Score | None) -> Card:
    """Pictures of a slide before and after. What cannot be read any more is a card without."""
    try:
        with open_slide(row.input, on_error="skip") as source, open_slide(folder / row.output) as output:
            before, _ = _seen(source)
            after, glass = _seen(output)
            return Card(row, score, _data_uri(before, output), _data_uri(after, output), glass)
    except (RestainError, OSError) as error:
        return Card(row, score, trouble=f"no pictures: {error}")


def _seen(slide: Slide) -> tuple[Any, tuple[float, float, float] | None]:
    """An overview, and the level of its glass."""
    pixels, known = slide.thumbnail(LOOKED_AT)
    white = find_white_point(ColorHistogram.from_image(pixels, mask=known))
    return pixels, tuple(white.level.tolist()) if white.origin == "glass" else None


def _data_uri(pixels: Any, like: Slide) -> str:
    """A small picture; both of a slide come out in one size, whatever levels they were read from."""
    width, height = like.dimensions
    scale = min(1.0, SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
