"""Training: against a loop written by hand; one seed, one network; published weights only where they are."""

from pathlib import Path

import numpy as np
import pytest

from restain.errors import FormatError, InputError, TrainingError, WeightsUnavailable

torch = pytest.importorskip("torch")

from restain.color.augment import to_gray  # noqa: E402  (after the skip)
from restain.evaluation.tasks.models import make_network  # noqa: E402
from restain.evaluation.tasks.settings import PROTOCOLS, ClassifierSettings, SegmenterSettings  # noqa: E402
from restain.evaluation.tasks.training import (  # noqa: E402
    bce_dice,
    draw_batch,
    train_classifier,
    train_segmenter,
)
from restain.networks.backbones.resnet import ResNet50  # noqa: E402
from restain.networks.backbones.squeezenet import SqueezeNet  # noqa: E402

from .making import SIDE, squares, tinted  # noqa: E402

CLASSIFIER = ClassifierSettings(
    width=4, side=SIDE, weights="scratch", learning_rate=3e-3, batch_size=6, epochs=6, turns=False
)
LEARNER = ClassifierSettings(
    network="squeezenet1_1", width=32, side=SIDE, weights="scratch", learning_rate=1e-3, batch_size=8
)
SEGMENTER = SegmenterSettings(width=4, side=SIDE, learning_rate=1e-2, batch_size=3, epochs=8)


def changed(settings, **values):
    return type(settings)(**{**vars(settings), **values})


def weights(model) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in model.network.state_dict().values()]


