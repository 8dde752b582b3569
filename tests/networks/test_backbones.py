"""Backbones: torchvision's names and sizes, weights that load from files, and nothing else that does."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from restain.errors import FormatError, WeightsUnavailable

torch = pytest.importorskip("torch")

from restain.networks.backbones.alexnet import AlexNet  # noqa: E402  (after the skip)
from restain.networks.backbones.inception import FIDInception, InceptionA, InceptionE  # noqa: E402
from restain.networks.backbones.pooled import PooledFeatures  # noqa: E402
from restain.networks.backbones.squeezenet import SqueezeNet, from_caffe  # noqa: E402
from restain.networks.backbones.vgg import VGG, layer_index  # noqa: E402
from restain.networks.backbones.weights import FILES, find_weights, load_into, read_weights  # noqa: E402

MAKERS = {
    "alexnet": AlexNet,
    "vgg16": lambda classes=1000: VGG(16, classes),
    "vgg19": lambda classes=1000: VGG(19, classes),
    "squeezenet1_0": lambda classes=1000: SqueezeNet("1.0", classes),
    "squeezenet1_1": lambda classes=1000: SqueezeNet("1.1", classes),
    "fid_inception": lambda classes=1008: FIDInception(classes),
}


def parameters(module) -> int:
    return sum(each.numel() for each in module.parameters())


@pytest.fixture
def cache(tmp_path: Path):
    """PyTorch's cache folder, empty."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


# ---- architecture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "without_classifier"),
    [
        ("alexnet", 61_100_840, 2_469_696),
        ("vgg16", 138_357_544, 14_714_688),
        ("vgg19", 143_667_240, 20_024_384),
        ("squeezenet1_0", 1_248_424, 735_424),
        ("squeezenet1_1", 1_235_496, 722_496),
        ("fid_inception", 21_785_568 + 2_065_392, 21_785_568),
    ],
)
def test_sizes(name: str, count: int, without_classifier: int) -> None:
    with torch.device("meta"):  # counts need no memory
        assert parameters(MAKERS[name]()) == count
        assert parameters(MAKERS[name](classes=0)) == without_classifier


def test_parts_of_vgg19() -> None:
    features = VGG(19, 0).features
    assert parameters(features[: layer_index(19, "relu2_2") + 1]) == 260_160
    assert parameters(features[: layer_index(19, "conv5_1") + 1]) == 12_944_960


@pytest.mark.parametrize(
    ("layers", "name", "index"),
    [(19, "conv1_1", 0), (19, "conv2_2", 7), (19, "relu2_2", 8), (19, "conv5_1", 28), (16, "relu5_3", 29)],
)
def test_layers_of_vgg(layers: int, name: str, index: int) -> None:
    assert layer_index(layers, name) == index


@pytest.mark.parametrize("name", ["conv3_4", "conv6_1", "pool1_1", "relu2_0"])
def test_layers_that_vgg16_does_not_have(name: str) -> None:
    with pytest.raises((KeyError, IndexError)):
        layer_index(16, name)


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "fid_inception"])
def test_the_inputs_of_torchvision_give_class_scores(name: str) -> None:
    network = MAKERS[name](classes=10).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 96, 80)).shape == (2, 10)


def test_inception_features() -> None:
    network = FIDInception(0).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 3, 64, 50)).shape == (2, 2048)


# From torchvision's own state dicts (and pytorch-fid's file): names that tell the layouts apart.
NAMES = {
    "alexnet": [
        "features.0.weight",
        "features.3.bias",
        "features.10.weight",
        "classifier.1.weight",
        "classifier.6.bias",
    ],
    "vgg16": [
        "features.0.weight",
        "features.28.bias",
        "classifier.0.weight",
        "classifier.3.weight",
        "classifier.6.bias",
    ],
    "vgg19": [
        "features.0.weight",
        "features.34.bias",
        "classifier.0.weight",
        "classifier.3.weight",
        "classifier.6.bias",
    ],
    "squeezenet1_0": ["features.3.squeeze.weight", "features.12.expand3x3.bias", "classifier.1.weight"],
    "squeezenet1_1": ["features.4.expand1x1.weight", "features.12.squeeze.bias", "classifier.1.bias"],
    "fid_inception": [
        *("Conv2d_1a_3x3.conv.weight", "Conv2d_4a_3x3.bn.running_var", "Mixed_5b.branch5x5_2.conv.weight"),
        *("Mixed_6a.branch3x3dbl_3.bn.bias", "Mixed_6e.branch7x7dbl_5.conv.weight", "Mixed_7a.branch7x7x3_4.bn.weight"),
        *("Mixed_7c.branch3x3dbl_3b.conv.weight", "Mixed_7c.branch_pool.bn.running_mean", "fc.weight"),
    ],
}
TENSORS = {"alexnet": 16, "vgg16": 32, "vgg19": 38, "squeezenet1_0": 52, "squeezenet1_1": 52, "fid_inception": 472}


@pytest.mark.parametrize("name", MAKERS)
def test_torchvisions_names(name: str) -> None:
    with torch.device("meta"):
        state = {n for n in MAKERS[name]().state_dict() if not n.endswith("num_batches_tracked")}
    assert state >= set(NAMES[name])
    # Inception: 94 convolutions, each with a kernel and four tensors of its batch norm, and a layer of two.
    assert len(state) == TENSORS[name]


