"""All numbers: a table for each suite, a line for each metric, with what must be known of it in the same line."""

import math
from collections.abc import Mapping, Sequence

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import Evaluation
from restain.evaluation.benchmark.report.markup import chance, decimals_for, number, paragraph, tag, text
from restain.evaluation.benchmark.report.standings import Status, by_metric, status_of
from restain.evaluation.benchmark.report.words import SUITE_NOTES, SUITE_TITLES, entry_of, words_for
from restain.evaluation.benchmark.summary import Line
from restain.evaluation.metrics import SUITES

MANY = 6
"""From more methods on, letters are smaller; from some ten on, tables are scrolled."""

_MARKS: dict[Status, tuple[str, str]] = {
    "better": ("▲", "better than raw"),
    "worse": ("▼", "worse than raw"),
    "same": ("=", "as raw in the median image"),
    "unclear": ("≈", "no difference from raw that chance cannot make"),
}

KEY = (
    "Mean ± standard deviation over images; below, the 95 % interval of the mean and the mean rank. Bold: the best "
    "method. Against the target, ▲ is better than raw, ▼ worse, ≈ no difference shown (Wilcoxon, Holm-corrected, 5 %), "
    "= most images unchanged, and no mark means that it could not be tested. Beside its own source the raw image is "
    "perfect by definition, so nothing is marked there. Amber: published numbers of that name mean something else."
)


_BY_DEFINITION = tag("div", "by definition", class_="small")


def draw_numbers(evaluation: Evaluation, lines: Sequence[Line]) -> str:
    """A table for each suite."""
    table = by_metric(lines)
    infinite = {
        (row.suite, row.metric, row.method) for row in evaluation.rows if math.isinf(row.value) and row.value > 0
    }
    methods = [contender.name for contender in evaluation.contenders]
    style = "numbers" if len(methods) <= MANY else "numbers many"
    parts = [paragraph(KEY, "caption")]
    for suite in evaluation.suites:
        parts.append(tag("h3", text(SUITE_TITLES.get(suite, suite)) + tag("code", text(suite))))
        if suite in SUITE_NOTES:
            parts.append(paragraph(text(SUITE_NOTES[suite]), "caveat" if suite != "toolkit" else "caption"))
        rows, skipped = [], dict[str, list[str]]()
        for metric in SUITES[suite]:
            if (suite, metric) in table:
                cells = _cells(suite, metric, table[suite, metric], methods, infinite)
                rows.append(tag("tr", _heading(suite, metric) + "".join(cells)))
            else:
                reason = evaluation.skipped.get((suite, metric), "no image has a number for it")
                skipped.setdefault(reason, []).append(metric)
        for reason, metrics in skipped.items():
            titles = ", ".join(text(words_for(suite, metric).title) for metric in metrics)
            cell = tag("td", f"not measured: {text(reason)}", colspan=len(methods), class_="skipped")
            rows.append(tag("tr", tag("th", f"<b>{titles}</b>", scope="row") + cell))
        share = f"width: {(64 if len(methods) <= MANY else 76) / len(methods):.2f}%"
        names = "".join(tag("th", text(name), scope="col", style=share) for name in methods)
        head = tag("tr", tag("th", "metric", scope="col") + names)
        parts.append(
            tag("div", tag("table", tag("thead", head) + tag("tbody", "".join(rows)), class_=style), class_="scroll")
        )
    return "".join(parts)


def _heading(suite: str, metric: str) -> str:
    words, higher = words_for(suite, metric), entry_of(suite, metric).of.higher_is_better
    arrow = {True: ("↑", "higher is better"), False: ("↓", "lower is better"), None: ("↔", "neither way is better")}[
        higher
    ]
    unit = f", {text(words.unit)}" if words.unit else ""
    name = f"<b>{text(words.title)}</b> {tag('span', arrow[0], title=arrow[1], class_='arrow')}"
    small = f"{text(metric)}, {text(words.against)}{unit}"
    said = " ".join(text(part) for part in (words.summary, words.advice) if part)
    if words.legacy:
        said = f"<em>Reproduces a published error.</em> {said}"
    note = tag("div", text(words.published), class_="caveat") if words.published else ""
    return tag("th", f'{name}<div class="small">{small}</div><div class="what">{said}</div>{note}', scope="row")


def _cells(
    suite: str, metric: str, lines: Mapping[str, Line], methods: Sequence[str], infinite: set[tuple[str, str, str]]
) -> list[str]:
    finite = [line.mean for line in lines.values() if math.isfinite(line.mean)]
    places = decimals_for(finite)
    higher = next(iter(lines.values())).higher_is_better
    # What is best is asked of methods: the raw images win every comparison with themselves.
    rivals = [line.mean for name, line in lines.items() if name != RAW and math.isfinite(line.mean)]
    best = None if higher is None or not rivals else max(rivals) if higher else min(rivals)
    cells = []
    for name in methods:
        line = lines.get(name)
        if line is None:
            cells.append(tag("td", "–"))
            continue
        shown = number(line.mean, places)
        if math.isnan(line.mean) and (suite, metric, name) in infinite:
            shown = "∞"
        if name != RAW and line.mean == best and len(rivals) > 1:
            shown = tag("b", shown)
        if math.isfinite(line.sd):
            shown += tag("span", f" ± {number(line.sd, places)}", class_="sd")
        against = entry_of(suite, metric).against
        shown += _mark(line, against)
        second = _BY_DEFINITION if name == RAW and against == "source" else _second_line(line, places)
        cells.append(
            tag(
                "td",
                shown + second,
                title=_hover(line, places),
                class_="raw" if name == RAW else None,
            )
        )
    return cells


def _mark(line: Line, against: str) -> str:
    status = status_of(line)
    if line.method == RAW or against != "target" or line.higher_is_better is None or status not in _MARKS:
        return ""
    sign, meaning = _MARKS[status]
    return " " + tag("span", sign, class_=f"mark {status}", title=meaning)


def _second_line(line: Line, places: int) -> str:
    parts = []
    if math.isfinite(line.low) and math.isfinite(line.high):
        parts.append(f"{number(line.low, places)} to {number(line.high, places)}")
    if math.isfinite(line.rank):
        parts.append(f"rank {number(line.rank, 1)}")
    return "".join(tag("div", part, class_="small") for part in parts)


def _hover(line: Line, places: int) -> str:
    parts = [f"{line.method}: {line.count} with a number"]
    if line.missing:
        parts.append(f"{line.missing} without or infinite")
    if math.isfinite(line.difference):
        parts.append(f"median change from raw {number(line.difference, places)}")
    if math.isfinite(line.p_holm):
        parts.append(f"{chance(line.p_holm)} (Holm)")
    if line.resampled:
        parts.append(f"interval resampled over {line.resampled}")
    return "; ".join(parts)