def test_the_loop_is_the_one_written_by_hand() -> None:
    """Adam with decay, cross-entropy of balanced classes, a tenth of the rate after the milestone."""
    examples = tinted(9)  # five of one class, four of the other
    settings = changed(
        LEARNER,
        scaling="imagenet",
        balanced=True,
        batch_size=5,
        epochs=2,
        milestones=(1,),
        weight_decay=0.1,
        flips=False,
        turns=False,
    )
    trained = train_classifier(examples, settings, seed=3)

    torch.manual_seed(3)
    network = SqueezeNet("1.1", 2, width=32).train()
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in network.named_parameters()}
    step = 0
    for epoch, rate in enumerate((1e-3, 1e-4)):
        order = np.random.default_rng([3, epoch]).permutation(9)
        for chosen in (order[:5], order[5:]):
            step += 1
            images = torch.from_numpy(examples.images[chosen]).permute(0, 3, 1, 2).float()
            truth = torch.from_numpy(examples.truth[chosen])
            share = torch.tensor([1 / 5, 1 / 4])[truth]
            network.zero_grad()
            scores = network((images / 255 - mean) / deviation)
            each = -scores.log_softmax(1)[torch.arange(len(chosen)), truth]
            ((share * each).sum() / share.sum()).backward()
            for name, parameter in network.named_parameters():
                gradient = parameter.grad + 0.1 * parameter.detach()
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * gradient)
                second.mul_(0.999).add_(0.001 * gradient**2)
                move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
                parameter.data -= rate * move
    for ours, wanted in zip(weights(trained), network.state_dict().values(), strict=True):
        np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-6)  # four moves of about 1e-3 each


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_same_seed_gives_the_same_bits_and_disturbs_nobody(epochs: int) -> None:
    settings = changed(CLASSIFIER, network="squeezenet1_1", epochs=epochs, augmentation="hsv")  # dropout, too
    before = torch.get_rng_state()
    first, again, other = (train_classifier(tinted(), settings, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(np.array_equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


def test_classes_are_learned() -> None:
    heard: list[tuple[int, int, float]] = []
    model = train_classifier(
        tinted(24), changed(LEARNER, epochs=12), report=lambda *told: heard.append(told), data="tinted"
    )
    other = tinted(12, seed=9)
    assert (model.probabilities(other.images).argmax(1) == other.truth).mean() > 0.9
    assert [epoch for epoch, _, _ in heard] == list(range(1, 13))
    assert heard[-1][2] < 0.7 * heard[0][2]
    assert not model.network.training
    assert (model.training.data, model.training.images, model.training.pretrained) == ("tinted", 24, False)
    assert len(model.training.groups) == 12


@pytest.mark.parametrize("network", ["unet", "fcn_resnet50"])
def test_masks_are_learned(network: str) -> None:
    settings = changed(SEGMENTER, network=network, epochs=12 if network == "unet" else 1)
    model = train_segmenter(squares(12), settings)
    found = model.masks(squares(4, seed=9).images)
    assert found.dtype == np.bool_
    if network == "unet":  # the other is asked for its shapes alone
        assert (found == squares(4, seed=9).truth).mean() > 0.95


def test_bce_dice_by_hand() -> None:
    generator = np.random.default_rng(0)
    logits, truth = generator.normal(size=(3, 4, 5)), generator.integers(0, 2, (3, 4, 5))
    truth[2] = 0
    found = 1 / (1 + np.exp(-logits))
    entropy = -np.where(truth == 1, np.log(found), np.log(1 - found)).mean()
    dice = [(2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1) for p, t in zip(found, truth, strict=True)]
    ours = bce_dice(torch.from_numpy(logits), torch.from_numpy(truth).double())
    assert float(ours) == pytest.approx(entropy + 1 - np.mean(dice), rel=1e-12)
    nothing = bce_dice(torch.full((1, 4, 4), -60.0), torch.zeros(1, 4, 4))
    assert float(nothing) == pytest.approx(0, abs=1e-6)


def test_images_and_masks_lie_alike_in_all_eight_ways() -> None:
    examples = squares(1)
    ways = set()
    for epoch in range(80):
        images, masks = draw_batch(examples, [0], SEGMENTER, seed=0, epoch=epoch)
        assert np.array_equal(images[0, ..., 0] > 130, masks[0])
        ways.add(images.tobytes())
    assert len(ways) == 8
    still = changed(SEGMENTER, flips=False, turns=False)
    assert np.array_equal(draw_batch(examples, [0], still, seed=0, epoch=3)[0], examples.images)


def test_augmentation_is_of_colours_and_of_its_own_for_each_image() -> None:
    examples = tinted(2)
    settings = changed(CLASSIFIER, augmentation="gray", flips=False)
    assert np.array_equal(draw_batch(examples, [1], settings, 0, 0)[0][0], to_gray(examples.images[1]))
    settings = changed(settings, augmentation="hsv")
    alone = draw_batch(examples, [1], settings, 0, 0)[0][0]
    assert np.array_equal(draw_batch(examples, [0, 1], settings, 0, 0)[0][1], alone)
    assert not np.array_equal(draw_batch(examples, [1], settings, 0, 1)[0][0], alone)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InputError, match="without classes"):
        train_classifier(squares(), CLASSIFIER)
    with pytest.raises(InputError, match="wanted masks"):
        train_segmenter(tinted(), SEGMENTER)
    with pytest.raises(InputError, match="sides of 64"):
        train_classifier(tinted(), changed(CLASSIFIER, side=64))
    with pytest.raises(TrainingError, match="epoch 1"):
        train_segmenter(squares(), changed(SEGMENTER, learning_rate=1e30))


# ---- first weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet50", "squeezenet1_1", "fcn_resnet50"])
def test_training_goes_on_from_a_file_of_weights(name: str, tmp_path: Path) -> None:
    """All but the scores of the classes, which may be others, and are learned anew."""
    from safetensors.torch import save_file

    torch.manual_seed(5)
    published = SqueezeNet("1.1", 7, width=4) if name == "squeezenet1_1" else ResNet50(7, 4)
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    kind = SegmenterSettings if name == "fcn_resnet50" else ClassifierSettings
    settings = kind(network=name, width=4, side=SIDE, weights=str(tmp_path / "weights.safetensors"), epochs=0)
    network = make_network(settings, 2)
    trunk = network.backbone if name == "fcn_resnet50" else network
    taken = [n for n, tensor in published.state_dict().items() if not n.startswith(("fc.", "classifier."))]
    assert all(torch.equal(trunk.state_dict()[n], published.state_dict()[n]) for n in taken)
    assert all(parameter.requires_grad for parameter in network.parameters())
    if name != "fcn_resnet50":
        assert train_classifier(tinted(4), settings).training.pretrained
    with pytest.raises(FormatError, match="another shape"):
        make_network(changed(settings, width=8), 2)


@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "fcn"])
def test_published_weights_that_are_missing_are_never_replaced(name: str, tmp_path: Path) -> None:
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    try:
        with torch.device("meta"), pytest.raises(WeightsUnavailable):
            make_network(PROTOCOLS[name], 2)
    finally:
        torch.hub.set_dir(before)
