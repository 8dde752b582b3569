"""STST's update against a step by hand (PAPERS §5.2), and the three modes in which it normalizes."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.phantom import Phantom  # noqa: E402
from restain.systems.deployed import to_gray  # noqa: E402
from restain.systems.engine import PlainEngine  # noqa: E402
from restain.systems.onnx import exportable  # noqa: E402
from restain.systems.stst import STST, SeededDropout, STSTConfig  # noqa: E402

from . import small  # noqa: E402
from .reference import Adam, Watch, assert_learned, assert_losses, same, weights_of  # noqa: E402
from .small import batch, noise, trained  # noqa: E402


def lively(**config) -> STST:
    return small.lively("stst", **config)


def luma(images: Tensor) -> Tensor:
    """Gray three times, (N, 3, H, W)."""
    red, green, blue = images.unbind(dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None].repeat(1, 3, 1, 1)


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    probability = torch.sigmoid(logits)
    return -(probability if label else 1 - probability).log().mean()


class ByHand:
    """The same two networks, and the paper's three steps."""

    def __init__(self, system: STST) -> None:
        self.config = config = system.config
        self.generator, self.judge = (copy.deepcopy(network) for network in system.networks().values())
        betas = (config.beta1, config.beta2)
        self.generators = Adam(weights_of(self.generator), config.learning_rate, betas)
        self.judges = Adam(weights_of(self.judge), config.learning_rate, betas)

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        target = 2 * batch["target"] - 1
        gray = luma(target)
        fake = self.generator(gray)
        on_real = cross_entropy(self.judge(torch.cat([gray, target], dim=1)), 1) / 2
        self.judges.descend(on_real)
        on_fake = cross_entropy(self.judge(torch.cat([gray, fake.detach()], dim=1)), 0) / 2
        self.judges.descend(on_fake)
        # A copy judges the generator: what it does to its running statistics is lost, as it shall be.
        adversarial = cross_entropy(copy.deepcopy(self.judge)(torch.cat([gray, fake], dim=1)), 1)
        error = (fake - target).abs().mean()
        self.generators.descend(adversarial + self.config.lambda_l1 * error)
        return {
            "discriminator_real": on_real.item(),
            "discriminator_fake": on_fake.item(),
            "adversarial": adversarial.item(),
            "l1": error.item(),
        }


@pytest.mark.parametrize(
    "config",
    [{}, {"lambda_l1": 3.0, "learning_rate": 0.01, "beta1": 0.3, "beta2": 0.9, "batch_size": 2}],
    ids=["the paper's", "another"],
)
def test_two_updates_are_those_written_out(config: dict) -> None:
    system = lively(**config)
    by_hand = ByHand(system)
    for number in range(2):
        images = batch(system, seed=number)
        torch.manual_seed(number)  # of the dropout
        losses = system.update(images, PlainEngine())
        torch.manual_seed(number)
        wanted = by_hand.step(images)
        assert_losses(losses, wanted, rel=1e-9)
    start = lively(**config).networks()
    hands = {"generator": by_hand.generator, "discriminator": by_hand.judge}
    for name, wanted in hands.items():
        assert_learned(system.networks()[name], wanted, start[name], rate=system.config.learning_rate, atol=1e-6)


def test_losses_reach_their_networks_and_no_others() -> None:
    system = lively()
    watch = Watch(system.networks())
    system.update(batch(system), watch)
    assert watch.reached == [{"discriminator"}, {"discriminator"}, {"generator"}]
    assert watch.clipped == ["discriminator", "discriminator", "generator"]
    # Statistics as each backward pass found them: moved by the discriminator's two passes, not by the generator's.
    real, fake, generators_turn = (moment["discriminator"] for moment in watch.buffers)
    assert real
    assert not same(real, fake)
    assert same(generators_turn, fake)
    assert same(generators_turn, list(system.discriminator.buffers()))
    for network in system.networks().values():
        assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())


def test_the_discriminator_is_shown_gray_beside_colour() -> None:
    system = lively()
    seen: list[Tensor] = []
    system.discriminator.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    images = batch(system)
    system.update(images, PlainEngine())
    target = 2 * images["target"] - 1
    real, fake, fooling = seen
    for shown in seen:
        torch.testing.assert_close(shown[:, :3], luma(target))
    torch.testing.assert_close(real[:, 3:], target)
    assert torch.equal(fake, fooling)
    assert not torch.allclose(fake[:, 3:], target)


