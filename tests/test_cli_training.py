"""`restain train` as a person meets it: one line for every mistake, and at the end where things are."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import restain
from restain.cli.training import train
from restain.systems import SYSTEMS
from restain.training.checkpoint import load_state
from restain.training.run_folder import RunFolder

from .running import Outcome, Run
from .training.small import CONFIGS, lines_of, quickly, steps_of, write_tissue


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tissue(tmp_path_factory.mktemp("tissue"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from quickly(monkeypatch)


def command(system: str, tissue: Path, *more: object) -> list[object]:
    """A small training of a system, but for its folder."""
    folders: dict[str, list[object]] = {
        "staingan": ["--source", tissue / "a", "--target", tissue / "b"],
        "stainnet": ["--source", tissue / "x", "--target", tissue / "y", "--pairs", "names"],
        "stst": ["--target", tissue / "b"],
    }
    settings = [f"--set=config.{name}={value}" for name, value in CONFIGS[system].items()]
    return ["train", system, *folders[system], *settings, "--workers", 0, *more]


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    lines = [line for line in outcome.err.splitlines() if not line.startswith("restain: note:")]
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("restain: ")
    for word in words:
        assert word in lines[0]


# ---- done -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["staingan", "stainnet", "stst"])
def test_a_training_ends_with_something_to_apply(run: Run, system: str, tissue: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    done = run(*command(system, tissue, "--max-steps", 2, "-o", folder))
    assert done.code == 0, done.err
    first, second, third = done.out.splitlines()
    assert first.startswith(f"{folder / 'normalizer.safetensors'}: {system}, 2 updates in ")
    assert ("best validation loss 0." in first or "best validation loss 1." in first) == (system != "staingan")
    assert str(folder / "pictures") in second
    assert str(folder / "curves.png") in second
    # The last line is a command that does what it says.
    program, *arguments = shlex.split(third)
    assert program == "restain"
    places = {"IMAGES": tissue / "a", "OUTPUT": tmp_path / "out"}
    applied = run(*(places.get(word, word) for word in arguments))
    assert applied.code == 0, applied.err
    assert len(list((tmp_path / "out").glob("*.png"))) == 7
    made = np.asarray(Image.open(next((tmp_path / "out").glob("*.png"))))
    assert made.shape == (48, 48, 3)


def test_options_reach_the_recipe(run: Run, tissue: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'system = "stainnet"\nbackground = "keep"\n'
        "[config]\nchannels = 5\nepochs = 9\nbatch_size = 3\n"
        "[data]\nvalidation_share = 0.3\nseed = 8\n[training]\nema = 0.5\n"
    )
    options = [
        "--recipe",
        tmp_path / "mine.toml",
        "--source",
        tissue / "x",
        "--target",
        tissue / "y",
        "--pairs",
        "names",
    ]
    options += ["--epochs", 4, "--batch-size", 2, "--crop", 20, "--learning-rate", 0.5, "--max-steps", 1, "--seed", 7]
    rows = [f"{number},{'even' if number % 2 == 0 else 'odd'}" for number in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]))
    options += [
        "--labels",
        tmp_path / "labels.csv",
        "--workers",
        0,
        "--precision",
        "no",
        "--training-data-license",
        "CC0-1.0",
        "--device",
        "cpu",
    ]
    options += ["--set", "config.epochs=6", "--set", "training.log_every=1", "-o", tmp_path / "run"]
    assert run("train", *options).code == 0
    settings = RunFolder.open(tmp_path / "run", lock=False).settings
    config, data, training = (settings[table] for table in ("config", "data", "training"))
    # The recipe, the options over it, --set over them.
    assert settings["background"] == "keep"
    assert {name: config[name] for name in ("channels", "epochs", "batch_size", "crop", "learning_rate")} == {
        "channels": 5,
        "epochs": 6,
        "batch_size": 2,
        "crop": 20,
        "learning_rate": 0.5,
    }
    assert (data["validation_share"], data["seed"], data["pairs"], data["workers"]) == (0.3, 7, "names", 0)
    assert data["labels"] == str(tmp_path / "labels.csv")
    assert restain.load(tmp_path / "run").provenance_["training"]["classes"] == ["even", "odd"]
    assert (training["ema"], training["seed"], training["log_every"], training["precision"]) == (0.5, 7, 1, "no")
    assert restain.load(tmp_path / "run").provenance_["training"]["training_data_license"] == "CC0-1.0"


def test_resuming(run: Run, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SYSTEMS["stainnet"].update

    def stop(*given: Any) -> Mapping[str, torch.Tensor]:
        raise KeyboardInterrupt

    start = command("stainnet", tissue, "--set=training.checkpoint_every=1", "--set=training.log_every=1")
    start += ["--max-steps", 3, "-o", tmp_path / "run"]
    calls = iter([original, stop])
    monkeypatch.setattr(SYSTEMS["stainnet"], "update", lambda *given: next(calls)(*given))
    stopped = run(*start)
    assert (stopped.code, stopped.out) == (130, "")
    assert "Traceback" not in stopped.err
    assert steps_of(tmp_path / "run") == [1]
    monkeypatch.undo()
    # With nothing, or with the very command that started it.
    for arguments in (["train", "-o", tmp_path / "run", "--resume"], [*start, "--resume"]):
        resumed = run(*arguments)
        assert resumed.code == 0, resumed.err
        assert "stainnet, 3 updates" in resumed.out
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [1, 2, 3]
    refused(run(*start, "--resume", "--learning-rate", 1), "config.learning_rate")
    refused(run("train", "stst", "-o", tmp_path / "run", "--resume"), "leave out the others (system)")
    refused(run("train", "-o", tmp_path / "run", "--resume", "--overwrite"), "give one of them")


def test_every_system_is_named_in_the_help() -> None:
    first = str(train.__doc__).splitlines()[0]
    assert set(SYSTEMS) <= set(first.replace(".", ",").replace(":", ",").replace(" ", "").split(","))


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "restain", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, restain.__version__, "")


# ---- mistakes ---------------------------------------------------------------------------------------------------


def test_images_that_are_not_there(run: Run, tissue: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(run("train", "staingan", "-o", out), "nothing to train on: give source, target or both")
    refused(run("train", "staingan", "--target", tissue / "b", "-o", out), "give --source too")
    refused(run("train", "stst", "--source", tissue / "a", "-o", out), "stst learns from target; give --target too")
    refused(run("train", "stainnet", "--source", tissue / "x", "--target", tissue / "y", "-o", out), "--pairs")
    nowhere = run(*command("staingan", tissue, "--source", tmp_path / "nowhere", "-o", out))
    refused(nowhere, str(tmp_path / "nowhere"), "no file, folder or pattern")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    refused(run(*command("staingan", tissue, "--source", tmp_path / "texts", "-o", out)), "none of them an image")
    assert not out.exists()


def test_settings_that_are_not_there(run: Run, tissue: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(run("train", "-o", out), f"name a system ({', '.join(SYSTEMS)}) or a --recipe")
    refused(run("train", "cyclegan", "--target", tissue / "b", "-o", out), "there is no system 'cyclegan'")
    refused(run("train", "--recipe", "stain-gan", "-o", out), "there is no recipe stain-gan", "staingan-small")
    refused(run("train", "stst", "--recipe", "staingan", "-o", out), "the recipe staingan is of staingan, not of stst")
    (tmp_path / "bad.toml").write_text("system = ")
    refused(run("train", "--recipe", tmp_path / "bad.toml", "-o", out), "bad.toml is no TOML")
    start = command("staingan", tissue, "-o", out)
    refused(run(*start, "--set", "config.chanels=3"), "there is no setting chanels; there are", "channels")
    refused(run(*start, "--set", "config.channels"), "wanted an assignment such as config.channels=32")
    refused(run(*start, "--set", "config.channels=many"), "channels is 'many'; wanted int")
    refused(run(*start, "--set", "data.crop=64"), "crop is config.crop")
    refused(run(*start, "--set", "config.crop=33"), "crop = 33; wanted a multiple of 4")
    refused(run(*start, "--precision", "fp16", "--device", "cpu"), "fp16 needs a GPU")
    refused(run(*start, "--precision", "fp8"), "fp8")
    for option in ("variant", "task", "task-weights", "feature-weights"):
        refused(run(*start, f"--{option}", "x"), f"there is no setting {option.replace('-', '_')}; there are epochs")
    refused(run(*start, "--labels", "nowhere.csv"), "nowhere.csv cannot be read as a csv of labels")
    refused(
        run(*start, "--labels", "folders"),
        "by their folders, all images of the target are b; wanted two classes or more",
    )
    refused(run(*command("stst", tissue, "-o", out), "--set", "training.accumulate=2"), "accumulate must be 1")
    refused(run("train", "staingan", "--target", tissue / "b"), "output")
    assert not out.exists()


def test_folders_that_cannot_be_used(run: Run, tissue: Path, tmp_path: Path) -> None:
    letter = tmp_path / "full" / "letter.txt"
    letter.parent.mkdir()
    letter.write_text("mine")
    start = command("stainnet", tissue, "--max-steps", 1)
    for more in ([], ["--overwrite"]):
        refused(run(*start, "-o", tmp_path / "full", *more), "is not empty and no training run")
    refused(run(*start, "-o", letter), "is or lies in a file")
    refused(run("train", "--resume", "-o", tmp_path / "full"), "is no training run")
    refused(run("train", "--resume", "-o", tmp_path / "nothing"), "is no training run")
    assert [path.name for path in letter.parent.iterdir()] == ["letter.txt"]
    assert run(*start, "-o", tmp_path / "run").code == 0
    refused(run(*start, "-o", tmp_path / "run"), "--resume continues it, --overwrite starts it anew")
    assert run(*start, "-o", tmp_path / "run", "--overwrite").code == 0
    with RunFolder.open(tmp_path / "run"):
        refused(run("train", "--resume", "-o", tmp_path / "run"), "is being trained into by process")


def test_a_run_that_dies(run: Run, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SYSTEMS["staingan"].update
    calls: list[int] = []

    def update(*given: Any) -> Mapping[str, torch.Tensor]:
        losses = original(*given)
        calls.append(1)
        return {**losses, "identity": losses["identity"] * float("nan")} if len(calls) == 3 else losses

    monkeypatch.setattr(SYSTEMS["staingan"], "update", update)
    every = [f"--set=training.{name}_every=1" for name in ("log", "checkpoint", "validate")]
    outcome = run(*command("staingan", tissue, *every, "-o", tmp_path / "run"))
    outcome = Outcome(outcome.code, outcome.out, outcome.err.splitlines()[-1])
    kept = tmp_path / "run" / "checkpoints" / "step-00000002.safetensors"
    refused(
        outcome, "training stopped at step 3: the loss identity is nan", f"the last good checkpoint is {kept}", "try"
    )
    assert load_state(kept)["step"] == 2
    assert restain.load(tmp_path / "run").provenance_["training"]["steps"] == 2
    # It goes on from there.
    resumed = run("train", "--resume", "-o", tmp_path / "run")
    assert resumed.code == 0, resumed.err


def test_what_is_not_installed_is_named(
    run: Run, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "accelerate" else find(name))
    outcome = run(*command("staingan", tissue, "-o", tmp_path / "run"))
    refused(outcome, "training needs accelerate; install it: pip install 'restain[train]'")
