"""Examples: source, every method's output and the target side by side, a crop of each, and gray values along a line."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.report.figures import TARGET, TARGET_LOOK, Look, legend_of, plain_axes, plot
from restain.evaluation.benchmark.report.gather import CROP, Example, View
from restain.evaluation.benchmark.report.markup import decimals_for, number, paragraph, picture, tag, text
from restain.evaluation.benchmark.report.words import entry_of, words_for
from restain.evaluation.metrics.profiles import gray_profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 7
"""Pictures in a row; more methods go on below."""


def draw_examples(
    examples: Sequence[Example], key: tuple[str, str] | None, total: int, look: Mapping[str, Look]
) -> str:
    """A card for each example.

    Args:
        examples: in the order to show them in.
        key: (suite, label) of the metric that ordered them.
        total: how many images there are.
        look: of the contenders.
    """
    if not examples:
        return paragraph("No examples were asked for, or none could be read again.")
    intro = "The same images for every method. "
    if key is not None:
        words = words_for(*key)
        better = "higher" if entry_of(*key).of.higher_is_better else "lower"
        intro = (
            f"Ordered by the worst output of any method, by {words.full} ({key[1]}, {better} is better), which is the "
            "number above each picture. "
        )
        if any(example.choice.place > len(examples) for example in examples):
            intro += "After the worst cases come a typical image and the best one. "
    intro += (
        f"The box in the first picture is the crop below: {CROP} × {CROP} pixels, where tissue has most texture. "
        "The plot shows gray values (luma) along its middle line, as StainNet’s Figures 2 and 3 do. Where a method’s "
        "curve runs parallel to the source’s, structure is kept"
    )
    paired = any(example.target is not None for example in examples)
    intro += "; where it runs on the target’s, the look is right." if paired else "."
    return paragraph(text(intro)) + "".join(_card(example, i, key, total, look) for i, example in enumerate(examples))


def _card(example: Example, index: int, key: tuple[str, str] | None, total: int, look: Mapping[str, Look]) -> str:
    choice = example.choice
    columns: list[tuple[str, View]] = list(example.views.items())
    titles = ["source (raw)" if name == RAW else name for name, _ in columns]
    if example.target is not None:
        columns.append((TARGET, example.target))
        titles.append(TARGET)
    places = decimals_for(choice.values.values())
    cells = []
    for position, ((name, view), title) in enumerate(zip(columns, titles, strict=True)):
        is_target = example.target is not None and position == len(columns) - 1
        value = math.nan if is_target else choice.values.get(name, math.nan)
        shown = f"{text(title)}" + (tag("span", number(value, places), class_="value") if math.isfinite(value) else "")
        label = f"{choice.sample.name}, {title}"
        whole = tag("div", picture(view.whole, label) + (_box(example) if position == 0 else ""), class_="whole")
        # Lossless: a crop is enlarged, and blocks of JPEG would look like texture that a method made up.
        crop = tag("div", picture(view.crop, f"{label}, crop", exact=True) + tag("i", class_="line"), class_="crop")
        cells.append(tag("figure", tag("figcaption", shown) + whole + crop))
    place = f"no. {choice.place} of {total} from the worst" if choice.place else ""
    head = tag("h3", text(choice.sample.name) + (tag("span", place, class_="place") if place else ""))
    missing = ""
    if example.target is None and choice.sample.reason:
        missing = paragraph(f"No target to compare with: {text(choice.sample.reason)}.", "caveat")
    width = min(len(cells), MOST_COLUMNS)
    grid = tag(
        "div", "".join(cells), class_="grid", style=f"grid-template-columns: repeat({max(width, 3)}, minmax(0, 1fr))"
    )
    legend = legend_of(list(example.views), dict(look), target=example.target is not None)
    return tag("div", head + missing + grid + legend + _profiles(example, index, look), class_="card")


def _box(example: Example) -> str:
    left, top, width, height = example.box
    across, down = example.size
    style = "; ".join(
        f"{side}: {100 * part / whole:.2f}%"
        for side, part, whole in (
            ("left", left, across), ("top", top, down), ("width", width, across), ("height", height, down)
        )
    )  # fmt: skip
    return tag("i", class_="box", style=style)


def _profiles(example: Example, index: int, look: Mapping[str, Look]) -> str:
    curves = [
        (gray_profile(view.crop), look[name], 2.4 if name == RAW else 1.3) for name, view in example.views.items()
    ]
    if example.target is not None:
        curves.append((gray_profile(example.target.crop), TARGET_LOOK, 1.6))

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for profile, style, thickness in curves:
            marker = "o" if len(profile) == 1 else None
            axes.plot(profile, color=style.color, linestyle=style.dash, linewidth=thickness, marker=marker, alpha=0.9)
        axes.set_ylabel("gray value")
        axes.set_xlabel("pixels along the line", fontsize=8.5, color="#666666")
        axes.margins(x=0.005)
        axes.locator_params(axis="x", integer=True)
        plain_axes(axes, grid="y")

    name = example.choice.sample.name
    return plot(f"profile{index}", 12, 2.1, f"Gray values along the line in {name}", draw)
