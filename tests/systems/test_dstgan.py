"""DSTGAN's update against a step by hand (PAPERS §2.3 to §2.5), what its settings change, and what it normalizes."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.phantom import Phantom, make_phantom  # noqa: E402
from restain.systems.deployed import to_gray  # noqa: E402
from restain.systems.dstgan import DSTGAN, DSTGANConfig  # noqa: E402
from restain.systems.engine import PlainEngine  # noqa: E402
from restain.training.settings import read_recipe, shipped_recipes  # noqa: E402

from . import small  # noqa: E402
from .reference import Adam, Watch, assert_learned, assert_losses, same, weights_of  # noqa: E402
from .small import batch, noise, trained  # noqa: E402


def lively(**config) -> DSTGAN:
    return small.lively("dstgan", **config)


def augmented(system: DSTGAN, seed: int = 0) -> dict[str, Tensor]:
    """A batch whose generator is given other colours than those that are its labels."""
    images = batch(system, seed=seed)
    return images | {f"{domain}_input": images[domain].flip(1) ** 1.2 for domain in system.domains}


# ---- a step by hand ----------------------------------------------------------------------------------------------


def luma(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(dim=1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    probability = torch.sigmoid(logits)
    return -(probability if label else 1 - probability).log().mean()


def structure(x: Tensor, y: Tensor, mode: str) -> Tensor:
    """SSIM by a convolution with the whole window, or of all pixels; the mean over the batch."""
    along = torch.exp(-((torch.arange(11, dtype=x.dtype) - 5) ** 2) / 4.5)
    window = torch.outer(along, along)[None, None] / along.sum() ** 2

    def mean(image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3)) if mode == "global" else nn.functional.conv2d(image, window)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    brightness = (2 * mx * my + 1e-4) / (mx * mx + my * my + 1e-4)
    contrast = (2 * cov + 9e-4) / (vx + vy + 9e-4)
    return (contrast if mode == "cs" else brightness * contrast).mean()


def histogram(images: Tensor, config: DSTGANConfig) -> Tensor:
    """HistoGAN's, channel by channel as it is written."""
    size = (config.hist_size, config.hist_size)
    pixels = nn.functional.interpolate(images.clamp(0, 1), size, mode="bilinear", align_corners=False).flatten(2)
    centres = torch.linspace(-config.hist_bound, config.hist_bound, config.hist_bins, dtype=pixels.dtype)
    weight = (pixels**2).sum(dim=1).sqrt()
    counts = []
    for channel in range(3):
        along = []
        for other in (number for number in range(3) if number != channel):
            quotient = (pixels[:, channel] + 1e-6).log() - (pixels[:, other] + 1e-6).log()
            along.append(1 / (1 + ((quotient[:, :, None] - centres) / config.hist_tau) ** 2))
        counts.append(torch.einsum("np,npu,npv->nuv", weight, *along))
    stacked = torch.stack(counts, dim=1)
    return stacked / stacked.sum(dim=(1, 2, 3), keepdim=True)


