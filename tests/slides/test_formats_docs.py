"""The page on formats says what the code does."""

import re
from pathlib import Path

from restain.slides.formats import COMPRESSIONS, FORMATS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")


def test_the_table_of_compressions() -> None:
    table = re.search(r"### Compression\n.*?```\{list-table\}\n(.*?)\n```", PAGE, flags=re.DOTALL)
    assert table is not None
    rows = [re.split(r"\n  - ", row) for row in re.split(r"^\* - ", table[1], flags=re.MULTILINE)[1:]]
    head = rows[0]
    assert head[1:5] == [facts.title for facts in FORMATS.values()]
    assert [row[0].strip("`") for row in rows[1:]] == list(COMPRESSIONS)
    for row in rows[1:]:
        for cell, facts in zip(row[1:5], FORMATS.values(), strict=True):
            codec = row[0].strip("`")
            held = "default" if facts.compressions[0] == codec else "yes" if codec in facts.compressions else "no"
            assert cell == held, f"{codec} in {facts.title}"


def test_every_ending_is_named() -> None:
    for facts in FORMATS.values():
        assert f"`{facts.suffixes[0]}`" in PAGE
