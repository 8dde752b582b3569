"""Roy et al., "Modified Reinhard algorithm for color normalization of colorectal cancer histopathology images", 2021.

Chroma is shifted but not stretched; lightness is stretched by a factor that cannot turn negative.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from restain.color.histogram import ColorHistogram
from restain.color.spaces import lab_to_rgb, rgb_to_lab
from restain.methods.base import Appearance, Floats, Normalizer
from restain.methods.flavours import check_flavour, torchstain_rgb
from restain.methods.reinhard import LabMoments, lab_moments


@dataclass(eq=False, kw_only=True)
class ModifiedReinhard(Normalizer):
    """Move the chroma's mean to the reference's; stretch lightness by 1 + q about the source's own mean.

    q = (σ_t − σ_s)/σ_t for L, and 0.05 where that is ≤ 0.

    Attributes:
        flavour: "restain", or "torchstain": as that package computes it, over all pixels, glass too.
        luminosity: 0.9, as in `Reinhard`.
    """

    name: ClassVar[str] = "reinhard_modified"
    appearance_type: ClassVar[type[Appearance]] = LabMoments

    flavour: Literal["restain", "torchstain"] = "restain"
    luminosity: float | None = 0.9

    def _check_settings(self) -> None:
        super()._check_settings()
        check_flavour(self, ("torchstain",))

    def _tissue(self, histogram: ColorHistogram, white: Floats) -> ColorHistogram:
        return super()._tissue(histogram, white) if self.flavour == "restain" else histogram

    def _learn(self, colors: Floats, counts: Floats) -> dict[str, Any]:
        return lab_moments(rgb_to_lab(colors), counts) | {"space": "lab" if self.flavour == "restain" else self.flavour}

    def _restyle(self, colors: Floats, source: LabMoments, reference: LabMoments) -> Floats:
        lab = rgb_to_lab(colors)
        wanted = reference.deviation[0]
        q = (wanted - source.deviation[0]) / wanted if wanted > 0 else 0.0
        stretch = 1.0 + (q if q > 0 else 0.05)
        lightness = source.mean[0] + (lab[:, 0] - source.mean[0]) * stretch
        chroma = lab[:, 1:] - source.mean[1:] + reference.mean[1:]
        result = np.column_stack([lightness, chroma])
        return lab_to_rgb(result) if self.flavour == "restain" else torchstain_rgb(result)
