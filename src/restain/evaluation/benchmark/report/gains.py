"""Did it help: how near outputs come to the target, beside the raw images, and how sure that is."""

import math
from collections.abc import Sequence

from restain.evaluation.benchmark.report.markup import chance, counted, decimals_for, joined, number, text, with_unit
from restain.evaluation.benchmark.report.question import Question, method_name, method_names
from restain.evaluation.benchmark.report.standings import Standing
from restain.evaluation.benchmark.summary import LEAST_PAIRS, Line


def helped(near: Sequence[Standing]) -> Question:
    """Whether outputs are nearer to the target than the raw images are."""
    title = "Did normalization help?"
    compared = [standing for standing in near if standing.raw is not None]
    if not compared:
        return Question(
            title,
            "That cannot be said here.",
            [
                "No image has a registered target, the same tissue in the wanted appearance, so nothing measures "
                "whether the outputs came nearer to it. The histograms and stain vectors below show what changed."
            ],
        )
    return Question(title, _help_verdict(compared), [_nearest(standing) for standing in compared])


def _help_verdict(near: Sequence[Standing]) -> str:
    """By how many metrics how many methods beat the raw images. "Yes" is one method that does by all of them."""
    methods = {name for standing in near for name in standing.tested}
    better = {name: [s for s in near if s.status(name) == "better"] for name in methods}
    if all(s.status(name) == "untested" for s in near for name in methods):
        return f"Too few images to tell: a test takes {LEAST_PAIRS}."
    order = [name for name in near[0].lines if name in methods]
    by_all = [name for name in order if len(better[name]) == len(near)]
    worse = [name for name in order if any(s.status(name) == "worse" for s in near)]
    further = f" {method_names(worse)} moved further from it by some measure." if worse else ""
    if by_all:
        measures = joined([text(standing.words.name) for standing in near])
        return f"Yes: {method_names(by_all)} came nearer to the target than raw, by {measures}.{further}"
    helping = [(s, sum(s.status(name) == "better" for name in s.tested)) for s in near]
    if any(count for _, count in helping):
        told = joined([f"{text(s.words.name)} ({count} of {len(s.tested)} methods)" for s, count in helping if count])
        rest = [text(s.words.name) for s, count in helping if not count]
        return f"In part: nearer to the target than raw by {told}{f', not by {joined(rest)}' if rest else ''}.{further}"
    if not worse:
        return "No difference from the raw images could be shown."
    if all(s.status(name) == "worse" for s in near for name in s.tested):
        return "No: every method moved the images further from the target."
    return f"No: none came nearer to the target, and {method_names(worse)} moved further from it."


def _nearest(standing: Standing) -> str:
    best, raw, words = standing.lines[standing.leader], standing.raw, standing.words
    assert raw is not None
    places = decimals_for([best.mean, raw.mean])
    which_way = "higher" if best.higher_is_better else "lower"
    sentence = (
        f"<b>{text(words.full_title)}</b> ({which_way} is better): {method_name(best.method)} is nearest, "
        f"{with_unit(number(best.mean, places), words.unit)} on average{_interval(best, places)}, raw "
        f"{with_unit(number(raw.mean, places), words.unit)}. {_verdict(standing, best.method, places)}"
    )
    others = {name: standing.status(name) for name in standing.tested if name != best.method}
    groups = (
        ("better", "better than raw too"),
        ("worse", "worse than raw"),
        ("unclear", "no clear difference from raw"),
        ("same", "as raw"),
    )
    told = [
        f"{label}: {method_names(who)}" for key, label in groups if (who := [n for n, s in others.items() if s == key])
    ]
    if told:
        listed = "; ".join(told)
        sentence += f" {listed[0].upper()}{listed[1:]}."
    return sentence + _runner_up(standing, places)


def _interval(line: Line, places: int) -> str:
    if math.isnan(line.low) or math.isnan(line.high):
        return ""
    return f" (95 % interval {number(line.low, places)} to {number(line.high, places)})"


def _verdict(standing: Standing, method: str, places: int) -> str:
    line, unit = standing.lines[method], standing.words.unit
    status = standing.status(method)
    if status == "same":
        return "The median image did not change: <b>no difference from raw</b>."
    sign = "+" if line.difference > 0 else ""
    change = f"Median change of an image {with_unit(sign + number(line.difference, places), unit)}"
    if status == "untested":
        return (
            f"{'' if math.isnan(line.difference) else change + '; '}{counted(line.count, 'image')}: too few for a test."
        )
    word = {"better": "better than raw", "worse": "worse than raw", "unclear": "no clear difference from raw"}[status]
    spread = ""
    if status == "better" and standing.raw is not None and abs(line.difference) < standing.raw.sd:
        sd = with_unit(number(standing.raw.sd, places), unit)
        spread = f" The gain is steady, but smaller than the spread between images (sd {sd})."
    return f"{change}, {chance(line.p_holm)}: <b>{word}</b>.{spread}"


def _runner_up(standing: Standing, places: int) -> str:
    if not standing.duels:
        return ""
    duel = standing.duels[0]
    gap = with_unit(number(duel.behind, places), standing.words.unit)
    if float(f"{duel.behind:.{places}f}") == 0:
        sentence = f" {method_name(duel.other)} has the same mean"
    else:
        sentence = f" {method_name(duel.other)} is next, {gap} behind"
    if duel.count:
        sentence += f"; {method_name(standing.leader)} is nearer on {duel.nearer} of {counted(duel.count, 'image')}"
    if not duel.told_apart and standing.lines[standing.leader].count > 1:
        sentence += ", which does not settle their order"
    return sentence + "."
