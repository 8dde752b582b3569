"""The files that a command is to work on, and the folder that their outputs go to."""

import os
from pathlib import Path

from restain.errors import InputError, OutputError


def find_sources(source: str) -> tuple[list[Path], bool]:
    """The files that an argument names, and whether it names several: a folder or pattern, of however many files.

    A folder that is one slide is one file. Raises `InputError` where there are none.
    """
    from restain.references import find_files

    files = find_files(source)
    if not files:
        raise InputError(f"{source} does not exist, or no file matches it")
    return files, files != [Path(source)]


def root_of(source: str, files: list[Path]) -> Path:
    """The folder that outputs lie in as their sources do in it: the one that is named, or the files' own."""
    return Path(source) if Path(source).is_dir() else Path(os.path.commonpath([file.parent for file in files]))


def images_among(files: list[Path], root: Path, output: Path) -> list[Path]:
    """The files that look like images or slides, without what lies in an output folder inside the source's.

    Raises `InputError` where there are none.
    """
    from restain.slides.batch import is_image

    inside = output.resolve()
    nested = inside != root.resolve() and inside.is_relative_to(root.resolve())
    images = [f for f in files if is_image(f) and not (nested and f.resolve().is_relative_to(inside))]
    if not images:
        raise InputError(f"none of {len(files)} files has the extension of an image or slide")
    return images


def check_folder(output: Path, root: Path) -> None:
    """Raise `OutputError` if outputs would be written over or around their own sources."""
    if root.resolve().is_relative_to(output.resolve()):
        raise OutputError(f"{output} is, or holds, the input folder itself; name another folder")
