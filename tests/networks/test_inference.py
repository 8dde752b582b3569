"""`fast`: the same picture as the plain network, and by what it was made faster."""

import threading

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.networks import inference, norm_statistics  # noqa: E402
from restain.networks.inference import fast, has_bfloat16  # noqa: E402
from restain.networks.initialization import initialize  # noqa: E402
from restain.networks.resnet import ResnetGenerator  # noqa: E402
from restain.networks.stainnet import PixelNetwork  # noqa: E402
from restain.networks.unet import UNetGenerator  # noqa: E402
from restain.networks.winograd import WinogradConv2d  # noqa: E402


def images(count: int, side: int = 32, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def generator(channels: int = 4) -> ResnetGenerator:
    return initialize(ResnetGenerator(channels, blocks=2), 0.1, generator=torch.Generator().manual_seed(0))


def frozen(network: nn.Module, fold: bool = True) -> nn.Module:
    made = norm_statistics.frozen(network, norm_statistics.collect(network, images(2)))
    return norm_statistics.folded(made) if fold else made


def levels_apart(first: Tensor, second: Tensor) -> float:
    return ((first - second).abs().max() * 127.5).item()


@pytest.fixture
def only_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardware that does not multiply bfloat16, whatever is there."""
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: False)


NETWORKS = {
    "Res9": generator,
    "Res9 wide": lambda: generator(32),  # 128 channels where the residual blocks are
    "Res9 frozen": lambda: frozen(generator()),
    "UNet": lambda: initialize(UNetGenerator(5, 4), 0.1, generator=torch.Generator().manual_seed(0)),
    "StainNet": lambda: PixelNetwork(kernels=(3, 1, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_picture_is_the_plain_network_s(name: str, count: int) -> None:
    network = NETWORKS[name]()
    batch = images(count)
    with torch.no_grad():
        wanted = network.eval()(batch)
    network.train()
    out = fast(network, (2, 3, 32, 32))(batch)
    assert out.dtype == torch.float32
    assert out.shape == wanted.shape
    assert not out.requires_grad
    assert levels_apart(out, wanted) < 0.05
    assert all(module.training for module in network.modules())


def test_a_result_does_not_depend_on_how_many_come_along() -> None:
    """To the last bit: batches are filled up, never shortened."""
    ready = fast(frozen(generator(32)), (4, 3, 32, 32))
    batch = images(6)
    whole = ready(batch)
    assert torch.equal(whole[:1], ready(batch[:1]))
    assert torch.equal(whole[4:], ready(batch[4:]))


def test_a_batch_that_is_filled_up_changes_no_own_norms() -> None:
    network = generator()
    with torch.no_grad():
        torch.testing.assert_close(fast(network, (4, 3, 32, 32))(images(1)), network(images(1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("affine", [False, True])
def test_each_image_s_own_norm_keeps_the_channels_last(affine: bool) -> None:
    """Against the formula, on maps of unlike contrasts; what comes next is given the layout that it wants."""
    layer = nn.InstanceNorm2d(3, eps=1e-3, affine=affine)
    if affine:
        nn.init.uniform_(layer.weight, 1, 2)
        nn.init.uniform_(layer.bias, 1, 2)
    layouts: list[bool] = []
    look = nn.Identity()
    network = nn.Sequential(layer, look, nn.Conv2d(3, 3, 1))
    nn.init.dirac_(network[2].weight)
    nn.init.zeros_(network[2].bias)
    ready = fast(network, (2, 3, 32, 32))
    hook = lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))  # noqa: E731
    ready.network[1].register_forward_pre_hook(hook)
    batch = images(3) * torch.tensor([0.3, 1, 5]).view(3, 1, 1, 1) + 2
    wide = batch.double()
    centred = wide - wide.mean(dim=(2, 3), keepdim=True)
    wanted = centred / (centred.square().mean(dim=(2, 3), keepdim=True) + 1e-3).sqrt()
    if affine:
        wanted = wanted * layer.weight.detach().view(3, 1, 1) + layer.bias.detach().view(3, 1, 1)
    torch.testing.assert_close(ready(batch), wanted.float(), rtol=1e-4, atol=1e-4)
    assert layouts == [True, True]


def test_weights_and_images_are_given_with_channels_last() -> None:
    ready = fast(generator(), (2, 3, 32, 32))
    seen: list[Tensor] = []
    for module in ready.network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda layer, inputs, _: seen.extend((layer.weight, inputs[0])))
    ready(images(1))
    assert len(seen) == 2 * (4 + 4)  # at both ends, halving, and in two blocks
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)


def test_winograd_is_used_where_it_suits(only_float32: None) -> None:
    wide = fast(generator(32), (1, 3, 32, 32), samples=images(2))
    assert wide.description == "cpu, float32, 4 convolutions by Winograd's method"
    assert sum(isinstance(module, WinogradConv2d) for module in wide.network.modules()) == 4
    assert fast(generator(32), (1, 3, 32, 32), winograd=False).description == "cpu, float32"
    assert fast(generator(4), (1, 3, 32, 32)).description == "cpu, float32"


def test_winograd_is_left_where_samples_show_another_picture(
    only_float32: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harm(network: nn.Module) -> int:
        network.up[-2].bias.data += 0.1
        return 1

    monkeypatch.setattr(inference, "use_winograd", harm)
    network = generator(4)
    ready = fast(network, (1, 3, 32, 32), samples=images(2))
    assert "no Winograd's method, which left only 0" in ready.description
    with torch.no_grad():
        assert levels_apart(ready(images(1)), network.eval()(images(1))) < 0.05
    assert "1 convolutions" in fast(network, (1, 3, 32, 32)).description


# ---- bfloat16 -----------------------------------------------------------------------------------------------------


def test_bfloat16_is_another_arithmetic_and_keeps_the_last_layer() -> None:
    network = frozen(generator(), fold=False)
    ready = fast(network, (1, 3, 32, 32), precision="bfloat16")
    assert ready.dtype == torch.bfloat16
    assert ready.description == "cpu, bfloat16"
    seen: list[tuple[str, torch.dtype]] = []
    for name, module in ready.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, __, output, name=name: seen.append((name, output.dtype)))
    with torch.no_grad():
        apart = levels_apart(ready(images(2)), network(images(2)))
    assert {dtype for _, dtype in seen[: len(seen) // 2 - 1]} == {torch.bfloat16}
    assert seen[-1][1] == torch.float32
    assert 0.01 < apart < 20
    for module in ready.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.dtype == torch.float32
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


class Fragile(nn.Module):
    """Good in float32; in bfloat16 the 300 swallows the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        for layer in (self.near, self.last):
            nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor) -> Tensor:
        return self.last((self.near(maps) + 300) - 300)


