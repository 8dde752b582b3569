"""Whatever is given to `restain normalize`: a result or one clear line, in bounded time and memory."""

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
import tifffile

from restain.color.images import RGB8

from ..forking import Forks
from ..running import Run, contents
from .hanging import IN_TIME, in_time
from .hostile import CASES, EITHER, RESULT, Case, fifo, slide

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files and limits")

BOMBS = [name for name in CASES if re.search(r"claims|MB|1 bit|cycle|itself|device|pipe", name)]


@pytest.fixture(scope="module")
def image(tissue: RGB8) -> RGB8:
    return tissue[:150, :200].copy()


def check(case: Case, code: int | None, out: str, err: str, output: Path) -> None:
    """That a run did what is documented for its case."""
    assert "Traceback" not in err
    if code == 0:
        assert case.outcome in (RESULT, EITHER), f"a result, but wanted {case.outcome}"
        with tifffile.TiffFile(output) as written:  # a complete image under the final name
            assert written.pages.first.asarray().size
        assert re.search(case.note, out + err), err
        assert all(line.startswith("restain: note: ") for line in err.splitlines()), err
    else:
        assert code == 2, err
        assert case.outcome != RESULT, err
        assert err.count("\n") == 1, err
        assert err.startswith("restain: ")
        assert case.outcome == EITHER or re.search(case.outcome, err), err
        assert not list(output.parent.iterdir())  # nothing half done is left


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 80
    assert len(BOMBS) >= 20


@pytest.mark.parametrize("name", CASES)
def test_hostile_inputs(name: str, image: RGB8, tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = CASES[name].make(tmp_path / "in", image)
    before = contents(tmp_path / "in")
    output = tmp_path / "out" / "out.tif"
    with in_time():
        outcome = run("normalize", source, output)
    check(CASES[name], outcome.code, outcome.out, outcome.err, output)
    assert contents(tmp_path / "in") == before


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_in_a_process_with_little_memory(name: str, image: RGB8, tmp_path: Path, forks: Forks) -> None:
    """A process that is ended by a library (no memory, a signal) has another status than 0 and 2."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = CASES[name].make(tmp_path / "in", image)
    output = tmp_path / "out" / "out.tif"
    done = forks.run("normalize", source, output, "--workers", 1, limits={"more memory": 2 << 30}, timeout=IN_TIME)
    check(CASES[name], done.code, done.out, done.err, output)


@pytest.mark.parametrize("command", ["info", "separate", "compare", "fit"])
def test_other_commands_do_not_wait_for_a_pipe_either(command: str, image: RGB8, tmp_path: Path, run: Run) -> None:
    source = fifo(tmp_path, image)
    more = {"info": [], "separate": [tmp_path / "out"], "compare": [source], "fit": ["-o", tmp_path / "n.safetensors"]}
    with in_time():
        outcome = run(command, source, *more[command])
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1


def test_a_file_that_may_not_be_read(image: RGB8, forks: Forks) -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which others than its owner may not enter
        folder = Path(name)
        folder.chmod(0o777)
        source = slide(folder, image)
        source.chmod(0)
        other = 65534 if os.geteuid() == 0 else None  # root may read everything
        done = forks.run("normalize", source, folder / "out.tif", user=other)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "Permission denied" in done.err
        assert str(source) in done.err
        assert [path.name for path in folder.iterdir()] == ["slide.tif"]


def test_hostile_files_in_a_folder_cost_the_good_ones_nothing(image: RGB8, tmp_path: Path, run: Run) -> None:
    """One run over a folder that holds one file of many cases: each bad one is told in one line, the rest is done."""
    left = r"folder|link|name|path|file|device|claims|100000|bit|GIF"
    names = [name for name in CASES if not re.search(left, name)][::2]
    good = set()
    for number, name in enumerate(names):
        folder = tmp_path / "in" / str(number)
        folder.mkdir(parents=True)
        made = CASES[name].make(folder, image)
        if CASES[name].outcome == RESULT and made.suffix:
            good.add(number)
    assert len(good) >= 20
    with in_time():
        outcome = run("normalize", tmp_path / "in", tmp_path / "out")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "unforeseen" not in outcome.err
    done = {
        int(path.parent.name) for path in (tmp_path / "out").rglob("*") if path.is_file() and path.parent.name.isdigit()
    }
    assert good <= done
