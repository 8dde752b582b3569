"""One loop for every system: what it does when, what it leaves, and that a run that has died replaces nothing."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import restain
from restain.errors import InputError, OutputError, TrainingError
from restain.files import load_arrays
from restain.systems import SYSTEMS
from restain.systems.schedule import learning_rate_factor
from restain.training.checkpoint import read_facts
from restain.training.loop import train
from restain.training.metrics_log import plot_losses
from restain.training.run_folder import RunFolder

from .small import lines_of, recipe_for, state_of, steps_of, values_for

pytestmark = pytest.mark.usefixtures("quick")


def pictures_of(run: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in (run / "pictures").iterdir())


# ---- when, and what ---------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_should(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restain.training.session.plot_losses", plot_losses)
    every = {"log_every": 2, "validate_every": 3, "checkpoint_every": 4, "training_data_license": "CC0-1.0"}
    recipe = recipe_for("staingan", tissue, training={"max_steps": 7, **every}, health={"output_patience": 5})
    result = train(recipe, tmp_path / "run", quiet=True)
    run = result.run
    assert (result.steps, result.validation_loss, result.main) == (7, None, True)
    assert [line["step"] for line in lines_of(run)] == [2, 4, 6, 7]
    assert pictures_of(run) == [0, 3, 6, 7]
    assert steps_of(run) == [4, 7]
    assert {path.name for path in run.iterdir()} == {
        "settings.toml",
        "environment.json",
        "metrics.jsonl",
        "curves.png",
        "pictures",
        "checkpoints",
        "normalizer.safetensors",
        ".restain-run.lock",
    }
    for path in [run / "curves.png", *(run / "pictures").iterdir()]:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.std() > 10, path
    with RunFolder.open(run):
        pass  # the lock was given back

    line = lines_of(run)[-1]
    assert set(line["rates"]) == {"generators", "discriminator", "discriminator_back"}
    assert {"cycle", "cycle_back", "discriminator", "identity"} <= set(line["losses"])
    assert line["seconds"] == pytest.approx(result.seconds, abs=1)
    times = [line["seconds"] for line in lines_of(run)]
    assert times == sorted(times)

    normalizer = restain.load(run)
    assert normalizer.name == "staingan"
    facts = normalizer.provenance_["training"]
    assert facts["steps"] == 7
    assert facts["training_data_license"] == "CC0-1.0"
    images = {role: facts["training_images"][role] for role in ("source", "target")}
    assert images == {"source": 6, "target": 5}  # one of each is kept for validation
    assert facts["epochs"] == pytest.approx(7 / 3, abs=1e-3)
    tile = np.asarray(Image.open(tissue / "a" / "0.png"))
    assert normalizer.transform(tile).shape == tile.shape


def test_the_mean_of_the_losses_is_logged(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, original = SYSTEMS["stainnet"], SYSTEMS["stainnet"].update
    seen: list[float] = []

    def update(self: Any, batch: Mapping[str, Tensor], engine: Any) -> dict[str, Tensor]:
        losses = original(self, batch, engine)
        seen.append(float(losses["l1"]))
        return {**losses, "now_and_then": losses["l1"] * 0 + 7} if len(seen) % 3 == 0 else losses

    monkeypatch.setattr(kind, "update", update)
    train(recipe_for("stainnet", tissue, training={"max_steps": 7, "log_every": 4}), tmp_path / "run", quiet=True)
    first, second = lines_of(tmp_path / "run")
    assert first["losses"] == {"l1": pytest.approx(np.mean(seen[:4]), rel=1e-6), "now_and_then": 7}
    assert second["losses"] == {"l1": pytest.approx(np.mean(seen[4:]), rel=1e-6), "now_and_then": 7}


@pytest.mark.parametrize(
    ("schedule", "epochs", "decay", "expected"),
    [
        ("constant", 3, 0, [1, 1, 1]),
        ("linear", 2, 2, [1, 1, 2 / 3, 1 / 3]),
        ("cosine", 4, 0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    schedule: str, epochs: int, decay: int, expected: list[float], tissue: Path, tmp_path: Path
) -> None:
    config = {"schedule": schedule, "epochs": epochs, "decay_epochs": decay, "learning_rate": 0.01}
    recipe = recipe_for("stainnet", tissue, config=config, training={"log_every": 1})
    result = train(recipe, tmp_path / "run", quiet=True)
    assert result.steps == 3 * len(expected)  # six pairs, two at a time
    rates = [line["rates"]["generator"] for line in lines_of(tmp_path / "run")]
    wanted = [0.01 * factor for factor in expected for _ in range(3)]
    assert rates == pytest.approx(wanted)
    assert rates == pytest.approx(
        [0.01 * learning_rate_factor(schedule, s // 3, epochs, decay) for s in range(len(rates))]
    )  # type: ignore[arg-type]
    epochs_done = [line["epoch"] for line in lines_of(tmp_path / "run")]
    assert epochs_done == pytest.approx([step / 3 for step in range(1, len(rates) + 1)])


def test_a_rate_of_nothing_changes_nothing(tissue: Path, tmp_path: Path) -> None:
    """The last epoch of a cosine whose first has a rate too small for float32: weights are the initial ones."""
    recipe = recipe_for("stainnet", tissue, config={"learning_rate": 1e-30})
    train(recipe, tmp_path / "run", quiet=True)
    torch.manual_seed(recipe.training.seed)
    initial = SYSTEMS["stainnet"](config=recipe.config).generator.state_dict()
    trained = state_of(tmp_path / "run")["networks"]["generator"]
    assert all(torch.equal(initial[name], trained[name]) for name in initial)


def test_the_seed_decides(tissue: Path, tmp_path: Path) -> None:
    runs = [
        train(recipe_for("staingan", tissue, training={"max_steps": 2, "seed": seed}), tmp_path / name, quiet=True)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, same, other = (result.normalizer.read_bytes() for result in runs)
    assert one == same
    assert one != other


# ---- a system that is ready already -----------------------------------------------------------------------------


def test_a_given_system_is_trained_from_its_own_weights(tissue: Path, tmp_path: Path) -> None:
    recipe = recipe_for("stainnet", tissue, training={"max_steps": 2})
    torch.manual_seed(99)
    system = SYSTEMS["stainnet"](config=recipe.config, background=recipe.background)
    initial = {name: value.clone() for name, value in system.generator.state_dict().items()}
    still = replace(recipe, config=replace(recipe.config, learning_rate=1e-30))
    with pytest.raises(InputError, match="the settings of the given stainnet are not the recipe's"):
        train(still, tmp_path / "run", quiet=True, system=system)
    train(recipe, tmp_path / "run", quiet=True, system=system)
    trained = state_of(tmp_path / "run")["networks"]["generator"]
    assert all(torch.equal(trained[name], value) for name, value in system.generator.state_dict().items())
    # Two steps of SGD leave the weights near where they began, and far from where another seed begins.
    assert max(float((trained[name] - value).abs().max()) for name, value in initial.items()) < 0.05
    torch.manual_seed(recipe.training.seed)
    other = SYSTEMS["stainnet"](config=recipe.config).generator.state_dict()
    assert max(float((trained[name] - value).abs().max()) for name, value in other.items()) > 0.1


def test_a_given_system_must_be_the_recipes(tissue: Path, tmp_path: Path) -> None:
    recipe = recipe_for("stainnet", tissue)
    for arguments, message in (
        ({"background": "white"}, "are not the recipe's"),
        ({"trainable": False}, "trainable=False"),
    ):
        system = SYSTEMS["stainnet"](**{"config": recipe.config, **arguments})
        with pytest.raises(InputError, match=message):
            train(recipe, tmp_path / "run", quiet=True, system=system)
    with pytest.raises(InputError, match="got a system stainnet with a recipe of staingan"):
        train(recipe_for("staingan", tissue), tmp_path / "run", system=SYSTEMS["stainnet"](config=recipe.config))
    assert not (tmp_path / "run").exists()


# ---- which weights normalize ------------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Give StainNet's validation losses: one for each validation, in order."""

    def script(losses: list[float]) -> None:
        given = iter(losses)
        monkeypatch.setattr(SYSTEMS["stainnet"], "validation_loss", lambda self, batch: torch.tensor(next(given)))

    return script


