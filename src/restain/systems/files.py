"""Reading trained systems back: one safetensors file with its JSON, and no code in it that is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restain.errors import FormatError, InputError
from restain.files import reason_of
from restain.methods.saving import from_arrays
from restain.systems import SYSTEMS
from restain.systems.base import System

PREFIX = "generator."
"""What the names of the weights begin with."""


def make_system(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> System:
    """A system that `System.save` wrote, ready to normalize; what only training needs is not made.

    Args:
        path: its file, for messages.
        arrays, facts: what `files.load_arrays` read there.

    Raises:
        FormatError: the file is damaged, or names an unknown system or setting.
    """
    try:
        name = facts["system"]
        if name not in SYSTEMS:
            raise FormatError(f"{path} holds the system {name!r}; this version knows {', '.join(SYSTEMS)}")
        # Without memory for its weights: the file's own take their places, so nothing of any size is made on its word,
        # and no random numbers are drawn.
        with torch.device("meta"):
            system = SYSTEMS[name](**facts["settings"], trainable=False)
        weights = {key.removeprefix(PREFIX): value for key, value in arrays.items() if key.startswith(PREFIX)}
        wanted = system.generator.state_dict()
        if different := sorted(weights.keys() ^ wanted.keys()):
            raise ValueError(f"{different[0]} is {'missing' if different[0] in wanted else 'not of this network'}")
        if misshapen := [key for key, value in weights.items() if value.shape != tuple(wanted[key].shape)]:
            key = misshapen[0]
            raise ValueError(f"{key} is {weights[key].shape}; this network has {tuple(wanted[key].shape)}")
        if wrong := [
            key for key, value in weights.items() if value.dtype != np.float32 or not np.isfinite(value).all()
        ]:
            raise ValueError(f"{wrong[0]} is not float32, or not finite")
        tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
        typed = {key: value.to(wanted[key].dtype) for key, value in tensors.items()}
        system.generator.load_state_dict(typed, assign=True)
        rest = {key: value for key, value in arrays.items() if not key.startswith(PREFIX)}
        system.reference_ = from_arrays(system.appearance_type, rest, facts["reference"])
        system.provenance_ = dict(facts["provenance"])
    except (KeyError, TypeError, ValueError, RuntimeError, InputError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is a damaged system ({reason_of(error)})") from None
    return system
