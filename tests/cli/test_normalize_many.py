"""`restain normalize` of a folder or a pattern: what is done, left, done again and told."""

from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

import restain
from restain.methods import METHODS
from restain.slides.cohort import OWN_FILES

from ..running import Outcome, Run, contents
from .scene import OTHER, TISSUE, default, is_one_line, outputs, pixels


def test_a_folder(run: Run) -> None:
    outcome = run("normalize", "tiles", "o")
    assert outcome == Outcome(0, "3 files normalized by macenko\n", "")
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}
    np.testing.assert_array_equal(pixels("o/a.png"), default(TISSUE))
    np.testing.assert_array_equal(pixels("o/deep/c.png"), default(OTHER[:100]))


def test_other_files_of_a_folder_are_passed_over(here: Path, run: Run) -> None:
    (here / "tiles" / "notes.txt").write_text("words")
    (here / "tiles" / ".hidden.png").write_text("words")
    assert run("normalize", "tiles", "o").code == 0
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [("tiles/*.png", {"a.png"}), ("tiles/*", {"a.png", "b.jpg"}), ("tiles/**/*.png", {"a.png", "deep/c.png"})],
)
def test_a_pattern(pattern: str, wanted: set[str], run: Run) -> None:
    assert run("normalize", pattern, "o").code == 0
    assert set(outputs("o")) == wanted


def test_a_folder_with_a_slide(here: Path, run: Run) -> None:
    (here / "slide.tif").rename(here / "tiles" / "slide.tif")
    assert run("normalize", "tiles", "o").code == 0
    with openslide.OpenSlide("o/slide.tif") as slide:
        assert slide.dimensions == (300, 200)


def test_a_bad_file_is_named_and_the_rest_is_done(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_bytes((here / "a.png").read_bytes()[:3000])
    (here / "tiles" / "words.svs").write_text("words")
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 1
    assert outcome.out == "3 files normalized by macenko, 2 failed\n"
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("restain: tiles/bad.png: ")
    assert lines[1].startswith("restain: tiles/words.svs: ")
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}


