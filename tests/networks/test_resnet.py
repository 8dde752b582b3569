"""Res9 against the paper's layers written as plain functions, and what its generator promises."""

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.errors import InputError  # noqa: E402
from restain.networks.blocks import InstanceNorm  # noqa: E402
from restain.networks.initialization import initialize  # noqa: E402
from restain.networks.resnet import ResnetGenerator  # noqa: E402


def make(**options: int) -> ResnetGenerator:
    return initialize(ResnetGenerator(**options), 0.1, generator=torch.Generator().manual_seed(0)).double()


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def by_the_paper(images: Tensor, parameters: list[Tensor], blocks: int) -> Tensor:
    """c7s1, d, d, R…, u, u, c7s1, tanh; weights taken in order."""
    left = iter(parameters)

    def reflected(maps: Tensor, margin: int) -> Tensor:
        return F.conv2d(F.pad(maps, (margin,) * 4, mode="reflect"), next(left), next(left))

    def norm(maps: Tensor) -> Tensor:
        centred = maps - maps.mean(dim=(2, 3), keepdim=True)
        return centred / (centred.square().mean(dim=(2, 3), keepdim=True) + 1e-5).sqrt()

    maps = norm(reflected(images, 3)).relu()
    for _ in range(2):
        maps = norm(F.conv2d(maps, next(left), next(left), stride=2, padding=1)).relu()
    for _ in range(blocks):
        inner = norm(reflected(maps, 1)).relu()
        maps = maps + norm(reflected(inner, 1))
    for _ in range(2):
        maps = norm(F.conv_transpose2d(maps, next(left), next(left), 2, 1, 1)).relu()
    out = reflected(maps, 3).tanh()
    assert not list(left)
    return out


@pytest.mark.parametrize("mode", [True, False])
def test_it_is_the_papers(mode: bool) -> None:
    network = make(channels=4, blocks=3).train(mode)
    images = random_images(2, 3, 32, 44)
    with torch.no_grad():
        wanted = by_the_paper(images, list(network.parameters()), 3)
        torch.testing.assert_close(network(images), wanted)


def test_shapes_and_range() -> None:
    network = ResnetGenerator(channels=4, blocks=1, in_channels=1, out_channels=2)
    assert network.multiple == 4
    with torch.no_grad():
        out = network(torch.rand(2, 1, 20, 36) * 2 - 1)
    assert out.shape == (2, 2, 20, 36)
    assert out.abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 3, 32, 30), (3, 32, 32), (1, 3, 0, 32)])
def test_other_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="wanted"):
        make(channels=2, blocks=1)(torch.zeros(shape, dtype=torch.float64))


def test_every_parameter_before_a_norm_but_biases_gets_a_gradient() -> None:
    """Instance norm takes any constant away again, so the biases before it cannot learn."""
    network = make(channels=4, blocks=1)
    network(random_images(1, 3, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        strength = parameter.grad.abs().max()
        if name.endswith("bias") and name != "up.6.bias":
            assert strength < 1e-12, name
        else:
            assert strength > 1e-9, name


def test_norms_can_be_found() -> None:
    norms = [module for module in ResnetGenerator().modules() if isinstance(module, nn.InstanceNorm2d)]
    assert len(norms) == 1 + 2 + 18 + 2
    assert not any(norm.affine or norm.track_running_stats for norm in norms)


@pytest.mark.parametrize("images", [1, 3])
def test_instance_norm_is_the_same_with_channels_last(images: int) -> None:
    """Values and gradients as PyTorch's own, and the layout is kept."""
    generator = torch.Generator().manual_seed(0)
    maps, weights = (torch.randn(images, 5, 8, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    plain = maps.clone().requires_grad_()
    turned = maps.clone().to(memory_format=torch.channels_last).requires_grad_()
    wanted, made = nn.InstanceNorm2d(5)(plain), InstanceNorm(5)(turned)
    torch.testing.assert_close(made, wanted, rtol=1e-12, atol=1e-12)
    assert made.is_contiguous(memory_format=torch.channels_last)
    (wanted * weights).sum().backward()
    (made * weights).sum().backward()
    torch.testing.assert_close(turned.grad, plain.grad, rtol=1e-10, atol=1e-12)
