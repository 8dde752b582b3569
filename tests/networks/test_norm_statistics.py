"""Frozen norm statistics against a layer-by-layer oracle: as many passes as layers, each with hooks and the formula."""

import copy
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.errors import InputError  # noqa: E402
from restain.networks import norm_statistics  # noqa: E402
from restain.networks.initialization import initialize  # noqa: E402
from restain.networks.resnet import ResnetGenerator  # noqa: E402
from restain.networks.stainnet import PixelNetwork  # noqa: E402
from restain.networks.stst import StstGenerator  # noqa: E402
from restain.networks.unet import UNetGenerator  # noqa: E402

NETWORKS = {
    "Res9": lambda: ResnetGenerator(channels=4, blocks=2),
    "UNet IN": lambda: UNetGenerator(depth=5, channels=4, norm="instance"),
    "UNet BN": lambda: UNetGenerator(depth=5, channels=4, norm="batch", dropout=True),
    "STST": lambda: StstGenerator(channels=2),
}
NORMS = (nn.InstanceNorm2d, nn.BatchNorm2d)


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for two: starting and waiting would take longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(name: str, seed: int = 0) -> nn.Module:
    """A network with weights large enough that each layer's statistics matter, in float64, left in training mode."""
    generator = torch.Generator().manual_seed(seed)
    made = initialize(NETWORKS[name](), std=0.2, generator=generator).double()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return made


def tiles(made: nn.Module, count: int = 3, seed: int = 1) -> Tensor:
    side = max(made.multiple, 32)
    generator = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64), size=(side, side))
    contrast = torch.linspace(0.3, 1, count, dtype=torch.float64).view(-1, 1, 1, 1)  # tiles that differ in spread
    return (smooth + 0.1 * torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64)) * contrast


def formula(layer: nn.Module, maps: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    out = (maps - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + layer.eps) ** 0.5
    return out * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1) if layer.affine else out