@pytest.mark.parametrize(("select", "kept"), [("auto", 2), ("best", 2), ("last", 4)])
def test_the_weights_that_are_wanted_normalize(
    select: str, kept: int, tissue: Path, tmp_path: Path, scripted: Callable[[list[float]], None]
) -> None:
    scripted([0.1, 0.5, 0.3, 0.4, 0.35])  # before training, where it counts for nothing, and after each update
    training = {"max_steps": 4, "validate_every": 1, "checkpoint_every": 1, "select": select}
    result = train(recipe_for("stainnet", tissue, training=training), tmp_path / "run", quiet=True)
    assert result.validation_loss == pytest.approx(0.3)
    assert restain.load(result.run).provenance_["training"]["steps"] == kept
    assert read_facts(tmp_path / "run" / "checkpoints" / "best.safetensors")["step"] == 2


def test_the_validation_loss_is_the_mean_over_the_images(tissue: Path, tmp_path: Path) -> None:
    data = {"validation_share": 0.5, "seed": 3}
    recipe = recipe_for("stainnet", tissue, data=data, config={"batch_size": 3}, training={"max_steps": 1})
    result = train(recipe, tmp_path / "run", quiet=True)
    assert result.validation_loss is not None
    student = restain.load(result.normalizer)
    assert isinstance(student, restain.StainNet)
    from restain.training.data import TrainingData

    with TrainingData(recipe.data) as data_:
        assert len(data_.validation["source"]) == 4  # two batches of unequal size
        errors = []
        for source, target in zip(*(data_.validation_images(9)[role] for role in ("source", "target")), strict=True):
            colors = source.permute(1, 2, 0).numpy().reshape(-1, 3) / 255 * 2 - 1
            hidden = colors
            for number in (1, 2, 3):
                hidden = hidden @ student.weights[f"weight{number}"].T + student.weights[f"bias{number}"]
                hidden = np.maximum(hidden, 0) if number < 3 else hidden
            errors.append(np.abs(hidden - (target.permute(1, 2, 0).numpy().reshape(-1, 3) / 255 * 2 - 1)).mean())
    assert result.validation_loss == pytest.approx(np.mean(errors), rel=1e-5)


