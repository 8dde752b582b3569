"""Recipes: the shipped ones are the papers', layers go over each other, and every mistake is named."""

import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch

from restain.errors import FormatError, InputError
from restain.systems import SYSTEMS
from restain.training.data import DataSettings
from restain.training.loop import train
from restain.training.settings import (
    FROM_CONFIG,
    TrainingSettings,
    _recipe_folders,
    make_recipe,
    merged,
    parse_overrides,
    read_recipe,
    shipped_recipes,
)

from .small import assert_same_run, values_for

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = {"source": ["a/"], "target": ["b/"]}
RECIPES = sorted(path.stem for path in (REPOSITORY / "recipes").glob("*.toml"))


# ---- shipped ----------------------------------------------------------------------------------------------------


def shipped(name: str) -> Any:
    values = read_recipe(name)
    data = {"target": ["b/"]} if values["system"] == "stst" else FOLDERS
    return make_recipe(merged(values, {"data": data}), name)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_resolve(name: str) -> None:
    recipe = shipped(name)
    assert recipe.system == name.partition("-")[0]
    first = shipped_recipes()[name].read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    # Every system can be had at the paper's size, and small.
    assert {recipe.system, f"{recipe.system}-small"} <= set(RECIPES)
    with torch.device("meta"):  # weights take no memory and no time
        system = SYSTEMS[recipe.system](config=recipe.config, trainable=False)
    count = sum(weight.numel() for weight in system.generator.parameters())
    assert count < 5_000_000 or not name.endswith("-small")


def test_recipes_are_found_by_name_and_by_path() -> None:
    assert sorted(shipped_recipes()) == RECIPES
    path = REPOSITORY / "recipes" / "staingan.toml"
    assert read_recipe(str(path)) == read_recipe("staingan")


def facts(name: str, *wanted: str) -> list[Any]:
    recipe = shipped(name)
    return [getattr(recipe.config, key) for key in wanted]


def test_staingan_is_the_papers() -> None:
    """PAPERS §7.11 and §4.2: two Res9, two PatchGAN(3), LSGAN, pool 50, cycle 10 each way, identity 0.5, Adam 2e-4
    (0.5, 0.999), batch 4, 256², flips, 25 + 25 epochs with linear decay for Aperio and Hamamatsu."""
    assert facts("staingan", "channels", "blocks", "discriminator_channels", "discriminator_layers") == [64, 9, 64, 3]
    assert facts("staingan", "adversarial", "pool_size") == ["lsgan", 50]
    assert facts("staingan", "lambda_source", "lambda_target", "lambda_identity") == [10, 10, 0.5]
    assert facts("staingan", "learning_rate", "beta1", "beta2", "batch_size", "crop") == [2e-4, 0.5, 0.999, 4, 256]
    assert facts("staingan", "schedule", "epochs", "decay_epochs") == ["linear", 25, 25]
    data = shipped("staingan").data
    assert (data.crop_mode, data.flip, data.flip_vertical, data.rotate) == ("random", True, False, False)
    networks = SYSTEMS["staingan"](config=shipped("staingan").config).networks()
    counts = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    assert counts == {
        "generator": 11_378_179,
        "generator_back": 11_378_179,
        "discriminator": 2_764_737,
        "discriminator_back": 2_764_737,
    }


def test_stainnet_is_the_papers() -> None:
    """PAPERS §4.2: L1, SGD 0.01 without momentum, batch 10, 300 epochs, cosine by the epoch, 256², nothing else."""
    recipe = shipped("stainnet")
    assert facts("stainnet", "optimizer", "learning_rate", "batch_size") == ["sgd", 0.01, 10]
    assert facts("stainnet", "epochs", "decay_epochs", "schedule", "crop") == [300, 0, "cosine", 256]
    assert (recipe.data.crop_mode, recipe.data.flip, recipe.data.flip_vertical) == ("center", False, False)
    optimizer = SYSTEMS["stainnet"](config=recipe.config).make_optimizers()["generator"]
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0


@pytest.mark.parametrize(
    ("name", "kernels"),
    [("stainnet", (1, 1, 1)), ("table4-2-1", (3, 1, 1)), ("table4-1-2", (3, 3, 1)), ("table4-0-3", (3, 3, 3))],
)
def test_table_4_differs_in_kernels_alone(name: str, kernels: tuple[int, ...]) -> None:
    config = shipped(name if name == "stainnet" else f"stainnet-{name}").config
    assert config.kernels == kernels
    assert asdict(config) | {"kernels": None} == asdict(shipped("stainnet").config) | {"kernels": None}
    if name != "stainnet":
        ones, threes = (int(part) for part in name.split("-")[1:])
        assert (kernels.count(1), kernels.count(3)) == (ones, threes)


