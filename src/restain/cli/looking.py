"""`restain info`, `methods`, `demo` and `phantom`: what there is, and something to try it on."""

import sys
from pathlib import Path
from typing import Any, Literal

from restain.cli.options import Flag, Json, Output, numbers
from restain.strict_json import to_json
from restain.terminal import slide_progress


def info(path: str, /, *, json_: Json = False) -> int:
    """Say what a slide, image, profile, histogram or normalizer is.

    Parameters
    ----------
    path: str
        A file, or a profile's name.
    json_: bool
        Print it machine-readable.
    """
    from restain.describe import describe_path

    facts = describe_path(path)
    if json_:
        print(to_json(facts, indent=2))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {_text(value)}")
    return 0


def methods() -> int:
    """List the methods and the shipped profiles."""
    from restain.describe import first_sentence
    from restain.methods import METHODS
    from restain.profiles import load_profile, profile_names

    width = max(map(len, [*METHODS, *profile_names()]))
    for name, method in METHODS.items():
        print(f"{name:<{width}}  {first_sentence(sys.modules[method.__module__].__doc__)}")
    print("\nprofiles (for --target):")
    for name in profile_names():
        print(f"{name:<{width}}  {load_profile(name).provenance.get('title', '')}")
    return 0


def demo(
    *,
    output: Output = Path("demo"),
    slide: Path | None = None,
    offline: Flag = False,
    overwrite: Flag = False,
) -> int:
    """Normalize a real slide where one is at hand, else a synthetic one, and write before/after pictures.

    Parameters
    ----------
    output: Path
        The folder to write to.
    slide: Path
        The slide to use. By default one in the folder that RESTAIN_DATA names, else OpenSlide's CC0 sample (2 MB,
        downloaded and checked), else a phantom.
    offline: bool
        Do not try to download.
    overwrite: bool
        Replace what an earlier demonstration wrote.
    """
    from restain.demo import run_demo

    with slide_progress() as progress:
        print(run_demo(output, slide, download=not offline, overwrite=overwrite, progress=progress))
    return 0


def phantom(
    output: Path,
    /,
    *,
    size: str = "2048x2048",
    lab: Literal["a", "b"] = "a",
    white: str = "243,243,243",
    gamma: float = 1.0,
    blur: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    overwrite: Flag = False,
) -> int:
    """Write synthetic H&E tissue: an image, or a pyramidal slide (.tif).

    Parameters
    ----------
    output: Path
        .tif for a slide, .png or .jpg for an image.
    size: str
        WIDTHxHEIGHT in pixels.
    lab: str
        Which of two labs stained it.
    white: str
        The scanner's level of empty glass, R,G,B.
    gamma: float
        The scanner's exponent on transmittance.
    blur: float
        The scanner's blur, sigma in pixels.
    noise: float
        The scanner's noise, standard deviation in grey levels.
    seed: int
        Of the tissue and the noise.
    overwrite: bool
        Replace an existing output.
    """
    from restain.demo import write_phantom

    write_phantom(
        output,
        size=numbers(size, "x", int, "--size 2048x2048"),
        lab=lab,
        white=numbers(white, ",", float, "--white 243,243,243"),
        gamma=gamma,
        blur=blur,
        noise=noise,
        seed=seed,
        overwrite=overwrite,
    )
    print(f"{output}: synthetic tissue, {size}, lab {lab}, seed {seed}")
    return 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)
