"""Did it help, did it harm, which method, and how sure is that: in sentences that the numbers allow, and no more."""

from collections.abc import Sequence

from restain.evaluation.benchmark.measure import Evaluation
from restain.evaluation.benchmark.report.gains import helped
from restain.evaluation.benchmark.report.harm import harmed
from restain.evaluation.benchmark.report.markup import bullets, counted, joined, tag, text
from restain.evaluation.benchmark.report.question import Question, method_name, method_names
from restain.evaluation.benchmark.report.standings import Standing, standings
from restain.evaluation.benchmark.summary import LEAST_PAIRS, LEAST_SLIDES, Line


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
        return Question(title, f"{method_name(shared[0])}.", [why + unclear, *_price(shared[0], kept)])
    why = f"By {measures} they cannot be told from the nearest, and so not from each other."
    return Question(title, f"{method_names(shared, 'or')}.", [why, *_cheapest(shared, kept)])


def _each_leader(near: Sequence[Standing]) -> str:
    by_leader: dict[str, list[str]] = {}
    for standing in near:
        by_leader.setdefault(standing.leader, []).append(text(standing.words.name))
    return "; ".join(f"{method_name(leader)} is nearest by {joined(metrics)}" for leader, metrics in by_leader.items())


def _price(method: str, kept: Sequence[Standing]) -> list[str]:
    for standing in kept:
        metric = text(standing.words.name)
        if standing.leader == method and standing.duels:
            return [f"It also keeps most structure ({metric})."]
        if standing.duels and method == standing.last and standing.duels[-1].told_apart:
            return [f"But it changes structure most ({metric}): look at the examples first."]
    return []


def _cheapest(methods: Sequence[str], kept: Sequence[Standing]) -> list[str]:
    for standing in kept:
        if standing.leader in methods:
            return [f"Of these, {method_name(standing.leader)} keeps most structure ({text(standing.words.name)})."]
    return []


def _without_targets(kept: Sequence[Standing]) -> str:
    sentence = "Without targets only harm can be measured, and by that doing nothing always wins."
    if kept and kept[0].duels:
        sentence += (
            f" Of the methods, {method_name(kept[0].leader)} keeps most structure; that alone is no reason to take it."
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
            f"The {total} images are of {len(slides)} slides. Intervals and p count slides, of which images are alike, "
            "as the observations."
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


def draw_answer(questions: Sequence[Question]) -> str:
    """The questions as HTML."""
    parts = []
    for question in questions:
        verdict = tag("p", question.verdict, class_="verdict") if question.verdict else ""
        parts.append(
            tag("div", tag("h3", text(question.title)) + verdict + bullets(question.sentences), class_="question")
        )
    return "".join(parts)
