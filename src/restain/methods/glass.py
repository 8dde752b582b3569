"""What becomes of glass, in every method: it goes from the source's white point to the wanted one, channel by channel.

Near the source's white point a colour is scaled; in tissue it is what the method makes of it; between, the two are
blended by `restain.color.glass.glass_weight`. Colour maps do it to colours in float64, networks to whole images in
float32, where tables of the 256 levels stand in for logarithms.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from restain.color.glass import GLASS_DENSITY, glass_weight
from restain.color.images import RGB8
from restain.errors import InputError

Floats = NDArray[np.float64]
Float32 = NDArray[np.float32]

_LEVELS = np.arange(256.0)


def match_glass(levels: Floats, restyled: Floats, source_white: ArrayLike, wanted_white: ArrayLike) -> Floats:
    """Blend what a method makes of colours with what becomes of glass.

    Args:
        levels: colours (n, 3) as scanned, 0..255.
        restyled: (n, 3), the method's result on a scale where the reference's glass is 255 in every channel
            (`restain.color.spaces.balance`); clipped here to 0..255.
        source_white: (3,) the source's white point.
        wanted_white: (3,) what the source's glass is to become.

    Returns:
        (n, 3) levels on the scale of `wanted_white`, neither clipped nor rounded.

    Raises:
        InputError: the two are not of one shape.
    """
    from restain.methods import kernels

    if restyled.shape != levels.shape:  # compiled loops look at no bounds
        raise InputError(f"got {restyled.shape} for colours {levels.shape}; wanted one restyled colour for each")
    white, wanted = (
        np.array(np.broadcast_to(np.asarray(each, np.float64), 3)) for each in (source_white, wanted_white)
    )
    blend: Floats = kernels.blend_glass(
        np.ascontiguousarray(levels), np.ascontiguousarray(restyled), white, wanted, *GLASS_DENSITY
    )
    return blend


class GlassRule:
    """`match_glass` for whole images: 8-bit pixels and a network's float32 results; or nothing, if there is no rule.

    Safe to call from many threads.

    Attributes:
        source_white: (3,) the source's white point; None for no rule (`background="none"`).
    """

    def __init__(
        self, source_white: ArrayLike | None, reference_white: ArrayLike = 255.0, wanted_white: ArrayLike = 255.0
    ) -> None:
        """From three white points, (3,) each, 0..255.

        Args:
            source_white: the source's; None for no rule: results stay as they are.
            reference_white: of the scale that a network's results are on: its target's.
            wanted_white: what the source's glass is to become.
        """
        self.source_white = None if source_white is None else np.broadcast_to(np.asarray(source_white, float), (3,))
        if self.source_white is None:
            return
        reference = np.broadcast_to(np.asarray(reference_white, np.float64), (3,)) + 1.0
        wanted = np.broadcast_to(np.asarray(wanted_white, np.float64), (3,)) + 1.0
        # The weight follows from the darkest channel, and falls with density: it is the least of the channels' own.
        weights = [glass_weight(_LEVELS[:, None], white) for white in self.source_white]
        self._weights: list[Float32] = [weight.astype(np.float32) for weight in weights]
        self._from = [np.uint8(np.argmax(weight > 0.0)) for weight in weights]  # no glass in levels below
        self._all_from = [np.uint8(np.argmax(weight >= 1.0)) for weight in weights]  # glass alone from here
        scaled = (_LEVELS + 1.0) / (self.source_white[:, None] + 1.0) * wanted[:, None] - 1.0
        self._glass: list[Float32] = list(scaled.astype(np.float32))
        # Scaled from the reference's white point to the wanted one, between black and white of the balanced scale.
        affine = (wanted / reference, wanted / reference - 1.0, wanted / 256.0 - 1.0, wanted - 1.0)
        self._affine: list[Float32] = [each.astype(np.float32) for each in affine]  # scale, shift, least, most

    def is_glass(self, pixels: RGB8) -> bool:
        """Whether an image (..., 3) is glass alone, so that what a network makes of it does not matter."""
        if self.source_white is None:
            return False
        return all(bool(pixels[..., channel].min() >= self._all_from[channel]) for channel in range(3))

    def glass(self, pixels: RGB8) -> Float32:
        """What an image of glass alone (..., 3) becomes: float32 levels of the same shape."""
        if self.source_white is None:
            return pixels.astype(np.float32)
        return np.stack([table[pixels[..., channel]] for channel, table in enumerate(self._glass)], axis=-1)

    def __call__(self, pixels: RGB8, restyled: Float32) -> Float32:
        """Apply the rule.

        Args:
            pixels: (..., 3) uint8 as scanned.
            restyled: (..., 3) float32, what the network made of them: levels 0..255 as its target's scanner has them.
                May be changed, and returned.

        Returns:
            Float32 levels, neither clipped to 0..255 nor rounded.
        """
        if self.source_white is None:
            return restyled
        near = pixels[..., 0] >= self._from[0]
        for channel in (1, 2):
            near &= pixels[..., channel] >= self._from[channel]
        restyled = np.ascontiguousarray(restyled)
        rows = restyled.reshape(
            -1, restyled.shape[-2] * 3
        )  # a loop over rows is long enough to be fast, over pixels not
        scale, shift, low, high = (np.tile(each, restyled.shape[-2]) for each in self._affine)
        rows *= scale
        rows += shift
        np.maximum(rows, low, out=rows)
        np.minimum(rows, high, out=rows)
        if near.any():
            weight = self._weights[0][pixels[..., 0]]
            for channel in (1, 2):
                np.minimum(weight, self._weights[channel][pixels[..., channel]], out=weight)
            for channel in range(3):
                glass = self._glass[channel][pixels[..., channel]]
                glass -= restyled[..., channel]
                glass *= weight
                restyled[..., channel] += glass
        return restyled
