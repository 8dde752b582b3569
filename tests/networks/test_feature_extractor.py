"""What networks see: the right layers, of the right weights, of images as each network wants them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402  (after the skip)
from torch import Tensor, nn  # noqa: E402

from restain.errors import FormatError, InputError, WeightsUnavailable  # noqa: E402
from restain.networks.backbones.resnet import ResNet50  # noqa: E402
from restain.networks.backbones.squeezenet import SqueezeNet  # noqa: E402
from restain.networks.backbones.vgg import VGG  # noqa: E402
from restain.networks.feature_extractor import (  # noqa: E402
    STYLE_LAYERS,
    FeatureExtractor,
    make_extractor,
    tap,
)

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cache(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """PyTorch's cache, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def normalised(images: Tensor) -> Tensor:
    """ImageNet's, channel by channel."""
    channels = [(images[:, c] - MEAN[c]) / DEVIATION[c] for c in range(3)]
    return torch.stack(channels, dim=1)


# ---- layers ------------------------------------------------------------------------------------------------------


def test_vggs_layers_are_those_of_its_table(images: Tensor) -> None:
    """Read off the paper's table: where a name stands among convolutions, ReLUs and pools."""
    names = []
    for block, count in enumerate((2, 2, 4, 4, 4), start=1):
        for number in range(1, count + 1):
            names += [f"conv{block}_{number}", f"relu{block}_{number}"]
        names.append(f"pool{block}")
    for name in ("conv1_1", "relu2_2", "conv3_1", "conv4_1", "conv5_1", "relu5_4"):
        assert tap("vgg19", name) == names.index(name)
    layers = ("conv1_1", "relu2_2", "conv3_1")
    extractor = make_extractor("vgg19", layers, "random")
    maps, wanted = normalised(images), {}
    for name, module in zip(names, extractor.features, strict=False):
        maps = module(maps)
        wanted[name] = maps
    seen = extractor(images)
    assert list(seen) == list(layers)
    for name in layers:
        torch.testing.assert_close(seen[name], wanted[name])
    assert (seen["conv1_1"] < 0).any()  # before the ReLU
    assert (seen["relu2_2"] >= 0).all()


def test_fires_are_where_they_halve(images: Tensor) -> None:
    """64 × 48 pixels: 7 × 7 with stride 2 gives 29 × 21, and each pooling halves, rounding up."""
    for network, sizes in (
        ("squeezenet1_0", {"relu1": (29, 21), "fire4": (14, 10), "fire5": (7, 5), "fire8": (7, 5), "fire9": (3, 2)}),
        ("squeezenet1_1", {"relu1": (31, 23), "fire3": (15, 11), "fire4": (7, 5), "fire6": (3, 2), "fire9": (3, 2)}),
    ):
        seen = make_extractor(network, list(sizes), "random")(images)
        assert {name: tuple(maps.shape[2:]) for name, maps in seen.items()} == sizes


def test_resnets_layers_are_its_own(images: Tensor) -> None:
    extractor = make_extractor("resnet50", ("relu1", "layer1", "layer2"), "random")
    trunk = ResNet50(0).eval()
    trunk.load_state_dict({n.removeprefix("features."): v for n, v in extractor.state_dict().items()}, strict=False)
    with torch.no_grad():
        first = trunk.bn1(trunk.conv1(normalised(images))).relu()
        layer1 = trunk.layer1(trunk.maxpool(first))
        wanted = {"relu1": first, "layer1": layer1, "layer2": trunk.layer2(layer1)}
        for name, maps in extractor(images).items():
            torch.testing.assert_close(maps, wanted[name])


@pytest.mark.parametrize("network", STYLE_LAYERS)
def test_style_is_looked_for_at_every_size(network, images: Tensor) -> None:
    content, style = STYLE_LAYERS[network]
    seen = make_extractor(network, [content, *style], "random")(images)
    heights = [seen[layer].shape[2] for layer in style]
    assert sorted(set(heights), reverse=True) == heights


def test_it_looks_no_deeper_than_asked(images: Tensor) -> None:
    extractor = make_extractor("squeezenet1_0", ("relu1", "fire5"), "random")
    assert len(extractor.features) == tap("squeezenet1_0", "fire5") + 1
    run: list[nn.Module] = []
    for module in extractor.features:
        module.register_forward_hook(lambda module, *_: run.append(module))
    assert list(extractor(images, ["relu1"])) == ["relu1"]
    assert len(run) == 2


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        *(("vgg19", layer) for layer in ("conv2_3", "fire2", "pool1", "")),
        ("squeezenet1_0", "fire10"),
        ("squeezenet1_1", "conv1_1"),
        ("resnet50", "layer5"),
    ],
)
def test_layers_that_are_not_there(network, layer: str) -> None:
    with pytest.raises(InputError, match=f"{network} has no layer {layer!r}; it has"):
        make_extractor(network, [layer], "random")


def test_networks_that_are_not_there() -> None:
    with pytest.raises(InputError, match="'vgg11'; wanted one of vgg19, squeezenet1_0"):
        make_extractor("vgg11", ["conv1_1"], "random")  # type: ignore[arg-type]


# ---- frozen ------------------------------------------------------------------------------------------------------


def test_gradients_pass_to_the_images_alone(images: Tensor) -> None:
    extractor = make_extractor("resnet50", ("layer1",), "random")
    assert not any(module.training for module in extractor.modules())
    before = {name: value.clone() for name, value in extractor.state_dict().items()}
    images.requires_grad_()
    extractor(images)["layer1"].square().mean().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert all(weight.grad is None and not weight.requires_grad for weight in extractor.parameters())
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


