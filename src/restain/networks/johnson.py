"""The transform network of fast style transfer, with which the paper of NST begins.

Johnson, Alahi & Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", 2016, with the instance
norm of Ulyanov, Vedaldi & Lempitsky, "Instance normalization: the missing ingredient for fast stylization", 2016.
"""

from torch import Tensor, nn

from restain.networks.blocks import InstanceNorm, check_sides


class JohnsonGenerator(nn.Module):
    """Halve twice, change by residual blocks, double back twice; what comes out is no sum with what came in.

    9 × 9, then 3 × 3 convolutions, each followed by instance norm with weights and, but at the end of a residual block,
    by ReLU. Convolutions have biases, those in the residual blocks, which the norm cancels, have none: so the
    parameters are 1,677,955. Sizes are doubled by transposed convolutions. Borders are reflected, except there.

    Args:
        channels: after the first convolution; doubled at each halving.
        blocks: residual blocks at the coarsest size.
    """

    multiple = 4
    """Both sides of the images must be multiples of this."""

    def __init__(self, channels: int = 32, blocks: int = 5) -> None:
        super().__init__()
        wide, wider = 2 * channels, 4 * channels
        down: list[nn.Module] = []
        for before, after, kernel, stride in ((3, channels, 9, 1), (channels, wide, 3, 2), (wide, wider, 3, 2)):
            down += [
                nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, padding_mode="reflect"),
                InstanceNorm(after, affine=True),
                nn.ReLU(inplace=True),
            ]
        up: list[nn.Module] = []
        for before, after in ((wider, wide), (wide, channels)):
            up += [
                nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1),
                InstanceNorm(after, affine=True),
                nn.ReLU(inplace=True),
            ]
        up += [nn.Conv2d(channels, 3, 9, padding=4, padding_mode="reflect"), nn.Tanh()]
        self.down = nn.Sequential(*down)
        self.blocks = nn.Sequential(*(JohnsonBlock(wider) for _ in range(blocks)))
        self.up = nn.Sequential(*up)

    def forward(self, images: Tensor) -> Tensor:
        """Restyle images.

        Args:
            images: (N, 3, H, W) floats 0..1, taken to −1..1 here; H and W multiples of 4, 8 or more.

        Returns:
            (N, 3, H, W) floats 0..1: the tanh's −1..1, taken back.

        Raises:
            InputError: sides that are no multiples of 4.
        """
        check_sides(images, self.multiple)
        out: Tensor = self.up(self.blocks(self.down(images * 2 - 1)))
        return out * 0.5 + 0.5


class JohnsonBlock(nn.Module):
    """Two 3 × 3 convolutions with instance norm, added to what came in; no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            InstanceNorm(channels, affine=True),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            InstanceNorm(channels, affine=True),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        out: Tensor = maps + self.layers(maps)
        return out
