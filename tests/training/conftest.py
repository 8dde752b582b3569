"""What the tests of trainings share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .small import quickly, write_tissue


@pytest.fixture(scope="session")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of two labs; see `write_tissue`."""
    return write_tissue(tmp_path_factory.mktemp("tissue"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from quickly(monkeypatch)
