"""The docs' tables of settings have every setting with its default, and its commands exist: docs that go stale fail."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from restain.cli import app
from restain.systems import SYSTEMS
from restain.systems.config import plain
from restain.training.settings import make_recipe, merged, parse_overrides, read_recipe, shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
NETWORKS = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")

ORIGINS = {"paper", "code", "restain"}
DATA = {"source": ["a"], "target": ["b"]}


def rows(system: str) -> list[list[str]]:
    """The rows of a system's table below its heading: setting, default, origin, reason."""
    _, heading, section = TRAINING.partition(f"\n### {system}\n")
    assert heading, f"docs/training.md has no section {system}"
    table = re.search(r"```\{list-table\}\n(.*?)\n```", re.split(r"\n##", section)[0], flags=re.DOTALL)
    assert table is not None
    found = [re.split(r"\n  -", row) for row in re.split(r"^\* -", table[1], flags=re.MULTILINE)[1:]]
    return [[" ".join(cell.split()) for cell in row] for row in found[1:]]


def commands() -> Iterator[Any]:
    """Every command line of restain in the pages' console blocks, by page."""
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for line in re.findall(r"^\$ .*", block, flags=re.MULTILINE):
                for part in re.split(r"&&|(?<=-m )(?=restain )", line.removeprefix("$ ")):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["restain"]:
                        yield pytest.param(words[1:], id=f"{page.name}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_setting_of_a_system_is_in_its_table_with_its_default(system: str) -> None:
    defaults = plain(SYSTEMS[system].config_type())
    table = rows(system)
    assert [row[0] for row in table] == [f"`{name}`" for name in defaults]
    for setting, default, origin, _ in table:
        name = setting.strip("`")
        shown = tomllib.loads(f"value = {default.strip('`')}")["value"]
        assert (shown, type(shown)) == (defaults[name], type(defaults[name])), f"{system}: {name}"
        assert origin in ORIGINS, f"{system}: {name}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_choices_that_are_our_own_have_a_reason(system: str) -> None:
    without = [row[0] for row in rows(system) if row[2] == "restain" and not row[3]]
    assert not without


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_recipe_of_a_paper_says_what_the_defaults_are(system: str) -> None:
    given = read_recipe(system)
    assert given["system"] == system
    defaults = plain(SYSTEMS[system].config_type())
    assert given["config"] == {name: defaults[name] for name in given["config"]}


def test_every_shipped_recipe_is_documented() -> None:
    missing = [name for name in shipped_recipes() if f"`{name}`" not in TRAINING + NETWORKS]
    assert not missing


def test_documented_recipes_are_shipped() -> None:
    used = set(re.findall(r"--recipe ([\w-]+)(?=[\s`])", TRAINING + NETWORKS))
    assert used
    assert used <= set(shipped_recipes())


def test_settings_that_the_text_names_exist() -> None:
    """Such as `data.group_pattern`: what is given with --set must be a setting of some table."""
    named = set(re.findall(r"(?<![\w./(])(config|data|training|health)\.(?!md\b)(\w+)", TRAINING + NETWORKS))
    assert len(named) > 10
    recipes = [make_recipe({"system": system, "data": DATA}) for system in SYSTEMS]
    for table, name in named:
        known = {field.name for recipe in recipes for field in fields(getattr(recipe, table))}
        assert name in known, f"{table}.{name}"


@pytest.mark.parametrize("words", list(commands()))
def test_commands_in_the_docs_are_understood(words: list[str]) -> None:
    """Parsed, not run: a command, an option or a setting that does not exist is an error."""
    if words[0].startswith("--"):
        return
    command, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__module__.startswith("restain.cli")
    overrides = parse_overrides(bound.arguments.get("set_", ()))
    if words[0] == "train":
        recipe = bound.arguments.get("recipe")
        base = read_recipe(recipe) if recipe in shipped_recipes() else {}
        values = {"system": bound.arguments.get("system") or base.get("system", "staingan"), "data": DATA}
        make_recipe(merged(base, values, overrides), " ".join(words))


def test_the_walk_over_commands_finds_them() -> None:
    found = [parameter.values[0][0] for parameter in commands()]
    assert {"train", "distill", "export", "normalize", "evaluate"} <= set(found)
    assert len(found) > 30
