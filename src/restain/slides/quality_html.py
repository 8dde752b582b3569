"""The quality sheet as HTML: what `quality_sheet` gathered, laid out."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from restain.slides.manifest import Row
from restain.slides.outliers import LEAST_SLIDES, OUTLIER, Score

if TYPE_CHECKING:
    from restain.slides.quality_sheet import Card

NAMES = {
    "white_point": "glass",
    "stain_matrix": "stain vectors",
    "max_concentrations": "strength of the stains",
    "median_concentrations": "median strength of the stains",
    "angle": "angle between the stains",
    "mean": "mean colour",
    "deviation": "spread of colours",
}
"""What fields of appearances are called; others by their own name."""

STAINS = ("hematoxylin", "eosin", "third stain")

_KNOWN = frozenset(["white_point", "stain_matrix", "max_concentrations", "tissue_pixels"])
_MINOR = frozenset(["median_concentrations", "angle"])  # follow from what is shown, or are told where they are odd
_SHORT = 8  # numbers of another field that are few enough to be shown

CSS = """
:root { --ink: #262626; --soft: #5f6368; --line: #dcdcdc; --ground: #fbfbf9; --card: #fff; --odd: #b3400a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 30px 24px 80px; max-width: 1240px; color: var(--ink); background: var(--ground);
  font: 14px/1.45 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; font-weight: 600; margin: 34px 0 10px; padding-top: 12px; border-top: 1px solid var(--line); }
