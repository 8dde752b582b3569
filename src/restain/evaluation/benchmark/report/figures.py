"""Plots as SVG inside the page: matplotlib's objects without its global state, and the colours of the methods."""

import io
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restain.errors import MissingExtraError
from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.report.markup import tag, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = 1160
"""Pixels across the page, which are 12 inches of a plot, so that letters of all plots are of one size."""

TARGET = "target"
"""What the target is called beside the methods. A method of that name keeps its own colour."""

# Okabe & Ito 2008, which people who see no red or no green can tell apart; without yellow, which is faint on white.
_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7B4B2A")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

RAW_COLOR, TARGET_COLOR = "#8a8a8a", "#000000"
INK, FAINT = "#333333", "#d9d9d9"

# Whatever a user's matplotlibrc says, the page looks the same.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: sharp, small, and found by a search
    "font.family": "sans-serif",
    # matplotlib brings it, so that layouts are the same on every machine; the page's style sets its own, narrower one.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,  # a $ in a file's name is no formula
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Look:
    """How one method is drawn, the same in every plot."""

    color: str
    dash: Any
    marker: str


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look for every contender: raw gray, the others by colour, then by dash and marker too."""
    styles = itertools.cycle(itertools.product(_DASHES, _HUES))
    markers = itertools.cycle(_MARKERS)
    found = {}
    for name in methods:
        if name == RAW:
            found[name] = Look(RAW_COLOR, "-", "o")
        else:
            dash, color = next(styles)
            found[name] = Look(color, dash, next(markers))
    return found


TARGET_LOOK = Look(TARGET_COLOR, "-", "*")


def require_matplotlib() -> None:
    """Raise `MissingExtraError`, with the line that installs it, where matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        message = f"drawing the report needs matplotlib ({error}); install it with: pip install 'restain[evaluation]'"
        raise MissingExtraError(message) from error


def plot(name: str, width: float, height: float, alternative: str, draw: "Callable[[Figure], None]") -> str:
    """A figure as an SVG element.

    Args:
        name: unique on the page; ids inside are made of it, and nothing random.
        width: inches, of which a page is 12 wide.
        height: inches.
        alternative: what is read where the plot is not seen.
        draw: fills the figure.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    limit = f"max-width: {width / 12 * PAGE:.0f}px"
    return tag("div", _inline(stream.getvalue(), name, alternative), class_="plot", style=limit)


def _inline(svg: str, name: str, alternative: str) -> str:
    """What HTML wants of an SVG: no declaration, no namespaces, ids that no other plot has, and a description."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"(base64,)\s+", r"\1", svg)
    label = f'role="img" aria-label="{text(alternative)}"'
    return svg.replace("<svg", f"<svg {label}", 1).strip()


def plain_axes(axes: "Axes", *, grid: str | None = "x") -> None:
    """Small ticks, and light lines to read values by."""
    axes.tick_params(length=3, width=0.7)
    if grid is not None:
        axes.grid(axis=grid, color=FAINT, linewidth=0.6)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def legend_of(names: Sequence[str], found: "dict[str, Look]", *, target: bool = False) -> str:
    """The methods with their colours, as HTML: one legend for all plots of a section."""
    items = [(name, found[name]) for name in names]
    if target:
        items.append((TARGET, TARGET_LOOK))
    parts = []
    for name, look in items:
        dashes = {"-": None, "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}[look.dash]
        line = tag("line", x1=0, y1=6, x2=22, y2=6, stroke=look.color, stroke_width=3, stroke_dasharray=dashes)
        parts.append(tag("span", tag("svg", line, width=22, height=12, aria_hidden="true") + " " + text(name)))
    return tag("div", "".join(parts), class_="legend")
