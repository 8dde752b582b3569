"""StainNet's network: a few small convolutions, by default a pure map of colours.

Kang, Luo, Feng, Zeng, Quan, Hu & Liu, "StainNet: a fast and robust stain normalization network", 2021.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from restain.errors import InputError

Padding = Literal["reflect", "zeros"]

TABLE_4: dict[str, tuple[int, ...]] = {
    "3+0": (1, 1, 1),
    "2+1": (3, 1, 1),
    "1+2": (3, 3, 1),
    "0+3": (3, 3, 3),
}
"""Kernels of the networks in the paper's Table 4, by its count of 1 × 1 and of 3 × 3 layers.

The paper does not say which come first. Ours to decide: the 3 × 3 layers do, so that neighbours are gathered once from
the pixels themselves and the last layer stays a readout of the pixel's own features; any other order is another tuple.
"""


class PixelNetwork(nn.Module):
    """Convolutions with ReLU between them; none after the last. Weights start as PyTorch draws them.

    With kernels of 1 alone (the default, 1,283 parameters) each pixel's result depends on its own colour only.

    Args:
        channels: of the hidden layers.
        layers: convolutions, where `kernels` is None.
        kernels: side of each convolution, odd; 1 for all `layers` when None. See `TABLE_4`.
        padding: what kernels beyond 1 see outside the image: "reflect", or "zeros", the mid-gray of −1..1. The paper
            does not say; with zeros borders show.
    """

    multiple = 1
    """Images of any size will do."""

    def __init__(
        self,
        channels: int = 32,
        layers: int = 3,
        kernels: Sequence[int] | None = None,
        padding: Padding = "reflect",
    ) -> None:
        super().__init__()
        kernels = (1,) * layers if kernels is None else tuple(kernels)
        if not kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise InputError(f"got kernels={kernels}; wanted one odd side or more, such as (1, 1, 1)")
        if padding not in ("reflect", "zeros"):
            raise InputError(f"got padding={padding!r}; wanted 'reflect' or 'zeros'")
        self.kernels = kernels
        widths = [3, *[channels] * (len(kernels) - 1), 3]
        modules: list[nn.Module] = []
        for kernel, before, after in zip(kernels, widths, widths[1:], strict=False):
            mode = padding if kernel > 1 else "zeros"
            modules += [nn.Conv2d(before, after, kernel, padding=kernel // 2, padding_mode=mode), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*modules[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """Restyle images.

        Args:
            images: (N, 3, H, W) floats −1..1.

        Returns:
            (N, 3, H, W) floats, meant to be −1..1 and not bounded: clamp them.
        """
        out: Tensor = self.layers(images)
        return out
