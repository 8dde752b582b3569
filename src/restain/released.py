"""Weights that a paper's authors released, read into restain's form: that needs PyTorch, using them does not."""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restain.errors import FormatError, InputError, MissingExtraError
from restain.methods.base import Background, Icc, OnError
from restain.methods.stainnet import MOST_WEIGHTS, StainNet, checked_weights

MOST_BYTES = 64 << 20
"""Largest file that is opened: StainNet's weights take 8 KB, so a larger one is something else."""


def import_stainnet(
    path: str | os.PathLike[str],
    reference: Any = None,
    background: Background = "match",
    *,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    training_data_license: str | None = None,
) -> StainNet:
    """A ready `StainNet` from its authors' file, with the file's digest in its provenance.

    Args:
        path: see `read_stainnet`.
        reference: whose glass the results shall have, as for `fit`; None for a neutral gray.
        background: what becomes of glass.
        icc: "srgb" converts the reference to sRGB by its ICC profile first, "keep" does not.
        on_error: of the reference's damaged tiles, as for `fit`.
        training_data_license: licence of the images that the weights were trained on; None where it is not known.
    """
    normalizer = StainNet(weights=read_stainnet(path), background=background)
    if reference is not None:
        normalizer.fit(reference, icc=icc, on_error=on_error)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    facts = {"sha256": digest, "training_data_license": training_data_license or "unknown"}
    normalizer.provenance_ = {**normalizer.provenance_, "weights": facts}
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
                f"{path}: {_shown(name)} has weights of shape {weight.shape}; "
                "a colour map has 1×1 convolutions, (m, k, 1, 1)"
            )
        weights[f"weight{layer}"] = np.ascontiguousarray(weight[:, :, 0, 0])
        weights[f"bias{layer}"] = bias
    try:
        return checked_weights(weights)
    except InputError as error:
        raise FormatError(f"{path}: {error}") from None


def _state_dict(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        import torch
    except ImportError as error:
        message = f"reading {path} needs PyTorch ({error}); install it with: pip install 'restain[train]'"
        raise MissingExtraError(message) from error
    if not path.is_file():
        raise FormatError(f"{path} is not a file; wanted the authors' .pth file")
    try:
        if (size := _unpacked_size(path)) > MOST_BYTES:
            raise FormatError(f"{path} has {size >> 20} MiB; a StainNet has a few KB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file is an error or its numbers are checked; there is no third
            # To the CPU, since the released files were saved on a GPU.
            state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
            state = state["state_dict"]
        if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise FormatError(f"{path} holds a {type(state).__name__}; wanted a state dict, names with tensors")
        total = 0
        for name, value in state.items():
            # Layouts other than strided, and nested tensors, have no plain values.
            plain = value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
            if not plain or not value.is_floating_point():
                raise FormatError(f"{path}: {_shown(name)} is no plain tensor of real numbers")
            total += value.numel()
            if total > MOST_WEIGHTS:  # checked before copying: tensors of a few bytes may claim to be of any size
                raise FormatError(f"{path} holds {total:,} values or more; a StainNet has 1,283")
        # Resolved, since a tensor may be stored as the negative of its bytes, which NumPy does not know.
        return {
            str(name): value.detach().to(torch.float64).resolve_neg().numpy().copy() for name, value in state.items()
        }
    except FormatError:
        raise
    except Exception as error:  # what a damaged file makes the reader raise is open-ended
        lines = str(error).strip().splitlines()
        named = _shown(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}", 160)
        raise FormatError(f"{path} is damaged or holds more than tensors ({named})") from None


def _unpacked_size(path: Path) -> int:
    """Bytes that reading the file takes: of an archive, what its members unpack to.

    An archive whose members cannot be listed is an error, lest it be unpacked unseen.
    """
    with path.open("rb") as stream:
        is_archive = stream.read(4) == b"PK\x03\x04"  # by which PyTorch knows one
    if not is_archive:
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return max(path.stat().st_size, sum(member.file_size for member in archive.infolist()))


def _shown(text: object, most: int = 60) -> str:
    """Text from a file, short and without characters that move a terminal's cursor."""
    whole = "".join(character if character.isprintable() else "?" for character in str(text))
    return whole if len(whole) <= most else whole[: most - 3] + "..."


def _listed(state: Mapping[str, Any]) -> str:
    names = [f"{_shown(name)} {tuple(value.shape)}" for name, value in list(state.items())[:3]]
    return ", ".join(names) + (", ..." if len(state) > 3 else "") if names else "nothing"