def test_a_bad_tiff_says_nothing_besides(here: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """tifffile logs what it stumbles over, and logging prints warnings on standard error where nobody asked it."""
    (here / "tiles" / "bad.tif").write_bytes((here / "slide.tif").read_bytes()[:9000])
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert caplog.records == []


@pytest.mark.parametrize("estimate", ["image", "folder"])
def test_again_does_what_is_missing(estimate: str, here: Path, run: Run) -> None:
    """A run that was stopped goes on, and ends with the pixels that it would have had."""
    assert run("normalize", "tiles", "o", "--estimate", estimate).code == 0
    first = outputs("o")
    (here / "o" / "b.jpg").unlink()
    outcome = run("normalize", "tiles", "o", "--estimate", estimate)
    assert outcome.code == 0
    assert outcome.err == "restain: note: 2 outputs are finished and left as they are\n"
    assert outputs("o") == first


def test_when_nothing_is_missing_nothing_is_done(run: Run) -> None:
    assert run("normalize", "tiles", "o").code == 0
    first = contents("o")
    outcome = run("normalize", "tiles", "o")
    note = "restain: note: 3 outputs are finished and left as they are\n"
    assert outcome == Outcome(0, "0 files normalized by macenko\n", note)
    assert {name: data for name, data in contents("o").items() if not name.endswith("lock")} == {
        name: data for name, data in first.items() if not name.endswith("lock")
    }


def test_outputs_that_nobody_knows_are_left(here: Path, run: Run) -> None:
    assert run("normalize", "tiles", "o").code == 0
    (here / "o" / "manifest.csv").unlink()
    (here / "o" / "normalizer.safetensors").unlink()
    first = contents("o")
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 2
    assert is_one_line(outcome)
    assert "all 3 outputs exist already" in outcome.err
    assert outputs("o") == {name: data for name, data in first.items() if name not in OWN_FILES}


def test_resuming_and_overwriting(run: Run) -> None:
    assert run("normalize", "tiles", "o").out == "3 files normalized by macenko\n"
    refused = run("normalize", "tiles", "o", "--no-resume")
    assert refused.code == 2
    assert "needs --overwrite" in refused.err
    mixed = run("normalize", "tiles", "o", "--method", "reinhard")
    assert mixed.code == 2
    assert "made by another method, reference or settings" in mixed.err
    assert run("normalize", "tiles", "o", "--overwrite").out == "3 files normalized by macenko\n"
    assert run("normalize", "tiles", "o", "--overwrite", "--resume").out == "0 files normalized by macenko\n"
    other = ("normalize", "tiles", "o", "--overwrite", "--resume", "--method", "reinhard")
    assert run(*other).out == "3 files normalized by reinhard\n"
    assert run(*other).out == "0 files normalized by reinhard\n"


def test_the_consensus_of_a_folder(here: Path, run: Run) -> None:
    assert run("normalize", "tiles", "o", "--target-consensus", "--method", "reinhard") == Outcome(
        0, "3 files normalized by reinhard\n", ""
    )
    consensus = restain.load(here / "o")
    assert consensus.provenance_["consensus_of"] == 3
    np.testing.assert_array_equal(pixels("o/a.png"), consensus.transform(TISSUE))
    assert run("normalize", "a.png", "one.png", "--normalizer", "o").code == 0
    np.testing.assert_array_equal(pixels("one.png"), pixels("o/a.png"))


def test_outputs_within_the_inputs_are_not_normalized_again(here: Path, run: Run) -> None:
    assert run("normalize", "tiles", "tiles/o").code == 0
    first = outputs("tiles/o")
    assert set(first) == {"a.png", "b.jpg", "deep/c.png"}
    assert run("normalize", "tiles", "tiles/o", "--overwrite").code == 0
    assert outputs("tiles/o") == first
    assert run("normalize", "tiles/**/*.png", here / "tiles" / "o", "--overwrite").code == 0
    assert set(outputs("tiles/o")) == {"a.png", "b.jpg", "deep/c.png"}


def test_a_folder_into_itself_is_refused(run: Run) -> None:
    before = contents()
    for output in ("tiles", "tiles/", ".", "tiles/deep/.."):
        outcome = run("normalize", "tiles", output, "--overwrite")
        assert outcome.code == 2
        assert is_one_line(outcome)
    assert contents() == before


def test_one_estimate_for_a_folder(run: Run) -> None:
    outcome = run("normalize", "tiles", "o", "--estimate", "folder", "--json")
    assert outcome.code == 0
    white, *others = [result["appearance"] for result in outcome.json["results"]]
    assert others == [white, white]
    normalizer = METHODS["macenko"]().fit("he")
    together = normalizer.estimate([pixels(f"tiles/{name}") for name in ("a.png", "b.jpg", "deep/c.png")])
    np.testing.assert_array_equal(pixels("o/a.png"), normalizer.transform(TISSUE, together))


def test_one_estimate_for_a_folder_with_a_bad_file(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_text("words")
    outcome = run("normalize", "tiles", "o", "--estimate", "folder")
    assert outcome.code == 1
    assert is_one_line(outcome)
    assert outcome.err.startswith("restain: tiles/bad.png: ")
    assert set(outputs("o")) == {"a.png", "b.jpg", "deep/c.png"}


def test_notes_on_many_files_name_them(run: Run) -> None:
    Image.new("RGB", (64, 64), (240, 240, 240)).save("tiles/blank.png")
    outcome = run("normalize", "tiles", "o")
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("restain: note: tiles/blank.png: ")


@pytest.mark.parametrize("more", ["nothing", "a bad file"])
def test_notes_on_the_only_good_file_are_told_too(more: str, here: Path, run: Run) -> None:
    (here / "few").mkdir()
    Image.new("RGB", (64, 64), (240, 240, 240)).save("few/blank.png")
    if more == "a bad file":
        (here / "few" / "z.png").write_text("words")
    outcome = run("normalize", "few", "o")
    assert sum(line.startswith("restain: note: ") and "stand in" in line for line in outcome.err.splitlines()) == 1


def test_of_many_notes_some_are_told_and_counted(here: Path, run: Run) -> None:
    (here / "blank").mkdir()
    for number in range(13):
        Image.new("RGB", (32, 32), (240, 240, 240)).save(f"blank/{number}.png")
    outcome = run("normalize", "blank", "o")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "restain: note: 3 more notes; --json has them all"
    outcome = run("normalize", "blank", "o", "--overwrite", "--json")
    assert sum(len(result["warnings"]) for result in outcome.json["results"]) == 13
