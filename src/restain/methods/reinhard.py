"""Reinhard et al., "Color transfer between images", IEEE CG&A 2001: match mean and sd per channel of a Lab space."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from restain.color import spaces
from restain.errors import InputError
from restain.methods.base import Appearance, Floats, Normalizer, Unlearnable
from restain.methods.statistics import weighted_mean

_SPACES = {
    "lab": (spaces.rgb_to_lab, spaces.lab_to_rgb),
    "lalphabeta": (spaces.rgb_to_lalphabeta, spaces.lalphabeta_to_rgb),
}
_LEAST_DEVIATION = 1e-6  # below, a channel is constant and is only shifted


@dataclass(frozen=True, eq=False, kw_only=True)
class LabMoments(Appearance):
    """Mean and standard deviation of tissue colours.

    Attributes:
        mean: (3,) in the method's Lab space.
        deviation: (3,) population standard deviation, ≥ 0.
        space: "lab" or "lalphabeta".
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
        space: "lab" (CIELAB, what the packages and most papers run) or "lalphabeta" (Ruderman's, the original).
        luminosity: 0.9: every stained colour, faint ones too, since moments need no pure stains.
    """

    name: ClassVar[str] = "reinhard"
    appearance_type: ClassVar[type[Appearance]] = LabMoments

    space: Literal["lab", "lalphabeta"] = "lab"
    luminosity: float | None = 0.9

    def _check_settings(self) -> None:
        super()._check_settings()
        if not isinstance(self.space, str) or self.space not in _SPACES:
            raise InputError(f"got space={self.space!r}; wanted one of {', '.join(_SPACES)}")

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        return lab_moments(_SPACES[self.space][0](colors), counts) | {"space": self.space}

    def _restyle(self, colors: Floats, source: LabMoments, reference: LabMoments) -> Floats:
        forward, backward = _SPACES[self.space]
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
