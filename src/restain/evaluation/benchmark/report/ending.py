"""The end of the page: what failed, what was skipped and why, what was compared with what, and on which machine."""

from collections.abc import Mapping, Sequence
from typing import Any

from restain.evaluation.benchmark.measure import Evaluation
from restain.evaluation.benchmark.report.markup import bullets, counted, joined, paragraph, table, tag, text

MOST_NAMED = 40
"""Most images that a list names one by one; the tables beside the report name all."""

ESTIMATES = {
    "image": "each image by itself, as of different slides",
    "folder": "all images together, as tiles of one slide",
}


def draw_methods(facts: Mapping[str, Any]) -> str:
    """What was compared: each method with its reference and settings."""
    rows = []
    for name, found in facts["methods"].items():
        if found is None:
            rows.append([text(name), "the images as they are", "–", "–", ""])
            continue
        settings = dict(found["settings"])
        background = settings.pop("background", "–")
        listed = ", ".join(f"{key} = {value}" for key, value in settings.items())
        rows.append(
            [
                text(name),
                text(found["method"]),
                text(_reference(found["reference"])),
                text(background),
                tag("span", text(listed), class_="small"),
            ]
        )
    return table(["", "method", "reference", "glass", "settings"], rows, "compact")


def _reference(provenance: Mapping[str, Any]) -> str:
    """Where a reference's colours come from, in a few words. Files are known by their digests only."""
    if "parts" in provenance:
        digest = str(provenance.get("sha256_of_parts", ""))[:12]
        return f"{counted(int(provenance['parts']), 'file')} together (SHA-256 {digest}…)"
    if "sha256" in provenance:
        return f"one file (SHA-256 {str(provenance['sha256'])[:12]}…)"
    for key in ("profile", "name", "source"):
        if key in provenance:
            return str(provenance[key])
    return (
        joined([f"{key} {str(value)[:60]}" for key, value in provenance.items()])
        if provenance
        else "an image in memory"
    )


def draw_ending(evaluation: Evaluation, facts: Mapping[str, Any], unread: Sequence[tuple[str, str]]) -> str:
    """Failures, skipped metrics, fallbacks and the machine."""
    parts = []
    for title, found in (
        ("Could not be read or measured", [(each["image"], each["reason"]) for each in facts["failed"]]),
        ("Not compared with a target", [(each["image"], each["reason"]) for each in facts["not_compared"]]),
        ("Could not be read again for this page", list(unread)),
    ):
        if found:
            parts += [tag("h3", f"{text(title)} ({len(found):,})"), _named(found)]
    if evaluation.fallbacks:
        by_method: dict[str, list[str]] = {}
        for method, image in evaluation.fallbacks:
            by_method.setdefault(method, []).append(image)
        parts.append(tag("h3", "Stains could not be measured"))
        parts.append(
            paragraph("The reference’s appearance stood in for the image’s, and little but the glass was changed.")
        )
        parts.append(_named([(method, ", ".join(_first(images))) for method, images in by_method.items()]))
    if facts["skipped"]:
        parts.append(tag("h3", "Metrics that were skipped"))
        skipped: dict[str, list[str]] = {}
        for each in facts["skipped"]:
            skipped.setdefault(each["reason"], []).append(f"{each['suite']}: {each['metric']}")
        parts.append(_named([(", ".join(metrics), reason) for reason, metrics in skipped.items()]))
    if not parts:
        parts.append(paragraph("Nothing failed and nothing was skipped."))
    return "".join(parts) + tag("h3", "Software and machine") + _environment(facts)


def _named(found: Sequence[tuple[str, str]]) -> str:
    items = [f"<b>{text(name)}</b>: {text(reason)}" for name, reason in found[:MOST_NAMED]]
    if len(found) > MOST_NAMED:
        items.append(f"and {len(found) - MOST_NAMED:,} more, which evaluation.json names")
    return bullets(items, "small")


def _first(images: Sequence[str]) -> list[str]:
    rest = len(images) - MOST_NAMED
    return [*images[:MOST_NAMED], *([f"and {rest:,} more"] if rest > 0 else [])]


def _environment(facts: Mapping[str, Any]) -> str:
    where = facts["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    rows = [
        ["Software", text(facts["software"])],
        ["Date", text(where["date"])],
        ["System", text(f"{where['system']}, {where['cores']} cores, Python {where['python']}")],
        ["Packages", text(packages)],
        ["Suites", text(", ".join(facts["suites"]))],
    ]
    return table(["", ""], rows, "compact")
