"""`write_report`: one HTML page with the answer first and everything it rests on below.

The page needs nothing but itself: pictures are inside, plots are SVG, there is no script and no address of a network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import Evaluation
from restain.evaluation.benchmark.report.answer import answer, draw_answer
from restain.evaluation.benchmark.report.charts import draw_charts
from restain.evaluation.benchmark.report.choice import main_metric
from restain.evaluation.benchmark.report.colors import draw_histograms, draw_stains
from restain.evaluation.benchmark.report.ending import ESTIMATES, draw_ending, draw_methods
from restain.evaluation.benchmark.report.examples import draw_examples
from restain.evaluation.benchmark.report.figures import looks, require_matplotlib
from restain.evaluation.benchmark.report.gather import gather
from restain.evaluation.benchmark.report.glass import draw_glass
from restain.evaluation.benchmark.report.markup import counted, joined, paragraph, section, tag, text
from restain.evaluation.benchmark.report.numbers import draw_numbers
from restain.evaluation.benchmark.report.style import CSS
from restain.evaluation.benchmark.samples import Progress
from restain.evaluation.benchmark.summary import Line
from restain.evaluation.benchmark.tables import facts
from restain.files import refuse_overwrite, write_atomically

TITLE = "Stain normalization, evaluated"


def check_report(path: Path, overwrite: bool = False) -> None:
    """Raise, before hours of measuring, what `write_report` would raise after: `OutputError`, `MissingExtraError`."""
    refuse_overwrite(path, overwrite)
    require_matplotlib()


def write_report(
    path: Path,
    evaluation: Evaluation,
    lines: Sequence[Line],
    *,
    examples: int = 6,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write an evaluation as one HTML page.

    Pictures are read, and outputs made, anew: of the examples, and of up to 48 images for the plots of colours. One
    image is in memory at a time.

    Args:
        path: the page.
        evaluation: from `evaluate`.
        lines: from `summarize`.
        examples: how many images are shown, the worst first.
        overwrite: replace a file that is there.
        progress: called with how many images were looked at, of how many, and the last one's path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the file is there already and `overwrite` is false, or cannot be written.
    """
    check_report(path, overwrite)
    page = make_page(evaluation, lines, examples=examples, progress=progress).encode()
    write_atomically(path, lambda stream: stream.write(page), overwrite=overwrite)


def make_page(
    evaluation: Evaluation, lines: Sequence[Line], *, examples: int = 6, progress: Progress | None = None
) -> str:
    """The page itself; see `write_report`."""
    known = facts(evaluation)
    look = looks([contender.name for contender in evaluation.contenders])
    gathered = gather(evaluation, examples, progress)
    shown = draw_examples(gathered.examples, main_metric(evaluation.rows), len(evaluation.samples), look)
    parts = {
        "numbers": ("All numbers", draw_numbers(evaluation, lines)),
        "plots": ("Ranks and intervals", draw_charts(lines, look)),
        "examples": ("Examples, worst first", shown),
        "stains": ("Stain vectors", draw_stains(gathered, look)),
        "histograms": ("Colours of tissue", draw_histograms(gathered, look)),
        "glass": ("Glass", draw_glass(evaluation, gathered.glassy)),
        "methods": ("What was compared", draw_methods(known)),
        "ending": ("What failed, what was skipped, and where it ran", draw_ending(evaluation, known, gathered.unread)),
    }
    links = "".join(tag("a", text(title), href=f"#{anchor}") for anchor, (title, _) in parts.items())
    body = [
        tag("header", tag("h1", TITLE) + paragraph(_lead(evaluation, known), "lead") + tag("nav", links)),
        tag("div", draw_answer(answer(evaluation, lines)), class_="answer", id="answer"),
        *(section(anchor, title, content) for anchor, (title, content) in parts.items()),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{TITLE}</title><style>{CSS}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{"".join(body)}</body></html>\n'


def _lead(evaluation: Evaluation, known: Mapping[str, Any]) -> str:
    methods = [contender.name for contender in evaluation.contenders if contender.name != RAW]
    slides = {sample.slide for sample in evaluation.samples}
    of_slides = "" if None in slides else f" of {counted(len(slides), 'slide')}"
    paired = known["compared_with_target"]
    share = "all" if paired == known["images"] else f"{paired:,} of them"
    targets = f"{share} compared with a registered target" if paired else "without targets to compare with"
    return (
        f"{counted(known['images'], 'image')}{of_slides}, {targets}. "
        f"{counted(len(methods), 'method')} beside the raw images: {joined([text(name) for name in methods])}. "
        f"Appearance measured on {text(ESTIMATES[evaluation.estimate])}. "
        f"{text(known['software'])}, {tag('span', text(str(known['environment']['date'])[:10]), class_='nowrap')}."
    )
