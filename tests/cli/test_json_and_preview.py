"""`restain normalize --json` and `--preview`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restain
from restain.methods import METHODS

from ..running import Run
from .scene import TISSUE, pixels


def test_json(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_text("words")
    outcome = run("normalize", "tiles", "o", "--json", "--target", "pap")
    assert outcome.code == 1
    summary = outcome.json
    assert set(summary) == {"software", "method", "settings", "reference", "results", "failed"}
    assert summary["software"] == f"restain {restain.__version__}"
    assert summary["method"] == "macenko"
    assert summary["settings"] == METHODS["macenko"]().settings()
    assert summary["reference"]["profile"] == "pap"
    assert [result["source"] for result in summary["results"]] == ["tiles/a.png", "tiles/b.jpg", "tiles/deep/c.png"]
    first = summary["results"][0]
    assert set(first) == {"source", "output", "size", "seconds", "appearance", "warnings"}
    assert first["output"] == "o/a.png"
    assert first["size"] == [300, 200]
    assert first["warnings"] == []
    assert first["appearance"]["white_origin"] == "glass"
    assert first["appearance"]["white_point"] == pytest.approx([243, 243, 243], abs=0.5)
    (failed,) = summary["failed"]
    assert failed["source"] == "tiles/bad.png"
    assert "not a slide or image" in failed["error"]


@pytest.mark.parametrize("arguments", [["a.png", "o.png"], ["slide.tif", "o.tif"]])
def test_json_of_one_file(arguments: list[str], run: Run) -> None:
    summary = run("normalize", *arguments, "--json").json
    assert [result["output"] for result in summary["results"]] == [arguments[1]]
    assert summary["failed"] == []


@pytest.mark.parametrize(("preview", "kind"), [("p.png", "PNG"), ("p.jpg", "JPEG")])
def test_preview(preview: str, kind: str, run: Run) -> None:
    assert run("normalize", "a.png", "o.png", "--preview", preview).code == 0
    with Image.open(preview) as sheet:
        assert sheet.format == kind
        found = np.asarray(sheet)
    if kind == "PNG":  # both pictures are there, side by side
        for picture in (TISSUE, pixels("o.png")):
            places = np.argwhere((found[:-199, :-299] == picture[0, 0]).all(axis=2))
            assert any(np.array_equal(found[y : y + 200, x : x + 300], picture) for y, x in places)


def test_preview_of_a_folder_and_of_a_slide(here: Path, run: Run) -> None:
    (here / "tiles" / "bad.png").write_text("words")
    assert run("normalize", "tiles", "o", "--preview", "p.png").code == 1
    assert run("normalize", "slide.tif", "o.tif", "--preview", "q.png").code == 0
    assert pixels("p.png").shape[0] > pixels("q.png").shape[0] > 200


def test_preview_is_replaced_when_asked(here: Path, run: Run) -> None:
    (here / "p.png").write_text("old")
    assert run("normalize", "a.png", "o.png", "--preview", "p.png", "--overwrite").code == 0
    assert pixels("p.png").shape[2] == 3