class ByHand:
    """The same three networks, and the paper's three steps."""

    def __init__(self, system: DSTGAN) -> None:
        self.config = config = system.config
        self.generator, self.color, self.content = (copy.deepcopy(network) for network in system.networks().values())
        learning = [weights_of(network) for network in (self.generator, self.color, self.content)]
        learning[0] = [weight for weight in learning[0] if weight.requires_grad]
        betas = (config.beta1, config.beta2)
        self.adams = [Adam(weights, config.learning_rate, betas) for weights in learning]
        self.omegas = config.omegas if config.deep_supervision else (1.0,)

    def colored(self, gray: Tensor) -> tuple[Tensor, ...]:
        return self.generator(gray, outputs="all") if self.config.deep_supervision else (self.generator(gray),)

    def fooling(self, images: tuple[Tensor, ...], color: nn.Module, content: nn.Module) -> Tensor:
        on_color = sum(w * cross_entropy(color(image), 1) for w, image in zip(self.omegas, images, strict=True))
        return on_color + cross_entropy(content(images[-1])[0], 1)

    def unlike(self, made: Tensor, wanted: Tensor, content: nn.Module) -> Tensor:
        pairs = zip(self.config.content_weights, content(made)[1], content(wanted.detach())[1], strict=True)
        power = 1 if self.config.content_norm == "l1" else 2
        return sum(weight * ((one - other.detach()).abs() ** power).mean() for weight, one, other in pairs)

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        config, omegas = self.config, self.omegas
        source, target = 2 * batch["source"] - 1, 2 * batch["target"] - 1
        first_t = self.colored(2 * luma(batch.get("target_input", batch["target"])) - 1)
        first_s = self.colored(2 * luma(batch.get("source_input", batch["source"])) - 1)

        shares = {"target": [(1.0, first_t)], "all": [(0.5, first_t), (0.5, first_s)]}[config.d_fakes]
        # In the order in which the batch norms' running statistics see them.
        on_color = cross_entropy(self.color(target), 1)
        for share, images in shares:
            for weight, image in zip(omegas, images, strict=True):
                on_color = on_color + share * weight * cross_entropy(self.color(image.detach()), 0)
        on_content = cross_entropy(self.content(source)[0], 1) + cross_entropy(self.content(target)[0], 1)
        for share, images in shares:
            on_content = on_content + share * cross_entropy(self.content(images[-1].detach())[0], 0)
        self.adams[1].descend(on_color)
        self.adams[2].descend(on_content)

        # Copies judge the generator: what it does to their running statistics is lost, as it shall be.
        color, content = copy.deepcopy(self.color), copy.deepcopy(self.content)
        terms: dict[str, Tensor] = {}
        terms["supervised"] = sum(w * (image - target).abs().mean() for w, image in zip(omegas, first_t, strict=True))
        terms["adversarial_target"] = self.fooling(first_t, color, content)
        terms["adversarial_source"] = self.fooling(first_s, color, content)
        l_target = config.lambda_sup * terms["supervised"] + config.alpha * terms["adversarial_target"]
        l_source = config.alpha * terms["adversarial_source"]
        quality = torch.zeros(())
        if config.use_content:
            terms["content"] = self.unlike(first_t[-1], target, content)
            l_target = l_target + terms["content"]
        if config.use_ssim:
            gray = luma(batch["source"])
            losses = [1 - structure(luma((image + 1) / 2), gray, config.ssim_mode) for image in first_s]
            terms["ssim"] = sum(w * loss for w, loss in zip(omegas, losses, strict=True))
            quality = quality + terms["ssim"]
        if config.use_hist:
            wanted = histogram(batch["target"], config)
            if config.hist_reference == "batch-mean":
                wanted = torch.stack([wanted.mean(dim=0)] * len(wanted))
            losses = []
            for image in first_s:
                apart = (wanted.sqrt() - histogram((image + 1) / 2, config).sqrt()) ** 2
                losses.append((apart.sum(dim=(1, 2, 3)) / 2).sqrt().mean())
            terms["histogram"] = sum(w * loss for w, loss in zip(omegas, losses, strict=True))
            quality = quality + terms["histogram"]
        l_source = l_source + quality
        measured = {"quality": quality, "full": l_source}[config.anneal_on]
        anneal = np.exp(-config.beta * measured.item())

        total = l_target + l_source
        if config.two_stage:
            again = alike = fooled = 0
            for i, image in enumerate(first_s):
                proxy = image.detach()
                second = self.colored(luma(proxy))
                for j, other in enumerate(second):
                    weight = {"first": omegas[i], "second": omegas[j], "both": omegas[i] * omegas[j]}[config.ts_weight]
                    again = again + weight * (other - proxy).abs().mean()
                fooled = fooled + omegas[i] * self.fooling(second, color, content)
                if config.use_content:
                    alike = alike + omegas[i] * self.unlike(second[-1], proxy, content)
            total = total + anneal * (again + alike + config.alpha * fooled)
            terms |= {"second_stage": again, "second_adversarial": fooled}
            terms |= {"second_content": alike} if config.use_content else {}
        self.adams[0].descend(total)
        terms |= {"discriminator_color": on_color, "discriminator_content": on_content}
        return {name: term.item() for name, term in terms.items()} | {"anneal": anneal}


