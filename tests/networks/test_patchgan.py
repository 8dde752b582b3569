"""PatchGAN: what one logit sees, by the formula and by the gradient; and its layers."""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)

from restain.networks.patchgan import PatchDiscriminator  # noqa: E402


def seen_by_one_logit(network: nn.Module, side: int, channels: int) -> tuple[int, int]:
    """Height and width of the input pixels that change one logit amid the map, the norms aside."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.InstanceNorm2d | nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
    for parameter in network.parameters():  # nothing cancels
        nn.init.constant_(parameter, 0.01)
    images = torch.ones(1, channels, side, side, requires_grad=True, dtype=torch.float64)
    logits = network.double()(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert images.grad is not None
    rows, columns = images.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field(layers: int, side: int) -> None:
    network = PatchDiscriminator(layers, channels=2)
    assert network.receptive_field() == side
    assert seen_by_one_logit(network, 4 * side, 3) == (side, side)


@pytest.mark.parametrize(("layers", "out"), [(1, 126), (3, 30)])
def test_shapes(layers: int, out: int) -> None:
    with torch.no_grad():
        assert PatchDiscriminator(layers, channels=4)(torch.zeros(2, 3, 256, 256)).shape == (2, 1, out, out)


def test_three_layers_are_five_convolutions() -> None:
    convolutions = [module for module in PatchDiscriminator().layers if isinstance(module, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert [c.stride[0] for c in convolutions] == [2, 2, 2, 1, 1]
    widths = [m.out_channels for m in PatchDiscriminator(layers=5).layers if isinstance(m, nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 512, 512, 1]


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_norms_stand_after_all_but_the_first_and_the_last(norm: str) -> None:
    kind = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}[norm]
    layers = list(PatchDiscriminator(norm=norm).layers)
    followed = [isinstance(after, kind) for layer, after in pairwise(layers) if is_conv(layer)]
    assert followed == [False, True, True, True]  # after the last stands nothing
    assert is_conv(layers[-1])
    biases = [layer.bias is not None for layer in layers if is_conv(layer)]
    assert biases == ([True] * 5 if norm == "instance" else [True, False, False, False, True])


def is_conv(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d)


def test_logits_are_not_bounded() -> None:
    """There is no sigmoid: doubling the last layer doubles the logits."""
    network = PatchDiscriminator(layers=1, channels=4).eval()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before: Tensor = network(images)
        for parameter in network.layers[-1].parameters():
            parameter.mul_(-300)
        torch.testing.assert_close(network(images), -300 * before, rtol=1e-4, atol=1e-3)
    assert network(images).abs().max() > 1
