"""`restain fit` and `restain import`: what makes a normalizer that is saved."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restain.cli.options import Background, Flag, Icc, OnError, Output
from restain.errors import InputError, OutputError
from restain.terminal import appearance_line

if TYPE_CHECKING:
    from restain.methods.base import Normalizer


def fit(
    reference: list[str],
    /,
    *,
    output: Output,
    method: str = "macenko",
    background: Background | None = None,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    overwrite: Flag = False,
) -> int:
    """Learn a reference appearance and save it as a normalizer.

    Parameters
    ----------
    reference: list[str]
        Images, slides, folders, patterns, or a profile's name.
    output: Path
        The normalizer to write, .safetensors.
    method: str
        One of `restain methods`.
    background: str
        What becomes of glass; see `restain normalize`.
    icc: str
        Convert the reference to sRGB by its ICC profile first (srgb), or take its pixels as they are (keep).
    on_error: str
        Where a tile of a slide is damaged: stop with an error, or do not count it (skip and fill alike).
    overwrite: bool
        Replace an existing output.
    """
    check_normalizer_path(output, reference, overwrite)
    wanted = reference if len(reference) > 1 else reference[0]
    fitted = method_named(method, background).fit(wanted, icc=icc, on_error=on_error)
    fitted.save(output, overwrite=overwrite)
    print(f"{output}: {fitted.name}, {appearance_line(fitted)}")
    return 0


def import_weights(
    system: Literal["stainnet"],
    weights: Path,
    /,
    *,
    output: Output,
    target: str | None = None,
    background: Background | None = None,
    icc: Icc = "keep",
    on_error: OnError = "stop",
    training_data_license: str | None = None,
    overwrite: Flag = False,
) -> int:
    """Turn weights that a paper's authors released into a normalizer. Needs PyTorch; applying the result does not.

    Parameters
    ----------
    system: str
        Whose weights they are.
    weights: Path
        The released file (.pth). Only tensors are read from it; no code in it is run.
    output: Path
        The normalizer to write, .safetensors.
    target: str
        An image, a slide, a folder or a profile whose glass the results shall have; a neutral gray by default.
    background: str
        What becomes of glass; see `restain normalize`.
    icc: str
        Convert the target to sRGB by its ICC profile first (srgb), or take its pixels as they are (keep).
    on_error: str
        Where a tile of the target is damaged: stop with an error, or do not count it (skip and fill alike).
    training_data_license: str
        Licence of the images that the weights were trained on, to be kept with them.
    overwrite: bool
        Replace an existing output.
    """
    from restain.released import import_stainnet

    check_normalizer_path(output, [str(weights), *([target] if target else [])], overwrite)
    fitted = import_stainnet(
        weights,
        target,
        background or "match",
        icc=icc,
        on_error=on_error,
        training_data_license=training_data_license,
    )
    fitted.save(output, overwrite=overwrite)
    print(f"{output}: {fitted.name}, {appearance_line(fitted)}")
    return 0


def method_named(name: str, background: Background | None) -> "Normalizer":
    """One of `restain methods`, unfitted; raises `InputError` for any other name."""
    from restain.methods import METHODS

    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]() if background is None else METHODS[name](background=background)


def check_normalizer_path(output: Path, inputs: list[str], overwrite: bool) -> None:
    """Raise `OutputError`, before any work is done, if a normalizer may not be written there."""
    from restain.files import refuse_overwrite

    if output.suffix != ".safetensors":
        raise OutputError(f"{output} should end in .safetensors, the format of saved normalizers")
    refuse_overwrite(output, overwrite)
    for item in inputs:
        if output.exists() and Path(item).exists() and os.path.samefile(item, output):
            raise OutputError(f"{output} is an input; name another output")
