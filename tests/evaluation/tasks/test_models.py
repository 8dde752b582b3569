"""Models: their files, by torchvision's names and read without running code, and what they do to images first."""

import json
from pathlib import Path

import numpy as np
import pytest

from restain import files
from restain.errors import FormatError, InputError

torch = pytest.importorskip("torch")

from restain.evaluation.tasks.models import Classifier, Training, load_model, make_network  # noqa: E402  (after the skip)
from restain.evaluation.tasks.settings import ClassifierSettings, SegmenterSettings  # noqa: E402
from restain.evaluation.tasks.training import train_segmenter  # noqa: E402
from restain.networks.backbones.resnet import ResNet50  # noqa: E402
from restain.networks.backbones.weights import load_into, read_weights  # noqa: E402
from restain.systems.task import make_task  # noqa: E402

from .making import SIDE, squares, tinted  # noqa: E402


def classifier(**values) -> Classifier:
    torch.manual_seed(0)
    settings = ClassifierSettings(**{"width": 4, "side": SIDE, "weights": "scratch", "batch_size": 5, **values})
    network = make_network(settings, 3).eval()
    return Classifier(settings, ("a", "b", "c"), Training("tinted", 8, ("12ab",), 4, False), network)


@pytest.mark.parametrize("network", ["resnet50", "squeezenet1_1"])
def test_a_classifier_comes_back(network: str, tmp_path: Path) -> None:
    model = classifier(network=network, milestones=(3, 4))
    model.save(tmp_path / "model.safetensors")
    back = load_model(tmp_path / "model.safetensors")
    assert (back.settings, back.classes, back.training) == (model.settings, model.classes, model.training)
    images = tinted(7).images
    assert np.array_equal(back.probabilities(images), model.probabilities(images))
    assert not back.network.training


def test_a_segmenter_comes_back(tmp_path: Path) -> None:
    settings = SegmenterSettings(width=4, side=SIDE, epochs=1, threshold=0.4)
    model = train_segmenter(squares(), settings)
    model.save(tmp_path / "model.safetensors")
    back = load_model(tmp_path / "model.safetensors")
    assert np.array_equal(back.masks(squares().images), model.masks(squares().images))
    assert back.settings == settings


def test_a_file_holds_the_weights_of_torchvisions_network(tmp_path: Path) -> None:
    """So that whatever loads those loads these: the classifier of CHEN's last stage."""
    model = classifier()
    model.save(tmp_path / "model.safetensors")
    other = load_into(ResNet50(3, 4), read_weights(tmp_path / "model.safetensors"), "model")
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize("network", ["resnet50", "squeezenet1_1"])
def test_chens_last_stage_takes_a_classifier(network: str, tmp_path: Path) -> None:
    model, images = classifier(network=network), tinted(4).images
    model.save(tmp_path / "model.safetensors")
    weights = str(tmp_path / "model.safetensors")
    task = make_task(network, classes=3, width=4, normalization="imagenet", weights=weights)
    with torch.inference_mode():
        said = task(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).double().softmax(1).numpy()
    np.testing.assert_allclose(said, model.probabilities(images), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": []},
        {"classes": ["a", "b"]},
        {"settings": {"network": "unet"}},
        {"settings": {"width": 10**9}},
        {"settings": None},
        {"training": {}},
    ],
    ids=str,
)
def test_damaged_files_are_refused(change: dict, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    classifier().save(path)
    kind, arrays, facts = files.load_arrays(path)
    files.save_arrays(path, kind, arrays, json.loads(json.dumps({**facts, **change})))
    with pytest.raises(FormatError):
        load_model(path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = classifier()
    model.network.fc.bias.data[0] = float("nan")
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match="cannot be"):
        load_model(tmp_path / "model.safetensors")


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    files.save_arrays(tmp_path / "other.safetensors", "histogram", {"a": np.zeros(1)}, {})
    with pytest.raises(FormatError, match="wanted a classifier"):
        load_model(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("scaling", "wanted"),
    [
        ("imagenet", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("128", lambda x: (x - 128) / 128),
        ("unit", lambda x: x / 255),
    ],
)
def test_levels_are_scaled_before_the_network(scaling: str, wanted) -> None:
    images = tinted(3).images
    model = classifier(scaling=scaling)
    levels = torch.from_numpy(wanted(images.astype(np.float64))).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        said = model.network(levels).double().softmax(1).numpy()
    np.testing.assert_allclose(model.probabilities(images), said, atol=1e-5)


def test_gray_is_done_to_test_images_too() -> None:
    images = tinted(4).images
    gray = np.repeat(np.rint(images @ [0.299, 0.587, 0.114]).astype(np.uint8)[..., None], 3, axis=3)
    model = classifier(augmentation="gray")
    assert np.array_equal(model.probabilities(images), model.probabilities(gray))
    coloured = classifier(augmentation="hsv")
    assert not np.array_equal(coloured.probabilities(images), coloured.probabilities(gray))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="trained on"):
        classifier().probabilities(np.zeros((1, 64, 64, 3), np.uint8))
