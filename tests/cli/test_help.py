"""`restain --help`, of all and of each command, and `--version`."""

import pytest

import restain

from ..running import Outcome, Run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(arguments: list[str], run: Run) -> None:
    outcome = run(*arguments)
    assert outcome.code == 0
    assert outcome.err == ""
    for command in ("normalize", "fit", "info", "methods", "demo", "phantom"):
        assert command in outcome.out


@pytest.mark.parametrize("command", ["normalize", "fit", "info", "methods", "demo", "phantom"])
def test_help_of_a_command(command: str, run: Run) -> None:
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert f"Usage: restain {command}" in outcome.out


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(0, f"{restain.__version__}\n", "")
