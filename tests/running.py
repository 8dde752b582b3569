"""What running a command in this process leaves behind; the fixture `run` of conftest.py does it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit status, standard output and error."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        def not_json(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        return json.loads(self.out, parse_constant=not_json)


Run = Callable[..., Outcome]


def contents(folder: str | Path = ".") -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its path in it."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