def test_inceptions_mean_leaves_padding_out() -> None:
    block = InceptionA(8, 16).eval()
    for convolution in block.children():
        torch.nn.init.constant_(convolution.conv.weight, 1.0)
    with torch.inference_mode():
        pooled = block(torch.ones(1, 8, 5, 5))[0, -16:]
    # All ones: their mean is 1 at the corner too, where five of nine places are padding.
    assert torch.allclose(pooled, pooled[:, 2:3, 2:3].expand_as(pooled))


def test_inceptions_last_block_pools_by_maximum() -> None:
    maps = torch.zeros(1, 4, 5, 5)
    maps[..., 2, 2] = 9.0
    results = []
    for last in (False, True):
        block = InceptionE(4, last=last).eval()
        torch.nn.init.constant_(block.branch_pool.conv.weight, 1.0)
        with torch.inference_mode():
            results.append(float(block(maps)[0, -1, 1, 1]))
    assert results[1] == pytest.approx(9 * results[0], rel=1e-4)


# ---- weights ----------------------------------------------------------------------------------------------------


def random_state(network) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_weights_come_back_from_every_format(tmp_path: Path, suffix: str) -> None:
    state = random_state(SqueezeNet("1.1"))
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    elif suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    for classes in (1000, 0):  # the classifier may be left out, and is then not missed
        network = load_into(SqueezeNet("1.1", classes), read_weights(path), path)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, state[name])
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"features.0.weight": Trap()}))
    with pytest.raises(FormatError):
        read_weights(path)
    torch.save({"features.0.weight": Trap()}, path)
    with pytest.raises(FormatError) as error:
        read_weights(path)
    assert "weights_only" not in str(error.value)  # torch advises to run the code
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x04N."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError) as error:
        read_weights(path)
    assert str(error.value) == (
        f"{path} is no weights file that can be read without running code: wanted a state dict of tensors (.pth or "
        ".safetensors)"
    )


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(FormatError, match="state dict"):
        read_weights(path)


@pytest.mark.parametrize("change", ["missing", "unknown", "of another shape"])
def test_weights_of_another_network_are_refused(change: str) -> None:
    network = SqueezeNet("1.1", 0)
    state = dict(network.state_dict())
    if change == "missing":
        del state["features.0.bias"]
    elif change == "unknown":
        state["features.99.bias"] = torch.zeros(2)
    else:
        state["features.0.weight"] = torch.zeros(96, 3, 7, 7)
    with pytest.raises(FormatError, match=change):
        load_into(network, state, "file.pth")


@pytest.mark.parametrize("name", MAKERS)
def test_missing_weights_say_what_to_do(name: str, cache: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        find_weights(name)
    for part in (FILES[name][0], str(cache), "weights=", "random weights are not taken"):
        assert part in str(caught.value)
    with pytest.raises(WeightsUnavailable, match=r"no file .*mine\.pth"):
        find_weights(name, cache / "mine.pth")


def test_the_cache_is_looked_into(cache: Path) -> None:
    file = cache / FILES["vgg16"][0]
    file.touch()
    assert find_weights("vgg16") == file
    given = cache / "other.pth"
    given.touch()
    assert find_weights("vgg16", given) == given


# ---- SqueezeNet 1.0 of Caffe, where its weights are at hand ------------------------------------------------------


@pytest.fixture(scope="module")
def caffe_file(data: Path) -> Path:
    file = data / "weights" / "squeezenet_v1.0" / "squeezenet_v1.0_decoded.npz"
    if not file.exists():
        pytest.skip("the Caffe weights of SqueezeNet 1.0 are not among the data")
    return file


@pytest.mark.parametrize(("picture", "label"), [("chelsea", 285), ("coffee", 967)])
def test_caffes_squeezenet_knows_a_cat_and_a_cup(caffe_file: Path, picture: str, label: int) -> None:
    from PIL import Image
    from skimage import data as pictures

    network = load_into(SqueezeNet("1.0"), from_caffe(read_weights(caffe_file)), caffe_file)
    image = np.asarray(Image.fromarray(getattr(pictures, picture)()).resize((227, 227)))
    blue_first = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        scores = network(blue_first - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)).softmax(1)
    assert int(scores.argmax()) == label  # ImageNet's Egyptian cat, and espresso
    assert float(scores.max()) > 0.5


def test_pooled_features_want_what_the_network_wants(caffe_file: Path) -> None:
    network = load_into(SqueezeNet("1.0", 0), from_caffe(read_weights(caffe_file)), caffe_file)
    image = torch.rand(1, 3, 70, 64)
    by_hand = image.flip(1) * 255 - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    with torch.inference_mode():
        pooled = PooledFeatures(network.features, caffe=True)(image)
        torch.testing.assert_close(pooled, network(by_hand).mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


# ---- what must not be needed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_nothing_that_brings_cuda_is_a_dependency(file: str) -> None:
    text = (Path(__file__).resolve().parents[2] / file).read_text().lower()
    for package in ("torchvision", "lpips", "piq", "timm", "segmentation-models"):
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        assert not any(re.search(rf"(^|[\s\"']){package}\b", line) for line in lines), package
