"""`restain evaluate` and `restain compare`: what they write and print, and what they refuse in one line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restain

from ...running import Run
from .scanned import write_pairs

WRITTEN = {"metrics.csv", "metrics.parquet", "summary.csv", "evaluation.json", "report.html"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `a/` and `b/`, two tissues by two scanners."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, 2)
    return tmp_path


def test_pairs(here: Path, run: Run) -> None:
    restain.Reinhard().fit(here / "b").save(here / "labB.safetensors")
    outcome = run("evaluate", "--source", "a", "--target", "b", "--methods", "macenko,labB.safetensors", "-o", "out")
    assert outcome.code == 0
    assert {path.name for path in (here / "out").iterdir() if path.is_file()} == WRITTEN
    assert {path.name for path in (here / "out" / "registration").glob("*.safetensors")} == {
        "0.safetensors",
        "1.safetensors",
    }
    assert "no lpips_target" in outcome.err
    lines = outcome.out.splitlines()
    assert ["raw", "macenko", "labB"] in [line.split() for line in lines]
    assert any(line.startswith("ssim_target ↑") for line in lines)
    assert lines[-1] == str(Path("out/report.html"))
    with (here / "out" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} == {"raw", "macenko", "labB"}
    page = (here / "out" / "report.html").read_text()
    assert "labB" in page
    facts = json.loads((here / "out" / "evaluation.json").read_text())
    assert facts["compared_with_target"] == 2


def test_json_and_once_more(here: Path, run: Run) -> None:
    arguments = (
        "evaluate",
        "--source",
        "a",
        "--target",
        "b",
        "--methods",
        "reinhard",
        "--suites",
        "dstgan",
        "-o",
        "out",
    )
    first = run(*arguments, "--json")
    assert first.code == 0
    assert [line["metric"] for line in first.json["summary"]][:2] == ["ssim_source", "ssim_source"]
    refused = run(*arguments)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    registered = [path.stat().st_mtime_ns for path in (here / "out" / "registration").glob("*.safetensors")]
    again = run(*arguments, "--json", "--overwrite")
    assert again.json["summary"] == first.json["summary"]
    assert [p.stat().st_mtime_ns for p in (here / "out" / "registration").glob("*.safetensors")] == registered


def test_sources_alone(here: Path, run: Run) -> None:
    outcome = run("evaluate", "--source", "a", "--methods", "reinhard", "-o", "out")
    assert outcome.code == 0
    assert "no ssim_target (stainnet), psnr_target (stainnet), lpips_target (toolkit): no target was" in outcome.err
    assert not (here / "out" / "registration").exists()
    facts = json.loads((here / "out" / "evaluation.json").read_text())
    assert facts["methods"]["reinhard"]["reference"]["profile"] == "he"


def test_an_earlier_evaluation_inside_the_sources_is_no_source(here: Path, run: Run) -> None:
    assert run("evaluate", "--source", "a", "--target", "b", "--methods", "reinhard", "-o", "a/out").code == 0
    assert run("evaluate", "--source", "a", "--methods", "reinhard", "-o", "a/out", "--overwrite").code == 0
    facts = json.loads((here / "a" / "out" / "evaluation.json").read_text())
    assert facts["images"] == 2


def test_other_pictures_of_the_same_names_are_registered_anew(here: Path, run: Run) -> None:
    arguments = ("evaluate", "--source", "a", "--target", "b", "--methods", "reinhard", "--suites", "stainnet")
    assert run(*arguments, "-o", "out").code == 0
    for folder in ("a", "b"):
        (here / folder / "0.png").rename(here / folder / "kept.png")
        (here / folder / "1.png").rename(here / folder / "0.png")
        (here / folder / "kept.png").rename(here / folder / "1.png")
    again = run(*arguments, "-o", "out", "--overwrite", "--json").json["summary"]
    fresh = run(*arguments, "-o", "fresh", "--json").json["summary"]
    assert again == fresh


def test_one_bad_image_is_reported_and_the_rest_completes(here: Path, run: Run) -> None:
    (here / "a" / "1.png").write_bytes(b"no picture")
    outcome = run("evaluate", "--source", "a", "--target", "b", "--methods", "reinhard", "-o", "out")
    assert outcome.code == 1
    assert outcome.err.splitlines()[0].startswith("restain: 1: ")
    assert (here / "out" / "report.html").exists()


REFUSED: dict[str, tuple[list[str], str]] = {
    "no folder": (["--source", "gone", "-o", "out"], "gone"),
    "an empty folder": (["--source", "empty", "-o", "out"], "holds no images"),
    "an unknown method": (["--source", "a", "--methods", "magic", "-o", "out"], "no method 'magic'"),
    "no methods": (["--source", "a", "--methods", ",", "-o", "out"], "no methods"),
    "an unknown suite": (["--source", "a", "--suites", "all", "-o", "out"], "no suite 'all'"),
    "pairs without a target": (["--source", "a", "--pairs", "p.csv", "-o", "out"], "--pairs without --target"),
    "into the source": (["--source", "a", "-o", "a"], "name another folder"),
    "into a file": (["--source", "a", "-o", "a/0.png"], "is a file"),
    "no workers": (["--source", "a", "-o", "out", "--workers", "0"], "--workers 0"),
    "no examples": (["--source", "a", "-o", "out", "--examples", "0"], "--examples 0"),
    "weights that are not there": (
        ["--source", "a", "--target", "b", "-o", "out", "--lpips-weights", "w.pth"],
        "w.pth is not a file; wanted the weights for lpips_target",
    ),
    "weights for no suite": (
        ["--source", "a", "--target", "b", "-o", "out", "--lpips-weights", "a/0.png", "--suites", "stainnet"],
        "lpips_target",
    ),
    "a suite twice": (["--source", "a", "--suites", "dstgan,dstgan", "-o", "out"], "each of them once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_told_in_one_line(case: str, here: Path, run: Run) -> None:
    (here / "empty").mkdir()
    arguments, said = REFUSED[case]
    outcome = run("evaluate", *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("restain: ")
    assert said in outcome.err
    assert not (here / "out" / "metrics.csv").exists()


# ---- compare ----------------------------------------------------------------------------------------------------


def test_compare(here: Path, run: Run) -> None:
    outcome = run("compare", "a/0.png", "b/0.png", "--methods", "reinhard,macenko", "--preview", "sheet.png")
    assert (outcome.code, outcome.err) == (0, "")
    header, *rows = outcome.out.splitlines()
    assert header.startswith("distance")
    assert [row.split()[0] for row in rows] == ["raw", "reinhard", "macenko"]
    with Image.open("sheet.png") as sheet:
        assert np.asarray(sheet).std() > 10
    plain = run("compare", "a/0.png", "b/0.png", "--methods", "reinhard", "--json").json
    assert plain["reinhard"]["tissue"]["of_raw"] < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a/0.png", "gone.svs"], "gone.svs does not exist"),
        (["a/0.png", "b/0.png", "--methods", "magic"], "no method 'magic'"),
        (["a/0.png", "b/0.png", "--preview", "a/0.png"], "a/0.png"),
        (["a/0.png", "b/0.png", "--preview", "sheet.gif"], ".png or .jpg"),
        (["a/0.png", "b/0.png", "--workers", "-1"], "--workers -1"),
    ],
)
def test_comparisons_that_cannot_be_made(arguments: list[str], said: str, run: Run) -> None:
    outcome = run("compare", *arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