def test_gray_is_the_luma_of_either_range() -> None:
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    assert to_gray(images).shape == (2, 1, 4, 5)
    torch.testing.assert_close(to_gray(images).expand(-1, 3, -1, -1), luma(images))
    torch.testing.assert_close(to_gray(2 * images - 1), 2 * to_gray(images) - 1)


def test_the_validation_loss_is_of_the_mode_instance() -> None:
    """Mean absolute error in −1..1, each image with its own statistics and without dropout; nothing is changed."""
    system = lively(batch_size=2)
    images = batch(system)
    state = copy.deepcopy(system.generator.state_dict())
    loss = system.validation_loss(images)
    assert all(torch.equal(value, state[key]) for key, value in system.generator.state_dict().items())
    assert system.generator.training
    target = 2 * images["target"] - 1
    wanted = (one_by_one(system.generator, luma(target)) - target).abs().mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-9)
    assert loss.item() == system.validation_loss(images).item()


# ---- the modes of inference --------------------------------------------------------------------------------------


def one_by_one(generator: nn.Module, gray: Tensor) -> Tensor:
    """Each image in a batch of its own through the network in training, dropout off: what "instance" means."""
    network = copy.deepcopy(generator).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        return torch.cat([network(image[None]) for image in gray])


def as_levels(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(2, 0, 1)[None].float() / 255


def network_levels(out: Tensor) -> np.ndarray:
    return ((out[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).clip(0, 255)


def bare(**config) -> STST:
    """Trained, and without the rule for glass: what comes out is what the network makes."""
    return trained("stst", background="none", **config)


def test_instance_is_statistics_of_the_image_without_dropout() -> None:
    system, image = bare(), noise(256, 256)
    wanted = network_levels(one_by_one(system.generator, luma(2 * as_levels(image) - 1)))
    assert np.abs(system.transform(image) - wanted).max() <= 0.5 + 1e-2
    assert wanted.std() > 5


def test_eval_is_statistics_of_the_training() -> None:
    system, image = bare(inference="eval"), noise(256, 256)
    with torch.no_grad():
        wanted = network_levels(copy.deepcopy(system.generator).eval()(luma(2 * as_levels(image) - 1)))
    assert np.abs(system.transform(image) - wanted).max() <= 0.5 + 1e-2
    assert system.estimate(image).statistics == "training"
    assert np.abs(bare().transform(image).astype(int) - wanted).max() > 5


def test_stochastic_is_instance_with_dropout() -> None:
    """The oracle puts the same masks where the paper has its dropout; their share is a half."""
    system, image = bare(inference="stochastic", inference_seed=5), noise(256, 256)
    network = copy.deepcopy(system.generator).train()
    masks = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        forward = dropouts[len(masks)]
        masks.append(forward(torch.ones_like(inputs[0])))
        return inputs[0] * masks[-1]

    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(note)
    with torch.no_grad():
        dropouts = [
            module
            for module in system.inference_network(system.estimate(image)).modules()
            if isinstance(module, SeededDropout)
        ]
        wanted = network_levels(network(luma(2 * as_levels(image) - 1)))
    assert np.abs(system.transform(image) - wanted).max() <= 0.5 + 1e-2
    assert len(masks) == 3
    values = torch.cat([mask.flatten() for mask in masks])
    assert set(values.tolist()) == {0.0, 2.0}  # what is kept is doubled
    assert not torch.equal(masks[0].flatten()[:16], masks[1].flatten()[:16])


def test_stochastic_can_be_had_again() -> None:
    image = noise(256, 256)
    state = torch.get_rng_state()
    first = bare(inference="stochastic", inference_seed=1)
    torch.set_rng_state(state)
    once = first.transform(image)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are drawn
    torch.rand(7)
    np.testing.assert_array_equal(first.transform(image), once)
    np.testing.assert_array_equal(bare(inference="stochastic", inference_seed=1).transform(image), once)
    for other in (bare(inference="stochastic", inference_seed=2), bare()):
        assert np.abs(other.transform(image).astype(int) - once).max() > 5


def test_stochastic_in_windows(phantom: Phantom) -> None:
    image = np.concatenate([phantom.image, phantom.image], axis=1)  # larger than a window
    once = bare(inference="stochastic").transform(image)
    np.testing.assert_array_equal(bare(inference="stochastic").transform(image), once)
    assert np.abs(once.astype(int) - bare().transform(image)).max() > 5


def test_stochastic_is_not_exported() -> None:
    with pytest.raises(InputError, match="stst draws random numbers here"):
        exportable(bare(inference="stochastic"))
    for mode in ("instance", "eval"):
        assert exportable(bare(inference=mode))[1] == 256


def test_stochastic_drops_the_same_of_every_image() -> None:
    dropout = SeededDropout(0.5, seed=3)
    out = dropout(torch.ones(4, 8, 16, 16))
    assert all(torch.equal(image, out[0]) for image in out)
    assert abs(out[0].mean().item() - 1) < 5 / np.sqrt(out[0].numel())
    assert torch.equal(dropout(torch.ones(1, 8, 16, 16))[0], out[0])
    assert not torch.equal(SeededDropout(0.5, seed=4)(torch.ones(1, 8, 16, 16))[0], out[0])
    lean = SeededDropout(0.2, seed=3)(torch.ones(1, 8, 64, 64))
    assert set(lean.unique().tolist()) == {0.0, 1.25}
    assert (lean == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_slides_get_frozen_statistics_in_the_mode_instance_alone() -> None:
    tiles = [noise(256, 256, seed=seed) for seed in range(2)]
    for mode, statistics in (("instance", "slide"), ("stochastic", "image"), ("eval", "training")):
        system = bare(inference=mode)
        appearance = system.estimate(tiles[0], tiles=tiles)
        assert appearance.statistics == statistics
        assert (appearance.norm_statistics is not None) == (statistics == "slide")
        if statistics == "slide":
            assert np.isfinite(appearance.norm_statistics).all()
            other = system.transform(tiles[0], appearance)
            assert np.abs(other.astype(int) - system.transform(tiles[0])).max() > 0


def test_frozen_statistics_of_one_tile_are_its_own() -> None:
    system, tile = bare(), noise(256, 256)
    appearance = system.estimate(tile, tiles=[tile])
    difference = np.abs(system.transform(tile, appearance).astype(int) - system.transform(tile))
    assert difference.max() <= 1


@pytest.mark.parametrize("mode", ["instance", "stochastic", "eval"])
def test_only_gray_is_seen(mode: str) -> None:
    """Colours that have the same gray are one colour: 114 levels more red, 299 less blue change nothing."""
    system = bare(inference=mode)
    generator = np.random.default_rng(0)
    image = generator.uniform(0.4, 0.6, (3, 256, 256))
    shift = generator.uniform(-1, 1, (256, 256)) * 0.3
    other = image + np.stack([shift * 0.114, 0 * shift, -shift * 0.299])
    images = torch.from_numpy(np.stack([image, other])).float()
    network = system.inference_network(system.estimate(noise(8, 8)))
    with torch.inference_mode():
        one, two = network(images)
    assert (images[0] - images[1]).abs().max() > 0.05
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)
    assert one.std() > 0.01


# ---- settings ----------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers() -> None:
    config = STSTConfig()
    assert (config.channels, config.lambda_l1, config.inference) == (64, 100, "instance")
    assert (config.learning_rate, config.beta1, config.beta2, config.schedule) == (2e-4, 0.5, 0.999, "constant")
    assert (config.epochs, config.decay_epochs, config.batch_size, config.crop) == (30, 0, 1, 256)
    assert (config.horizontal_flips, config.vertical_flips, config.quarter_turns) == (True, False, False)


def test_sizes_are_the_papers() -> None:
    with torch.device("meta"):
        networks = STST().networks()
    counts = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    assert counts == {"generator": 54_419_459, "discriminator": 6_965_441}


@pytest.mark.parametrize("crop", [128, 300, 257])
def test_crops_that_the_network_cannot_halve_are_refused(crop: int) -> None:
    with pytest.raises(InputError, match=f"crop = {crop}; wanted a multiple of 256"):
        STSTConfig(crop=crop)
