"""`restain fit` and `restain import`: normalizers that are saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import restain
from restain.methods import METHODS
from restain.slides.reader import open_slide

from ..icc_profiles import matrix_profile
from ..methods.making import stainnet_weights
from ..running import Run
from .scene import MEASURING, OTHER, TISSUE, info, is_one_line, pixels, write_damaged

# ---- fit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MEASURING)
def test_fit_then_normalize(method: str, run: Run) -> None:
    outcome = run("fit", "tiles/b.jpg", "--method", method, "-o", "n.safetensors")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith(f"n.safetensors: {method}, white point 236")
    assert run("normalize", "a.png", "o.png", "--normalizer", "n.safetensors").code == 0
    np.testing.assert_array_equal(pixels("o.png"), METHODS[method]().fit("tiles/b.jpg").transform(TISSUE))


def test_fit_several_references(run: Run) -> None:
    assert run("fit", "tiles/b.jpg", "a.png", "he", "--output", "n.safetensors").code == 0
    wanted = METHODS["macenko"]().fit(["tiles/b.jpg", "a.png", "he"])
    assert restain.load("n.safetensors") == wanted


def test_fit_keeps_the_background(run: Run) -> None:
    assert run("fit", "a.png", "--background", "keep", "-o", "n.safetensors").code == 0
    assert restain.load("n.safetensors").background == "keep"
    assert run("normalize", "a.png", "o.png", "--normalizer", "n.safetensors", "--background", "white").code == 0
    wanted = METHODS["macenko"](background="white").fit("a.png").transform(TISSUE)
    np.testing.assert_array_equal(pixels("o.png"), wanted)


def test_fit_replaces_when_asked(here: Path, run: Run) -> None:
    (here / "n.safetensors").write_text("old")
    assert run("fit", "a.png", "-o", "n.safetensors", "--overwrite").code == 0
    assert restain.load("n.safetensors").name == "macenko"


# ---- import ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(here: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Those of `released.pth`, a file as StainNet's authors released theirs."""
    torch = pytest.importorskip("torch")
    state, kept = {}, {}
    for layer, place in enumerate((0, 2, 4), 1):
        weight = torch.tensor(stainnet_weights()[f"weight{layer}"], dtype=torch.float32)
        bias = torch.tensor(stainnet_weights()[f"bias{layer}"], dtype=torch.float32)
        state |= {f"rgb_trans.{place}.weight": weight[:, :, None, None], f"rgb_trans.{place}.bias": bias}
        kept |= {f"weight{layer}": weight.numpy().astype(np.float64), f"bias{layer}": bias.numpy().astype(np.float64)}
    torch.save(state, here / "released.pth")
    return kept


IMPORT = ("import", "stainnet", "released.pth", "-o", "s.safetensors")


def test_import_of_released_weights(weights: dict[str, Any], run: Run) -> None:
    outcome = run(*IMPORT, "--target", "tiles/b.jpg", "--training-data-license", "CC0-1.0")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("s.safetensors: stainnet, white point 236")
    assert run("normalize", "a.png", "o.png", "--normalizer", "s.safetensors").code == 0
    expected = restain.StainNet(weights=weights).fit("tiles/b.jpg")
    np.testing.assert_array_equal(pixels("o.png"), expected.transform(TISSUE))
    facts = info(run, "s.safetensors")
    assert len(facts["reference"]["weights"]["sha256"]) == 64
    assert facts["reference"]["weights"]["training_data_license"] == "CC0-1.0"
    assert "released" not in json.dumps(facts["reference"])  # file names stay at home
    assert run(*IMPORT).code == 2  # it exists


def test_the_target_of_an_import_is_converted_when_asked(weights: dict[str, Any], run: Run) -> None:
    Image.fromarray(OTHER).save("wide.png", icc_profile=matrix_profile())
    whites = {}
    for icc in ("keep", "srgb"):
        assert run(*IMPORT, "--target", "wide.png", "--icc", icc, "--overwrite").code == 0
        reference = restain.load("s.safetensors").reference_
        assert reference is not None
        assert (reference.icc_profile is None) == (icc == "srgb")
        whites[icc] = reference.white_point
    np.testing.assert_allclose(whites["keep"], (236, 231, 228), atol=1)
    with open_slide("wide.png", icc="srgb") as slide:
        converted = restain.ColorHistogram.from_image(slide.read_region((0, 0), 0, slide.dimensions)[0])
    np.testing.assert_allclose(whites["srgb"], restain.Macenko().estimate(converted).white_point)
    assert np.abs(whites["srgb"] - whites["keep"]).max() > 0.5


def test_damage_in_the_target_of_an_import(weights: dict[str, Any], here: Path, run: Run) -> None:
    write_damaged(here / "d.tif")
    stopped = run(*IMPORT, "--target", "d.tif")
    assert stopped.code == 2
    assert is_one_line(stopped)
    assert "d.tif is damaged in the tile at (128, 64)" in stopped.err
    assert not (here / "s.safetensors").exists()
    skipped = run(*IMPORT, "--target", "d.tif", "--on-error", "skip")
    assert skipped.code == 0
    assert skipped.err.startswith("restain: note: d.tif has damaged tiles, which were left out")
    assert "1 of level 0 at (128, 64)" in skipped.err
    known = np.ones(TISSUE.shape[:2], np.bool_)
    known[64:128, 128:192] = False
    expected = restain.StainNet(weights=weights).fit(restain.ColorHistogram.from_image(TISSUE, mask=known))
    assert restain.load("s.safetensors").reference_ == expected.reference_
