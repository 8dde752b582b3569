"""The docs' page on metrics names every metric and suite, and says the same of each as the code."""

import re
from pathlib import Path

import pytest

from restain.evaluation.metrics import METRICS, SUITES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """The cells behind each metric's name, in the tables that begin with one."""
    found = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_documented(name: str, rows: dict[str, list[str]]) -> None:
    better = {True: "higher", False: "lower", None: "-"}[METRICS[name].higher_is_better]
    assert len(rows[name]) == 4
    assert rows[name][0] == better


def test_nothing_else_is(rows: dict[str, list[str]]) -> None:
    assert set(rows) == {*METRICS, *SUITES}
