"""Normalizers and appearances as arrays and plain values, and back: what is in a saved file.

`Normalizer.save` writes one safetensors file with its JSON; `load` reads it, and believes nothing in it unchecked.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from restain import files
from restain.errors import FormatError

if TYPE_CHECKING:
    from restain.methods.base import Appearance, Normalizer

Kind = TypeVar("Kind", bound="Appearance")

LARGEST = 1e6
"""No statistic of any image is larger; a damaged file's may be, and would overflow."""


def load(path: str | os.PathLike[str]) -> "Normalizer":
    """Read a normalizer that `Normalizer.save` wrote; no code in the file is ever run.

    Raises:
        FormatError: the file is missing, damaged, holds something else, or names an unknown method or setting.
    """
    from restain.methods import METHODS

    kind, arrays, facts = files.load_arrays(path)
    if kind != "normalizer":
        hint = "; fit one to it with fit(path) or --target" if kind == "histogram" else ""
        raise FormatError(f"{path} holds a {kind}; wanted a saved normalizer{hint}")
    try:
        name = facts["method"]
        if name not in METHODS:
            raise FormatError(f"{path} holds the method {name!r}; this version knows {', '.join(METHODS)}")
        tables, arrays = _split_tables(arrays)
        normalizer = METHODS[name](**facts["settings"], **tables)
        for setting, table in tables.items():
            taken = getattr(normalizer, setting)
            if wrong := [key for key, array in table.items() if taken[key].dtype != array.dtype]:
                raise ValueError(f"{setting} holds {', '.join(wrong)} of another type")
        normalizer.reference_ = from_arrays(normalizer.appearance_type, arrays, facts["reference"])
        normalizer.provenance_ = dict(facts["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is a damaged normalizer ({files.reason_of(error)})") from None
    return normalizer


def to_arrays(appearance: "Appearance") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    values: dict[str, Any] = {}
    for item in fields(appearance):
        value = getattr(appearance, item.name)
        if isinstance(value, np.ndarray):
            arrays[item.name] = value
        elif isinstance(value, bytes):
            arrays[item.name] = np.frombuffer(value, np.uint8)
        else:
            values[item.name] = value
    return arrays, values


def from_arrays(kind: type[Kind], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> Kind:
    contents: dict[str, Any] = {**values, **arrays}
    if "icc_profile" in arrays:
        contents["icc_profile"] = arrays["icc_profile"].tobytes()
    appearance = kind(**contents)
    for name, shape in appearance._shapes().items():
        value = getattr(appearance, name)
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != np.float64:
            raise ValueError(f"{name} is not float64 of shape {shape}")
        if not (np.abs(value) <= LARGEST).all():  # NaN fails too
            raise ValueError(f"{name} is not finite, or beyond what any image gives")
    appearance._check_values()
    if not ((appearance.white_point >= 0) & (appearance.white_point <= 255)).all():
        raise ValueError(f"the white point {appearance.white_point} is outside 0..255")
    return appearance


def plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def is_table(value: Any) -> bool:
    """Whether a setting is a mapping of arrays (weights, labels), which files keep as arrays."""
    return isinstance(value, Mapping) and all(isinstance(item, np.ndarray) for item in value.values())


def digest(table: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for key in sorted(table):
        digest.update(f"{key} {table[key].dtype} {table[key].shape}".encode())
        digest.update(np.ascontiguousarray(table[key]).tobytes())
    return {"values": sum(array.size for array in table.values()), "sha256": digest.hexdigest()}


def _split_tables(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The settings that are mappings of arrays, and the arrays that remain."""
    tables: dict[str, dict[str, NDArray[Any]]] = {}
    rest = {}
    for name, array in arrays.items():
        if name.startswith("settings."):
            setting, key = name.removeprefix("settings.").split(".", 1)
            tables.setdefault(setting, {})[key] = array
        else:
            rest[name] = array
    return dict(tables), rest
