"""What all tests share: the folder of real images, small phantoms, and Hypothesis' settings."""

import os
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

from restain import cli
from restain.phantom import STAINS_A, STAINS_B, Phantom, Scanner, make_phantom

from .running import Outcome, Run

# The same examples in every run and on every machine; a slow machine is no failure.
settings.register_profile("restain", derandomize=True, database=None, deadline=None)
settings.load_profile("restain")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images: RESTAIN_DATA where it is set, else shared/data beside the repository."""
    repository = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("RESTAIN_DATA") or repository.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not a folder; set RESTAIN_DATA")
    return folder


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A source: violet hematoxylin and rose eosin, a scanner with neutral glass and a little noise."""
    return make_phantom(192, 256, seed=1, stain_matrix=STAINS_A, scanner=Scanner(noise=1.0))


@pytest.fixture(scope="session")
def reference() -> Phantom:
    """A reference: other tissue, other stains, stronger eosin, a scanner with pinkish glass."""
    scanner = Scanner(white=(236.0, 231.0, 228.0), noise=1.0)
    return make_phantom(256, 192, seed=2, stain_matrix=STAINS_B, scanner=scanner, strength=(0.9, 1.2))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`restain ARGUMENTS…` in this process."""

    def run(*arguments: object) -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # as in a process of its own
            with pytest.raises(SystemExit) as exit:
                cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(exit.value.code, captured.out, captured.err)  # type: ignore[arg-type]

    return run