OTHERS = {
    # Bins are fewer, and blocks are not computed twice, elsewhere here.
    "the paper's": {"hist_bins": 64, "hist_size": 60, "checkpoint": True},
    "all else": {
        "lambda_sup": 3.0, "alpha": 0.7, "omegas": (0.5, 0.2, 0.3), "content_weights": (0.4, 0.3, 0.2, 0.1),
        "content_norm": "mse", "ssim_mode": "cs", "hist_bins": 9, "hist_bound": 2.0, "hist_tau": 0.3, "hist_size": 20,
        "hist_reference": "batch-mean", "ts_weight": "both", "anneal_on": "full", "beta": 1.0, "d_fakes": "all",
        "first_merge": "swin", "ds_keep_width": True, "output_skip": "additive",
        "learning_rate": 0.001, "beta1": 0.3, "beta2": 0.9,
    },
    "the final image alone": {"deep_supervision": False, "ssim_mode": "global", "ts_weight": "second"},
    "the other weights": {"ts_weight": "second", "use_content": False},
    "Table 6, first row": {
        "deep_supervision": False, "two_stage": False, "use_content": False, "use_ssim": False, "use_hist": False
    },
}  # fmt: skip


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_two_updates_are_those_written_out(config: dict) -> None:
    system = lively(**config)
    by_hand = ByHand(system)
    for images in (batch(system), augmented(system, seed=1)):
        losses = system.update(images, PlainEngine())
        wanted = by_hand.step(images)
        assert set(losses) == set(wanted) | {"output_std"}
        assert_losses(losses, wanted, rel=1e-8)
    start = lively(**config).networks()
    hands = {"generator": by_hand.generator, "color_discriminator": by_hand.color}
    hands |= {"content_discriminator": by_hand.content}
    assert hands.keys() == start.keys()
    for name, wanted in hands.items():
        assert_learned(system.networks()[name], wanted, start[name], rate=system.config.learning_rate, atol=1e-7)


# ---- who learns from what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d_fakes", ["target", "all"])
def test_losses_reach_their_networks_and_no_others(d_fakes: str) -> None:
    system = lively(d_fakes=d_fakes)
    watch = Watch(system.networks())
    system.update(batch(system), watch)
    names = ["color_discriminator", "content_discriminator", "generator"]
    assert watch.reached == [{name} for name in names]
    assert watch.clipped == names
    # Statistics as the generator's backward pass found them are those that stay.
    for name in names[:2]:
        assert list(system.networks()[name].buffers())
        assert same(watch.buffers[2][name], list(system.networks()[name].buffers()))
    for network in system.networks().values():
        assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())


def after_an_update(**config) -> DSTGAN:
    system = lively(**config)
    system.update(batch(system), PlainEngine())
    return system


def test_the_content_loss_does_not_move_the_content_discriminator() -> None:
    """Nor does anything else that the generator learns from."""
    one = after_an_update(content_weights=(0.0, 0.0, 0.0, 0.0))
    other = after_an_update(content_weights=(9.0, 9.0, 9.0, 9.0), alpha=7.0, lambda_sup=0.0)
    for name in ("color_discriminator", "content_discriminator"):
        pairs = zip(*(system.networks()[name].state_dict().values() for system in (one, other)), strict=True)
        assert all(torch.equal(first, second) for first, second in pairs)
    assert not same(weights_of(one.generator), weights_of(other.generator))


