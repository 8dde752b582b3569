"""Histogram matching: each RGB channel takes the reference's cumulative distribution (Gonzalez & Woods).

Destroys the correlation between channels where stains are distributed differently; here for comparison.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from restain.methods.base import Appearance, Floats, Normalizer

_LEVELS = np.arange(256.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelDistributions(Appearance):
    """Cumulative distributions of the channels.

    Attributes:
        cumulative: (3, 256), the share of tissue pixels at or below each level of balanced R, G, B.
    """

    long_fields: ClassVar[tuple[str, ...]] = (*Appearance.long_fields, "cumulative")

    cumulative: Floats

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return super()._shapes() | {"cumulative": (3, 256)}

    def _check_values(self) -> None:
        super()._check_values()
        if (np.diff(self.cumulative, axis=1) < 0).any() or not (self.cumulative[:, -1] > 0).all():
            raise ValueError("distributions that do not rise")


@dataclass(eq=False, kw_only=True)
class HistogramMatching(Normalizer):
    """Match the cumulative histogram of each channel, interpolating linearly as scikit-image does.

    Attributes:
        luminosity: 0.9: tissue alone is matched, or the amount of glass on a slide would decide its colours.
    """

    name: ClassVar[str] = "histogram"
    appearance_type: ClassVar[type[Appearance]] = ChannelDistributions

    luminosity: float | None = 0.9

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        levels = np.rint(colors).astype(np.int64)
        mass = np.stack([np.bincount(levels[:, channel], counts, minlength=256) for channel in range(3)])
        return {"cumulative": np.cumsum(mass, axis=1) / counts.sum()}

    def _restyle(self, colors: Floats, source: ChannelDistributions, reference: ChannelDistributions) -> Floats:
        matched = np.empty_like(colors)
        for channel in range(3):
            share = np.interp(colors[:, channel], _LEVELS, source.cumulative[channel])
            occurs = np.diff(reference.cumulative[channel], prepend=0.0) > 0
            matched[:, channel] = np.interp(share, reference.cumulative[channel][occurs], _LEVELS[occurs])
        return matched
