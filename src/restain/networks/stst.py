"""The networks of stain-to-stain translation, as its Keras code builds them.

Salehi & Chalechale, "Pix2Pix-based stain-to-stain translation: a solution for robust stain normalization in
histopathology images analysis", 2020.
"""

from torch import Tensor, nn

from restain.networks.blocks import check_sides
from restain.networks.patchgan import receptive_field
from restain.networks.unet import forward_unet


class StstGenerator(nn.Module):
    """A U-Net with batch norm in Keras's manner: biases everywhere, ε = 1e-3.

    It differs from `UNetGenerator` in these, in that the first three levels on the way up have Dropout 0.5, and in the
    ReLU (not LeakyReLU) that the innermost maps pass once. The authors leave batch statistics and dropout on when they
    test (`restain.networks.norm_statistics.per_image` gives each image its own statistics without dropout).

    Args:
        channels: after the first convolution; doubled three times, then kept.
    """

    multiple = 256
    """Both sides of the images must be multiples of this."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(8)]
        down: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1)]
        for level in range(1, 8):
            layers = [nn.LeakyReLU(0.2), nn.Conv2d(widths[level - 1], widths[level], 4, stride=2, padding=1)]
            if level < 7:
                layers.append(_norm(widths[level]))
            down.append(nn.Sequential(*layers))
        self.down = nn.ModuleList(down)

        up: list[nn.Module] = []
        for level in range(7, 0, -1):
            width = widths[level] if level == 7 else 2 * widths[level]
            layers = [
                nn.ReLU(),
                nn.ConvTranspose2d(width, widths[level - 1], 4, stride=2, padding=1),
                _norm(widths[level - 1]),
            ]
            if level > 4:
                layers.append(nn.Dropout(0.5))
            up.append(nn.Sequential(*layers))
        up.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * widths[0], 3, 4, stride=2, padding=1), nn.Tanh()))
        self.up = nn.ModuleList(up)

    def forward(self, images: Tensor) -> Tensor:
        """Colour gray images.

        Args:
            images: (N, 3, H, W) floats −1..1, gray, three times the same; H and W multiples of 256.

        Returns:
            (N, 3, H, W) floats −1..1, RGB.

        Raises:
            InputError: sides that are no multiples of 256.
        """
        check_sides(images, self.multiple)
        return forward_unet(images, self.down, self.up)


class StstDiscriminator(nn.Module):
    """Is each patch, of 142 × 142 pixels, the real colouring of its gray image?

    Its padding is Keras's "same": convolutions of stride 1 are given one pixel on the left and above, two on the right
    and below, so that 256 × 256 pixels give 16 × 16 logits.

    Args:
        channels: after the first convolution; doubled three times, then kept.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(6, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for factor in (2, 4, 8):
            before, width = width, factor * channels
            modules += [nn.Conv2d(before, width, 4, stride=2, padding=1), _norm(width), nn.LeakyReLU(0.2)]
        modules += [nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(width, width, 4), _norm(width), nn.LeakyReLU(0.2)]
        modules += [nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(width, 1, 4)]
        self.layers = nn.Sequential(*modules)

    def forward(self, images: Tensor) -> Tensor:
        """Judge coloured images beside their gray ones.

        Args:
            images: (N, 6, H, W) floats −1..1: gray three times, then RGB; H and W multiples of 16.

        Returns:
            (N, 1, H / 16, W / 16) logits, positive for "real"; the paper's sigmoid is left to the loss.

        Raises:
            InputError: sides that are no multiples of 16 (Keras pads these in another way).
        """
        check_sides(images, 16)
        logits: Tensor = self.layers(images)
        return logits

    def receptive_field(self) -> int:
        """Side, in pixels, of the square that one logit sees, but for what the norms carry from further away."""
        return receptive_field(self.layers)


def _norm(channels: int) -> nn.Module:
    # Keras's momentum 0.99 is the weight of the old statistics.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