def test_stst_is_the_papers() -> None:
    """PAPERS §5.2: L1 ×100, Adam 2e-4 β1 0.5, batch 1, flips, 30 epochs of 3,000 tiles; §5.1 sizes."""
    assert facts("stst", "channels", "lambda_l1", "learning_rate", "beta1") == [64, 100, 2e-4, 0.5]
    assert facts("stst", "epochs", "decay_epochs", "schedule", "batch_size") == [30, 0, "constant", 1]
    assert facts("stst", "inference", "crop") == ["instance", 256]
    data = shipped("stst").data
    assert (data.samples_per_epoch, data.flip, data.flip_vertical) == (3000, True, False)
    with torch.device("meta"):
        networks = SYSTEMS["stst"](config=shipped("stst").config).networks()
    counts = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    assert counts == {"generator": 54_419_459, "discriminator": 6_965_441}


def test_recipes_are_in_the_wheel_and_in_the_source_archive() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"] == {"recipes": "restain/recipes"}
    assert "/recipes" in build["sdist"]["include"]
    folders = _recipe_folders()
    assert folders
    assert {path.parent for path in shipped_recipes().values()} <= set(folders)


# ---- layers -----------------------------------------------------------------------------------------------------


def test_later_layers_go_over_earlier_ones() -> None:
    first = {"system": "stst", "config": {"epochs": 1, "channels": 2}, "data": {"target": ["a", "b"]}}
    kept = {"system": "stst", "config": {"epochs": 1, "channels": 2}, "data": {"target": ["a", "b"]}}
    second = {"config": {"channels": 4}, "data": {"target": ["c"]}, "training": {"ema": 0.5}}
    result = merged(first, second, {"config": {}})
    assert result == {
        "system": "stst",
        "config": {"epochs": 1, "channels": 4},
        "data": {"target": ["c"]},  # lists are replaced, not added to
        "training": {"ema": 0.5},
    }
    assert first == kept
    assert merged() == {}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("config.channels=32", {"config": {"channels": 32}}),
        ("config.learning_rate = 1e-3", {"config": {"learning_rate": 1e-3}}),
        ("config.schedule=cosine", {"config": {"schedule": "cosine"}}),
        ('config.schedule="cosine"', {"config": {"schedule": "cosine"}}),
        ("config.kernels=[3, 1, 1]", {"config": {"kernels": [3, 1, 1]}}),
        ("data.drop_last=false", {"data": {"drop_last": False}}),
        ("data.source=['a b', 'c']", {"data": {"source": ["a b", "c"]}}),
        ("training.training_data_license=CC-BY-4.0", {"training": {"training_data_license": "CC-BY-4.0"}}),
        ("data.pairs=C:\\pairs=all.csv", {"data": {"pairs": "C:\\pairs=all.csv"}}),
        ("data.group_pattern=", {"data": {"group_pattern": ""}}),
        ("background=keep", {"background": "keep"}),
        ("health={output_patience = 3}", {"health": {"output_patience": 3}}),
    ],
)
def test_assignments_are_read_as_toml_or_as_text(assignment: str, expected: dict[str, Any]) -> None:
    assert parse_overrides((assignment,)) == expected


def test_assignments_add_up() -> None:
    assert parse_overrides(()) == {}
    given = ("config.epochs=1", "data.crop=2", "config.channels=3", "config.epochs=4")
    assert parse_overrides(given) == {"config": {"epochs": 4, "channels": 3}, "data": {"crop": 2}}


@pytest.mark.parametrize("assignment", ["config.channels", "=3", ".channels=3", "config.=3", "config..channels=3"])
def test_what_is_no_assignment_is_named(assignment: str) -> None:
    with pytest.raises(InputError, match="wanted an assignment such as") as caught:
        parse_overrides((assignment,))
    assert repr(assignment) in str(caught.value)


