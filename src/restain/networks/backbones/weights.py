"""Weights that others trained: found by an explicit path or in PyTorch's own cache, loaded without running code.

Nothing is downloaded here. Where a file is missing, the error names it and says where it may be put.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from restain.errors import FormatError, WeightsUnavailable

Network = TypeVar("Network", bound=nn.Module)

FILES: dict[str, Sequence[str]] = {
    "alexnet": ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth"),
    "vgg16": ("vgg16-397923af.pth",),
    "vgg19": ("vgg19-dcbb9e9d.pth",),
    "resnet50": ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"),
    "squeezenet1_0": ("squeezenet1_0-b66bff10.pth", "squeezenet1_0-a815701f.pth"),
    "squeezenet1_1": ("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1-f364aa15.pth"),
    "fid_inception": ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
}
"""The files that torchvision and, for the last network, pytorch-fid and torch-fidelity publish; all of ImageNet."""


_UNREADABLE = (
    "{} is no weights file that can be read without running code: wanted a state dict of tensors (.pth or .safetensors)"
)


def cache_folder() -> Path:
    """Where PyTorch, and with it torchvision, keeps what it downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(name: str, path: str | os.PathLike[str] | None = None, *, option: str = "weights") -> Path:
    """The file with the weights of a network: `path` where given, else one of `FILES[name]` in PyTorch's cache.

    Args:
        name: a key of `FILES`.
        path: of a .pth, .safetensors or .npz file.
        option: what the caller's argument for the path is called, for the message.

    Raises:
        WeightsUnavailable: there is no such file. Random weights are never taken instead.
    """
    if path is not None:
        given = Path(path)
        if given.is_file():
            return given
        raise WeightsUnavailable(f"there is no file {given} with the weights of {name}")
    folder = cache_folder()
    for candidate in FILES[name]:
        if (folder / candidate).is_file():
            return folder / candidate
    raise WeightsUnavailable(
        f"the ImageNet weights of {name} are not at hand: give their file as {option}=…, or put {FILES[name][0]}, "
        f"as its authors publish it, into {folder}. Nothing is downloaded, and random weights are not taken instead"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a .pth (no code in it is run), .safetensors or .npz (no pickles) file, by name, on the CPU.

    Raises:
        FormatError: the file is damaged, or holds something else than tensors.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has errors of its own
        # Their words are left out: torch's are a paragraph, which advises to run the code in the file.
        raise FormatError(_UNREADABLE.format(path)) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FormatError(f"{path} holds {type(state).__name__}; wanted a state dict: tensors by name")
    return dict(state)


def load_into(network: Network, state: Mapping[str, Tensor], origin: str | os.PathLike[str]) -> Network:
    """Load a state dict into a network and freeze it, in evaluation mode. Tensors it has no place for are left out
    only where they belong to a classifier that it was built without.

    Raises:
        FormatError: tensors are missing, of another shape, or unknown.
    """
    wanted = network.state_dict()
    heads = tuple(f"{name}." for name in ("classifier", "fc") if getattr(network, name, 0) is None)
    given = {name: value for name, value in state.items() if not (heads and name.startswith(heads))}
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in wanted]
    wrong = [name for name in given if name in wanted and given[name].shape != wanted[name].shape]
    if missing or unknown or wrong:
        problem = "; ".join(
            f"{what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
            if names
        )
        raise FormatError(f"{origin} does not hold the weights of {type(network).__name__}: {problem}")
    network.load_state_dict(given, strict=False)
    return network.eval().requires_grad_(False)
