"""What the tests of trainings share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .small import write_tissue


@pytest.fixture(scope="session")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of two labs; see `write_tissue`."""
    return write_tissue(tmp_path_factory.mktemp("tissue"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, which is faster for small networks, and no drawing of curves, which takes longer than all else."""
    monkeypatch.setattr("restain.training.session.plot_losses", lambda log, output: output)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