# ---- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"system": "stainnnet"}, f"there is no system 'stainnnet'; there are {', '.join(SYSTEMS)}"),
        ({"system": None}, "there is no system None"),
        ({"model": {}}, "there is no model; there are background, config, data, health, system, training"),
        ({"config": {"chanels": 3}}, r"\[config\]: there is no setting chanels; there are .*channels"),
        ({"data": {"sources": ["a"]}}, r"\[data\]: there is no setting sources"),
        ({"training": {"epoch": 3}}, r"\[training\]: there is no setting epoch"),
        ({"health": {"patience": 3}}, r"\[health\]: there is no setting patience"),
        ({"config": {"channels": "32"}}, "channels is '32'; wanted int"),
        ({"config": {"channels": True}}, "channels is True; wanted int"),
        ({"config": {"channels": 1.5}}, "channels is 1.5; wanted int"),
        ({"config": {"schedule": "step"}}, "schedule is 'step'; wanted one of constant, linear, cosine"),
        ({"config": 3}, "config is 3; wanted a table of settings"),
        ({"config": {"epochs": 0}}, "epochs = 0; wanted 1 or more"),
        ({"data": {"source": "a"}}, "source is 'a'; wanted a list"),
        ({"data": {"crop": 64}}, "crop is config.crop; leave it out of"),
        ({"data": {"flip": True, "batch": 2}}, "batch is config.batch_size, flip is config.horizontal_flips"),
        ({"data": {"input_augmentation": "cagan"}}, "staingan has no input_augmentation; leave it out of"),
        ({"background": "gray"}, "background is 'gray'; wanted one of match, keep, white, none"),
        ({"training": {"precision": "fp8"}}, "precision is 'fp8'; wanted one of auto, no, bf16, fp16"),
        ({"training": {"accumulate": 0}}, "accumulate = 0; wanted 1 or more"),
        ({"training": {"ema": 1.0}}, "ema = 1.0; wanted 0"),
        ({"training": {"max_steps": -1}}, "must not be negative"),
        ({"training": {"log_every": 0}}, "log_every = 0; wanted 1 or more"),
        ({"health": {"output_floor": -1.0}}, "output_floor=-1.0; wanted a number from 0 on"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_recipe(merged({"system": "staingan", "data": FOLDERS}, values), "my.toml")
    assert "\n" not in str(caught.value)


def test_mistakes_are_placed() -> None:
    for values in ({"system": "x"}, {"model": 1}, {"config": {"x": 1}}, {"data": {"crop": 1}}, {"background": "x"}):
        with pytest.raises(InputError, match=r"^my\.toml"):
            make_recipe(merged({"system": "staingan", "data": FOLDERS}, values), "my.toml")


def test_a_recipe_that_is_not_there_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"there is no recipe stain-gan: no such file, and the shipped ones are .*staingan,"
    ):
        read_recipe("stain-gan")
    for name, contents in (("a.toml", b"system = staingan"), ("b.toml", b"\xff\xfe")):
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(FormatError, match=f"{name} is no TOML"):
            read_recipe(str(tmp_path / name))


# ---- what the values become -------------------------------------------------------------------------------------


def test_plain_values_give_the_recipe_again() -> None:
    values = {
        "system": "stainnet",
        "background": "keep",
        "config": {"kernels": [3, 1, 1], "learning_rate": 1, "crop_position": "top-left", "quarter_turns": True},
        "data": {**FOLDERS, "pairs": "names", "mpp": 0.5},
        "training": {"ema": 0.5, "precision": "no"},
        "health": {"discriminator_patience": 7},
    }
    recipe = make_recipe(values)
    assert make_recipe(recipe.plain()) == recipe
    assert recipe.config.learning_rate == 1.0
    assert (recipe.data.crop_mode, recipe.data.rotate, recipe.data.mpp) == ("top-left", True, 0.5)
    assert not set(recipe.plain()["data"]) & set(FROM_CONFIG)


def test_the_data_follow_the_config() -> None:
    settings = {field.name for field in fields(DataSettings)}
    assert settings >= set(FROM_CONFIG)
    changes = {"batch_size": 7, "crop": 52, "crop_position": "center", "horizontal_flips": False}
    changes |= {"vertical_flips": True, "quarter_turns": True}
    data = make_recipe({"system": "staingan", "config": changes, "data": FOLDERS}).data
    assert {name: getattr(data, name) for name in FROM_CONFIG if FROM_CONFIG[name] in changes} == {
        item: changes[theirs] for item, theirs in FROM_CONFIG.items() if theirs in changes
    }
    # What this system's config does not have stays as it is.
    assert (data.input_augmentation, data.content_pairs) == ("none", 0)


def test_the_seed_of_the_data_follows_the_trainings() -> None:
    assert make_recipe({"system": "staingan", "data": FOLDERS, "training": {"seed": 5}}).data.seed == 5
    both = {"system": "staingan", "data": {**FOLDERS, "seed": 1}, "training": {"seed": 5}}
    assert make_recipe(both).data.seed == 1


def test_every_setting_has_its_sentence() -> None:
    source = (REPOSITORY / "src/restain/training/settings.py").read_text()
    for field in fields(TrainingSettings):
        line = next(line for line in source.splitlines() if line.startswith(f"    {field.name}: "))
        assert source.split(line, 1)[1].lstrip("\n").startswith('    """'), field.name


@pytest.mark.usefixtures("quick")
def test_a_runs_settings_are_a_recipe_that_gives_the_same_run(tissue: Path, tmp_path: Path) -> None:
    values = values_for("staingan", tissue, training={"max_steps": 2, "seed": 3}, background="keep")
    train(make_recipe(values), tmp_path / "one", quiet=True)
    again = make_recipe(read_recipe(str(tmp_path / "one" / "settings.toml")))
    train(again, tmp_path / "two", quiet=True)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    settings = [(tmp_path / run / "settings.toml").read_bytes() for run in ("one", "two")]
    assert settings[0] == settings[1]