def sturdy() -> nn.Module:
    network = PixelNetwork(channels=4)
    with torch.no_grad():
        for layer in network.layers[::2]:
            layer.weight.mul_(0.2)
    return network


def test_auto_asks_the_hardware_and_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (1, 3, 32, 32)
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: False)
    assert fast(sturdy(), shape, samples=images(2)).dtype == torch.float32
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: True)
    assert fast(sturdy(), shape, samples=images(2)).dtype == torch.bfloat16
    unchecked = fast(sturdy(), shape)
    assert unchecked.dtype == torch.float32
    assert unchecked.description == "cpu, float32, no bfloat16, which was not checked for want of samples"
    refused = fast(Fragile(), shape, samples=images(2))
    assert refused.dtype == torch.float32
    assert "no bfloat16, which left only" in refused.description
    with torch.no_grad():
        assert levels_apart(refused(images(2)), Fragile()(images(2))) < 0.05
    assert fast(Fragile(), shape, precision="bfloat16", samples=images(2)).dtype == torch.bfloat16
    assert fast(sturdy(), shape, precision="float32", samples=images(2)).dtype == torch.float32


@pytest.mark.parametrize(("bad", "same"), [(1, True), (2, False)])
def test_the_check_is_one_level_in_999_of_1000_pixels(bad: int, same: bool) -> None:
    """Of 1000 pixels: all one level off in all channels, and `bad` two levels off in one channel."""
    first = torch.zeros(1, 3, 25, 40)
    second = first + 0.999 * 2 / 255
    second[0, 1].view(-1)[:bad] = 2 * 2 / 255
    assert (inference._share_of_same(first, second) >= inference.SAME_SHARE) == same
    second[0, 2] = torch.nan
    assert inference._share_of_same(first, second) == 0


def test_hardware_is_asked_for_real_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this PyTorch cannot tell")
    for capabilities, wanted in (
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx512_f": True}, False),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
        assert has_bfloat16("cpu") is wanted
    assert has_bfloat16("meta") is False


# ---- compiling, threads, refusals ---------------------------------------------------------------------------------


def test_without_a_compiler_it_runs_all_the_same(only_float32: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(network: nn.Module, **_: object) -> nn.Module:
        class Broken(nn.Module):
            def forward(self, maps: Tensor) -> Tensor:
                raise RuntimeError("no working C++ compiler found")

        return Broken()

    monkeypatch.setattr(torch, "compile", compile)
    network = generator()
    ready = fast(network, (1, 3, 32, 32), compile=True)
    assert ready.description == "cpu, float32, not compiled (RuntimeError)"
    with torch.no_grad():
        assert levels_apart(ready(images(1)), network.eval()(images(1))) < 0.05


def test_compiled_networks_are_said_to_be(only_float32: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: nn.Sequential(network))
    ready = fast(generator(), (1, 3, 32, 32), compile=True)
    assert ready.description == "cpu, float32, compiled"
    assert isinstance(ready.network, nn.Sequential)


def test_threads_share_it() -> None:
    ready = fast(frozen(generator()), (2, 3, 32, 32))
    batches = [images(3, seed=seed) for seed in range(4)]
    wanted = [ready(batch) for batch in batches]
    results: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: ready(batches[n])})) for n in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, out in enumerate(wanted):
        torch.testing.assert_close(results[number], out, rtol=0, atol=1e-5)


def test_later_training_changes_nothing() -> None:
    network = generator()
    ready = fast(network, (1, 3, 32, 32))
    before = ready(images(1))
    initialize(network, 0.2, generator=torch.Generator().manual_seed(9))
    assert torch.equal(ready(images(1)), before)


def test_wrong_arguments_are_refused() -> None:
    network = PixelNetwork()
    with pytest.raises(InputError, match="'auto', 'float32' or 'bfloat16'"):
        fast(network, (1, 3, 32, 32), precision="half")
    with pytest.raises(InputError, match="got device='nonsense'"):
        fast(network, (1, 3, 32, 32), device="nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="got device='cuda'"):
            fast(network, (1, 3, 32, 32), device="cuda")
    with pytest.raises(InputError, match="got samples of shape"):
        fast(network, (1, 3, 32, 32), samples=images(1, side=64))
    ready = fast(network, (1, 3, 32, 32))
    with pytest.raises(InputError, match=r"wanted \(N, 3, 32, 32\)"):
        ready(images(1, side=64))
    with pytest.raises(InputError, match=r"wanted \(N, 3, 32, 32\)"):
        ready(images(1)[:0])
