"""Johnson's transform network against its layers written as plain functions, and what it promises."""

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.errors import InputError  # noqa: E402
from restain.networks.inference import fast  # noqa: E402
from restain.networks.initialization import initialize  # noqa: E402
from restain.networks.johnson import JohnsonGenerator  # noqa: E402


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def lively() -> JohnsonGenerator:
    generator = torch.Generator().manual_seed(0)
    network = initialize(JohnsonGenerator(channels=3, blocks=2), 0.2, generator=generator).double()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            module.bias.data.normal_(0, 0.2, generator=generator)
        if isinstance(module, nn.InstanceNorm2d):
            module.weight.data.normal_(1, 0.3, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return network


def by_hand(network: JohnsonGenerator, images: Tensor) -> Tensor:
    """Johnson et al. 2016, supplementary, with reflected borders and instance norm."""
    weights = network.state_dict()

    def convolved(maps: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        side = weight.shape[-1] // 2
        padded = F.pad(maps, (side,) * 4, mode="reflect")
        return F.conv2d(padded, weight, weights.get(f"{name}.bias"), stride=stride)

    def normed(maps: Tensor, name: str) -> Tensor:
        variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0, keepdim=True)
        scale, shift = weights[f"{name}.weight"][:, None, None], weights[f"{name}.bias"][:, None, None]
        return (maps - mean) / (variance + 1e-5).sqrt() * scale + shift

    maps = 2 * images - 1
    for place, stride in ((0, 1), (3, 2), (6, 2)):
        maps = normed(convolved(maps, f"down.{place}", stride), f"down.{place + 1}").relu()
    for block in range(2):
        name = f"blocks.{block}.layers"
        inner = normed(convolved(maps, f"{name}.0"), f"{name}.1").relu()
        maps = maps + normed(convolved(inner, f"{name}.3"), f"{name}.4")
    for place in (0, 3):
        maps = F.conv_transpose2d(
            maps, weights[f"up.{place}.weight"], weights[f"up.{place}.bias"], stride=2, padding=1, output_padding=1
        )
        maps = normed(maps, f"up.{place + 1}").relu()
    return (convolved(maps, "up.6").tanh() + 1) / 2


def test_it_is_johnsons() -> None:
    network, images = lively(), random_images(2, 3, 24, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(images), by_hand(network, images))


def test_the_range_is_kept_and_every_weight_learns() -> None:
    network = lively().train()
    out = network(random_images(2, 3, 16, 20))
    assert out.shape == (2, 3, 16, 20)
    assert 0 <= out.min() < 0.4
    assert 0.6 < out.max() <= 1
    out.square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_it_can_be_run_in_bfloat16() -> None:
    """The last layer is left in float32 there, and must be found."""
    network = lively().float()
    images = random_images(1, 3, 32, 32).float()
    made = fast(network, (1, 3, 32, 32), precision="bfloat16")(images)
    with torch.no_grad():
        assert (made - network(images)).abs().mean() < 0.02


def test_sides_must_be_multiples() -> None:
    with pytest.raises(InputError, match="16 × 18; wanted sides that are multiples of 4"):
        lively()(random_images(1, 3, 16, 18))
