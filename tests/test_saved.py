"""`load`: methods, systems and runs by one name; torch only where a network is in the file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import restain
from restain import ColorHistogram, Macenko, Reinhard
from restain.errors import FormatError, InputError
from restain.phantom import Phantom
from restain.saved import WEIGHTS, load, load_with

BACKGROUNDS = ("match", "keep", "white", "none")


def fresh_process(code: str) -> str:
    """What a new process prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(restain.__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def method(reference: Phantom, tmp_path: Path) -> Path:
    path = tmp_path / "method.safetensors"
    Reinhard().fit(reference.image).save(path)
    return path


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A small network of 3×3 convolutions, untrained."""
    pytest.importorskip("torch")
    from restain.systems import SYSTEMS

    made = SYSTEMS["stainnet"](config={"channels": 4, "kernels": (3, 1)})
    path = tmp_path / "system.safetensors"
    made.finish((236, 231, 228), "glass", {"training": {"steps": 1}}).save(path)
    return path


def test_it_is_the_public_load() -> None:
    assert restain.load is load


def test_methods_and_systems(method: Path, system: Path, reference: Phantom) -> None:
    assert load(method) == Reinhard().fit(reference.image)
    assert load(str(method)) == load(method)
    assert load(system).name == "stainnet"
    assert load(system).neighbourhood


@pytest.mark.parametrize("kind", ["method", "system"])
def test_the_folder_of_a_run(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    saved = request.getfixturevalue(kind)
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(FormatError, match=r"run is a folder without normalizer.safetensors"):
        load(run)
    shutil.copy(saved, run / WEIGHTS)
    assert load(run) == load(saved)


def test_what_holds_no_normalizer(reference: Phantom, tmp_path: Path) -> None:
    path = tmp_path / "histogram.safetensors"
    ColorHistogram.from_image(reference.image).save(path)
    with pytest.raises(FormatError, match="holds a histogram; wanted a saved normalizer"):
        load(path)
    with pytest.raises(FormatError, match="not a file"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(FormatError, match="damaged or not a safetensors file"):
        load(tmp_path / "text.safetensors")


# ---- another background ------------------------------------------------------------------------------------------


def test_its_own_background_unless_another_is_named(method: Path, system: Path) -> None:
    for saved in (method, system):
        assert load_with(saved, None) == load_with(saved, "match") == load(saved)
        for background in ("keep", "white"):
            changed = load_with(saved, background)
            assert changed.background == background
            assert changed.reference_ == load(saved).reference_


@pytest.mark.parametrize("background", BACKGROUNDS[1:])
def test_a_systems_background_is_as_if_it_was_finished_with_it(background: str, system: Path, phantom: Phantom) -> None:
    from restain.systems.stainnet import StainNetStudent

    changed = load_with(system, background)  # type: ignore[arg-type]
    wanted = StainNetStudent(config=changed.settings()["config"], background=background)  # type: ignore[arg-type]
    wanted.generator.load_state_dict(load(system).generator.state_dict())  # type: ignore[attr-defined]
    wanted.finish((236, 231, 228), "glass", {})
    assert changed == wanted
    image = phantom.image[:40, :40]
    np.testing.assert_array_equal(changed.transform(image), wanted.transform(image))


def test_what_would_have_to_be_learned_anew_is_refused(method: Path, reference: Phantom, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="made anew"):
        load_with(method, "none")  # white was measured, and tissue with it
    bare = tmp_path / "bare.safetensors"
    Macenko(background="none").fit(reference.image).save(bare)
    with pytest.raises(InputError, match="made anew"):
        load_with(bare, "match")


def test_a_background_that_there_is_not(method: Path, system: Path) -> None:
    for saved in (method, system):
        with pytest.raises(InputError, match="background='mirror'; wanted one of match, keep, white, none"):
            load_with(saved, "mirror")  # type: ignore[arg-type]


# ---- torch -------------------------------------------------------------------------------------------------------


def test_a_method_is_loaded_and_applied_without_torch(method: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None  # as if it was not installed: importing it would fail
import numpy as np, restain
image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
print(restain.load({str(method)!r}).transform(image).shape, "restain.systems" in sys.modules)
"""
    assert fresh_process(code) == "(32, 32, 3) False"


def test_a_colour_map_of_a_trained_network_needs_no_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from restain.systems import SYSTEMS

    made = SYSTEMS["stainnet"](config={"channels": 4}).finish((236, 231, 228), "glass", {})
    path = tmp_path / "map.safetensors"
    made.normalizer().save(path)
    code = f"""
import sys, restain
normalizer = restain.load({str(path)!r})
print(normalizer.name, normalizer.neighbourhood, "torch" in sys.modules)
"""
    assert fresh_process(code) == "stainnet False False"


def test_a_network_says_that_it_needs_torch(system: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
import restain
from restain.errors import MissingExtraError
try:
    restain.load({str(system)!r})
except MissingExtraError as error:
    print(error)
"""
    message = fresh_process(code)
    assert message.startswith(f"{system} is a trained network and needs PyTorch (")
    assert message.endswith("install it: pip install 'restain[train]'")
    assert "\n" not in message