class Gradients(PlainEngine):
    """Keeps the generator's gradients, before its step, and the losses that were gone back through."""

    def __init__(self, system: DSTGAN) -> None:
        self.system = system
        self.totals: list[float] = []
        self.found = torch.empty(0)

    def backward(self, loss: Tensor) -> None:
        super().backward(loss)
        self.totals.append(loss.item())
        gradients = [weight.grad for weight in self.system.generator.parameters()]
        self.found = torch.cat([torch.zeros(0) if g is None else g.flatten().clone() for g in gradients])


def gradients(**config) -> tuple[Tensor, dict[str, float], float]:
    """The generator's gradients of one update, the losses, and their total."""
    system = lively(**config)
    engine = Gradients(system)
    losses = system.update(batch(system), engine)
    return engine.found, {name: loss.item() for name, loss in losses.items()}, engine.totals[-1]


def test_the_annealing_is_a_constant_to_the_gradient() -> None:
    """The gradient is that of the first stage and `anneal` times that of the second: nothing of the annealing's own."""
    first, *_ = gradients(two_stage=False)
    both, losses, _ = gradients(beta=0.0)
    assert losses["anneal"] == 1
    for anneal_on in ("quality", "full"):
        annealed, losses, _ = gradients(beta=1.0, anneal_on=anneal_on)
        assert 0.01 < losses["anneal"] < 0.9
        wanted = first + losses["anneal"] * (both - first)
        torch.testing.assert_close(annealed, wanted, rtol=1e-9, atol=1e-12)
        assert (annealed - first).abs().max() > 1e-6


@pytest.mark.parametrize("anneal_on", ["quality", "full"])
@pytest.mark.parametrize("beta", [0.0, 4.0, 100.0])
def test_the_second_stage_fades_in(anneal_on: str, beta: float) -> None:
    _, losses, _ = gradients(anneal_on=anneal_on, beta=beta)
    fallen_short = losses["ssim"] + losses["histogram"]
    if anneal_on == "full":
        fallen_short += 0.5 * losses["adversarial_source"]
    assert 0 < losses["anneal"] <= 1
    assert losses["anneal"] == pytest.approx(np.exp(-beta * fallen_short), rel=1e-9)


# ---- the ablations -----------------------------------------------------------------------------------------------

SECOND = {"second_stage", "second_content", "second_adversarial"}


def total_of(losses: dict[str, float], lambda_sup: float = 1.0) -> float:
    """Equations (5), (10) and (12) of the terms that are there."""
    term = {name: losses.get(name, 0.0) for name in (*losses, *SECOND, "content", "ssim", "histogram")}
    first = lambda_sup * term["supervised"] + term["content"] + 0.5 * term["adversarial_target"]
    source = term["ssim"] + term["histogram"] + 0.5 * term["adversarial_source"]
    second = term["second_stage"] + term["second_content"] + 0.5 * term["second_adversarial"]
    return first + source + second * term["anneal"]


@pytest.mark.parametrize(
    ("switch", "removed"),
    [
        ("use_content", {"content", "second_content"}),
        ("use_ssim", {"ssim"}),
        ("use_hist", {"histogram"}),
        ("two_stage", SECOND),
    ],
)
def test_a_switch_removes_its_terms_and_no_others(switch: str, removed: set[str]) -> None:
    _, full, full_total = gradients()
    _, less, less_total = gradients(**{switch: False})
    assert full_total == pytest.approx(total_of(full), rel=1e-9)
    assert less_total == pytest.approx(total_of(less), rel=1e-9)
    assert set(full) - set(less) == removed
    for name in set(less) - {"anneal"}:  # which follows from the quality that is measured
        assert less[name] == pytest.approx(full[name], rel=1e-9), name


def test_without_any_quality_the_second_stage_is_whole() -> None:
    _, losses, _ = gradients(use_ssim=False, use_hist=False)
    assert losses["anneal"] == 1


