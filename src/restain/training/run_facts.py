"""What a run writes down about itself: its settings as TOML that can be given back, and what it ran on."""

import os
import platform
import time
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from restain import __version__
from restain.errors import InputError

HEADER = "# Every setting of this training run, resolved. It is a recipe: it can be given back to train again."
"""The first line of a run's settings.toml; a folder that has such a file is a run."""


def settings_text(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Settings as TOML, and as they are read back.

    TOML has no None: a setting that is None is left out, and named in a comment at the top. Tuples become lists, paths
    text, NumPy scalars numbers.

    Raises:
        InputError: a value that TOML cannot hold; the message says where it stands.
    """
    import tomli_w

    left_out: list[str] = []
    plain = {key: _plain(value, key, left_out) for key, value in settings.items() if _given(value, key, left_out)}
    lines = [HEADER]
    if left_out:
        lines.append(f"# Not set (None): {', '.join(left_out)}.")
    text = "\n".join(lines) + "\n\n" + tomli_w.dumps(plain)
    return text, tomllib.loads(text)


def _given(value: Any, place: str, left_out: list[str]) -> bool:
    if value is None:
        left_out.append(place)
    return value is not None


def _plain(value: Any, place: str, left_out: list[str]) -> Any:
    """A setting as TOML knows it."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"the setting {place} has the key {key!r}; wanted names")
        items = ((key, item, f"{place}.{key}") for key, item in value.items())
        return {key: _plain(item, name, left_out) for key, item, name in items if _given(item, name, left_out)}
    if isinstance(value, list | tuple):
        if any(item is None for item in value):
            raise InputError(f"the setting {place} holds a None in a list, which TOML cannot")
        return [_plain(item, f"{place}[{index}]", left_out) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        value = value.item()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise InputError(f"the setting {place} is a {type(value).__name__}; wanted plain values")


def environment() -> dict[str, Any]:
    """Versions and machine in plain values."""
    from importlib import metadata

    versions = {"restain": __version__, "python": platform.python_version(), "torch": torch.__version__}
    versions["numpy"] = np.__version__
    for name in ("accelerate", "safetensors", "pillow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    facts: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        cudnn: Any = torch.backends.cudnn  # its version() has no types
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts["versions"] |= {"cuda": torch.version.cuda, "cudnn": cudnn.version()}
    return facts
