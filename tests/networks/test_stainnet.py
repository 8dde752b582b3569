"""StainNet's network: a map of colours when its kernels are 1, else a small neighbourhood's."""

import numpy as np
import pytest

import restain

torch = pytest.importorskip("torch")

from restain.errors import InputError  # noqa: E402  (after the skip)
from restain.networks.stainnet import TABLE_4, PixelNetwork  # noqa: E402


def make(**options: object) -> PixelNetwork:
    torch.manual_seed(0)
    return PixelNetwork(**options)


def random_images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_it_commutes_with_permutations_of_pixels() -> None:
    network, images = make(), random_images(2, 3, 8, 5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))

    def permute(maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(2)[:, :, order].view_as(maps)

    with torch.no_grad():
        torch.testing.assert_close(network(permute(images)), permute(network(images)))


def test_it_is_the_normalizer_s_map() -> None:
    """The float64 network of `restain.StainNet` on the same weights, whose numbers are levels."""
    network = make()
    weights = {}
    for number, layer in enumerate(network.layers[::2], start=1):
        weights[f"weight{number}"] = layer.weight.detach().double().numpy()[:, :, 0, 0]
        weights[f"bias{number}"] = layer.bias.detach().double().numpy()
    levels = np.random.default_rng(0).uniform(0, 255, (20, 3))
    images = torch.from_numpy(levels / 127.5 - 1).T.reshape(1, 3, 4, 5).float()
    with torch.no_grad():
        out = network(images)[0].flatten(1).T.clamp(-1, 1).numpy() * 127.5 + 127.5
    np.testing.assert_allclose(out, restain.StainNet(weights=weights).evaluate(levels), atol=1e-3)


def test_output_is_not_bounded() -> None:
    network = make()
    with torch.no_grad():
        network.layers[-1].bias.fill_(7)
        assert network(random_images(1, 3, 4, 4)).min() > 5


def test_weights_start_as_pytorch_draws_them() -> None:
    """Kaiming uniform with a = √5: bounds 1 / √(inputs), which N(0, 0.02) would not fill."""
    for layer in make(channels=64).layers[::2]:
        bound = layer.in_channels**-0.5
        assert 0.8 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize("name", TABLE_4)
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_what_one_pixel_sees(name: str, padding: str) -> None:
    kernels = TABLE_4[name]
    network = make(kernels=kernels, padding=padding)
    images = random_images(1, 3, 15, 15).requires_grad_()
    out = network(images)
    assert out.shape == images.shape
    out[0, :, 7, 7].sum().backward()
    rows, columns = images.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    reach = kernels.count(3)
    assert (int(rows.min()), int(rows.max())) == (int(columns.min()), int(columns.max())) == (7 - reach, 7 + reach)


def test_borders_are_reflected_or_gray() -> None:
    """A flat image stays flat to its borders when they are reflected; beside the gray of zeros it does not."""
    flat = torch.full((1, 3, 9, 9), 0.6)
    with torch.no_grad():
        reflected, gray = (make(kernels=(3, 3, 3), padding=padding)(flat) for padding in ("reflect", "zeros"))
    torch.testing.assert_close(reflected, reflected[:, :, 4:5, 4:5].expand_as(reflected))
    assert (gray[:, :, 0, 0] - gray[:, :, 4, 4]).abs().max() > 1e-3


def test_layers_and_channels() -> None:
    network = make(channels=5, layers=2)
    assert [tuple(layer.weight.shape) for layer in network.layers[::2]] == [(5, 3, 1, 1), (3, 5, 1, 1)]
    assert network.multiple == 1
    assert network(random_images(1, 3, 1, 7)).shape == (1, 3, 1, 7)


@pytest.mark.parametrize("options", [{"kernels": (1, 2, 1)}, {"kernels": ()}, {"layers": 0}, {"padding": "wrap"}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="wanted"):
        PixelNetwork(**options)
