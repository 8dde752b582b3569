"""HTML in plain strings. Content that is passed on is HTML already; what people named goes through `text` first."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from restain.color.images import RGB8

MISSING = "–"
"""What stands where there is no number."""

JPEG_QUALITY = 88  # at twice the size that is shown, no artefact of it is seen


def text(value: object) -> str:
    """Anything as text of a page: the five characters that mean something in HTML are escaped."""
    # A file name that is no UTF-8 has lone surrogates, which no page can hold.
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """An element. `class_` stands for class, and `_` for `-`, in names of attributes; None leaves one out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>"


def paragraph(content: str, class_: str | None = None) -> str:
    """A paragraph of HTML."""
    return tag("p", content, class_=class_)


def bullets(items: Iterable[str], class_: str | None = None) -> str:
    """A list of HTML; nothing where there are no items."""
    inner = "".join(tag("li", item) for item in items)
    return tag("ul", inner, class_=class_) if inner else ""


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page with its heading."""
    return tag("section", tag("h2", text(title)) + "".join(parts), id=anchor) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], class_: str | None = None) -> str:
    """A table of HTML cells, the first of each row a heading."""
    top = tag("thead", tag("tr", "".join(tag("th", cell, scope="col") for cell in head))) if any(head) else ""
    body = "".join(
        tag("tr", tag("th", row[0], scope="row") + "".join(tag("td", cell) for cell in row[1:])) for row in rows
    )
    return tag("div", tag("table", top + tag("tbody", body), class_=class_), class_="scroll")


def shrunk(pixels: RGB8, longest: int) -> RGB8:
    """A picture (H, W, 3) of at most this side; a copy, and a smaller one stays as it is."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.array(image)


def picture(pixels: RGB8, alternative: str, *, exact: bool = False) -> str:
    """An image element that holds its pixels (H, W, 3) uint8.

    Args:
        pixels: the picture, at the size that it is to have in the file.
        alternative: what is read where the picture is not seen, plain text.
        exact: without loss (PNG); else JPEG.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    stream = io.BytesIO()
    if exact:
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    data = base64.b64encode(stream.getvalue()).decode()
    kind = "png" if exact else "jpeg"
    source = f"data:image/{kind};base64,{data}"
    return f'<img alt="{text(alternative)}" width="{image.width}" height="{image.height}" src="{source}">'


def number(value: float, decimals: int) -> str:
    """A number with a real minus sign; `MISSING` where there is none."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    rounded = f"{value:.{decimals}f}"
    if float(rounded) == 0:  # no "-0.00"
        rounded = rounded.lstrip("-")
    return rounded.replace("-", "−")


def decimals_for(values: Iterable[float]) -> int:
    """Digits behind the point that show three figures of the largest of these values."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return min(4, max(0, 3 - math.ceil(math.log10(largest)))) if largest > 0 else 3


def with_unit(shown: str, unit: str) -> str:
    """A number that is text already, with its unit: a degree sign follows at once, other units after a space."""
    return shown + unit if unit in ("", "°") else f"{shown} {unit}"


def chance(p: float) -> str:
    """A p as text: "p = 0.03", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def joined(names: Sequence[str], last: str = "and") -> str:
    """Names as in a sentence: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
