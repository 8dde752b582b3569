"""A method that looks at neighbourhoods, in NumPy, for what is asked of all of them: it blurs and shifts colours."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from restain.color.images import RGB8
from restain.methods.base import Appearance, Normalizer
from restain.methods.glass import GlassRule
from restain.methods.windows import WindowMap

RADIUS = 3
SHIFT = np.array([6.0, -14.0, 9.0], np.float32)

Float32 = NDArray[np.float32]


class Blurring(WindowMap):
    """A box blur of 7 pixels and a shift of colours; with `tilt`, windows also brighten from left to right and down.

    As many levels as `tilt`: what a network that looks at its whole window does, and what blending has to hide.
    """

    def __init__(
        self,
        side: int = 64,
        overlap: int = 16,
        batch: int = 3,
        *,
        rule: GlassRule | None = None,
        tilt: float = 0.0,
        shift: Float32 = SHIFT,
    ) -> None:
        self.side, self.overlap, self.batch = side, overlap, batch
        self.rule, self.shift = rule or GlassRule(None), shift
        ramp = np.linspace(-tilt / 2, tilt / 2, side, dtype=np.float32)
        self.tilt = (ramp[:, None] + ramp)[..., None]
        self.calls: list[int] = []
        """How many windows each call brought."""

    def __call__(self, windows: RGB8) -> Float32:
        self.calls.append(len(windows))
        blurred = ndimage.uniform_filter(windows.astype(np.float32), (0, 2 * RADIUS + 1, 2 * RADIUS + 1, 0))
        return self.rule(windows, blurred + self.shift + self.tilt)


@dataclass(frozen=True, eq=False, kw_only=True)
class BlurAppearance(Appearance):
    """Statistics of one image, or those of a slide's tiles, frozen."""

    long_fields: ClassVar[tuple[str, ...]] = (*Appearance.long_fields, "norms")

    statistics: str = "image"
    norms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1000))


@dataclass(eq=False, kw_only=True)
class Blur(Normalizer):
    """The tiles' mean colour moves all colours a little, so that it shows whose statistics were taken."""

    name: ClassVar[str] = "blur"
    appearance_type: ClassVar[type[Appearance]] = BlurAppearance
    fixed: ClassVar[bool] = True
    neighbourhood: ClassVar[bool] = True
    statistics_tiles: ClassVar[int] = 5
    statistics_side: ClassVar[int] = 48

    side: int = 64
    overlap: int = 16
    tilt: float = 0.0

    def estimate(self, source: Any, *, tiles: Sequence[RGB8] | None = None) -> Appearance:
        appearance = super().estimate(source)
        if not tiles:
            return appearance
        norms = np.full(1000, np.mean([tile.mean() for tile in tiles]))
        return replace(appearance, statistics="slide", norms=norms)  # type: ignore[call-arg]

    def pixel_map(self, appearance: Appearance, *, lazy: bool = False, workers: int | None = None) -> WindowMap:
        self._check_appearance(appearance)
        assert isinstance(appearance, BlurAppearance)
        shift = SHIFT + np.float32(appearance.norms[0] / 20)
        rule = self.glass_rule(appearance)
        return Blurring(self.side, self.overlap, rule=rule, tilt=self.tilt, shift=shift)
