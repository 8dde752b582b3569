"""StainNet's training (PAPERS §4.2) against a step by hand, and the colour map that it leaves."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restain import ColorHistogram, load  # noqa: E402  (after the skip)
from restain.errors import InputError, NotFittedError  # noqa: E402
from restain.methods.stainnet import StainNet  # noqa: E402
from restain.networks.stainnet import TABLE_4  # noqa: E402
from restain.phantom import Phantom, make_phantom  # noqa: E402
from restain.systems.engine import PlainEngine  # noqa: E402
from restain.systems.stainnet import StainNetConfig, StainNetStudent, pixel_weights  # noqa: E402

from .reference import Adam, Watch, descend_plainly, weights_of  # noqa: E402
from .small import FACTS, WHITE, batch, make  # noqa: E402


def student(**config) -> StainNetStudent:
    system = make("stainnet", **config)
    system.generator.double().train()
    system.optimizers = system.make_optimizers()
    return system


@pytest.mark.parametrize("kernels", TABLE_4.values(), ids=TABLE_4)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_updates_are_those_written_out(optimizer: str, kernels: tuple[int, ...]) -> None:
    system = student(optimizer=optimizer, kernels=kernels)
    network, rate = copy.deepcopy(system.generator), system.config.learning_rate
    adam = Adam(weights_of(network), rate, (0.9, 0.999))
    for number in range(3):
        images = batch(system, seed=number)
        losses = system.update(images, PlainEngine())
        loss = (network(2 * images["source"] - 1) - (2 * images["target"] - 1)).abs().mean()
        assert losses["l1"].item() == pytest.approx(loss.item(), rel=1e-12)
        assert not losses["l1"].requires_grad
        if optimizer == "adam":
            adam.descend(loss)
        else:
            descend_plainly(weights_of(network), loss, rate)
    for found, wanted in zip(weights_of(system.generator), weights_of(network), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_it_is_the_loss_that_goes_down() -> None:
    """A colour map that a small network can learn: half as bright, with a tint."""
    system = student(kernels=(1, 1, 1), optimizer="adam")
    images = batch(system)
    images["target"] = images["source"] * 0.5 + torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)[:, None, None]
    first = system.update(images, PlainEngine())["l1"]
    for _ in range(150):
        last = system.update(images, PlainEngine())["l1"]
    assert last < first / 5


def test_a_smooth_map_of_colours_is_learned_from_tissue() -> None:
    """PAPERS §11: beyond 35 dB, here on tissue that was not trained on; without a map it is 24."""

    def smooth(colors: np.ndarray) -> np.ndarray:
        mixed = colors ** [0.8, 1.1, 1.3] @ np.array([[0.8, 0.1, 0.05], [0.15, 0.75, 0.1], [0.0, 0.05, 0.8]])
        return mixed + [0.02, 0.04, 0.1] * (1 - colors.mean(axis=-1, keepdims=True))

    def as_batch(colors: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(colors).permute(0, 3, 1, 2).float()

    def decibels(made: np.ndarray, wanted: np.ndarray) -> float:
        return float(-10 * np.log10(np.mean((made - wanted) ** 2)))

    system = make("stainnet", kernels=(1, 1, 1), channels=32, optimizer="adam", learning_rate=0.01)
    system.optimizers = system.make_optimizers()
    tissue = np.stack([make_phantom(48, 48, seed=seed).image for seed in range(2)]) / 255
    images = {"source": as_batch(tissue), "target": as_batch(smooth(tissue))}
    for _ in range(150):
        system.update(images, PlainEngine())
    unseen = make_phantom(96, 96, seed=50).image[None] / 255
    with torch.no_grad():
        made = system.deployed()(as_batch(unseen)).permute(0, 2, 3, 1).numpy()
    assert decibels(unseen, smooth(unseen)) < 25
    assert decibels(np.rint(255 * made) / 255, smooth(unseen)) > 35


def test_gradients_are_gone_after_an_update() -> None:
    system = student()
    watch = Watch(system.networks())
    system.update(batch(system), watch)
    assert watch.reached == [{"generator"}]
    assert watch.clipped == ["generator"]
    assert all(weight.grad is None for weight in system.generator.parameters())


def test_the_validation_loss_is_the_training_loss() -> None:
    system = student()
    images = batch(system)
    with torch.no_grad():
        loss = system.validation_loss(images)
    assert loss.item() == pytest.approx(system.update(images, PlainEngine())["l1"].item(), rel=1e-12)


def test_what_leaves_the_network_is_clamped() -> None:
    system = student()
    with torch.no_grad():
        list(system.generator.parameters())[-1].copy_(torch.tensor([5.0, -5.0, 0.0]))
        out = system.deployed()(batch(system)["source"])
    assert (out[:, 0] == 1).all()
    assert (out[:, 1] == 0).all()


# ---- the colour map ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["match", "keep", "white", "none"])
def test_one_by_one_convolutions_leave_a_colour_map(background: str, phantom: Phantom, tmp_path) -> None:
    system = make("stainnet", kernels=(1, 1, 1), background=background).finish(WHITE, "glass", FACTS)
    with torch.no_grad():
        for weight in system.generator.parameters():
            weight.mul_(2)  # the first weights make all colours much alike
    student = system.normalizer()
    assert type(student) is StainNet
    assert not student.neighbourhood
    assert student.provenance_ == FACTS
    assert student.background == background
    source = phantom.image[:64, :96]
    appearance = system.estimate(source)
    as_network = system.transform(source, appearance)
    as_map = student.transform(source, student.estimate(source))
    # The network counts in float32, the map in float64: a value at a half may be rounded either way.
    difference = np.abs(as_network.astype(int) - as_map)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert len(np.unique(as_map.reshape(-1, 3), axis=0)) > 100
    student.save(tmp_path / "student.safetensors")
    assert load(tmp_path / "student.safetensors") == student


def test_pixel_weights_are_the_convolutions() -> None:
    network = student(kernels=(1, 1, 1)).generator
    weights = pixel_weights(network)
    assert {name: array.shape for name, array in weights.items()} == {
        "weight1": (6, 3),
        "bias1": (6,),
        "weight2": (6, 6),
        "bias2": (6,),
        "weight3": (3, 6),
        "bias3": (3,),
    }
    colors = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    values = colors
    for layer in (1, 2, 3):
        values = values @ weights[f"weight{layer}"].T + weights[f"bias{layer}"]
        values = np.maximum(values, 0) if layer < 3 else values
    with torch.no_grad():
        out = network(torch.from_numpy(colors.T[None, :, :, None].copy()))[0, :, :, 0].T.numpy()
    np.testing.assert_allclose(out, values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernels", [(1,), (1, 1), (1, 1, 1, 1)])
def test_any_number_of_layers(kernels: tuple[int, ...], phantom: Phantom) -> None:
    system = make("stainnet", kernels=kernels).finish(WHITE, "glass", FACTS)
    map_ = system.normalizer()
    source = phantom.image[:32, :32]
    difference = np.abs(system.transform(source).astype(int) - map_.transform(source))
    assert difference.max() <= 1


def test_neighbours_make_a_network() -> None:
    system = make("stainnet", kernels=(3, 1, 1)).finish(WHITE, "glass", FACTS)
    assert system.normalizer() is system


def test_before_training_there_is_no_map() -> None:
    with pytest.raises(NotFittedError, match="restain train"):
        make("stainnet", kernels=(1, 1, 1)).normalizer()


def test_the_origin_of_the_weights_stays_when_the_map_is_fitted(reference: Phantom) -> None:
    student = make("stainnet", kernels=(1, 1, 1)).finish(WHITE, "glass", FACTS).normalizer()
    student.fit(ColorHistogram.from_image(reference.image))
    assert student.provenance_["training"] == FACTS["training"]


# ---- settings ----------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers() -> None:
    config = StainNetConfig()
    assert (config.channels, config.kernels) == (32, (1, 1, 1))
    assert (config.optimizer, config.learning_rate, config.batch_size) == ("sgd", 0.01, 10)
    assert (config.epochs, config.decay_epochs, config.schedule) == (300, 0, "cosine")
    assert config.crop == 256
    assert (config.horizontal_flips, config.vertical_flips, config.quarter_turns) == (False, False, False)
    (group,) = StainNetStudent().make_optimizers()["generator"].param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0, 0, False)


def test_sizes_are_the_papers() -> None:
    assert sum(weight.numel() for weight in StainNetStudent().generator.parameters()) == 1283


@pytest.mark.parametrize("kernels", [(), (2,), (1, 0, 1), (-1,), (1, 17), (1,) * 17])
def test_kernels_that_cannot_be(kernels: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"kernels = .*; wanted 1 to 16 odd sides of at most 15"):
        StainNetConfig(kernels=kernels)


def test_what_could_not_be_saved_is_refused_before_it_is_trained() -> None:
    """A colour map of more than 100,000 weights is not believed when it is read; a network may have more."""
    with pytest.raises(InputError, match="channels = 400, which makes 163,203 weights"):
        StainNetConfig(channels=400)
    assert StainNetConfig(channels=400, kernels=(3, 1, 1)).channels == 400
    widest = StainNetConfig(channels=312)
    weights = pixel_weights(StainNetStudent(config=widest).generator)
    assert 99_000 < sum(array.size for array in weights.values()) <= 100_000
    StainNet(weights=weights)
