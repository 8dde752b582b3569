"""`restain export --slide`: the slide is read as asked, before anything is exported. What that gives, others test."""

from pathlib import Path
from typing import Any

import pytest
import tifffile

from restain.slides.reader import OnError, open_slide
from restain.slides.sample import estimate_slide, sample_slide

from ..icc_profiles import matrix_profile
from ..running import Run
from .scene import OTHER, TISSUE, is_one_line, write_damaged

pytest.importorskip("onnxscript")
pytest.importorskip("torch")

from ..systems.small import trained

EXPORT = ("export", "network.safetensors", "-o", "network.onnx")


@pytest.fixture
def exported(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The appearances that were to be exported with a network whose norm statistics are a slide's."""
    trained("staingan").save(here / "network.safetensors")
    appearances: list[Any] = []

    def export(system: Any, path: Path, *, appearance: Any, overwrite: bool) -> None:
        appearances.append(appearance)
        path.write_text("a network")

    monkeypatch.setattr("restain.systems.onnx.export_onnx", export)
    return appearances


def seen(path: str, **options: Any) -> Any:
    """How a slide looks to the network."""
    with open_slide(path, **options) as slide:
        return estimate_slide(slide, trained("staingan"), sample_slide(slide))[0]


def test_without_a_slide_none_is_frozen(exported: list[Any], run: Run) -> None:
    done = run(*EXPORT)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("network.onnx: staingan, ")
    assert exported == [None]


def test_the_slide_is_converted_when_asked(exported: list[Any], run: Run) -> None:
    plain: dict[str, Any] = {"photometric": "rgb", "compression": "lzw", "tile": (64, 64)}
    tifffile.imwrite("wide.tif", OTHER, iccprofile=matrix_profile(), **plain)
    with open_slide("wide.tif", icc="srgb") as slide:
        tifffile.imwrite("converted.tif", slide.read_region((0, 0), 0, slide.dimensions)[0], **plain)
    for options in ((), ("--icc", "keep"), ("--icc", "srgb")):
        assert run(*EXPORT, "--slide", "wide.tif", "--overwrite", *options).code == 0
    assert exported == [seen("wide.tif"), seen("wide.tif"), seen("converted.tif")]
    assert exported[0] != exported[2]


def test_damage_in_the_slide_stops_the_export(exported: list[Any], here: Path, run: Run) -> None:
    write_damaged(here / "d.tif")
    for options in ((), ("--on-error", "stop")):
        stopped = run(*EXPORT, "--slide", "d.tif", *options)
        assert stopped.code == 2
        assert is_one_line(stopped)
        assert "d.tif is damaged in the tile at (128, 64)" in stopped.err
    assert exported == []
    assert not (here / "network.onnx").exists()


@pytest.mark.parametrize("on_error", ["skip", "fill"])
def test_damage_in_the_slide_is_left_out_when_asked(
    on_error: OnError, exported: list[Any], here: Path, run: Run
) -> None:
    write_damaged(here / "d.tif")
    done = run(*EXPORT, "--slide", "d.tif", "--on-error", on_error)
    assert done.code == 0
    assert done.err.startswith("restain: note: d.tif has damaged tiles")
    assert done.err.count("1 of level 0 at (128, 64)") == 1
    assert exported == [seen("d.tif", on_error=on_error)]
    tifffile.imwrite("whole.tif", TISSUE, photometric="rgb", tile=(64, 64), compression="lzw")
    assert exported != [seen("whole.tif")]


@pytest.mark.parametrize("option", ["--icc", "--on-error"])
def test_no_such_way_to_read_the_slide(option: str, exported: list[Any], run: Run) -> None:
    refused = run(*EXPORT, "--slide", "slide.tif", option, "maybe")
    assert refused.code == 2
    assert is_one_line(refused)
    assert "maybe" in refused.err
    assert exported == []
