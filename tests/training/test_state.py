"""A training that was stopped, killed or crashed goes on as if nothing had happened, to the bit."""

import hashlib
import signal
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import restain
from restain.errors import InputError, TrainingError
from restain.systems import SYSTEMS
from restain.training.loop import train
from restain.training.run_folder import is_run
from restain.training.settings import Recipe, make_recipe

from .small import (
    POSIX,
    assert_same_run,
    finish,
    recipe_for,
    start,
    state_of,
    steps_of,
    values_for,
    write_tissue,
)

pytestmark = pytest.mark.usefixtures("quick")

Disturb = Callable[[int], None]


class Crash(Exception):
    """Something unforeseen."""


def watch(monkeypatch: pytest.MonkeyPatch, system: str) -> tuple[list[str], dict[int, Disturb]]:
    """Note what every update is given, and do what is asked for at the updates of these numbers, counted from 1."""
    seen: list[str] = []
    disturb: dict[int, Disturb] = {}
    kind = SYSTEMS[system]
    original = kind.update

    def update(self: Any, batch: Mapping[str, Tensor], engine: Any) -> dict[str, Tensor]:
        number = len(seen) + 1
        if number in disturb:
            disturb.pop(number)(number)
        seen.append(hashlib.sha256(b"".join(batch[role].numpy().tobytes() for role in sorted(batch))).hexdigest())
        return original(self, batch, engine)

    monkeypatch.setattr(kind, "update", update)
    return seen, disturb


def crash(number: int) -> None:
    raise Crash(f"at update {number}")


def interrupt(number: int) -> None:
    signal.raise_signal(signal.SIGTERM)


CASES = [
    ("staingan", {"ema": 0.9, "clip_norm": 1.0, "log_every": 4}, 5),
    ("staingan", {"accumulate": 2, "ema": 0.9, "channels_last": False}, 6),  # gradients are in no checkpoint
    ("stainnet", {"log_every": 8}, 5),
    ("stst", {"clip_norm": 0.5}, 5),
    ("dstgan", {"ema": 0.9}, 5),  # CHEN's, across its stages, is in tests/systems/test_chen.py
    ("nst", {"ema": 0.9, "clip_norm": 1.0}, 5),
]


@pytest.mark.parametrize(("system", "training", "stopped_at"), CASES)
def test_resuming_is_bit_identical(
    system: str,
    training: dict[str, Any],
    stopped_at: int,
    tissue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_for(
        system,
        tissue,
        training={"max_steps": 8, **training},
        config={"optimizer": "adam"} if system == "stainnet" else {},
    )
    seen, disturb = watch(monkeypatch, system)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    assert whole.steps == len(seen) == 8
    expected = seen.copy()

    seen.clear()
    disturb[5] = crash  # in the fifth update, long after the checkpoint of the third or fourth
    with pytest.raises(Crash):
        train(recipe, tmp_path / "parts", quiet=True)
    kept = steps_of(tmp_path / "parts")[-1]
    assert kept == (4 if recipe.training.accumulate == 2 else 3)

    del seen[kept:]
    disturb[5] = interrupt
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts", resume=True, quiet=True)
    assert steps_of(tmp_path / "parts")[-1] == len(seen) == stopped_at

    parts = train(recipe, tmp_path / "parts", resume=True, quiet=True)
    assert seen == expected
    assert len(set(seen)) > 4  # so an order can be told from another
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert parts.validation_loss == whole.validation_loss
    assert (whole.validation_loss is None) == (system in ("staingan", "dstgan", "nst"))


def test_nothing_is_left_to_do(tissue: Path, tmp_path: Path) -> None:
    """A run that has ended can be resumed: it only puts back a normalizer that somebody removed."""
    recipe = recipe_for("staingan", tissue, training={"max_steps": 2, "ema": 0.5})
    result = train(recipe, tmp_path / "run", quiet=True)
    before, log = result.normalizer.read_bytes(), (tmp_path / "run" / "metrics.jsonl").read_bytes()
    result.normalizer.unlink()
    again = train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert (again.steps, again.seconds) == (2, result.seconds)
    assert again.normalizer.read_bytes() == before  # the average's weights, not the last ones
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == log


def test_a_run_without_a_checkpoint_starts_at_its_beginning(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for("stainnet", tissue, training={"max_steps": 3, "log_every": 1})
    train(recipe, tmp_path / "whole", quiet=True)
    seen, disturb = watch(monkeypatch, "stainnet")
    disturb[2] = crash
    with pytest.raises(Crash):
        train(recipe, tmp_path / "parts", quiet=True)
    assert not steps_of(tmp_path / "parts")
    train(recipe, tmp_path / "parts", resume=True, quiet=True)
    assert len(seen) == 1 + 3
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


# ---- killed -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not POSIX, reason="kills as POSIX does")
def test_kills_at_random_moments_change_nothing(tissue: Path, tmp_path: Path) -> None:
    values = values_for("staingan", tissue)
    options = [f"--source={values['data']['source'][0]}", f"--target={values['data']['target'][0]}"]
    settings = {"config": {**values["config"], "epochs": 6}, "training": {"validate_every": 5, "checkpoint_every": 2}}
    settings["training"] |= {"log_every": 1, "max_steps": 16, "pictures": 1, "ema": 0.9}
    options += [f"--set={table}.{name}={value}" for table, some in settings.items() for name, value in some.items()]
    options += ["--workers", "0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = start(["train", "staingan", *options, "-o", whole], tmp_path / "whole.txt")
    assert finish(child) == [0], (tmp_path / "whole.txt").read_text()

    rng = np.random.default_rng(0)
    kills = 0
    for wanted in (0, 1, 4, 7, 10):
        command = ["--resume"] if is_run(killed) else ["staingan", *options]
        child = start(["train", *command, "-o", killed], tmp_path / "killed.txt")
        while child.is_alive() and not (wanted == 0 or logged(killed) >= wanted):
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.1)))  # into the middle of whatever it does
        child.kill()
        kills += finish(child) == [-signal.SIGKILL]
    assert kills >= 3
    child = start(
        ["train", *(["--resume"] if is_run(killed) else ["staingan", *options]), "-o", killed], tmp_path / "k.txt"
    )
    assert finish(child) == [0], (tmp_path / "k.txt").read_text()
    assert_same_run(whole, killed)
    assert not list(killed.rglob("*.part"))


