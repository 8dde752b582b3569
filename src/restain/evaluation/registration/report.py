"""What registering many pairs gave, as a csv, as plain values, and in a few lines."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from restain import __version__
from restain.evaluation.registration.files import Outcome
from restain.files import write_atomically

TABLE = "registration.csv"
"""The csv that lies beside the registered pairs: a row for each, the failed ones too."""


def write_table(folder: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write every pair's figures to `registration.csv` in `folder`, in place of an earlier one; return its path."""
    stream = io.StringIO()
    rows = [row(outcome) for outcome in outcomes]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = stream.getvalue().encode("utf-8", errors="surrogateescape")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TABLE, lambda out: out.write(data), overwrite=True)
    return folder / TABLE


def row(outcome: Outcome) -> dict[str, Any]:
    """One pair in plain values; figures of pairs that failed are empty."""
    pair, failed = outcome.pair, outcome.status == "failed"
    figures = {
        "shift_x": round(outcome.shift[0], 2),
        "shift_y": round(outcome.shift[1], 2),
        **{name: round(value, 4) for name, value in asdict(outcome.quality).items()},
    }
    return {
        "name": pair.name,
        "slide": pair.slide or "",
        "source": str(pair.source),
        "target": str(pair.target),
        "status": outcome.status,
        **(dict.fromkeys(figures, "") if failed else figures),
        "reason": outcome.reason,
    }


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything about a run in plain values."""
    return {
        "software": f"restain {__version__}",
        "pairs": [
            row(outcome)
            | {
                "outputs": {name: str(path) for name, path in vars(outcome.outputs).items() if path.exists()},
                "kept": outcome.kept,
                "seconds": round(outcome.seconds, 3),
            }
            for outcome in outcomes
        ],
    }


def headline(outcomes: Sequence[Outcome]) -> str:
    """A line: how many pairs, and how well they lie together."""
    accepted = [outcome.quality for outcome in outcomes if outcome.status == "accepted"]
    others = [
        f"{count} {status}"
        for status in ("rejected", "failed")
        if (count := sum(outcome.status == status for outcome in outcomes))
    ]
    text = ", ".join([f"{len(accepted)} pairs registered", *others])
    if accepted:
        before, after = (np.mean([getattr(q, f"ssim_{when}") for q in accepted]) for when in ("before", "after"))
        text += f"; mean SSIM {before:.3f} before, {after:.3f} after"
    return text
