"""Settings of systems: frozen dataclasses, made from plain values with every mistake named."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from restain.errors import InputError
from restain.systems.schedule import Schedule

Settings = TypeVar("Settings")

MOST_CHANNELS, MOST_LAYERS, MOST_PIXELS = 1024, 64, 16_384
"""Most channels, layers or blocks, and pixels a side that are believed: sixteen times the papers' and more. A typing
error, or a hostile file, could ask for networks that no memory holds."""

BETAS = (0.0, 0.999999)
"""Least and greatest decay rate of Adam."""

WEIGHTS = (0.0, 1e6)
"""Least and greatest weight of a loss."""


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """What every system is told; each adds its own, and sets its paper's defaults."""

    epochs: int = 50
    """Epochs at the full learning rate; all epochs where the schedule is not "linear"."""

    decay_epochs: int = 0
    """Epochs over which the schedule "linear" lets the learning rate fall."""

    schedule: Schedule = "constant"
    """How the learning rate changes, epoch by epoch: "constant", "linear" or "cosine"."""

    learning_rate: float = 2e-4
    """Initial learning rate of every network."""

    batch_size: int = 4
    """Images an update, of each domain."""

    crop: int = 256
    """Side of the training crops, pixels."""

    crop_position: Literal["random", "center", "top-left"] = "random"
    """Where an image that is larger is cropped."""

    horizontal_flips: bool = True
    """Whether crops are mirrored at random."""

    vertical_flips: bool = False
    """Whether crops are turned upside down at random."""

    quarter_turns: bool = False
    """Whether crops are turned by a random multiple of 90°."""

    def __post_init__(self) -> None:
        check_ranges(self, epochs=(1, math.inf), decay_epochs=(0, math.inf), batch_size=(1, math.inf))
        check_ranges(self, crop=(1, MOST_PIXELS))
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"got learning_rate = {self.learning_rate}; wanted a rate above 0")

    @property
    def total_epochs(self) -> int:
        """All epochs of a training."""
        return self.epochs + self.decay_epochs


def check_ranges(settings: Any, **ranges: tuple[float, float]) -> None:
    """Refuse settings outside their ranges (least, most), ends included, before anything is made of them.

    Raises:
        InputError: the first that is, or that is no number.
    """
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise InputError(f"got {name} = {value}; wanted {wanted}")


def make_settings(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """A dataclass from plain values (as TOML or JSON hold them), strictly.

    Lists become tuples, whole numbers become floats where floats are wanted, strings become paths where paths are.

    Args:
        kind: a dataclass.
        values: its fields by name; those left out keep their defaults.
        where: what the values are, for the message: "recipe.toml, [training]".

    Raises:
        InputError: a name is unknown, or a value of the wrong type; the message says what there is.
    """
    known: dict[str, Field[Any]] = {item.name: item for item in fields(kind) if item.init}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{where}: there is no setting {', '.join(unknown)}; there are {', '.join(known)}")
    missing = [n for n, f in known.items() if n not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} must be given")
    hints = get_type_hints(kind)
    converted = {name: _convert(value, hints[name], f"{where}: {name}") for name, value in values.items()}
    return kind(**converted)


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass as plain values that TOML and JSON can hold; what is None is kept, paths are strings."""
    return {name: _plain(value) for name, value in asdict(settings).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        errors = []
        for choice in (argument for argument in arguments if argument is not type(None)):
            try:
                return _convert(value, choice, where)
            except InputError as error:
                errors.append(error)
        raise errors[0]
    if origin is Literal:
        if not any(value == argument and type(value) is type(argument) for argument in arguments):
            raise InputError(f"{where} is {value!r}; wanted one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or (arguments[-1] is not Ellipsis and len(value) != len(arguments)):
            raise InputError(f"{where} is {value!r}; wanted a list")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_convert(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InputError(
                f"{where} has {len(str(abs(value)))} digits; wanted a number that a float can hold"
            ) from None
    if not isinstance(hint, type) or not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where} is {value!r}; wanted {getattr(hint, '__name__', hint)}")
    return value
