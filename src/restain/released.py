"""Weights that a paper's authors released, read into restain's form: that needs PyTorch, using them does not."""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import FormatError, MissingExtraError
from restain.methods.base import Background
from restain.methods.stainnet import StainNet

MOST_BYTES = 64 << 20
"""Largest file that is opened: StainNet's weights take 8 KB, so a larger one is something else."""


def import_stainnet(path: str | os.PathLike[str], reference: Any = None, background: Background = "match") -> StainNet:
    """A ready `StainNet` from its authors' file, with the file's digest in its provenance.

    Args:
        path: see `read_stainnet`.
        reference: whose glass the results shall have, as for `fit`; None for a neutral gray.
        background: what becomes of glass.
    """
    normalizer = StainNet(weights=read_stainnet(path), background=background)
    if reference is not None:
        normalizer.fit(reference)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    normalizer.provenance_ = {"weights": {"sha256": digest}, **normalizer.provenance_}
    return normalizer


def read_stainnet(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]]:
    """The weights of a StainNet from its authors' `.pth` file, for `restain.StainNet(weights=...)`.

    The file is a pickle; it is read with `weights_only=True`, which runs none of the code that a pickle may hold.

    Args:
        path: a state dict of 1×1 convolutions, keys ending in `.weight` (m, k, 1, 1) and `.bias` (m,), in order.

    Returns:
        `weight1` (m, 3), `bias1` (m,), ... as float64.

    Raises:
        FormatError: the file is missing, damaged, holds more than tensors, or is no StainNet.
        MissingExtraError: PyTorch is not installed.
    """
    path = Path(path)
    state = _state_dict(path)
    weights: dict[str, NDArray[np.float64]] = {}
    names = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    if not names or set(state) != {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}:
        raise FormatError(f"{path} is no StainNet: it holds {_listed(state)}; wanted weights and biases of layers")
    for layer, name in enumerate(names, 1):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if weight.ndim != 4 or weight.shape[2:] != (1, 1) or bias.ndim != 1:
            raise FormatError(
                f"{path}: {name} has weights of shape {weight.shape}; a colour map has 1×1 convolutions, (m, k, 1, 1)"
            )
        weights[f"weight{layer}"] = np.ascontiguousarray(weight[:, :, 0, 0])
        weights[f"bias{layer}"] = bias
    return weights


def _state_dict(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        import torch
    except ImportError as error:
        message = f"reading {path} needs PyTorch ({error}); install it with: pip install 'restain[train]'"
        raise MissingExtraError(message) from error
    if not path.is_file():
        raise FormatError(f"{path} is not a file; wanted the authors' .pth file")
    if path.stat().st_size > MOST_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size >> 20} MiB; a StainNet has a few KB")
    try:
        # To the CPU, since the released files were saved on a GPU.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FormatError(f"{path} is damaged or holds more than tensors ({reason})") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FormatError(f"{path} holds a {type(state).__name__}; wanted a state dict, names with tensors")
    return {str(name): value.detach().to(torch.float64).numpy() for name, value in state.items()}


def _listed(state: Mapping[str, Any]) -> str:
    names = [f"{name} {tuple(value.shape)}" for name, value in list(state.items())[:3]]
    return ", ".join(names) + (", ..." if len(state) > 3 else "") if names else "nothing"
