"""Did it help, did it harm, which method, and how sure is that: in sentences that the numbers allow, and no more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from restain.evaluation.benchmark.contenders import RAW
from restain.evaluation.benchmark.measure import Evaluation, Row
from restain.evaluation.benchmark.report.markup import (
    bullets,
    chance,
    counted,
    decimals_for,
    joined,
    number,
    tag,
    text,
    with_unit,
)
from restain.evaluation.benchmark.report.standings import Standing, standings
from restain.evaluation.benchmark.summary import LEAST_PAIRS, LEAST_SLIDES, Line


@dataclass(frozen=True)
class Question:
    """A question, its answer in a few words, and sentences that give the numbers; HTML but for the question."""

    title: str
    verdict: str
    sentences: Sequence[str]


def answer(evaluation: Evaluation, lines: Sequence[Line]) -> list[Question]:
    """The four questions of someone who has images and a choice of methods."""
    near = standings(lines, evaluation.rows, "target")
    kept = standings(lines, evaluation.rows, "source")
    return [
        helped(near),
        harmed(kept, lines, evaluation),
        which(near, kept),
        Question("How sure is that?", "", _doubts(evaluation, near)),
    ]


# ---- did it help --------------------------------------------------------------------------------------------------


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
    further = f" {_names(worse)} moved further from it by some measure." if worse else ""
    if by_all:
        measures = joined([text(standing.words.name) for standing in near])
        return f"Yes: {_names(by_all)} came nearer to the target than raw, by {measures}.{further}"
    helping = [(s, sum(s.status(name) == "better" for name in s.tested)) for s in near]
    if any(count for _, count in helping):
        told = joined([f"{text(s.words.name)} ({count} of {len(s.tested)} methods)" for s, count in helping if count])
        rest = [text(s.words.name) for s, count in helping if not count]
        return f"In part: nearer to the target than raw by {told}{f', not by {joined(rest)}' if rest else ''}.{further}"
    if not worse:
        return "No difference from the raw images could be shown."
    if all(s.status(name) == "worse" for s in near for name in s.tested):
        return "No: every method moved the images further from the target."
    return f"No: none came nearer to the target, and {_names(worse)} moved further from it."


def _nearest(standing: Standing) -> str:
    best, raw, words = standing.lines[standing.leader], standing.raw, standing.words
    assert raw is not None
    places = decimals_for([best.mean, raw.mean])
    which_way = "higher" if best.higher_is_better else "lower"
    sentence = (
        f"<b>{text(words.full_title)}</b> ({which_way} is better): {_name(best.method)} is nearest, "
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
    told = [f"{label}: {_names(who)}" for key, label in groups if (who := [n for n, s in others.items() if s == key])]
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
        sentence = f" {_name(duel.other)} has the same mean"
    else:
        sentence = f" {_name(duel.other)} is next, {gap} behind"
    if duel.count:
        sentence += f"; {_name(standing.leader)} is nearer on {duel.nearer} of {counted(duel.count, 'image')}"
    if not duel.told_apart and standing.lines[standing.leader].count > 1:
        sentence += ", which does not settle their order"
    return sentence + "."


# ---- did it harm --------------------------------------------------------------------------------------------------


def harmed(kept: Sequence[Standing], lines: Sequence[Line], evaluation: Evaluation) -> Question:
    """What became of the structure and of the glass, and where methods gave up."""
    sentences = [_structure(standing, evaluation.rows) for standing in kept]
    sentences += _glass(lines)
    sentences += _trouble(evaluation)
    title = "Did it harm the images?"
    if not kept:
        return Question(title, "Structure was not measured.", sentences)
    first = kept[0]
    last = _last(first)
    by = text(first.words.name)
    if last == first.leader:
        place = first.lines[last].mean
        verdict = f"{_name(last)} scores {number(place, decimals_for([place]))} by {by}, where 1 is untouched."
    else:
        verdict = f"{_name(first.leader)} changes structure least, {_name(last)} most, by {by}"
        verdict += "." if first.duels[-1].told_apart else "; but these images do not settle the order."
    return Question(title, verdict, sentences)


def _last(standing: Standing) -> str:
    return standing.duels[-1].other if standing.duels else standing.leader


def _structure(standing: Standing, rows: Sequence[Row]) -> str:
    words, last = standing.words, standing.lines[_last(standing)]
    best = standing.lines[standing.leader]
    places = decimals_for([best.mean, last.mean])
    sentence = f"<b>{text(words.full_title)}</b> (1 is untouched): {_name(best.method)} {number(best.mean, places)}"
    if last.method != best.method:
        sentence += f" on average, {_name(last.method)} {number(last.mean, places)}"
    values = [
        row
        for row in rows
        if (row.suite, row.metric) == (standing.suite, standing.metric)
        and row.method != RAW
        and math.isfinite(row.value)
    ]
    if len({row.image for row in values}) > 1:
        worst = min(values, key=lambda row: row.value)
        sentence += (
            f"; the worst single image is “{text(worst.image)}” by {_name(worst.method)}, {number(worst.value, places)}"
        )
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
            f"{number(least.mean, 1)} ({_name(least.method)}) to {number(most.mean, 1)} levels of 255 "
            f"({_name(most.method)}) from the colour that it should have"
        )
    return [f"<b>Glass</b> is on average {between}, over {seen}."]


def _trouble(evaluation: Evaluation) -> list[str]:
    found = []
    total = len(evaluation.samples)
    for contender in evaluation.contenders:
        many = sum(name == contender.name for name, _ in evaluation.fallbacks)
        if many:
            found.append(
                f"{_name(contender.name)} could not measure the stains of {many} of {counted(total, 'image')}, and "
                "changed little but the glass there."
            )
    if evaluation.failures:
        found.append(f"{counted(len(evaluation.failures), 'image')} could not be read or measured; see the end.")
    return found


# ---- which method -------------------------------------------------------------------------------------------------


def which(near: Sequence[Standing], kept: Sequence[Standing]) -> Question:
    """Which method to use on images like these, if that can be said."""
    title = "Which method should I use on images like these?"
    if not near:
        return Question(title, "These numbers do not decide it.", [_without_targets(kept)])
    shared = [name for name in near[0].leaders if all(name in standing.leaders for standing in near)]
    compared = [standing for standing in near if standing.raw is not None]
    if compared and not any(s.status(name) in ("better", "untested") for s in compared for name in s.leaders):
        return Question(
            title,
            "None, by these numbers: the images as they are lie as near to the target.",
            [f"Of the methods, {_each_leader(near)}."],
        )
    few = max(line.count for line in near[0].lines.values()) < LEAST_PAIRS
    measures = joined([text(standing.words.name) for standing in near])
    if few:
        return Question(
            title,
            "Too few images to choose by.",
            [f"On these, {_each_leader(near)}. Measure {LEAST_PAIRS} images or more, of several slides."],
        )
    if not shared:
        return Question(title, "That depends on what counts.", [f"{_each_leader(near)}. Their outputs are below."])
    if len(shared) == 1:
        found = [s.words.name for s in compared if s.status(shared[0]) in ("unclear", "same")]
        unclear = f" By {joined([text(name) for name in found])} it is not clearly better than raw." if found else ""
        leads = all(standing.leader == shared[0] for standing in near)
        why = (
            f"It is nearest to the target by {measures}."
            if leads
            else (f"It is nearest to the target, or cannot be told from the nearest, by each of {measures}.")
        )
        return Question(title, f"{_name(shared[0])}.", [why + unclear, *_price(shared[0], kept)])
    why = f"By {measures} they cannot be told from the nearest, and so not from each other."
    return Question(title, f"{_names(shared, 'or')}.", [why, *_cheapest(shared, kept)])


def _each_leader(near: Sequence[Standing]) -> str:
    by_leader: dict[str, list[str]] = {}
    for standing in near:
        by_leader.setdefault(standing.leader, []).append(text(standing.words.name))
    return "; ".join(f"{_name(leader)} is nearest by {joined(metrics)}" for leader, metrics in by_leader.items())


def _price(method: str, kept: Sequence[Standing]) -> list[str]:
    for standing in kept:
        metric = text(standing.words.name)
        if standing.leader == method and standing.duels:
            return [f"It also keeps most structure ({metric})."]
        if standing.duels and method == _last(standing) and standing.duels[-1].told_apart:
            return [f"But it changes structure most ({metric}): look at the examples first."]
    return []


def _cheapest(methods: Sequence[str], kept: Sequence[Standing]) -> list[str]:
    for standing in kept:
        if standing.leader in methods:
            return [f"Of these, {_name(standing.leader)} keeps most structure ({text(standing.words.name)})."]
    return []


def _without_targets(kept: Sequence[Standing]) -> str:
    sentence = "Without targets only harm can be measured, and by that doing nothing always wins."
    if kept and kept[0].duels:
        sentence += (
            f" Of the methods, {_name(kept[0].leader)} keeps most structure; that alone is no reason to take it."
        )
    return sentence + " Look at the pictures, or evaluate on pairs."


# ---- how sure -----------------------------------------------------------------------------------------------------


def _doubts(evaluation: Evaluation, near: Sequence[Standing]) -> list[str]:
    total = len(evaluation.samples)
    slides = {sample.slide for sample in evaluation.samples}
    found = []
    if total < LEAST_PAIRS:
        them = "it" if total == 1 else "them"
        found.append(f"{counted(total, 'image')}: what is above describes {them}, and says nothing of others.")
    elif None in slides:
        found.append(
            f"Which slides the {total} images are from is not known. If several are of one slide, they are alike, and "
            "intervals and p are more certain than they should be."
        )
    elif len(slides) < LEAST_SLIDES:
        found.append(
            f"The {total} images are of {counted(len(slides), 'slide')} only. Images of one slide are not independent: "
            "intervals and p hold for more images of these slides, not for new slides."
        )
    elif len(slides) < total:
        found.append(
            f"The {total} images are of {len(slides)} slides. Intervals count slides as wholes, but p counts images as "
            "independent, and is more certain than it should be."
        )
    rejected = sum(bool(sample.reason) for sample in evaluation.samples)
    if rejected:
        found.append(
            f"{counted(rejected, 'pair')} of {total} could not be registered well enough and "
            f"{'is' if rejected == 1 else 'are'} not compared with the target; hard cases may be among them."
        )
    if near:
        found.append(
            "Even a perfect method would not reach the target: two scans differ in focus, noise and registration. Read "
            "the distance to raw, not to 1."
        )
        found.append(
            "Where no reference is given, methods are fitted to the targets on this page: they know the look that they "
            "are judged by. For a claim on new slides, fit them to others."
        )
        found.append(
            "p is of a paired Wilcoxon signed-rank test against raw, two-sided, corrected for the number of methods "
            "(Holm) but not of metrics; intervals are bootstrapped; methods are told apart by a sign test over images."
        )
        found.append(
            "Published numbers are often something else under the same name: amber notes in the tables say where."
        )
    return found


def _name(method: str) -> str:
    return tag("span", text(method), class_="method")


def _names(methods: Sequence[str], last: str = "and") -> str:
    return joined([_name(name) for name in methods], last)


def draw_answer(questions: Sequence[Question]) -> str:
    """The questions as HTML."""
    parts = []
    for question in questions:
        verdict = tag("p", question.verdict, class_="verdict") if question.verdict else ""
        parts.append(
            tag("div", tag("h3", text(question.title)) + verdict + bullets(question.sentences), class_="question")
        )
    return "".join(parts)
