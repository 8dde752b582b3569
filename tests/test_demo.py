"""The demonstration: which slide it takes, without and with a (pretended) network, and what it leaves."""

import functools
import hashlib
import http.client
import io
import urllib.error
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from restain import demo
from restain.demo import run_demo, write_phantom
from restain.errors import InputError, OutputError, SlideError
from restain.phantom import STAINS_A, STAINS_B, Scanner, make_phantom
from restain.slides.reader import open_slide


@pytest.fixture(autouse=True)
def small_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small phantom, no real slide at hand, and no network."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("offline means offline")

    monkeypatch.setattr(demo, "write_phantom", functools.partial(write_phantom, size=(400, 300)))
    monkeypatch.setattr(demo.urllib.request, "urlopen", never)
    monkeypatch.delenv("RESTAIN_DATA", raising=False)


def answer(monkeypatch: pytest.MonkeyPatch, data: bytes | Exception) -> list[str]:
    """Let the network give `data`; returns the list of addresses asked for."""
    asked: list[str] = []

    def urlopen(address: str, **_: object) -> io.BytesIO:
        asked.append(address)
        if isinstance(data, Exception):
            raise data
        return io.BytesIO(data)

    monkeypatch.setattr(demo.urllib.request, "urlopen", urlopen)
    return asked


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- which slide ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, "", "empty", "missing"])
def test_without_a_slide_a_phantom_is_drawn(data: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    if data is not None:
        monkeypatch.setenv("RESTAIN_DATA", data and str(tmp_path / data))
    folder = tmp_path / "demo"
    said = run_demo(folder, download=False)
    assert said.startswith(f"a synthetic slide (no real one at hand): {folder / 'phantom.tif'}\n")
    assert names(folder) == {"phantom.tif", "normalized.tif", "before-after.png"}


def test_what_is_left_can_be_opened(tmp_path: Path) -> None:
    said = run_demo(tmp_path, download=False)
    with openslide.OpenSlide(str(tmp_path / "normalized.tif")) as slide:
        assert slide.dimensions == (400, 300)
    with Image.open(tmp_path / "before-after.png") as sheet:
        sheet.load()
        assert sheet.width >= 2 * 400
    assert "macenko" in said
    assert "400x300" in said
    assert str(tmp_path / "normalized.tif") in said
    assert str(tmp_path / "before-after.png") in said


def test_running_it_again_replaces_only_when_asked(tmp_path: Path) -> None:
    run_demo(tmp_path, download=False)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"normalized\.tif exists"):
        run_demo(tmp_path, download=False)
    run_demo(tmp_path, download=False, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.parametrize("name", ["normalized.tif", "before-after.png", "phantom.tif"])
def test_what_somebody_else_left_there_is_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match=f"{name} exists"):
        run_demo(tmp_path, download=False)
    assert (tmp_path / name).read_text() == "precious"


def test_the_phantom_really_changes(tmp_path: Path) -> None:
    run_demo(tmp_path, download=False)
    with open_slide(tmp_path / "phantom.tif") as before, open_slide(tmp_path / "normalized.tif") as after:
        first, second = (s.read_region((0, 0), 0, s.dimensions)[0].astype(int) for s in (before, after))
    assert np.abs(first - second).mean() > 5


def test_a_slide_from_restain_data_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = tmp_path / "data" / "deep" / "a.svs"
    slide.parent.mkdir(parents=True)
    write_phantom(tmp_path / "a.tif", size=(200, 150))
    (tmp_path / "a.tif").rename(slide)
    monkeypatch.setenv("RESTAIN_DATA", str(tmp_path / "data"))
    before = slide.read_bytes()
    said = run_demo(tmp_path / "demo", download=False)
    assert said.startswith(f"a real slide from RESTAIN_DATA: {slide}\n")
    assert names(tmp_path / "demo") == {"normalized.tif", "before-after.png"}
    assert slide.read_bytes() == before


def test_the_slide_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantom(tmp_path / "mine.tif", size=(200, 150))
    monkeypatch.setenv("RESTAIN_DATA", str(tmp_path))
    said = run_demo(tmp_path / "demo", tmp_path / "mine.tif", download=False)
    assert said.startswith(f"the slide you named: {tmp_path / 'mine.tif'}\n")


def test_a_slide_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="does not exist"):
        run_demo(tmp_path / "demo", tmp_path / "mine.tif", download=False)