def test_without_deep_supervision_the_final_image_counts_alone() -> None:
    full, alone = lively(), lively(deep_supervision=False)
    wanted = full.generator(2 * to_gray(batch(full)["target"]) - 1)
    losses = alone.update(images := batch(alone), PlainEngine())
    assert losses["supervised"].item() == pytest.approx((wanted - (2 * images["target"] - 1)).abs().mean().item())
    # The side images' heads stay as they were, and wait for no gradient.
    assert same(weights_of(alone.generator.sides), weights_of(full.generator.sides))
    learning = {name for name, weight in alone.generator.named_parameters() if weight.requires_grad}
    assert learning == {name for name, _ in full.generator.named_parameters() if not name.startswith("sides.")}


def test_the_rows_of_table_6_have_one_part_more_each() -> None:
    names = sorted(name for name in shipped_recipes() if name.startswith("dstgan-table6-"))
    rows = [read_recipe(name)["config"] for name in names]
    switches = ["use_hist", "use_ssim", "use_content", "deep_supervision", "two_stage"]
    assert len(rows) == 6
    for number, row in enumerate(rows):
        assert row == {switch: place < number for place, switch in enumerate(switches)}


@pytest.mark.parametrize("weight", ["first", "second", "both"])
def test_the_second_stages_weights(weight: str) -> None:
    config = DSTGANConfig(ts_weight=weight)
    found = [config.second_stage_weights(first) for first in range(3)]
    first, second = np.array(config.omegas)[:, None], np.array(config.omegas)[None]
    wanted = {"first": first * np.ones((1, 3)), "second": np.ones((3, 1)) * second, "both": first * second}[weight]
    np.testing.assert_allclose(found, wanted)


def test_histograms_of_the_target_go_with_their_place_in_the_batch_or_are_their_mean() -> None:
    for reference, changes in (("paired", True), ("batch-mean", False)):
        values = []
        for turn in (False, True):
            system = lively(hist_reference=reference)
            images = batch(system)
            images["target"] = torch.stack([images["target"][0] ** 3, images["target"][1]])
            images["target"] = images["target"].flip(0) if turn else images["target"]
            values.append(system.update(images, PlainEngine())["histogram"].item())
        assert (values[0] != pytest.approx(values[1], rel=1e-9)) == changes


# ---- learning ----------------------------------------------------------------------------------------------------


def test_it_overfits_a_batch(phantom: Phantom) -> None:
    torch.manual_seed(0)
    system = DSTGAN(
        config={
            "channels": 12, "merges": 3, "attention_window": 2, "heads": (1, 2, 4), "crop": 32, "depths": 1,
            "checkpoint": False,
            "discriminator_channels": 4, "learning_rate": 3e-3, "lambda_sup": 100.0, "hist_bins": 16, "hist_size": 32,
        }
    )  # fmt: skip
    system.optimizers = system.make_optimizers()
    target = make_phantom(64, 64, seed=1).image
    images = {
        domain: torch.from_numpy(np.stack([image[y : y + 32, :32] for y in (0, 32)])).permute(0, 3, 1, 2).float() / 255
        for domain, image in (("source", phantom.image[60:124, 60:]), ("target", target))
    }
    supervised = [system.update(images, PlainEngine())["supervised"].item() for _ in range(60)]
    assert min(supervised[-5:]) < supervised[0] / 5


# ---- what normalizes ---------------------------------------------------------------------------------------------


def bare(**config) -> DSTGAN:
    """Trained, and without the rule for glass: what comes out is what the network makes."""
    return trained("dstgan", background="none", **config)


def test_the_final_image_is_what_normalizes() -> None:
    system, image = bare(), noise(64, 48)
    colors = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        wanted = copy.deepcopy(system.generator)(2 * luma(colors) - 1, outputs="all")[-1]
    levels = ((wanted[0].permute(1, 2, 0).numpy() + 1) / 2 * 255).clip(0, 255)
    assert np.abs(system.transform(image) - levels).max() <= 0.5 + 1e-2
    assert levels.std() > 5