@pytest.mark.parametrize(
    ("system", "tables", "message"),
    [
        ("staingan", {}, "staingan has no validation loss"),
        ("stainnet", {"data": {"validation_share": 0.0}}, "no image is kept for validation"),
    ],
)
def test_the_best_cannot_be_chosen_by_nothing(
    system: str, tables: dict[str, Any], message: str, tissue: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(system, tissue, **tables, training={"select": "best"})
    with pytest.raises(InputError, match=message):
        train(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


# ---- dead -------------------------------------------------------------------------------------------------------


def turn(monkeypatch: pytest.MonkeyPatch, system: str, at: int, name: str, value: float) -> None:
    """Make a loss turn to a value at an update, counted from 1; if that is NaN, a weight of the generator with it."""
    kind, original, numbers = SYSTEMS[system], SYSTEMS[system].update, itertools.count(1)

    def update(self: Any, batch: Mapping[str, Tensor], engine: Any) -> dict[str, Tensor]:
        losses = original(self, batch, engine)
        if next(numbers) < at:
            return losses
        if math.isnan(value):
            with torch.no_grad():
                next(self.generator.parameters()).fill_(math.nan)
        return {**losses, name: torch.tensor(value)}

    monkeypatch.setattr(kind, "update", update)


@pytest.mark.parametrize(("system", "loss"), [("staingan", "cycle_back"), ("stainnet", "l1")])
@pytest.mark.parametrize("at", [1, 4, 5])
@pytest.mark.parametrize("every", [{"validate_every": 1}, {"checkpoint_every": 1}, {"log_every": 1}])
def test_a_loss_that_is_not_finite_stops_the_run(
    system: str,
    loss: str,
    at: int,
    every: dict[str, int],
    tissue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn(monkeypatch, system, at, loss, math.nan)
    often = {"log_every": 100, "validate_every": 100, "checkpoint_every": 2} | every
    with pytest.raises(TrainingError) as caught:
        train(recipe_for(system, tissue, training={**often, "max_steps": 6, "ema": 0.5}), tmp_path / "run", quiet=True)
    assert f"step {at}: the loss {loss} is nan" in str(caught.value)
    assert "\n" not in str(caught.value)
    steps = steps_of(tmp_path / "run")
    # The newest checkpoint is from before, is named, and loads.
    assert all(step < at for step in steps)
    if steps:
        assert f"step-{steps[-1]:08d}.safetensors" in str(caught.value)
        weights = state_of(tmp_path / "run")["networks"]["generator"].values()
        assert all(value.isfinite().all() for value in weights)
    else:
        assert "no checkpoint was written yet" in str(caught.value)
    normalizer = tmp_path / "run" / "normalizer.safetensors"
    if normalizer.exists():
        arrays = load_arrays(normalizer)[1]
        assert all(np.isfinite(array).all() for array in arrays.values())


def test_weights_that_are_not_finite_are_never_saved(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of an update may be fine and its step not, which the next update would show."""
    turn(monkeypatch, "staingan", 3, "cycle", math.nan)
    broken = SYSTEMS["staingan"].update
    monkeypatch.setattr(SYSTEMS["staingan"], "update", lambda *given: {**broken(*given), "cycle": torch.tensor(0.5)})
    recipe = recipe_for("staingan", tissue, training={"max_steps": 3, "log_every": 1, "checkpoint_every": 2})
    with pytest.raises(
        TrainingError, match=r"step 3: generator\..* is not finite; the last good checkpoint is .*00002"
    ):
        train(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "normalizer.safetensors").exists()
    assert steps_of(tmp_path / "run") == [2]


def test_a_validation_loss_that_is_not_finite_stops_the_run(
    tissue: Path, tmp_path: Path, scripted: Callable[[list[float]], None]
) -> None:
    scripted([0.1, 0.2, math.inf])
    training = {"max_steps": 4, "validate_every": 1, "checkpoint_every": 1}
    with pytest.raises(TrainingError, match="step 2: the loss validation is inf"):
        train(recipe_for("stainnet", tissue, training=training), tmp_path / "run", quiet=True)
    assert restain.load(tmp_path / "run").provenance_["training"]["steps"] == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("discriminator_back", 1e-6, "discriminator_back has been below 0.0001 for 3 updates"),
        ("discriminator", 0.25, "discriminator has been exactly 0.25 for 3 updates"),
        ("output_std", 1e-5, "the generated images have been one flat colour for 3 updates"),
    ],
)
def test_a_collapse_stops_the_run_and_is_not_forgotten_by_resuming(
    name: str, value: float, message: str, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn(monkeypatch, "staingan", 1, name, value)
    health = {"discriminator_patience": 3, "output_patience": 3}
    first = recipe_for("staingan", tissue, training={"max_steps": 2, "checkpoint_every": 1}, health=health)
    train(first, tmp_path / "run", quiet=True)
    # Two updates more of the same run.
    path = tmp_path / "run" / "settings.toml"
    path.write_text(path.read_text().replace("max_steps = 2", "max_steps = 9"))
    more = replace(first, training=replace(first.training, max_steps=9))
    monkeypatch.undo()
    turn(monkeypatch, "staingan", 1, name, value)
    with pytest.raises(TrainingError, match=message) as caught:
        train(more, tmp_path / "run", resume=True, quiet=True)
    # Exactly equal losses are counted from the second on.
    assert f"stopped at step {4 if value == 0.25 else 3}" in str(caught.value)


# ---- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "tables", "message"),
    [
        ("staingan", {"data": {"source": []}}, "learns from source and target; give --source too"),
        ("staingan", {"data": {"target": []}}, "learns from source and target; give --target too"),
        ("stainnet", {"data": {"pairs": ""}}, "stainnet learns from pairs of the same tissue; say with --pairs"),
        ("staingan", {"data": {"source": ["nowhere/"]}}, "nowhere/ names no file"),
        ("staingan", {"training": {"precision": "fp16"}}, "fp16 needs a GPU"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    system: str, tables: dict[str, Any], message: str, tissue: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train(recipe_for(system, tissue, **tables), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_full_folder_is_refused_before_images_are_read(tissue: Path, tmp_path: Path) -> None:
    recipe = recipe_for("staingan", tissue, data={"source": ["nowhere/"]})
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and no training run"):
        train(recipe, tmp_path, quiet=True)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_overwriting_starts_anew(tissue: Path, tmp_path: Path) -> None:
    recipe = recipe_for("stainnet", tissue, training={"max_steps": 3})
    train(recipe, tmp_path, quiet=True)
    with pytest.raises(OutputError, match="is a training run already"):
        train(recipe, tmp_path, quiet=True)
    other = replace(recipe, training=replace(recipe.training, max_steps=1))
    assert train(other, tmp_path, overwrite=True, quiet=True).steps == 1
    assert [line["step"] for line in lines_of(tmp_path)] == [1]
    assert pictures_of(tmp_path) == [0, 1]
    assert steps_of(tmp_path) == [1]


# ---- what a person sees -----------------------------------------------------------------------------------------


def test_progress_and_notes(
    tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restain.training.loop.SLOW_ON_CPU", 100)
    recipe = recipe_for("stainnet", tissue, training={"max_steps": 2, "validate_every": 1})
    train(recipe, tmp_path / "run")
    shown = capsys.readouterr().err.splitlines()
    assert any("takes days on a CPU; --recipe stainnet-small shows sooner" in line for line in shown)
    assert next(line for line in shown if "validation loss" in line).startswith("step 0: validation loss 0.")
    assert any(line.startswith("step 2/2") for line in shown)
    train(recipe, tmp_path / "quiet", quiet=True)
    assert not any(capsys.readouterr())


def test_only_large_networks_are_warned_of(tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe_for("stainnet", tissue, training={"max_steps": 1}), tmp_path / "run")
    assert "days" not in capsys.readouterr().err


def test_losses_go_to_tensorboard_where_asked_for(tissue: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recipe = recipe_for("stainnet", tissue, training={"max_steps": 1, "tensorboard": True})
    train(recipe, tmp_path / "run", quiet=True)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_training_without_matplotlib_succeeds(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("restain.training.session.plot_losses", plot_losses)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    result = train(recipe_for("stainnet", tissue, training={"max_steps": 1}), tmp_path / "run")
    assert result.normalizer.exists()
    assert "the losses are not drawn: drawing curves needs matplotlib" in capsys.readouterr().err


def test_values_are_those_of_a_recipe(tissue: Path) -> None:
    """The helper of these tests says what it means: its tables reach the recipe."""
    assert values_for("stst", tissue)["data"] == {"target": [str(tissue / "b")], "workers": 0}
