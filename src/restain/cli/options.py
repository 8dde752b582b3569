"""Options that several commands have, and what their values must be."""

import importlib.util
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from restain.errors import InputError, MissingExtraError

Background = Literal["match", "keep", "white", "none"]
Icc = Literal["keep", "srgb"]
OnError = Literal["stop", "skip", "fill"]
Flag = Annotated[bool, Parameter(negative="")]
"""An option that is given or not; it has no `--no-` form."""
Json = Annotated[bool, Parameter(name="--json", negative="")]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Assignments = Annotated[tuple[str, ...], Parameter(name="--set", negative="")]


def check_workers(workers: int | None) -> None:
    """Raise `InputError` for a number of workers that is none."""
    if workers is not None and workers < 1:
        raise InputError(f"got --workers {workers}; wanted 1 or more")


def parts(text: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str, separator: str, kind: type, example: str) -> Any:
    """The numbers of a list such as 243,243,243; raises `InputError` for what is none, showing the example."""
    try:
        return tuple(kind(part) for part in text.lower().split(separator))
    except ValueError:
        raise InputError(f"got {text!r}; wanted numbers as in {example}") from None


def need(extra: str, what: str, *modules: str) -> None:
    """Raise `MissingExtraError` where one of the modules is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"{what} needs {module}; install it: pip install 'restain[{extra}]'")
