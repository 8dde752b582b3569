"""Did it harm: what became of the structure and of the glass, and where methods gave up."""

import math
from collections.abc import Sequence

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import Evaluation, Row
from restain.evaluation.benchmark.report.markup import counted, decimals_for, number, text
from restain.evaluation.benchmark.report.question import Question, method_name
from restain.evaluation.benchmark.report.standings import Standing
from restain.evaluation.benchmark.summary import Line


def harmed(kept: Sequence[Standing], lines: Sequence[Line], evaluation: Evaluation) -> Question:
    """What became of the structure and of the glass, and where methods gave up."""
    sentences = [_structure(standing, evaluation.rows) for standing in kept]
    sentences += _glass(lines)
    sentences += _trouble(evaluation)
    title = "Did it harm the images?"
    if not kept:
        return Question(title, "Structure was not measured.", sentences)
    first = kept[0]
    last = first.last
    by = text(first.words.name)
    if last == first.leader:
        place = first.lines[last].mean
        verdict = f"{method_name(last)} scores {number(place, decimals_for([place]))} by {by}, where 1 is untouched."
    else:
        verdict = f"{method_name(first.leader)} changes structure least, {method_name(last)} most, by {by}"
        verdict += "." if first.duels[-1].told_apart else "; but these images do not settle the order."
    return Question(title, verdict, sentences)


def _structure(standing: Standing, rows: Sequence[Row]) -> str:
    words, last = standing.words, standing.lines[standing.last]
    best = standing.lines[standing.leader]
    places = decimals_for([best.mean, last.mean])
    sentence = (
        f"<b>{text(words.full_title)}</b> (1 is untouched): {method_name(best.method)} {number(best.mean, places)}"
    )
    if last.method != best.method:
        sentence += f" on average, {method_name(last.method)} {number(last.mean, places)}"
    values = [
        row
        for row in rows
        if (row.suite, row.metric) == (standing.suite, standing.metric)
        and row.method != RAW
        and math.isfinite(row.value)
    ]
    if len({row.image for row in values}) > 1:
        worst = min(values, key=lambda row: row.value)
        sentence += f"; the worst single image is “{text(worst.image)}” by {method_name(worst.method)}"
        sentence += f", {number(worst.value, places)}"
    if standing.metric == "ssim_source" and standing.suite == "stainnet":
        sentence += ". This version cannot see lost contrast; the toolkit suite has one that can"
    elif words.name.startswith("SSIM"):
        sentence += ". A wanted change of contrast lowers it too"
    return sentence + "."


def _glass(lines: Sequence[Line]) -> list[str]:
    shifts = [
        line for line in lines if line.metric == "background_shift" and line.method != RAW and math.isfinite(line.mean)
    ]
    if not shifts:
        return []
    least, most = min(shifts, key=lambda line: line.mean), max(shifts, key=lambda line: line.mean)
    seen = f"{counted(most.count, 'image')} with glass"
    if most.mean - least.mean < 0.5:  # half a level of 255: nobody sees it
        between = f"{number(most.mean, 1)} levels of 255 from the colour that it should have by every method"
    else:
        between = (
            f"{number(least.mean, 1)} ({method_name(least.method)}) to {number(most.mean, 1)} levels of 255 "
            f"({method_name(most.method)}) from the colour that it should have"
        )
    return [f"<b>Glass</b> is on average {between}, over {seen}."]


def _trouble(evaluation: Evaluation) -> list[str]:
    found = []
    total = len(evaluation.samples)
    for contender in evaluation.contenders:
        many = sum(name == contender.name for name, _ in evaluation.fallbacks)
        if many:
            found.append(
                f"{method_name(contender.name)} could not measure the stains of {many} of {counted(total, 'image')}, "
                "and changed little but the glass there."
            )
    if evaluation.failures:
        found.append(f"{counted(len(evaluation.failures), 'image')} could not be read or measured; see the end.")
    return found