def test_the_slide_is_never_its_own_output(tmp_path: Path) -> None:
    write_phantom(tmp_path / "normalized.tif", size=(200, 150))
    before = (tmp_path / "normalized.tif").read_bytes()
    with pytest.raises(OutputError, match="input itself"):
        run_demo(tmp_path, tmp_path / "normalized.tif", download=False, overwrite=True)
    assert (tmp_path / "normalized.tif").read_bytes() == before


def test_nor_its_own_preview(tmp_path: Path) -> None:
    write_phantom(tmp_path / "before-after.png", size=(200, 150))
    before = (tmp_path / "before-after.png").read_bytes()
    with pytest.raises(OutputError, match="input itself"):
        run_demo(tmp_path, tmp_path / "before-after.png", download=False, overwrite=True)
    assert (tmp_path / "before-after.png").read_bytes() == before


def test_the_output_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="is a file"):
        run_demo(tmp_path / "file", download=False)
    assert (tmp_path / "file").read_text() == "precious"


# ---- the download -----------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What stands for OpenSlide's sample: a phantom, with its checksum."""
    write_phantom(tmp_path / "sample.tif", size=(200, 150))
    data = (tmp_path / "sample.tif").read_bytes()
    monkeypatch.setattr(demo, "SAMPLE_SHA256", hashlib.sha256(data).hexdigest())
    return data


def test_the_sample_is_downloaded_once(sample: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, sample)
    for _ in range(2):
        said = run_demo(tmp_path / "demo", overwrite=True)
        assert said.startswith("OpenSlide's CC0 sample slide")
    assert asked == [demo.SAMPLE_URL]
    assert (tmp_path / "demo" / demo.SAMPLE_NAME).read_bytes() == sample
    again = run_demo(tmp_path / "demo", download=False, overwrite=True)
    assert again.startswith("OpenSlide's CC0 sample slide")


def test_a_download_with_another_checksum_is_not_kept(
    sample: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, sample + b"something else")  # as where a network asks to log in first
    assert run_demo(tmp_path / "demo").startswith("a synthetic slide")
    assert demo.SAMPLE_NAME not in names(tmp_path / "demo")


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route"), TimeoutError("slow"), http.client.IncompleteRead(b"")]
)
def test_without_network_a_phantom_is_drawn(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, error)
    assert run_demo(tmp_path).startswith("a synthetic slide")
    assert len(asked) == 1


def test_a_damaged_copy_is_downloaded_again(sample: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / demo.SAMPLE_NAME).write_bytes(sample[:100])
    asked = answer(monkeypatch, sample)
    run_demo(tmp_path)
    assert len(asked) == 1
    assert (tmp_path / demo.SAMPLE_NAME).read_bytes() == sample


# ---- phantoms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lab", "stains"), [("a", STAINS_A), ("b", STAINS_B)])
def test_an_image_is_the_phantom(lab: str, stains: np.ndarray, tmp_path: Path) -> None:
    white = (230.0, 235.0, 240.0)
    options = {"white": white, "gamma": 1.1, "blur": 0.5, "noise": 1.0}
    write_phantom(tmp_path / "p.png", size=(90, 70), lab=lab, seed=4, **options)
    wanted = make_phantom(70, 90, seed=4, stain_matrix=stains, scanner=Scanner(**options)).image
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p.png")), wanted)


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIF"])
def test_a_slide_has_a_resolution(suffix: str, tmp_path: Path) -> None:
    write_phantom(tmp_path / f"p{suffix}", size=(700, 300))
    with openslide.OpenSlide(str(tmp_path / f"p{suffix}")) as slide:
        assert slide.level_dimensions == ((700, 300), (350, 150))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"size": (10,)},
        {"size": (10, 10, 10)},
        {"size": (0, 10)},
        {"size": (-5, 10)},
        {"white": (243.0,)},
        {"white": (0.0, 1.0, 2.0)},
        {"white": (256.0, 1.0, 2.0)},
        {"gamma": 0.0},
        {"gamma": float("nan")},
        {"blur": -1.0},
        {"noise": float("inf")},
        {"seed": -1},
    ],
)
def test_impossible_phantoms_are_input_errors(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_phantom(tmp_path / "p.png", **({"size": (20, 20)} | options))  # type: ignore[arg-type]
    assert names(tmp_path) == set()


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    for name in ("p.png", "p.tif"):
        (tmp_path / name).write_text("precious")
        with pytest.raises(OutputError, match="exists"):
            write_phantom(tmp_path / name, size=(20, 20))
        assert (tmp_path / name).read_text() == "precious"
        write_phantom(tmp_path / name, size=(20, 20), overwrite=True)
        with open_slide(tmp_path / name) as slide:
            assert slide.dimensions == (20, 20)
