"""`load`: whatever normalizes, from its file: a fitted method, a trained system, or the folder of a training run."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from restain import files
from restain.errors import FormatError, InputError, MissingExtraError
from restain.methods.base import Background, Normalizer
from restain.methods.saving import load as load_method

WEIGHTS = "normalizer.safetensors"
"""What a training run leaves in its folder."""


def load(path: str | os.PathLike[str]) -> Normalizer:
    """Read what `save` wrote; no code in the file is ever run.

    Args:
        path: a .safetensors file, or a training run's folder.

    Raises:
        FormatError: the file is missing, damaged, holds something else, or names an unknown method or setting.
        MissingExtraError: it is a network, and PyTorch is not installed.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise FormatError(f"{path} is a folder without {WEIGHTS}; wanted a file, or a training run that got so far")
        path = path / WEIGHTS
    kind, arrays, facts = files.load_arrays(path)
    if kind != "system":
        return load_method(path)
    try:
        from restain.systems.files import make_system
    except ImportError as error:
        message = f"{path} is a trained network and needs PyTorch ({error}); install it: pip install 'restain[train]'"
        raise MissingExtraError(message) from error
    return make_system(path, arrays, facts)


def load_with(path: str | os.PathLike[str], background: Background | None) -> Normalizer:
    """`load`, with another background than it was saved with; None for its own.

    Raises:
        InputError: there is no such background, or a method would have to be fitted anew for it.
    """
    normalizer = load(path)
    if background is None or background == normalizer.background:
        return normalizer
    if normalizer.background == "none" or (background == "none" and not normalizer.fixed):
        raise InputError(
            f"background 'none' changes what is learned; {path} has to be made anew, by restain fit or restain train "
            f"with --background {background}"
        )
    normalizer.background = background
    normalizer._check_settings()
    if background == "none":  # a map given beforehand needs nothing to be the bare map
        assert normalizer.reference_ is not None
        normalizer.reference_ = replace(normalizer.reference_, white_point=np.full(3, 255.0), white_origin="assumed")
    return normalizer
