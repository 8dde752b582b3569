"""Shipped references: colour histograms small enough to travel, each with its provenance and a free licence.

`tools/make_profiles.py` makes them anew.
"""

from importlib.resources import as_file, files

from restain.color.histogram import ColorHistogram
from restain.errors import InputError


def profile_names() -> list[str]:
    """The names that `load_profile` knows."""
    return sorted(
        item.name.removesuffix(".safetensors")
        for item in files(__name__).iterdir()
        if item.name.endswith(".safetensors")
    )


def load_profile(name: str) -> ColorHistogram:
    """A shipped profile by name; `provenance` says what it was made from.

    Raises:
        InputError: there is no such profile.
    """
    if name not in profile_names():
        raise InputError(f"there is no profile {name!r}; there are {', '.join(profile_names())}")
    with as_file(files(__name__) / f"{name}.safetensors") as path:
        return ColorHistogram.load(path)
