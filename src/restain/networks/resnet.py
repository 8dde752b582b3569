"""The residual generator of CycleGAN and StainGAN, "Res9".

Johnson, Alahi & Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", 2016; Zhu, Park, Isola
& Efros, "Unpaired image-to-image translation using cycle-consistent adversarial networks", 2017; Shaban, Baur, Navab &
Albarqouni, "StainGAN", 2019.
"""

from torch import Tensor, nn

from restain.networks.blocks import check_sides, make_norm


class ResnetGenerator(nn.Module):
    """Halve twice, change by residual blocks, double back twice.

    Every hidden convolution is followed by instance norm without weights. Convolutions keep their biases, which the
    norm cancels, because the published weights have them. Borders are reflected, except in the four convolutions that
    change the size.

    Args:
        channels: after the first convolution; doubled at each halving.
        blocks: residual blocks at the coarsest size.
        in_channels: of the images that come in.
        out_channels: of the images that go out.
    """

    multiple = 4
    """Both sides of the images must be multiples of this."""

    def __init__(self, channels: int = 64, blocks: int = 9, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        wide, wider = 2 * channels, 4 * channels
        self.down = nn.Sequential(
            nn.Conv2d(in_channels, channels, 7, padding=3, padding_mode="reflect"),
            make_norm("instance", channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, wide, 3, stride=2, padding=1),
            make_norm("instance", wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wider, 3, stride=2, padding=1),
            make_norm("instance", wider),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(wider) for _ in range(blocks)))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(wider, wide, 3, stride=2, padding=1, output_padding=1),
            make_norm("instance", wide),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(wide, channels, 3, stride=2, padding=1, output_padding=1),
            make_norm("instance", channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, out_channels, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Restyle images.

        Args:
            images: (N, in_channels, H, W) floats −1..1; H and W multiples of 4.

        Returns:
            (N, out_channels, H, W) floats −1..1.

        Raises:
            InputError: sides that are no multiples of 4.
        """
        check_sides(images, self.multiple)
        out: Tensor = self.up(self.blocks(self.down(images)))
        return out


class ResidualBlock(nn.Module):
    """Two reflected 3 × 3 convolutions with instance norm, added to what came in; no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            make_norm("instance", channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"),
            make_norm("instance", channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        out: Tensor = maps + self.layers(maps)
        return out