def oracle(made: nn.Module, images: Tensor, pooled: bool) -> tuple[np.ndarray, Tensor]:
    """The statistics, one layer a pass, each tile by itself; what the network makes of the tiles with all frozen."""
    made = made.eval()
    layers = [module for module in made.modules() if isinstance(module, NORMS)]
    known: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def freeze(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        if layer in known:
            return formula(layer, inputs[0], *known[layer])
        seen.setdefault(layer, []).append(inputs[0][0].flatten(1))
        return None

    hooks = [layer.register_forward_hook(freeze) for layer in layers]
    with torch.no_grad():
        for layer in layers:
            seen: dict[nn.Module, list[Tensor]] = {}
            for image in images:
                made(image[None])
            if pooled:
                pixels = torch.cat(seen[layer], dim=1)
                known[layer] = (pixels.mean(1), ((pixels - pixels.mean(1, keepdim=True)) ** 2).mean(1))
            else:
                means = [pixels.mean(1) for pixels in seen[layer]]
                variances = [((p - m[:, None]) ** 2).mean(1) for p, m in zip(seen[layer], means, strict=True)]
                known[layer] = (sum(means) / len(means), sum(variances) / len(variances))
        out = torch.cat([made(image[None]) for image in images])
    for hook in hooks:
        hook.remove()
    rows = [torch.cat([known[layer][row] for layer in layers]).numpy() for row in (0, 1)]
    return np.stack(rows), out


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_measures_what_layer_by_layer_does(name: str, pooled: bool) -> None:
    made = network(name)
    images = tiles(made)
    statistics = norm_statistics.collect(made, images, pooled=pooled)
    wanted, wanted_out = oracle(network(name), images, pooled)
    assert statistics.dtype == np.float64
    np.testing.assert_allclose(statistics, wanted, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        out = norm_statistics.frozen(made, wanted)(images)
    torch.testing.assert_close(out, wanted_out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_pooled_differs_where_tiles_do(name: str) -> None:
    made = network(name)
    averaged, pooled = (norm_statistics.collect(made, tiles(made), pooled=pooled) for pooled in (False, True))
    first = next(module for module in made.modules() if isinstance(module, NORMS)).num_features
    np.testing.assert_allclose(averaged[0, :first], pooled[0, :first])
    assert (pooled[1, :first] > averaged[1, :first] * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_one_tile_frozen_is_that_tile_normalized_by_itself(name: str) -> None:
    made = network(name)
    image = tiles(made, count=1)
    statistics = norm_statistics.collect(made, image)
    with torch.no_grad():
        own = norm_statistics.per_image(made)(image)
        out = norm_statistics.frozen(made, statistics)(image)
    torch.testing.assert_close(out, own, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_per_image_gives_each_image_its_own(name: str) -> None:
    """What a batch of one gives in training mode, without dropout; a neighbour in the batch changes nothing."""
    made = network(name)
    images = tiles(made)
    with torch.no_grad():
        out = norm_statistics.per_image(made)(images)
        alone = network(name).train()
        for module in alone.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        wanted = torch.cat([alone(image[None]) for image in images])
    torch.testing.assert_close(out, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_does_not_see_the_rest_of_the_batch(name: str) -> None:
    made = network(name)
    images = tiles(made)
    frozen = norm_statistics.frozen(made, norm_statistics.collect(made, images))
    with torch.no_grad():
        torch.testing.assert_close(frozen(images)[1:2], frozen(images[1:2]), rtol=1e-9, atol=1e-9)


def test_frozen_crops_agree_with_the_whole() -> None:
    """Away from its borders, a crop is mapped as in the whole image; with its own statistics it is not."""
    made = ResnetGenerator(channels=4, blocks=1).double()
    initialize(made, 0.2, generator=torch.Generator().manual_seed(0))
    image = F.interpolate(
        torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64), scale_factor=16
    )
    crop = image[:, :, 32:160, 32:160]
    inner = (slice(None), slice(None), slice(40, 88), slice(40, 88))
    frozen = norm_statistics.frozen(made, norm_statistics.collect(made, image))
    own = norm_statistics.per_image(made)
    with torch.no_grad():
        torch.testing.assert_close(frozen(crop)[inner], frozen(image)[:, :, 32:160, 32:160][inner])
        assert (own(crop)[inner] - own(image)[:, :, 32:160, 32:160][inner]).abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_folding_changes_nothing_but_the_layers(name: str, kind: torch.dtype, tolerance: float) -> None:
    made = network(name).to(kind)
    images = tiles(made).to(kind)
    statistics = norm_statistics.collect(made, images)
    plain = norm_statistics.frozen(made, statistics)
    folded = norm_statistics.folded(norm_statistics.frozen(made, statistics))
    assert not norm_statistics.has_norms(folded)
    assert norm_statistics.has_norms(plain)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), plain(images), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["Res9", "UNet BN"])
def test_float64_is_left_to_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPUs have none: what is counted in it is fetched before."""
    made = network(name).float()
    images = tiles(made).float()
    wanted = norm_statistics.collect(made, images)
    fetched = []

    def cpu(tensor: Tensor) -> Tensor:
        fetched.append(tensor.detach().clone())
        return fetched[-1]

    def double(tensor: Tensor) -> Tensor:
        assert any(tensor is one for one in fetched)
        return tensor.to(torch.float64)

    monkeypatch.setattr(Tensor, "cpu", cpu)
    monkeypatch.setattr(Tensor, "double", double)
    statistics = norm_statistics.collect(made, images)
    np.testing.assert_array_equal(statistics, wanted)
    norm_statistics.folded(norm_statistics.frozen(made, statistics))
    assert fetched


def test_folding_leaves_norms_that_follow_no_convolution() -> None:
    made = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    made.append(nn.ConvTranspose2d(4, 6, 2, groups=2)).append(nn.BatchNorm2d(6)).append(nn.Conv2d(6, 2, 3, bias=False))
    made.append(nn.InstanceNorm2d(2))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    statistics = norm_statistics.collect(made, images)
    folded = norm_statistics.folded(norm_statistics.frozen(made, statistics))
    assert [type(module).__name__ for module in folded][-2:] == ["Conv2d", "Identity"]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded) == 3
    with torch.no_grad():
        torch.testing.assert_close(folded(images), norm_statistics.frozen(made, statistics)(images))


class Early(nn.Sequential):
    """Its layers are not only passed one after the other: what the first gives is part of the result."""

    def forward(self, maps: Tensor) -> Tensor:
        first = self[0](maps)
        out: Tensor = first + self[1](first)
        return out


def test_folding_leaves_norms_whose_convolutions_are_looked_at() -> None:
    made = Early(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    statistics = norm_statistics.collect(made, images)
    with torch.no_grad():
        torch.testing.assert_close(
            norm_statistics.folded(norm_statistics.frozen(made, statistics))(images),
            norm_statistics.frozen(made, statistics)(images),
        )


def test_only_fixed_norms_are_folded() -> None:
    """An image's own statistics are not known beforehand; a network in training stays as it is."""
    made = network("UNet BN").train()
    images = tiles(made)
    own = norm_statistics.folded(norm_statistics.per_image(made))
    assert sum(isinstance(module, NORMS) for module in own.modules()) == 7
    with torch.no_grad():
        torch.testing.assert_close(own(images), norm_statistics.per_image(made)(images))
        fixed = norm_statistics.folded(made)
        assert not norm_statistics.has_norms(fixed)
        assert all(module.training for module in made.modules())
        torch.testing.assert_close(fixed(images), copy.deepcopy(made).eval()(images))


def test_folding_takes_the_weight_that_spectral_norm_computes() -> None:
    convolution = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    made = nn.Sequential(convolution, nn.BatchNorm2d(4)).eval()
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    folded = norm_statistics.folded(made)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), made(images))


@pytest.mark.parametrize("name", ["UNet BN", "STST"])
def test_running_statistics_frozen_are_evaluation_mode(name: str) -> None:
    made = network(name)
    images = tiles(made, count=1)
    with torch.no_grad():
        frozen = norm_statistics.folded(norm_statistics.frozen(made, norm_statistics.running(made)))(images)
        torch.testing.assert_close(frozen, made.eval()(images))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_stays_as_it_was(name: str) -> None:
    """Its mode, its numbers, its modules and its hooks; the copies share its weights."""
    made = network(name).train()
    modules, state = list(made.modules()), {key: value.clone() for key, value in made.state_dict().items()}
    images = tiles(made)
    copies = [norm_statistics.frozen(made, norm_statistics.collect(made, images)), norm_statistics.per_image(made)]
    for clone in copies:
        clone.register_forward_hook(lambda *_: torch.zeros(()))
        with torch.no_grad():
            clone(images)
        assert not any(module.training for module in clone.modules())
    assert list(made.modules()) == modules
    assert all(module.training for module in modules)
    assert not made._forward_hooks
    for key, value in made.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    for clone in copies:
        theirs = {parameter.data_ptr() for parameter in clone.parameters()}
        assert theirs == {parameter.data_ptr() for parameter in made.parameters()}


def test_a_module_at_two_places_is_copied_once() -> None:
    twice = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    clone = norm_statistics.per_image(nn.Sequential(twice, nn.InstanceNorm2d(3), twice))
    assert clone[0] is clone[2]
    assert clone[0] is not twice


def test_copies_of_a_compiled_network_are_not_the_network() -> None:
    """What `nn.Module.compile` leaves would be called in the copy's place, with the norms of the original."""
    made = network("UNet BN")
    images = tiles(made)
    wanted = norm_statistics.per_image(made)(images)
    made._compiled_call_impl = lambda images: images
    torch.testing.assert_close(norm_statistics.per_image(made)(images), wanted)


def test_two_threads_may_use_one_network() -> None:
    made = network("UNet BN")
    batches = [tiles(made, seed=seed) for seed in range(4)]
    wanted = [norm_statistics.collect(made, batch) for batch in batches]
    results: dict[int, np.ndarray] = {}
    start = threading.Barrier(len(batches))

    def work(number: int) -> None:
        start.wait()
        for _ in range(5):
            results[number] = norm_statistics.collect(made, batches[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, statistics in enumerate(wanted):
        np.testing.assert_allclose(results[number], statistics, rtol=1e-6, atol=1e-9)


def test_dropout_is_off() -> None:
    made = network("STST")
    images = tiles(made, count=1)
    with torch.no_grad():
        still = norm_statistics.per_image(made.train())
        torch.testing.assert_close(still(images), still(images), rtol=0, atol=0)


def test_a_network_without_norms_has_nothing_to_freeze() -> None:
    made = PixelNetwork()
    images = torch.rand(1, 3, 8, 8)
    statistics = norm_statistics.collect(made, images)
    assert statistics.shape == (2, 0)
    assert not norm_statistics.has_norms(made)
    with torch.no_grad():
        torch.testing.assert_close(
            norm_statistics.folded(norm_statistics.frozen(made, statistics))(images), made(images)
        )


class Twice(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.norm, self.times = nn.InstanceNorm2d(3), times

    def forward(self, maps: Tensor) -> Tensor:
        for _ in range(self.times):
            maps = self.norm(maps)
        return maps


@pytest.mark.parametrize(("times", "words"), [(0, "never"), (2, "2 times")])
def test_layers_passed_otherwise_than_once_are_refused(times: int, words: str) -> None:
    with pytest.raises(InputError, match=rf"norm layer norm .* was passed {words}"):
        norm_statistics.collect(Twice(times), torch.rand(1, 3, 4, 4))


def test_damaged_statistics_are_refused() -> None:
    made = network("Res9")
    good = norm_statistics.collect(made, tiles(made))
    with pytest.raises(InputError, match=r"shape \(2, 3\); this network has 9 layers: \(2, 104\)"):
        norm_statistics.frozen(made, good[:, :3])
    for bad in (np.nan, -1.0):
        damaged = good.copy()
        damaged[1, 5] = bad
        with pytest.raises(InputError, match="damaged"):
            norm_statistics.frozen(made, damaged)
    with pytest.raises(InputError, match="no running statistics"):
        norm_statistics.running(made)
    with pytest.raises(InputError, match="one image at least"):
        norm_statistics.collect(made, torch.empty(0, 3, 32, 32))