def logged(run: Path) -> int:
    log = run / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


# ---- refused ----------------------------------------------------------------------------------------------------


@pytest.fixture
def short(tmp_path: Path) -> tuple[Recipe, Path]:
    """A run of two updates on images of its own."""
    recipe = recipe_for("staingan", write_tissue(tmp_path / "tissue"), training={"max_steps": 2})
    train(recipe, tmp_path / "run", quiet=True)
    return recipe, tmp_path / "run"


@pytest.mark.parametrize("change", ["one more", "one less", "another size"])
def test_other_images_are_refused(short: tuple[Recipe, Path], change: str) -> None:
    recipe, run = short
    first = Path(recipe.data.source[0]) / "0.png"
    if change == "one more":
        Image.open(first).save(first.with_name("new.png"))
    elif change == "one less":
        first.unlink()
    else:
        Image.open(first).resize((40, 40)).save(first)
    before = state_of(run)["step"]
    with pytest.raises(TrainingError, match="not those that this run was started with"):
        train(recipe, run, resume=True, quiet=True)
    assert state_of(run)["step"] == before


def test_other_settings_are_refused(short: tuple[Recipe, Path]) -> None:
    recipe, run = short
    other = replace(recipe, training=replace(recipe.training, clip_norm=1.0))
    with pytest.raises(InputError, match="not those of the run"):
        train(other, run, resume=True, quiet=True)
    train(recipe, run, resume=True, quiet=True)  # the lock was given back


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("channels = 4", "channels = 5", "the checkpoint's generator is not the one that settings.toml describes"),
        ('system = "staingan"', 'system = "stst"', "there is no setting adversarial, blocks"),
        ("batch_size = 2", "batch_size = 0", "batch_size = 0; wanted 1 or more"),
    ],
)
def test_settings_edited_by_hand_are_seen(short: tuple[Recipe, Path], before: str, after: str, message: str) -> None:
    path = short[1] / "settings.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises((TrainingError, InputError), match=message):
        train(make_recipe(tomllib.loads(path.read_text())), short[1], resume=True, quiet=True)


def test_an_average_switched_on_later_starts_from_what_was_learned(short: tuple[Recipe, Path]) -> None:
    path = short[1] / "settings.toml"
    path.write_text(path.read_text().replace("ema = 0.0", "ema = 0.5"))
    (short[1] / "normalizer.safetensors").rename(short[1] / "before.safetensors")
    train(make_recipe(tomllib.loads(path.read_text())), short[1], resume=True, quiet=True)
    before, after = (restain.load(short[1] / f"{name}.safetensors") for name in ("before", "normalizer"))
    assert before == after
