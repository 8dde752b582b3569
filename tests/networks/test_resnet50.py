"""ResNet-50: torchvision's names, a forward pass written out, and dilation that changes no place that was there."""

from itertools import product
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.networks.backbones.resnet import ResNet50  # noqa: E402
from restain.networks.backbones.weights import FILES, find_weights, load_into, read_weights  # noqa: E402


def lively(network: ResNet50, seed: int = 0) -> ResNet50:
    """In float64 and evaluation mode, with running statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, values in network.double().state_dict().items():
        if "running" in name or ("bn" in name and values.is_floating_point()):
            values.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def by_hand(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """He et al. 2016, table 1, the column of 50 layers; the stride of a bottleneck is that of its 3 × 3."""

    def norm(maps: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / (variance + 1e-5).sqrt() * scale + shift

    maps = norm(F.conv2d(images, state["conv1.weight"], stride=2, padding=3), "bn1").clamp(min=0)
    maps = F.max_pool2d(maps, 3, 2, 1)
    for layer, count in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(count):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            out = norm(F.conv2d(maps, state[f"{name}.conv1.weight"]), f"{name}.bn1").clamp(min=0)
            out = F.conv2d(out, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            out = F.conv2d(norm(out, f"{name}.bn2").clamp(min=0), state[f"{name}.conv3.weight"])
            if block == 0:
                shortcut = F.conv2d(maps, state[f"{name}.downsample.0.weight"], stride=stride)
                maps = norm(shortcut, f"{name}.downsample.1")
            maps = (maps + norm(out, f"{name}.bn3")).clamp(min=0)
    return maps.flatten(2).mean(2) @ state["fc.weight"].T + state["fc.bias"]


def test_torchvisions_names() -> None:
    with torch.device("meta"):
        names = list(ResNet50().state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{part}" for part in norm)}
    for layer, count in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block, number in product(range(count), (1, 2, 3)):
            wanted |= {f"layer{layer}.{block}.conv{number}.weight"}
            wanted |= {f"layer{layer}.{block}.bn{number}.{part}" for part in norm}
        wanted |= {f"layer{layer}.0.downsample.0.weight", *(f"layer{layer}.0.downsample.1.{part}" for part in norm)}
    assert set(names) == wanted
    assert len(names) == 320


@pytest.mark.parametrize(("classes", "count"), [(1000, 25_557_032), (2, 23_512_130), (0, 23_508_032)])
def test_sizes(classes: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(weight.numel() for weight in ResNet50(classes).parameters()) == count


def test_scores_are_those_written_out() -> None:
    torch.manual_seed(0)
    network = lively(ResNet50(5, width=4))
    images = torch.randn(2, 3, 70, 64, dtype=torch.float64)
    with torch.no_grad():
        scores = network(images)
        torch.testing.assert_close(scores, by_hand(network.state_dict(), images), rtol=1e-9, atol=1e-9)
    assert scores.std() > 1e-3


def test_without_classes_it_gives_maps() -> None:
    torch.manual_seed(0)
    whole = lively(ResNet50(5, width=4))
    trunk = load_into(ResNet50(0, width=4).double(), whole.state_dict(), "memory")  # its fc is left out
    images = torch.randn(1, 3, 96, 65, dtype=torch.float64)
    with torch.no_grad():
        maps = trunk(images)
        assert maps.shape == (1, 128, 3, 3)
        torch.testing.assert_close(whole.fc(maps.mean(dim=(2, 3))), whole(images))


def test_dilated_maps_are_denser_and_hold_the_others() -> None:
    """À trous: with weights and images the same, every fourth place of the dense maps is one of the coarse ones."""
    torch.manual_seed(0)
    coarse, dense = lively(ResNet50(0, width=4)), lively(ResNet50(0, width=4, dilated=True))
    dense.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        maps = dense(images)
        assert maps.shape == (1, 128, 8, 12)
        torch.testing.assert_close(maps[..., ::4, ::4], coarse(images), rtol=1e-9, atol=1e-9)


def test_weights_load_from_their_file(tmp_path: Path) -> None:
    network = ResNet50(3, width=4)
    torch.save(network.state_dict(), tmp_path / FILES["resnet50"][0])
    path = find_weights("resnet50", tmp_path / FILES["resnet50"][0])
    loaded = load_into(ResNet50(3, width=4), read_weights(path), path)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_first_weights_are_kaimings() -> None:
    """Variance 2 / (channels out × kernel's places), as torchvision's own training starts."""
    torch.manual_seed(0)
    network = ResNet50(2, width=16)
    for convolution in (network.conv1, network.layer4[1].conv2):
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        assert float(convolution.weight.detach().var()) == pytest.approx(2 / fan_out, rel=0.1)
