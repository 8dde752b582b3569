"""A recipe: everything that a training depends on, from a TOML file, the command line and defaults."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from restain.errors import FormatError, InputError
from restain.methods.base import Background
from restain.systems import SYSTEMS
from restain.systems.config import SystemConfig, make_settings, plain
from restain.training.data import DataSettings
from restain.training.health import HealthOptions


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a training is run; what is trained, and on what, is in the system's config and the data settings."""

    seed: int = 0
    """Of initial weights, dropout and pools, and unless `data.seed` is given of the split, the order and the crops."""

    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Of forward passes: "auto" is bf16 on GPUs and CPUs whose hardware has it, else full precision."""

    accumulate: int = 1
    """Batches whose gradients are added up before the optimizers step."""

    clip_norm: float = 0.0
    """Largest norm of a network's gradients; 0 leaves them as they are, as the papers do."""

    ema: float = 0.0
    """Decay of an exponential moving average of the generator's weights, which then is what normalizes; 0 for none."""

    channels_last: bool = True
    """Whether weights are laid out channels last, which is the faster way for convolutions on most hardware."""

    max_steps: int = 0
    """Batches after which training ends though epochs are left; 0 for none such."""

    select: Literal["auto", "best", "last"] = "auto"
    """Whose weights normalize: of the least validation loss, or the last. "auto": the best, where the system has a
    validation loss and there are validation images, else the last."""

    log_every: int = 10
    """Updates between two lines of the log, and two looks at the run's health."""

    validate_every: int = 500
    """Updates between two validations: a sheet of pictures, and the validation loss where there is one."""

    checkpoint_every: int = 500
    """Updates between two checkpoints; one is written at the end, and on the way out of an interrupt, too."""

    pictures: int = 6
    """Validation images on a sheet."""

    validation_most: int = 512
    """Most validation images that the validation loss is measured on."""

    tensorboard: bool = False
    """Whether losses are written for TensorBoard, too."""

    training_data_license: str = "unknown"
    """Licence of the training images; it stays with the weights."""

    def __post_init__(self) -> None:
        for name in ("accumulate", "log_every", "validate_every", "checkpoint_every", "pictures", "validation_most"):
            if getattr(self, name) < 1:
                raise InputError(f"got {name} = {getattr(self, name)}; wanted 1 or more")
        if self.seed < 0 or self.max_steps < 0 or self.clip_norm < 0:
            raise InputError("seed, max_steps and clip_norm must not be negative")
        if not 0 <= self.ema < 1:
            raise InputError(f"got ema = {self.ema}; wanted 0 (none) to below 1, such as 0.999")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training, whole.

    Attributes:
        system: a key of `SYSTEMS`.
        config: the system's settings.
        data: what is trained on; what the system's config decides (`FROM_CONFIG`) follows it.
        training: how it is run.
        health: when a run counts as dead.
        background: what becomes of glass when the trained system normalizes.
    """

    system: str
    config: SystemConfig
    data: DataSettings
    training: TrainingSettings = field(default_factory=TrainingSettings)
    health: HealthOptions = field(default_factory=HealthOptions)
    background: Background = "match"

    def plain(self) -> dict[str, Any]:
        """As nested plain values: what `settings.toml` holds, and `make_recipe` takes."""
        tables = {name: plain(getattr(self, name)) for name in ("config", "data", "training", "health")}
        for name in FROM_CONFIG:
            tables["data"].pop(name)
        return {"system": self.system, "background": self.background, **tables}


FROM_CONFIG = {
    "batch": "batch_size",
    "crop": "crop",
    "crop_mode": "crop_position",
    "flip": "horizontal_flips",
    "flip_vertical": "vertical_flips",
    "rotate": "quarter_turns",
    "input_augmentation": "input_augmentation",
    "content_pairs": "content_pairs",
}
"""Settings of the data that belong to the system, as papers state them, by the config's names. A config that lacks one
leaves it at its default."""


def make_recipe(values: Mapping[str, Any], where: str = "the recipe") -> Recipe:
    """A recipe from nested plain values.

    Args:
        values: `system`, `background`, and the tables `config`, `data`, `training`, `health`.
        where: what the values are, for messages.

    Raises:
        InputError: something is unknown, of the wrong type or out of range; the message names it.
    """
    known = {item.name for item in fields(Recipe)}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{where}: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    name = values.get("system")
    if name not in SYSTEMS:
        raise InputError(f"{where}: there is no system {name!r}; there are {', '.join(SYSTEMS)}")
    background = values.get("background", "match")
    if background not in get_args(Background):
        raise InputError(f"{where}: background is {background!r}; wanted one of {', '.join(get_args(Background))}")
    tables: dict[str, Mapping[str, Any]] = {}
    for table in ("config", "data", "training", "health"):
        tables[table] = values.get(table, {})
        if not isinstance(tables[table], Mapping):
            raise InputError(f"{where}: {table} is {tables[table]!r}; wanted a table of settings")
    config = make_settings(SYSTEMS[str(name)].config_type, tables["config"], f"{where}, [config]")
    decided = {item: getattr(config, theirs) for item, theirs in FROM_CONFIG.items() if hasattr(config, theirs)}
    if taken := sorted(set(tables["data"]) & set(FROM_CONFIG)):
        hints = [
            f"{item} is config.{FROM_CONFIG[item]}" if item in decided else f"{name} has no {item}" for item in taken
        ]
        raise InputError(f"{where}: {', '.join(hints)}; leave it out of [data]")
    training = make_settings(TrainingSettings, tables["training"], f"{where}, [training]")
    data_values = {"seed": training.seed, **tables["data"]}
    data = make_settings(DataSettings, data_values, f"{where}, [data]")
    if training.accumulate > 1 and not SYSTEMS[str(name)].accumulates:
        raise InputError(f"{where}: {name} steps an optimizer twice an update, so accumulate must be 1")
    return Recipe(
        system=str(name),
        config=config,
        data=replace(data, **decided),
        training=training,
        health=make_settings(HealthOptions, tables["health"], f"{where}, [health]"),
        background=background,
    )


def read_recipe(name: str) -> dict[str, Any]:
    """The plain values of a recipe: a TOML file, or the name of a shipped one ("staingan", "staingan-small").

    Raises:
        InputError: there is no such file or recipe. FormatError: it is no TOML.
    """
    path = Path(name)
    if not path.is_file():
        shipped = shipped_recipes()
        if name not in shipped:
            raise InputError(f"there is no recipe {name}: no such file, and the shipped ones are {', '.join(shipped)}")
        path = shipped[name]
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no TOML: {error}") from None


def shipped_recipes() -> dict[str, Path]:
    """The files of the shipped recipes by name, such as "staingan-small"."""
    return {file.stem: file for folder in _recipe_folders() for file in sorted(folder.glob("*.toml"))}


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values, later ones over earlier ones, table by table."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            before = result.get(name)
            result[name] = merged(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return result


def parse_overrides(assignments: tuple[str, ...]) -> dict[str, Any]:
    """`table.name=value` as nested values; values as TOML has them, and bare words as strings.

    Raises:
        InputError: an assignment is not of that form.
    """
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise InputError(f"got {assignment!r}; wanted an assignment such as config.channels=32")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        nested: Any = value
        for part in reversed(parts):
            nested = {part: nested}
        result = merged(result, nested)
    return result


def _recipe_folders() -> list[Path]:
    """Where recipes are shipped: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return [folder for folder in (package / "recipes", package.parents[1] / "recipes") if folder.is_dir()]
