"""What is compared: the raw images, methods fitted to one reference, and saved normalizers with their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restain.color.histogram import ColorHistogram
from restain.color.images import RGB8
from restain.errors import InputError
from restain.methods import METHODS
from restain.methods.base import Appearance, Background, Normalizer
from restain.saved import WEIGHTS, load_with
from restain.slides.sample import sample_tiles_of

RAW = "raw"
"""The name of the images as they are, which everything is compared with."""


@dataclass(frozen=True)
class Contender:
    """One row of the tables.

    Attributes:
        name: in tables and pictures, unique.
        normalizer: fitted; None for the raw images.
    """

    name: str
    normalizer: Normalizer | None

    def estimate(self, source: Any, files: Sequence[Path] = (), *, seed: int = 0) -> Appearance | None:
        """How the source looks to this method; None for the raw images.

        Args:
            source: as for `Normalizer.estimate`.
            files: of the images or the slide that it is, from which tiles are sampled for methods that want some.
            seed: of that sample.
        """
        normalizer = self.normalizer
        if normalizer is None or not normalizer.statistics_tiles:
            return None if normalizer is None else normalizer.estimate(source)
        count, side = normalizer.statistics_tiles, normalizer.statistics_side
        return normalizer.estimate(source, tiles=sample_tiles_of(files, count, side, seed=seed))

    def estimate_image(self, image: RGB8, histogram: ColorHistogram | None = None) -> Appearance | None:
        """How one image (H, W, 3) uint8 looks by itself; its colours may be counted already."""
        return None if self.normalizer is None else self.normalizer.estimate_image(image, histogram=histogram)

    def apply(self, image: RGB8, appearance: Appearance | None) -> RGB8:
        """The image (H, W, 3) uint8 normalized; the raw images as they are."""
        return image if self.normalizer is None else self.normalizer.transform(image, appearance)


def make_contenders(
    methods: Sequence[str], reference: Any = None, background: Background | None = None
) -> list[Contender]:
    """The raw images, and one contender for each name.

    Args:
        methods: keys of `restain.METHODS`, `METHOD:FLAVOUR` for another package's computation, or paths of saved
            normalizers (.safetensors) or training runs, which keep the reference they were saved with.
        reference: what the methods are fitted to, as for `Normalizer.fit`; the profile "he" without one.
        background: what becomes of glass; None for each one's own.

    Raises:
        InputError: there is no such method, flavour or file, two have one name, or none is given.
    """
    if not methods:
        raise InputError("got no methods to compare; wanted some of " + ", ".join(METHODS))
    contenders = [Contender(RAW, None)]
    for name in methods:
        if name.endswith(".safetensors") or (Path(name) / WEIGHTS).is_file():
            contenders.append(Contender(Path(name).stem, load_with(name, background)))
        else:
            contenders.append(Contender(name, _method(name, background).fit("he" if reference is None else reference)))
    names = [contender.name for contender in contenders]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two contenders are called {name!r}; give each method or file once, or rename a file")
    return contenders


def _method(name: str, background: Background | None) -> Normalizer:
    method, _, flavour = name.partition(":")
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}; there are {', '.join(METHODS)}, and saved normalizers")
    settings: dict[str, Any] = {} if background is None else {"background": background}
    if flavour:
        settings["flavour"] = flavour
    try:
        return METHODS[method](**settings)
    except TypeError:
        raise InputError(f"{method} has no flavours; leave out :{flavour}") from None
