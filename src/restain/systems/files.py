"""Reading trained systems back: one safetensors file with its JSON, and no code in it that is run."""

import os
from pathlib import Path

import torch

from restain import files
from restain.errors import FormatError, InputError
from restain.methods.base import _from_arrays
from restain.systems import SYSTEMS
from restain.systems.base import System


def load_system(path: str | os.PathLike[str]) -> System:
    """A system that `System.save` wrote, ready to normalize; what only training needs is not made.

    Raises:
        FormatError: the file is missing, damaged, holds something else, or names an unknown system or setting.
    """
    path = Path(path)
    kind, arrays, facts = files.load_arrays(path)
    if kind != "system":
        raise FormatError(f"{path} holds a {kind}; wanted a trained system")
    try:
        name = facts["system"]
        if name not in SYSTEMS:
            raise FormatError(f"{path} holds the system {name!r}; this version knows {', '.join(SYSTEMS)}")
        system = SYSTEMS[name](**facts["settings"], trainable=False)
        prefix = "generator."
        weights = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
        rest = {key: value for key, value in arrays.items() if not key.startswith(prefix)}
        system.generator.load_state_dict(weights)
        if not all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point()):
            raise ValueError("weights that are not finite")
        system.reference_ = _from_arrays(system.appearance_type, rest, facts["reference"])
        system.provenance_ = dict(facts["provenance"])
    except (KeyError, TypeError, ValueError, RuntimeError, InputError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is a damaged system ({' '.join(str(error).split())[:200]})") from None
    return system