def test_only_gray_is_seen() -> None:
    """Colours that have the same gray are one colour: 114 levels more red, 299 less blue change nothing."""
    system = bare()
    generator = np.random.default_rng(0)
    image = generator.uniform(0.4, 0.6, (3, 32, 32))
    shift = generator.uniform(-1, 1, (32, 32)) * 0.3
    other = image + np.stack([shift * 0.114, 0 * shift, -shift * 0.299])
    images = torch.from_numpy(np.stack([image, other])).float()
    network = system.inference_network(system.estimate(noise(8, 8)))
    with torch.inference_mode():
        one, two = network(images)
    assert (images[0] - images[1]).abs().max() > 0.05
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)
    assert one.std() > 0.01


def test_there_are_no_statistics_to_freeze() -> None:
    system, tiles = bare(), [noise(64, 64, seed=seed) for seed in range(2)]
    appearance = system.estimate(tiles[0], tiles=tiles)
    assert appearance.statistics == "none"
    assert appearance.norm_statistics is None
    np.testing.assert_array_equal(system.transform(tiles[0], appearance), system.transform(tiles[0]))


def test_windows_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        system = DSTGAN(trainable=False)
    assert (system.window, system.overlap, system.multiple, system.least_side) == (256, 64, 256, 256)


# ---- settings ----------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers() -> None:
    config = DSTGANConfig()
    assert (config.learning_rate, config.beta1, config.beta2, config.schedule) == (2e-4, 0.5, 0.999, "constant")
    assert (config.epochs, config.decay_epochs, config.batch_size, config.crop) == (50, 0, 2, 256)
    assert (config.horizontal_flips, config.vertical_flips, config.quarter_turns) == (True, True, False)
    assert (config.lambda_sup, config.alpha, config.beta, config.omegas) == (1, 0.5, 4, (0.1, 0.3, 0.6))
    assert config.content_weights == (0.1, 0.2, 0.3, 0.4)
    assert (config.hist_bins, config.hist_bound, config.hist_tau, config.hist_size) == (64, 3, 0.02, 150)
    assert (config.ssim_mode, config.content_norm, config.hist_reference) == ("windowed", "l1", "paired")
    assert (config.anneal_on, config.d_fakes, config.ts_weight) == ("quality", "target", "first")
    assert config.input_augmentation == "cagan"


@pytest.mark.parametrize(
    ("options", "generator"), [({}, 29_583_708), ({"ds_keep_width": True}, 65_096_268)], ids=["narrow", "wide"]
)
def test_sizes_are_those_of_the_specification(options: dict, generator: int) -> None:
    with torch.device("meta"):
        networks = DSTGAN(config=options).networks()
    counts = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    assert counts == {
        "generator": generator,
        "color_discriminator": 2_765_633,
        "content_discriminator": 2_888_513,
    }


@pytest.mark.parametrize(("options", "crop"), [({}, 128), ({}, 300), ({"merges": 4}, 192), ({"merges": 4}, 64)])
def test_crops_that_the_network_cannot_halve_are_refused(options: dict, crop: int) -> None:
    multiple = 8 * 2 ** options.get("merges", 5)
    with pytest.raises(InputError, match=rf"crop = {crop}; wanted a multiple of {multiple} .*2\^merges"):
        DSTGANConfig(crop=crop, **options)


def test_weights_of_the_images_add_up_to_one() -> None:
    with pytest.raises(InputError, match=r"omegas = \[0.1, 0.3, 0.7\]; wanted weights whose sum is 1"):
        DSTGANConfig(omegas=(0.1, 0.3, 0.7))
    DSTGANConfig(omegas=(1 / 3, 1 / 3, 1 / 3))
