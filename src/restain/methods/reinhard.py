"""Reinhard et al., "Color transfer between images", IEEE CG&A 2001: match mean and sd per channel of a Lab space."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from restain.color import spaces
from restain.color.histogram import ColorHistogram
from restain.errors import InputError
from restain.methods.base import Appearance, Floats, Normalizer, Unlearnable
from restain.methods.flavours import check_flavour, opencv_lab, opencv_rgb, torchstain_rgb
from restain.methods.statistics import weighted_mean

_SPACES = {
    "lab": (spaces.rgb_to_lab, spaces.lab_to_rgb),
    "lalphabeta": (spaces.rgb_to_lalphabeta, spaces.lalphabeta_to_rgb),
}
_FLAVOURS = {
    "torchstain": (spaces.rgb_to_lab, torchstain_rgb),
    "tiatoolbox": (opencv_lab, opencv_rgb),
    "staintools": (opencv_lab, opencv_rgb),
    "paper": _SPACES["lalphabeta"],
}
_LEAST_DEVIATION = 1e-6  # below, a channel is constant and is only shifted


@dataclass(frozen=True, eq=False, kw_only=True)
class LabMoments(Appearance):
    """Mean and standard deviation of tissue colours.

    Attributes:
        mean: (3,) in the method's Lab space.
        deviation: (3,) population standard deviation, ≥ 0.
        space: "lab" or "lalphabeta", or the flavour whose space it is.
    """

    mean: Floats
    deviation: Floats
    space: str

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return super()._shapes() | {"mean": (3,), "deviation": (3,)}

    def _kind(self) -> tuple[Any, ...]:
        return (*super()._kind(), self.space)


@dataclass(eq=False, kw_only=True)
class Reinhard(Normalizer):
    """Match the mean and standard deviation of each Lab channel.

    Attributes:
        flavour: "restain"; "torchstain", "tiatoolbox" or "staintools": as these packages compute it, over all pixels,
            glass too; "paper": the publication's, in lαβ, over all pixels. A flavour decides all other settings but
            `background` itself.
        space: "lab" (CIELAB, what the packages and most papers run) or "lalphabeta" (Ruderman's, the original).
        luminosity: 0.9: every stained colour, faint ones too, since moments need no pure stains.
    """

    name: ClassVar[str] = "reinhard"
    appearance_type: ClassVar[type[Appearance]] = LabMoments

    flavour: Literal["restain", "torchstain", "tiatoolbox", "staintools", "paper"] = "restain"
    space: Literal["lab", "lalphabeta"] = "lab"
    luminosity: float | None = 0.9

    def _check_settings(self) -> None:
        super()._check_settings()
        if not isinstance(self.space, str) or self.space not in _SPACES:
            raise InputError(f"got space={self.space!r}; wanted one of {', '.join(_SPACES)}")
        check_flavour(self, _FLAVOURS)

    def _conversions(self) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
        return _SPACES[self.space] if self.flavour == "restain" else _FLAVOURS[self.flavour]

    def _tissue(self, histogram: ColorHistogram, white: Floats) -> ColorHistogram:
        return super()._tissue(histogram, white) if self.flavour == "restain" else histogram

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        space = self.space if self.flavour == "restain" else self.flavour
        return lab_moments(self._conversions()[0](colors), counts) | {"space": space}

    def _restyle(self, colors: Floats, source: LabMoments, reference: LabMoments) -> Floats:
        forward, backward = self._conversions()
        constant = source.deviation < _LEAST_DEVIATION
        scale = np.where(constant, 1.0, reference.deviation / np.where(constant, 1.0, source.deviation))
        return backward((forward(colors) - source.mean) * scale + reference.mean)


def lab_moments(values: Floats, counts: Floats) -> dict[str, Any]:
    """The statistics of `LabMoments`; raises `Unlearnable` for a single colour, which has no spread to match."""
    mean = weighted_mean(values, counts)
    deviation = np.sqrt(weighted_mean((values - mean) ** 2, counts))
    if (deviation < _LEAST_DEVIATION).all():
        raise Unlearnable("the tissue has only one colour")
    return {"mean": mean, "deviation": deviation}
