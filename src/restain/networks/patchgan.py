"""The discriminator of pix2pix and CycleGAN: is each patch of the image real?

Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", 2017.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from restain.networks.blocks import Norm, make_norm


class PatchDiscriminator(nn.Module):
    """A map of logits, one a patch. With three layers a patch is 70 × 70 pixels, with one 16 × 16.

    All convolutions are 4 × 4 with zero padding 1, followed by LeakyReLU 0.2 but for the last; the last two have stride
    1, the others 2. All but the first and the last are normalized.

    Args:
        layers: convolutions of stride 2; there are two more. The literature counts so: "PatchGAN(3)" has five.
        channels: after the first convolution; doubled three times at most, then kept.
        in_channels: of the images; 6 where the condition and the image are given together, one after the other.
        norm: "batch" or "instance". A convolution before batch norm has no bias, as in the papers' code.
    """

    def __init__(self, layers: int = 3, channels: int = 64, in_channels: int = 3, norm: Norm = "instance") -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, layers + 1):
            before, width = width, channels * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            modules += [
                nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=norm == "instance"),
                make_norm(norm, width),
                nn.LeakyReLU(0.2),
            ]
        modules.append(nn.Conv2d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*modules)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images.

        Args:
            images: (N, in_channels, H, W) floats −1..1.

        Returns:
            (N, 1, h, w) logits, positive for "real"; no sigmoid. 256 × 256 pixels give 30 × 30 with three layers.
        """
        logits: Tensor = self.layers(images)
        return logits

    def receptive_field(self) -> int:
        """Side, in pixels, of the square that one logit sees, but for what the norms carry from further away."""
        return receptive_field(self.layers)


def receptive_field(layers: Iterable[nn.Module]) -> int:
    """Side of the square of input pixels that one output of convolutions, one after another, sees."""
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    side = 1
    for convolution in reversed(convolutions):
        side = (side - 1) * convolution.stride[0] + convolution.kernel_size[0]
    return side
