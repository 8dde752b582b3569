"""STST's networks: Keras's padding and norms, the sizes, and the receptive field of 142."""

import numpy as np
import pytest
from scipy.signal import correlate2d

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.networks.initialization import initialize  # noqa: E402
from restain.networks.stst import StstDiscriminator, StstGenerator  # noqa: E402

NORMS = (nn.InstanceNorm2d, nn.BatchNorm2d)


def test_receptive_field_by_formula_and_gradient() -> None:
    network = StstDiscriminator(channels=2)
    assert network.receptive_field() == 142
    for name, module in list(network.named_modules()):
        if isinstance(module, NORMS):
            network.set_submodule(name, nn.Identity())
    for parameter in network.parameters():  # nothing cancels
        nn.init.constant_(parameter, 0.01)
    images = torch.ones(1, 6, 512, 512, requires_grad=True)
    network(images)[0, 0, 16, 16].backward()
    rows, columns = images.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    assert int(rows.max() - rows.min()) + 1 == int(columns.max() - columns.min()) + 1 == 142
    # "same": of the two convolutions of stride 1, each looks one step to the left and two to the right, of 16 pixels;
    # the four of stride 2 reach 15 pixels to each side of their own 16.
    assert int(rows.min()) == 16 * 16 - 2 * 16 - 15
    assert int(rows.max()) == 16 * 16 + 15 + 4 * 16 + 15


def test_stride_1_is_padded_as_keras_does() -> None:
    """Keras pads a kernel of 4 by 3 in all, the smaller half first: (3 // 2, 3 − 3 // 2)."""
    network = StstDiscriminator(channels=1)
    last = [module for module in network.layers if isinstance(module, nn.Conv2d)][-1]
    padding = network.layers[-2]
    maps = np.random.default_rng(0).normal(size=(last.in_channels, 5, 7))
    padded = np.pad(maps, ((0, 0), (1, 2), (1, 2)))
    weight, bias = last.weight[0].detach().double().numpy(), last.bias.item()
    wanted = sum(correlate2d(m, w, mode="valid") for m, w in zip(padded, weight, strict=True)) + bias
    with torch.no_grad():
        out = nn.Sequential(padding, last).double()(torch.from_numpy(maps)[None])
    np.testing.assert_allclose(out[0, 0].numpy(), wanted, rtol=1e-9, atol=1e-9)


def test_shapes_and_ranges() -> None:
    image = torch.rand(1, 3, 256, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generator = StstGenerator(channels=2)
    assert generator.multiple == 256
    with torch.no_grad():
        out = generator(image)
        assert out.shape == image.shape
        assert out.abs().max() <= 1
        assert StstDiscriminator(channels=2)(torch.cat([image, out], dim=1)).shape == (1, 1, 16, 32)


def test_norms_are_keras_s() -> None:
    for network, count in ((StstGenerator(channels=1), 13), (StstDiscriminator(channels=1), 4)):
        norms = [module for module in network.modules() if isinstance(module, NORMS)]
        assert len(norms) == count
        assert all(isinstance(norm, nn.BatchNorm2d) and norm.affine for norm in norms)
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert all(convolution.bias is not None for convolution in convolutions)


def test_running_statistics_move_by_a_hundredth() -> None:
    """Keras's momentum 0.99 keeps 0.99 of the old ones."""
    norm = StstGenerator(channels=4).down[1][2].train()
    maps = torch.randn(1, norm.num_features, 8, 8, generator=torch.Generator().manual_seed(0)) + 5
    norm(maps)
    torch.testing.assert_close(norm.running_mean, 0.01 * maps.mean(dim=(0, 2, 3)))


def test_one_image_can_be_trained_on() -> None:
    network = initialize(StstGenerator(channels=4), 0.1, generator=torch.Generator().manual_seed(0)).train()
    out = network(torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    out.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if parameter.ndim == 4:
            assert parameter.grad.abs().max() > 0, name


def test_dropout_stands_in_the_three_innermost_levels() -> None:
    up = StstGenerator(channels=1).up
    assert [isinstance(layers[-1], nn.Dropout) for layers in up] == [True] * 3 + [False] * 5
    assert {layers[-1].p for layers in list(up)[:3]} == {0.5}


def test_widths_on_the_way_up() -> None:
    """After the concat: the widths that the Keras code gives each transposed convolution."""
    transposed = [m for m in StstGenerator().modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in transposed] == [512, 512, 512, 512, 256, 128, 64, 3]
    assert [m.in_channels for m in transposed] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]


def test_relu_stands_after_the_concat() -> None:
    """What is handed across passes it too: negative values there change nothing on the way up."""
    network = StstGenerator(channels=2).eval()
    seen: list[torch.Tensor] = []
    network.up[-1][1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    across = seen[0][:, :2]
    assert seen[0].min() >= 0
    assert (across == 0).any()
    assert (across > 0).any()


@pytest.mark.parametrize(("make", "channels", "multiple"), [(StstGenerator, 3, 256), (StstDiscriminator, 6, 16)])
def test_other_sizes_are_refused(make, channels: int, multiple: int) -> None:
    with pytest.raises(InputError, match=f"multiples of {multiple}"):
        make(channels=1)(torch.zeros(1, channels, 250, 256))
