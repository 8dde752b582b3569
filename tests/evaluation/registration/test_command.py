"""`restain register`: what it writes, how it goes on, what it says about bad pairs and wrong requests."""

import csv
import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restain.evaluation.datasets.pairs import Pair
from restain.evaluation.registration import Registration, RegistrationSettings, register
from restain.evaluation.registration.files import register_files

from ...running import Run, contents
from . import planting

SHIFT = (3.0, -2.0)


@pytest.fixture
def run(run: Run) -> Run:
    """`restain register ARGUMENTS…` in this process."""
    return functools.partial(run, "register")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two pairs that match, A/x and A/deep/y with B's."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(["x", "deep/y"]):
        source, target, _ = planting.planted(planting.phantom_picture(seed, 200), seed, size=128, shift=SHIFT)
        for folder, pixels in (("A", source), ("B", target)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path


def table(folder: str = "out") -> list[dict[str, str]]:
    with (Path(folder) / "registration.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def spoil(here: Path) -> None:
    """A pair of other tissue, and one that cannot be read."""
    Image.fromarray(planting.phantom_picture(7, 128)).save(here / "A/other.png")
    Image.fromarray(planting.phantom_picture(8, 128)).save(here / "B/other.png")
    (here / "A/words.png").write_text("these are words")
    (here / "B/words.png").write_text("these are words")


# ---- what it does -----------------------------------------------------------------------------------------------


def test_two_folders(here: Path, run: Run) -> None:
    before = contents("A") | contents("B")
    outcome = run("A", "B", "-o", "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("2 pairs registered; mean SSIM 0.")
    names = {f"{name}{suffix}" for name in ("x", "deep/y") for suffix in (".png", ".mask.png", ".safetensors")}
    assert set(contents("out")) == names | {"registration.csv"}
    assert contents("A") | contents("B") == before
    source, target = planting.read(here / "A/x.png"), planting.read(here / "B/x.png")
    expected = register(source, target)
    saved = Registration.load("out/x.safetensors")
    assert np.array_equal(saved.positions(), expected.positions())
    assert np.array_equal(planting.read(here / "out/x.png"), expected.warp(target))
    with Image.open("out/x.mask.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask) == 255, expected.mask)
    y, x = table()
    assert (x["name"], x["status"], y["name"]) == ("x", "accepted", "deep/y")
    assert float(x["ssim_after"]) == pytest.approx(expected.quality.ssim_after, abs=1e-4)
    assert (float(x["shift_x"]), float(x["shift_y"])) == pytest.approx(SHIFT, abs=0.1)


def test_pairs_of_a_csv(here: Path, run: Run) -> None:
    Path("pairs.csv").write_text("name,source,target,slide,dy,dx\none,x.png,x.png,03,2,-3\n")
    outcome = run("A", "B", "-o", "out", "--pairs", "pairs.csv")
    assert outcome.code == 0
    assert set(contents("out")) == {"one.png", "one.mask.png", "one.safetensors", "registration.csv"}
    assert [row["slide"] for row in table()] == ["03"]


def test_bad_pairs_are_told_and_the_rest_is_done(here: Path, run: Run) -> None:
    spoil(here)
    outcome = run("A", "B", "-o", "out")
    assert outcome.code == 1
    assert outcome.out.startswith("2 pairs registered, 1 rejected, 1 failed")
    rejected, failed = outcome.err.splitlines()
    assert rejected.startswith("restain: other rejected: ")
    assert failed.startswith("restain: words failed: ")
    assert "words.png is not a slide or image" in failed
    assert {row["name"]: row["status"] for row in table()} == {
        "deep/y": "accepted", "other": "rejected", "words": "failed", "x": "accepted",
    }  # fmt: skip
    assert not {"other.png", "other.mask.png", "words.png", "words.safetensors"} & set(contents("out"))
    assert not Registration.load("out/other.safetensors").accepted


def test_again_does_what_is_missing(here: Path, run: Run) -> None:
    spoil(here)
    run("A", "B", "-o", "out")
    first = contents("out")
    for name in ("x.png", "deep/y.mask.png", "registration.csv"):
        (here / "out" / name).unlink()
    outcome = run("A", "B", "-o", "out")
    assert outcome.code == 1
    assert "1 pairs were done already" in outcome.err
    assert contents("out") == first


def test_when_nothing_is_missing_nothing_is_done(run: Run) -> None:
    run("A", "B", "-o", "out")
    first = contents("out")
    outcome = run("A", "B", "-o", "out")
    assert outcome.code == 2
    assert outcome.err == "restain: all 2 pairs are done already; pass --overwrite to do them again\n"
    assert contents("out") == first


def test_overwriting_does_all_again(here: Path, run: Run) -> None:
    run("A", "B", "-o", "out")
    first = contents("out")
    (here / "out/x.png").write_text("words")
    assert run("A", "B", "-o", "out", "--overwrite").code == 0
    assert contents("out") == first
    Image.fromarray(planting.phantom_picture(9, 128)).save(here / "B/x.png")
    assert run("A", "B", "-o", "out", "--overwrite").code == 1
    assert not {"x.png", "x.mask.png"} & set(contents("out"))  # it is rejected now


def replace_by_another_pair(here: Path, name: str = "x") -> None:
    """Other tissue under the names of a pair that was registered; it is shifted, too, and accepted."""
    source, target, _ = planting.planted(planting.phantom_picture(20, 200), 20, size=128, shift=(-6.0, 5.0))
    Image.fromarray(source).save(here / f"A/{name}.png")
    Image.fromarray(target).save(here / f"B/{name}.png")


def test_other_pictures_of_the_same_names_are_not_taken_for_the_old_ones(here: Path, run: Run) -> None:
    run("A", "B", "-o", "out")
    first = contents("out")
    replace_by_another_pair(here)
    outcome = run("A", "B", "-o", "out")
    assert outcome.code == 1
    assert outcome.out.startswith("1 pairs registered, 1 failed")
    said = next(line for line in outcome.err.splitlines() if "x failed" in line)
    assert said.endswith("was made from other pictures or settings; pass --overwrite to do it again")
    after = contents("out")
    assert {name: after[name] for name in first if name != "registration.csv"} == {
        name: data for name, data in first.items() if name != "registration.csv"
    }
    assert run("A", "B", "-o", "out", "--overwrite").code == 0
    x = next(row for row in table() if row["name"] == "x")
    assert (float(x["shift_x"]), float(x["shift_y"])) == pytest.approx((-6.0, 5.0), abs=0.1)
    assert run("A", "B", "-o", "out").code == 2  # done


def test_another_known_shift_or_other_settings_are_something_else(here: Path) -> None:
    pair = Pair("x", here / "A/x.png", here / "B/x.png")

    def status(pair: Pair, settings: RegistrationSettings | None = None) -> tuple[str, bool]:
        (outcome,) = register_files([pair], here / "out", settings)
        return outcome.status, outcome.kept

    assert [status(pair), status(pair)] == [("accepted", False), ("accepted", True)]
    assert status(replace(pair, shift=SHIFT)) == ("failed", False)
    assert status(pair, RegistrationSettings(flow_rounds=1)) == ("failed", False)
    assert status(replace(pair, source=pair.target, target=pair.source)) == ("failed", False)
    assert status(pair) == ("accepted", True)


def test_a_registration_that_does_not_say_what_it_is_of_is_not_trusted(here: Path) -> None:
    pair, path = Pair("x", here / "A/x.png", here / "B/x.png"), here / "out/x.safetensors"
    list(register_files([pair], here / "out"))
    replace(Registration.load(path), made_from="").save(path)
    assert [outcome.status for outcome in register_files([pair], here / "out")] == ["failed"]


def test_only_what_is_stale_or_damaged_is_done_again_where_fresh_ones_are_kept(here: Path) -> None:
    pairs = [Pair(name, here / f"A/{name}.png", here / f"B/{name}.png") for name in ("x", "deep/y")]

    def kept() -> list[tuple[str, bool]]:
        outcomes = register_files(pairs, here / "out", overwrite=True, keep_fresh=True)
        return [(outcome.status, outcome.kept) for outcome in outcomes]

    assert kept() == [("accepted", False)] * 2
    old = contents("out")
    replace_by_another_pair(here)
    assert kept() == [("accepted", False), ("accepted", True)]
    assert contents("out")["x.png"] != old["x.png"]
    (here / "out/deep/y.safetensors").write_text("words")
    assert kept() == [("accepted", True), ("accepted", False)]
    assert contents("out")["deep/y.safetensors"] == old["deep/y.safetensors"]


def test_a_file_in_the_way_is_not_replaced(here: Path, run: Run) -> None:
    (here / "out").mkdir()
    (here / "out/x.safetensors").write_text("words")
    outcome = run("A", "B", "-o", "out")
    assert outcome.code == 1
    assert "x failed" in outcome.err
    assert "x.safetensors is damaged" in outcome.err
    assert (here / "out/x.safetensors").read_text() == "words"


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_show(workers: int, here: Path, run: Run) -> None:
    run("A", "B", "-o", "out")
    assert run("A", "B", "-o", "again", "--workers", workers).code == 0
    one, other = contents("out"), contents("again")
    assert one == other


@pytest.mark.parametrize("preview", ["p.png", "p.jpg"])
def test_a_sheet_to_look_at(here: Path, preview: str, run: Run) -> None:
    spoil(here)
    run("A", "B", "-o", "out", "--preview", preview)
    with Image.open(preview) as image:
        assert image.width > 2 * 2 * 128
        assert image.height > 2 * 128
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_json(here: Path, run: Run) -> None:
    spoil(here)
    outcome = run("A", "B", "-o", "out", "--json")
    pairs = {pair["name"]: pair for pair in json.loads(outcome.out)["pairs"]}
    assert set(pairs) == {"x", "deep/y", "other", "words"}
    assert pairs["x"]["outputs"]["aligned"] == "out/x.png"
    assert pairs["words"]["outputs"] == {}
    assert pairs["x"]["kept"] is False


def test_images_without_a_partner_are_told(here: Path, run: Run) -> None:
    Image.fromarray(planting.phantom_picture(9, 128)).save(here / "A/alone.png")
    outcome = run("A", "B", "-o", "out")
    assert outcome.code == 0
    assert outcome.err == f"restain: note: 1 images have no partner and are left out, {Path('A/alone.png')} for one\n"


def test_outputs_within_the_inputs_are_not_registered_again(here: Path, run: Run) -> None:
    assert run("A", "B", "-o", "A/out").code == 0
    assert run("A", "B", "-o", "A/out", "--overwrite").out.startswith("2 pairs")


# ---- what it refuses --------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str]] = {
    "no output": (["A", "B"], "--output"),
    "no folder": (["A", "gone", "-o", "out"], "gone is not a folder"),
    "a file": (["A/x.png", "B/x.png", "-o", "out"], "is not a folder"),
    "nothing in common": (["A", "empty", "-o", "out"], "columns source,target"),
    "into the source": (["A", "B", "-o", "A"], "name another folder"),
    "into what holds it": (["A", "B", "-o", "."], "name another folder"),
    "into a file": (["A", "B", "-o", "words.csv"], "words.csv is a file"),
    "no table": (["A", "B", "-o", "out", "--pairs", "gone.csv"], "gone.csv cannot be read"),
    "wrong table": (["A", "B", "-o", "out", "--pairs", "words.csv"], "wanted source and target"),
    "no workers": (["A", "B", "-o", "out", "--workers", "0"], "--workers 0"),
    "another preview": (["A", "B", "-o", "out", "--preview", "p.txt"], ".png or .jpg"),
    "preview in the way": (["A", "B", "-o", "out", "--preview", "A/x.png"], "x.png exists"),
    "colliding": (["A", "B", "-o", "out", "--pairs", "collide.csv"], "two pairs would be written"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_told_in_one_line(case: str, here: Path, run: Run) -> None:
    (here / "empty").mkdir()
    (here / "words.csv").write_text("these,are\nwords,too\n")
    (here / "collide.csv").write_text("name,source,target\nx,x.png,x.png\nx.mask,x.png,x.png\n")
    arguments, said = REFUSED[case]
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("restain: ")
    assert outcome.err.count("\n") == 1
    assert said in outcome.err
    assert not (here / "out").exists()


def test_without_opencv_one_line_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    outcome = run("A", "B", "-o", "out")
    assert outcome.code == 2
    assert "pip install 'restain[evaluation]'" in outcome.err
    assert outcome.err.count("\n") == 1


def test_what_nobody_foresaw_costs_one_pair(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("restain.evaluation.registration.files.register", explode)
    (outcome,) = register_files([Pair("x", here / "A/x.png", here / "B/x.png")], here / "out")
    assert (outcome.status, outcome.reason) == ("failed", "unforeseen ZeroDivisionError: oh")
