"""UNet256 against pix2pix's layers written as plain functions, and what its generator promises."""

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.errors import InputError  # noqa: E402
from restain.networks.initialization import initialize  # noqa: E402
from restain.networks.unet import UNetGenerator  # noqa: E402


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def level(network: UNetGenerator, maps: Tensor, depth: int, norm, inner: int) -> Tensor:
    """One level of pix2pix's nested blocks: what goes into it beside what comes out, as the code builds it."""

    def down(maps: Tensor, number: int) -> Tensor:
        layer = network.down[number]
        convolution = layer if isinstance(layer, nn.Conv2d) else layer[1]
        return F.conv2d(maps, convolution.weight, convolution.bias, stride=2, padding=1)

    def up(maps: Tensor, number: int) -> Tensor:
        convolution = network.up[depth - 1 - number][1]
        return F.conv_transpose2d(maps, convolution.weight, convolution.bias, stride=2, padding=1)

    if inner == 0:
        return up(F.relu(level(network, down(maps, 0), depth, norm, 1)), 0).tanh()
    lower = down(F.leaky_relu(maps, 0.2), inner)
    if inner < depth - 1:
        lower = level(network, norm(lower), depth, norm, inner + 1)
    return torch.cat([maps, norm(up(F.relu(lower), inner))], dim=1)


def normalized(maps: Tensor, dimensions: tuple[int, ...]) -> Tensor:
    centred = maps - maps.mean(dim=dimensions, keepdim=True)
    return centred / (centred.square().mean(dim=dimensions, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize(("norm", "dimensions"), [("instance", (2, 3)), ("batch", (0, 2, 3))])
def test_it_is_the_papers(norm: str, dimensions: tuple[int, ...]) -> None:
    network = initialize(
        UNetGenerator(depth=6, channels=3, norm=norm), 0.1, generator=torch.Generator().manual_seed(0)
    ).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    images = random_images(2, 3, 64, 128)
    with torch.no_grad():
        wanted = level(network, images, 6, lambda maps: normalized(maps, dimensions), 0)
        torch.testing.assert_close(network(images), wanted)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_one_image_of_the_smallest_size_can_be_trained_on(norm: str) -> None:
    """The innermost maps are 1 × 1 and have no norm; every weight gets a gradient."""
    network = UNetGenerator(channels=4, norm=norm, dropout=True).train()
    initialize(network, 0.1, generator=torch.Generator().manual_seed(0))
    out = network(torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    assert out.shape == (1, 3, 256, 256)
    assert out.abs().max() <= 1
    out.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if parameter.ndim == 4:
            assert parameter.grad.abs().max() > 0, name


def test_dropout_stands_at_three_levels_and_rests_in_evaluation() -> None:
    network = UNetGenerator(channels=2, dropout=True)
    found = [number for number, layers in enumerate(network.up) if isinstance(layers[-1], nn.Dropout)]
    assert found == [1, 2, 3]  # the innermost level is 0
    assert not any(isinstance(module, nn.Dropout) for module in UNetGenerator(channels=2).modules())
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.eval()
        torch.testing.assert_close(network(image), network(image), rtol=0, atol=0)


def test_sides_must_be_multiples() -> None:
    network = UNetGenerator(depth=5, channels=2)
    assert network.multiple == 32
    assert UNetGenerator(channels=2).multiple == 256
    with pytest.raises(InputError, match="48 × 64; wanted sides that are multiples of 32"):
        network(torch.zeros(1, 3, 48, 64))


def test_other_norms_are_refused() -> None:
    with pytest.raises(InputError, match="'instance' or 'batch'"):
        UNetGenerator(norm="layer")