# ---- weights -----------------------------------------------------------------------------------------------------


def test_random_weights_are_the_seeds_and_disturb_nobody() -> None:
    state = torch.get_rng_state()
    first = make_extractor("squeezenet1_0", ("fire2",), "random", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again = make_extractor("squeezenet1_0", ("fire2",), "random", seed=3)
    other = make_extractor("squeezenet1_0", ("fire2",), "random", seed=4)
    name = "features.0.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert float(first.state_dict()[name].std()) == pytest.approx((2 / 147) ** 0.5, rel=0.05)  # Kaiming's


def test_pretrained_weights_are_found_in_the_cache(cache, images: Tensor) -> None:
    torch.manual_seed(5)
    network = SqueezeNet("1.0", 10).eval()
    torch.save(network.state_dict(), cache / "squeezenet1_0-b66bff10.pth")
    seen = make_extractor("squeezenet1_0", ("fire9",))(images)["fire9"]
    torch.testing.assert_close(seen, network.features(normalised(images)).detach())


def test_without_weights_the_choices_are_told(cache, tmp_path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        make_extractor("vgg19", ("relu2_2",))
    for choice in ("feature_path", "vgg19-dcbb9e9d.pth", "squeezenet1_0", "encoder", "random", "Nothing is downloaded"):
        assert choice in str(caught.value)
    with pytest.raises(WeightsUnavailable, match=r"there is no file .*gone\.pth"):
        make_extractor("vgg19", ("relu2_2",), path=str(tmp_path / "gone.pth"))
    with pytest.raises(WeightsUnavailable, match="give the file with its weights as feature_path"):
        make_extractor("vgg19", ("relu2_2",), "encoder")


def test_the_early_layers_of_a_file_are_enough(tmp_path, images: Tensor) -> None:
    torch.manual_seed(2)
    network = VGG(19, 0).eval()
    early = {name: value for name, value in network.state_dict().items() if int(name.split(".")[1]) <= 7}
    torch.save(early | {"classifier.0.weight": torch.zeros(3)}, tmp_path / "early.pth")
    extractor = make_extractor("vgg19", ("relu2_2",), "encoder", path=str(tmp_path / "early.pth"))
    torch.testing.assert_close(extractor(images)["relu2_2"], network.features[:9](normalised(images)).detach())
    with pytest.raises(FormatError, match=r"missing: features\.10\.weight"):
        make_extractor("vgg19", ("conv3_1",), "encoder", path=str(tmp_path / "early.pth"))


def test_encoders_may_be_narrower_and_want_other_input(tmp_path, images: Tensor) -> None:
    torch.manual_seed(3)
    squeeze, resnet = SqueezeNet("1.1", 5, width=16).eval(), ResNet50(2, 8).eval()
    for name, network in (("squeezenet1_1", squeeze), ("resnet50", resnet)):
        save_file(dict(network.state_dict()), tmp_path / f"{name}.safetensors")
    signed = {"mean": (0.5,) * 3, "deviation": (0.5,) * 3}
    path = str(tmp_path / "squeezenet1_1.safetensors")
    seen = make_extractor("squeezenet1_1", ("fire6",), "encoder", path=path, **signed)(images)["fire6"]
    torch.testing.assert_close(seen, squeeze.features[:10](2 * images - 1).detach())
    seen = make_extractor("resnet50", ("relu1",), "encoder", path=str(tmp_path / "resnet50.safetensors"))(images)
    torch.testing.assert_close(seen["relu1"], resnet.bn1(resnet.conv1(normalised(images))).relu().detach())
    with pytest.raises(FormatError, match="does not hold the weights of FeatureExtractor"):
        make_extractor("vgg19", ("relu2_2",), "encoder", path=path)


def test_caffes_network_is_given_blue_first_less_its_mean(tmp_path, images: Tensor) -> None:
    """A file by Caffe's names, as the deep-compression model decodes to."""
    torch.manual_seed(4)
    network = SqueezeNet("1.0", 10).eval()
    places = (3, 4, 5, 7, 8, 9, 10, 12)  # of the fires in torchvision's sequence
    arrays = {}
    for ours, value in network.state_dict().items():
        part, index, *rest = ours.split(".")
        if part == "classifier":
            name = f"conv_final.{rest[-1]}"
        elif index == "0":
            name = f"conv1.{rest[-1]}"
        else:
            layer = {"squeeze": "conv1x1_1", "expand1x1": "conv1x1_2", "expand3x3": "conv3x3_2"}[rest[0]]
            name = f"fire{places.index(int(index)) + 2}/{layer}.{rest[-1]}"
        arrays[name] = value.numpy()
    np.savez(tmp_path / "caffe.npz", **arrays)
    extractor = make_extractor("squeezenet1_0", ("relu1", "fire5"), path=str(tmp_path / "caffe.npz"))
    caffes = 255 * images[:, [2, 1, 0]] - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    with torch.no_grad():
        wanted = network.features[:8](caffes)
        torch.testing.assert_close(extractor(images)["fire5"], wanted, rtol=1e-4, atol=1e-3)


def test_sizes() -> None:
    with torch.device("meta"):
        for layer, wanted in (("relu2_2", 260_160), ("conv5_1", 12_944_960)):
            extractor = FeatureExtractor("vgg19", [layer])
            assert sum(weight.numel() for weight in extractor.parameters()) == wanted