h3 { font-size: 14.5px; font-weight: 600; margin: 0 0 4px; overflow-wrap: anywhere; }
p { margin: 4px 0; max-width: 100ch; } .soft { color: var(--soft); } .odd { color: var(--odd); font-weight: 600; }
.small { font-size: 12.5px; line-height: 1.35; }
table { border-collapse: collapse; align-self: start; justify-self: start; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th { font-weight: 400; color: var(--soft); text-align: left; }
th, td { padding: 1px 12px 1px 0; vertical-align: middle; }
td { white-space: nowrap; }
.list td { white-space: normal; overflow-wrap: anywhere; padding: 3px 14px 3px 0; vertical-align: top; }
.swatch { display: inline-block; width: 26px; height: 16px; border: 1px solid #bbb; border-radius: 2px;
  vertical-align: -3px; margin-right: 6px; }
.slide { display: grid; grid-template-columns: minmax(0, 1fr) auto 390px; gap: 6px 24px; background: var(--card);
  border: 1px solid var(--line); border-radius: 4px; padding: 12px 16px; margin: 10px 0; min-height: 120px;
  content-visibility: auto; contain-intrinsic-size: auto 250px; }
.slide.outlier { border-left: 4px solid var(--odd); }
.pictures { display: grid; grid-template-columns: 220px 220px; gap: 8px; align-content: start; }
figure { margin: 0; } figcaption { font-size: 12px; color: var(--soft); }
img { display: block; border-radius: 2px; outline: 1px solid var(--line); }
@media print { .slide { break-inside: avoid; content-visibility: visible; } }
"""


def text(value: object) -> str:
    """Anything as text of a page."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def draw(
    *,
    title: str,
    generator: str,
    manifest: str,
    software: str,
    method: str,
    reference: Mapping[str, Any],
    provenance: Mapping[str, Any],
    cards: "Sequence[Card]",
    appearances: Sequence[Mapping[str, Any]],
    more: int,
    failed: Sequence[Row],
    found: int,
) -> str:
    """The whole page; `manifest` is a checksum of what it was drawn from."""
    outliers = sum(bool(card.score and card.score.outlier) or _unmeasured(card) for card in cards)
    counts = [f"{len(appearances)} normalized", f"{len(failed)} failed", f"{outliers} to look at"]
    parts = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(", ".join(counts))} · {text(method)} · {text(software)}</p>',
        _cohort(reference, provenance, appearances),
    ]
    if found:
        parts.append(f"<p>{found} more outputs were there before; nothing is known of them.</p>")
    if failed:
        rows = "".join(f"<tr><td>{text(row.input)}</td><td>{text(row.error)}</td></tr>" for row in failed)
        parts.append(f'<h2 class="odd">Failed</h2><table class="list">{rows}</table>')
    parts += [f"<h2>Slides</h2>{_legend(cards)}", *(_slide(card) for card in cards)]
    if more:
        parts.append(f'<p class="soft">{more} more, nearer to the median than these, are in manifest.csv.</p>')
    head = (
        f'<meta charset="utf-8"><meta name="generator" content="{text(generator)}">'
        f'<meta name="manifest" content="{text(manifest)}">'
        f'<meta name="viewport" content="width=device-width"><title>{text(title)}</title><style>{CSS}</style>'
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _cohort(
    reference: Mapping[str, Any], provenance: Mapping[str, Any], appearances: Sequence[Mapping[str, Any]]
) -> str:
    """The reference beside the middle of the cohort."""
    measured = [item for item in appearances if item and not item.get("fallback")]
    middle: dict[str, Any] = {}
    for name in reference:
        values = [item[name] for item in measured if isinstance(item.get(name), (list, float))]
        if name == "white_point":
            values = [item[name] for item in measured if item.get("white_origin") == "glass"]
        if values and len({np.shape(value) for value in values}) == 1:
            middle[name] = np.median(np.array(values, np.float64), axis=0).tolist()
    columns = [("reference", reference), ("median of the slides", middle)]
    rows = []
    for label in dict(_looks(reference)):
        cells = "".join(f"<td>{dict(_looks(item)).get(label, '')}</td>" for _, item in columns)
        rows.append(f"<tr><th>{text(label)}</th>{cells}</tr>")
    head = "".join(f"<th>{text(name)}</th>" for name, _ in columns)
    source = ""
    if "consensus_of" in provenance:
        source = f"<p>The reference is the consensus of {text(provenance['consensus_of'])} slides.</p>"
    return f"{source}<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _legend(cards: "Sequence[Card]") -> str:
    if any(card.score for card in cards):
        order = (
            "The furthest from the cohort's median first. The distance is that of the part of the appearance that is "
            f"furthest off, in robust standard deviations; from {OUTLIER} on a slide is marked. An odd slide need not "
            "be a bad one: look whether its output is."
        )
    else:
        order = f"In order of their names: fewer than {LEAST_SLIDES} slides have no middle to be far from."
    return (
        f'<p class="soft small">{order} Glass is given as red, green and blue, 0 to 255, as measured on the slide and '
        "on its output, with the shift from one to the other. A stain's swatch is what an optical density of 1 of it "
        "alone looks like; its numbers are the stain vector, and how much of it there is.</p>"
    )


def _slide(card: "Card") -> str:
    row = card.row
    odd = bool(card.score and card.score.outlier) or _unmeasured(card)
    notes = []
    if card.score:
        notes.append(_reason(card.score, row.appearance))
    notes += [f'<p class="small">{text(warning)}</p>' for warning in row.warnings]
    if card.trouble:
        notes.append(f'<p class="small odd">{text(card.trouble)}</p>')
    size = f"{row.width:,} × {row.height:,} pixels".replace(",", "\u202f")
    about = (
        f'<div><h3>{text(row.output)}</h3>{"".join(notes)}<p class="small soft">{size}, {row.seconds:.1f} s</p></div>'
    )
    pictures = "".join(
        f'<figure><img loading="lazy" decoding="async" alt="{label}" src="{source}"><figcaption>{label}</figcaption>'
        "</figure>"
        for label, source in (("before", card.before), ("after", card.after))
        if source
    )
    looks = [f"<tr><th>{text(label)}</th><td>{cell}</td></tr>" for label, cell in _looks(row.appearance, card.glass)]
    kind = "slide outlier" if odd else "slide"
    return (
        f'<article class="{kind}">{about}<div class="pictures">{pictures}</div>'
        f"<table>{''.join(looks)}</table></article>"
    )


def _unmeasured(card: "Card") -> bool:
    return bool(card.row.appearance.get("fallback"))


def _reason(score: Score, appearance: Mapping[str, Any]) -> str:
    """The score, and what is furthest off."""
    name = NAMES.get(score.field, score.field.replace("_", " "))
    kind = "odd" if score.outlier else "soft"
    first = f'<p class="{kind}">{score.value:.1f} from the median: {text(name)}</p>'
    numbers = np.asarray(appearance[score.field], np.float64).ravel().tolist()
    if not score.outlier or len(numbers) > _SHORT:
        return first
    return f'{first}<p class="small">{_numbers(numbers)}; median of all {_numbers(list(score.median))}</p>'


def _looks(appearance: Mapping[str, Any], after: Sequence[float] | None = None) -> list[tuple[str, str]]:
    """An appearance in rows: what it is called, and HTML that shows it; `after` is the glass of the output."""
    if "white_point" not in appearance:
        return []
    before = appearance["white_point"]
    measured = appearance.get("white_origin", "glass") == "glass"
    found = [("glass", _color(before) if measured else '<span class="soft">none seen</span>')]
    if after is not None:
        shift = [round(b) - round(a) for a, b in zip(before, after, strict=True)]
        moved = "\u2002".join(f"{value:+d}".replace("-", "−") for value in shift)
        found.append(("glass, after", _color(after) + (f' <span class="soft">({moved})</span>' if measured else "")))
    if appearance.get("fallback"):  # what stands in is not the slide's
        return [*found, ("stains", '<span class="soft">not measured</span>')]
    matrix = appearance.get("stain_matrix", [])
    strengths = appearance.get("max_concentrations", [None] * len(matrix))
    for name, vector, strength in zip(STAINS, matrix, strengths, strict=False):
        shown = _swatch(255.0 * np.exp(-np.asarray(vector, np.float64))) + _numbers(vector, 2)
        found.append((name, shown + ("" if strength is None else f", up to {strength:.2f}")))
    for name, value in appearance.items():
        if name in _KNOWN | _MINOR or isinstance(value, (str, bool)) or value is None:
            continue
        flat = np.asarray(value, np.float64).ravel().tolist()
        if 0 < len(flat) <= _SHORT:
            found.append((NAMES.get(name, name.replace("_", " ")), _numbers(flat, 2)))
    return found


def _color(level: Sequence[float]) -> str:
    return _swatch(np.asarray(level, np.float64)) + _numbers(level, 0)


def _swatch(color: Any) -> str:
    red, green, blue = np.rint(np.clip(color, 0.0, 255.0)).astype(int).tolist()
    return f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'


def _numbers(values: Sequence[float], decimals: int | None = None) -> str:
    largest = max((abs(value) for value in values), default=0.0)
    digits = decimals if decimals is not None else 0 if largest >= 100 else 1 if largest >= 10 else 2
    return "\u2002".join(f"{value:.{digits}f}".replace("-", "−") for value in values)
