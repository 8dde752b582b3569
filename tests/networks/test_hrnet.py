"""HRNet's generator against its layers written as plain functions, and what it promises."""

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.errors import InputError  # noqa: E402
from restain.networks.hrnet import HRNetGenerator  # noqa: E402
from restain.networks.initialization import initialize  # noqa: E402
from restain.networks.norm_statistics import folded, frozen, running  # noqa: E402

SMALL = [{"width": 2}, {"width": 3, "stem_stride": 4}, {"width": 4, "stem_stride": 1, "body": "lite"}]


def random_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def lively(**arguments) -> HRNetGenerator:
    """With weights of any size, also where it begins with 0, and running statistics that matter; float64."""
    generator = torch.Generator().manual_seed(0)
    network = initialize(HRNetGenerator(**arguments), 0.15, generator=generator).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network


class ByHand:
    """The figure of Sun et al. 2019, branch by branch, with the weights of a network, in evaluation mode."""

    def __init__(self, network: HRNetGenerator) -> None:
        self.weights = network.state_dict()

    def norm(self, maps: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            self.weights[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / (variance + 1e-5).sqrt() * scale + shift

    def unit(self, maps: Tensor, name: str, stride: int = 1, first: int = 0) -> Tensor:
        """Convolution and norm; `first` is where in a sequence the convolution stands."""
        weight = self.weights[f"{name}.{first}.weight"]
        maps = F.conv2d(maps, weight, stride=stride, padding=weight.shape[-1] // 2)
        return self.norm(maps, f"{name}.{first + 1}")

    def bottleneck(self, maps: Tensor, name: str) -> Tensor:
        inner = self.unit(maps, f"{name}.layers").relu()
        inner = self.unit(inner, f"{name}.layers", first=3).relu()
        inner = self.unit(inner, f"{name}.layers", first=6)
        same = f"{name}.shortcut.0.weight" not in self.weights
        return (inner + (maps if same else self.unit(maps, f"{name}.shortcut"))).relu()

    def exchange(self, branches: list[Tensor], name: str) -> list[Tensor]:
        seen = []
        for number, maps in enumerate(branches):
            for block in range(2):
                layers = f"{name}.branches.{number}.{block}.layers"
                inner = self.unit(self.unit(maps, layers).relu(), layers, first=3)
                maps = (inner + maps).relu()
            seen.append(maps)
        fused = []
        for goal in range(len(seen)):
            total = seen[goal].clone()
            for origin, maps in enumerate(seen):
                layers = f"{name}.fuse.{goal}.{origin}"
                if origin > goal:
                    maps = self.unit(maps, layers)
                    for axis in (2, 3):
                        maps = maps.repeat_interleave(2 ** (origin - goal), dim=axis)
                    total += maps
                for step in range(goal - origin):
                    maps = self.unit(maps, f"{layers}.{step}", stride=2)
                    maps = maps.relu() if step < goal - origin - 1 else maps
                total = total + maps if origin < goal else total
            fused.append(total.relu())
        return fused

    def __call__(self, images: Tensor, strides: tuple[int, int], bottlenecks: int, modules: tuple[int, ...]) -> Tensor:
        maps = self.unit(images, "stem.0", strides[0]).relu()
        maps = self.unit(maps, "stem.1", strides[1]).relu()
        for number in range(bottlenecks):
            maps = self.bottleneck(maps, f"stem.{2 + number}")
        branches = [self.unit(maps, "first.0").relu(), self.unit(maps, "first.1", 2).relu()]
        for stage, count in enumerate(modules):
            if stage:
                branches.append(self.unit(branches[-1], f"halve.{stage - 1}", 2).relu())
            for module in range(count):
                branches = self.exchange(branches, f"stages.{stage}.{module}")
        size = branches[0].shape[2:]
        wide = torch.cat([F.interpolate(maps, size, mode="bilinear", align_corners=False) for maps in branches], 1)
        merged = F.interpolate(self.unit(wide, "merge").relu(), images.shape[2:], mode="bilinear", align_corners=False)
        return images + F.conv2d(merged, self.weights["last.0.weight"], self.weights["last.0.bias"], padding=1)


@pytest.mark.parametrize(
    ("arguments", "plan"),
    [
        (SMALL[0], ((2, 1), 2, (1, 3, 2))),
        (SMALL[1], ((2, 2), 2, (1, 3, 2))),
        (SMALL[2], ((1, 1), 1, (1, 1, 1))),
    ],
    ids=["W18's body", "canonical stem", "lite"],
)
def test_it_is_hrnet(arguments: dict, plan: tuple) -> None:
    network = lively(**arguments).eval()
    images = random_images(2, 3, network.multiple * 2, network.multiple)
    with torch.no_grad():
        made, wanted = network(images), ByHand(network)(images, *plan)
    torch.testing.assert_close(made, wanted)
    assert (made - images).abs().mean() > 0.1


@pytest.mark.parametrize("arguments", SMALL)
@pytest.mark.parametrize("training", [True, False])
def test_it_begins_as_the_identity(arguments: dict, training: bool) -> None:
    """Exactly, whatever the other weights are."""
    network = lively(**arguments)
    network.start_as_identity()
    images = random_images(2, 3, 2 * network.multiple, 2 * network.multiple) * 3 - 1
    assert torch.equal(network.train(training)(images), images)
    fresh = HRNetGenerator(**arguments).train(training)
    assert torch.equal(fresh(images.float()), images.float())


def test_nothing_is_clamped() -> None:
    network = lively(**SMALL[2]).eval()
    network.last[0].bias.data.fill_(5.0)
    with torch.no_grad():
        assert network(random_images(1, 3, 16, 16)).max() > 1


@pytest.mark.parametrize("arguments", SMALL)
def test_every_weight_learns(arguments: dict) -> None:
    network = lively(**arguments).train()
    network(random_images(2, 3, 2 * network.multiple, 2 * network.multiple)).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.abs().max() > 0, name


def test_from_the_identity_the_last_layer_learns_first() -> None:
    network = HRNetGenerator(**SMALL[2]).double().train()
    network(random_images(2, 3, 16, 16)).square().mean().backward()
    assert network.last[0].weight.grad.abs().max() > 0
    assert network.stem[0][0].weight.grad.abs().max() == 0


def test_norms_fold_into_the_convolutions() -> None:
    network = lively(**SMALL[0]).eval()
    images = random_images(1, 3, 32, 32)
    merged = folded(frozen(network, running(network)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    with torch.no_grad():
        torch.testing.assert_close(merged(images), network(images))


@pytest.mark.parametrize(("stride", "multiple"), [(1, 8), (2, 16), (4, 32)])
def test_sides_must_be_multiples(stride: int, multiple: int) -> None:
    network = HRNetGenerator(2, stride, "lite").eval()
    assert network.multiple == multiple
    assert network(torch.zeros(1, 3, multiple, 2 * multiple)).shape == (1, 3, multiple, 2 * multiple)
    with pytest.raises(InputError, match=f"wanted sides that are multiples of {multiple}"):
        network(torch.zeros(1, 3, multiple, multiple + multiple // 2))
