"""NST's update against a step written out by hand (PAPERS §6), whom its losses reach, and what its variants are."""

import copy
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402  (after the skip)
from torch import Tensor  # noqa: E402

from restain import load  # noqa: E402
from restain.errors import InputError, WeightsUnavailable  # noqa: E402
from restain.files import load_arrays  # noqa: E402
from restain.networks.feature_extractor import tap  # noqa: E402
from restain.networks.hrnet import HRNetGenerator  # noqa: E402
from restain.networks.johnson import JohnsonGenerator  # noqa: E402
from restain.phantom import Scanner, make_phantom  # noqa: E402
from restain.systems.engine import PlainEngine  # noqa: E402
from restain.systems.nst import NST, printed_discriminator_loss, printed_generator_loss  # noqa: E402
from restain.systems.nst_config import NSTConfig  # noqa: E402
from restain.systems.onnx import export_onnx, exportable, run_onnx  # noqa: E402
from restain.training.loop import train  # noqa: E402
from restain.training.settings import make_recipe  # noqa: E402

from . import small  # noqa: E402
from .reference import Adam, Watch, assert_learned, assert_losses, weights_of  # noqa: E402
from .small import CONFIGS, WHITE, batch, make, noise, trained  # noqa: E402

VARIANTS = ("nst", "nst_ad", "nst_hrnet", "nst_ad_hrnet")
JOHNSON = {"johnson_channels": 2, "johnson_blocks": 1}


def lively(**config) -> NST:
    system = small.lively("nst", **{**JOHNSON, **config})
    system.perceptual.double()
    return system


class ByHand:
    """The same networks, and the step of PAPERS §6.2 and §6.3."""

    def __init__(self, system: NST) -> None:
        self.config = config = system.config
        self.generator = copy.deepcopy(system.generator)
        self.layers = [copy.deepcopy(module) for module in system.perceptual.features]
        self.generators = Adam(weights_of(self.generator), config.learning_rate, (config.beta1, config.beta2))
        if config.adversarial:
            self.judge = copy.deepcopy(system.discriminator)
            betas = (config.discriminator_beta1, config.discriminator_beta2)
            self.judges = Adam(weights_of(self.judge), config.discriminator_learning_rate, betas)

    def look(self, images: Tensor, layers: Iterable[str]) -> list[Tensor]:
        mean = images.new_tensor([0.485, 0.456, 0.406])[:, None, None]
        deviation = images.new_tensor([0.229, 0.224, 0.225])[:, None, None]
        maps, seen = (images - mean.float()) / deviation.float(), []
        for layer in self.layers:
            maps = layer(maps)
            seen.append(maps)
        return [seen[tap(self.config.feature_network, name)] for name in layers]

    def terms(self, t: Tensor, p: Tensor, r: Tensor) -> dict[str, Tensor]:
        config, count = self.config, len(t)
        free = config.loss_form == "scale_free"
        (made,), (kept,) = (self.look(images, [config.content]) for images in (t, p))
        content = sum(((made[i] - kept[i]) ** 2).sum() / ((kept[i] ** 2).sum() if free else 1) for i in range(count))
        style = torch.zeros((), dtype=t.dtype)
        for made, wanted in zip(self.look(t, config.style), self.look(r, config.style), strict=True):
            for i in range(count):
                g, a = (torch.einsum("ixy,jxy->ij", maps[i], maps[i]) / maps[i].numel() for maps in (made, wanted))
                style = style + ((g - a) ** 2).sum() / ((a**2).sum() if free else 1)
        terms = {"content": content / count, "style": style / count}
        if config.adversarial:
            probability = torch.sigmoid(self.judge(2 * t - 1))
            terms["adversarial"] = -probability.log().mean() if free else (1 - probability).log().mean()
        return terms

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        config, p, r = self.config, batch["source"], batch["target"]
        t = self.generator(p)
        losses: dict[str, Tensor] = {}
        if config.adversarial:
            real, fake = (torch.sigmoid(self.judge(2 * images - 1)) for images in (r, t.detach()))
            if config.loss_form == "scale_free":
                losses["discriminator"] = -real.log().mean() - (1 - fake).log().mean()
            else:
                losses["discriminator"] = (1 - real).log().mean() + fake.log().mean()  # (5)
            self.judges.descend(losses["discriminator"])
        terms = self.terms(t, p, r)
        for name, term in terms.items():
            (pull,) = torch.autograd.grad(term, t, retain_graph=True)
            losses |= {name: term, f"{name}_gradient": pull.square().sum().sqrt()}
        weights = {"content": config.lambda_content, "style": config.lambda_style}
        weights["adversarial"] = config.lambda_adversarial
        self.generators.descend(sum(weights[name] * term for name, term in terms.items()))
        return {name: loss.item() for name, loss in losses.items()}


OTHERS = {
    "lambda_content": 3.0,
    "lambda_style": 0.5,
    "lambda_adversarial": 2.0,
    "learning_rate": 0.01,
    "discriminator_learning_rate": 0.003,
    "beta1": 0.3,
    "beta2": 0.9,
    "discriminator_beta1": 0.2,
    "discriminator_beta2": 0.8,
    "content_layer": "fire2",
    "style_layers": ("fire2",),
}


@pytest.mark.parametrize(
    "config",
    [
        *({"variant": variant} for variant in VARIANTS),
        {"variant": "nst_ad", "loss_form": "paper", "lambda_content": 0.01},
        OTHERS,
        {"feature_network": "vgg19", "style_layers": "shallow", "batch_size": 3},
    ],
    ids=[*VARIANTS, "as printed", "other weights", "VGG-19"],
)
def test_two_updates_are_those_written_out(config: dict) -> None:
    system = lively(**config)
    by_hand = ByHand(system)
    for number in range(2):
        images = batch(system, seed=number)
        losses = system.update(images, PlainEngine())
        wanted = by_hand.step(images)
        assert set(losses) == set(wanted) | {"output_std"}
        assert_losses(losses, wanted, rel=1e-7)
    start = lively(**config).networks()
    rates = {"generator": system.config.learning_rate, "discriminator": system.config.discriminator_learning_rate}
    hands = {"generator": by_hand.generator} | ({"discriminator": by_hand.judge} if system.config.adversarial else {})
    assert set(hands) == set(system.networks())
    for name, wanted in hands.items():
        rate = rates[name]
        assert_learned(system.networks()[name], wanted, start[name], rate=rate, atol=1e-3 * rate)


# ---- who learns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_reach_their_networks_and_no_others(variant: str) -> None:
    system = lively(variant=variant)
    look = {name: value.clone() for name, value in system.perceptual.state_dict().items()}
    watch = Watch({**system.networks(), "perceptual": system.perceptual})
    system.update(batch(system), watch)
    turns = [{"discriminator"}, {"generator"}] if "_ad" in variant else [{"generator"}]
    assert watch.reached == turns
    assert [{name} for name in watch.clipped] == turns
    for network in system.networks().values():
        assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
    assert not system.perceptual.training
    assert all(weight.grad is None and not weight.requires_grad for weight in system.perceptual.parameters())
    assert all(torch.equal(value, look[name]) for name, value in system.perceptual.state_dict().items())


def test_the_discriminator_is_shown_the_range_that_it_wants() -> None:
    system = lively()
    seen: list[Tensor] = []
    system.discriminator.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    images = batch(system)
    with torch.no_grad():
        made = 2 * copy.deepcopy(system.generator)(images["source"]) - 1
    system.update(images, PlainEngine())
    real, fake, fooling = seen
    torch.testing.assert_close(real, 2 * images["target"] - 1)
    torch.testing.assert_close(fake, made)
    torch.testing.assert_close(fooling, made)


def test_the_perceptual_network_is_no_part_of_what_is_kept(tmp_path: Path) -> None:
    system = make("nst").finish(WHITE, "glass", {})
    assert set(system.networks()) == {"generator", "discriminator"}
    system.save(tmp_path / "nst.safetensors")
    arrays = load_arrays(tmp_path / "nst.safetensors")[1]
    assert {name.split(".")[0] for name in arrays if "." in name} == {"generator"}
    loaded = load(tmp_path / "nst.safetensors")
    assert not hasattr(loaded, "perceptual")
    assert not hasattr(loaded, "discriminator")


def test_without_weights_nothing_is_trained_and_everything_applied(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    config = CONFIGS["nst"] | {"feature_weights": "pretrained"}
    with pytest.raises(WeightsUnavailable, match="feature_weights = random"):
        NST(config=config)
    assert NST(config=config, trainable=False).finish(WHITE, "glass", {}).transform(noise(20, 20)).shape == (20, 20, 3)


def test_where_weights_lay_is_not_told(tmp_path: Path) -> None:
    torch.save(make("nst").perceptual.state_dict(), tmp_path / "patient.pth")
    system = make("nst", feature_weights="encoder", feature_path=str(tmp_path / "patient.pth"))
    system.finish(WHITE, "glass", {}).save(tmp_path / "nst.safetensors")
    assert b"patient" not in (tmp_path / "nst.safetensors").read_bytes()
    assert load(tmp_path / "nst.safetensors") == system


# ---- losses ------------------------------------------------------------------------------------------------------


def test_printed_losses_fall_where_their_network_wins() -> None:
    """(5) where the reference is called real and the restyled image is not; (6) where it is."""
    sure = torch.tensor([4.0], dtype=torch.float64)
    assert printed_discriminator_loss(sure, -sure) < printed_discriminator_loss(0 * sure, 0 * sure)
    assert printed_discriminator_loss(-sure, sure) > printed_discriminator_loss(0 * sure, 0 * sure)
    assert printed_generator_loss(sure) < printed_generator_loss(0 * sure) < printed_generator_loss(-sure)
    probability = torch.sigmoid(sure)
    assert printed_generator_loss(sure).item() == pytest.approx((1 - probability).log().item(), rel=1e-6)
    assert printed_discriminator_loss(sure, -sure).item() == pytest.approx(2 * (1 - probability).log().item(), rel=1e-6)
    assert printed_discriminator_loss(1e4 * sure, -1e4 * sure) < -5e4  # without a bound, and finite


def test_a_tile_that_is_its_own_reference_has_nothing_to_learn_from_style() -> None:
    """At first an HRNet changes nothing: both terms and their gradients are 0, and what is left is the adversary."""
    system = make("nst")
    system.optimizers = system.make_optimizers()
    images = batch(system, dtype=torch.float32)
    losses = system.update({"source": images["source"], "target": images["source"]}, PlainEngine())
    for name in ("content", "style", "content_gradient", "style_gradient"):
        assert losses[name].item() == 0
    assert losses["adversarial_gradient"].item() > 0


def test_style_is_learned() -> None:
    """A few steps bring the tiles of one batch nearer to their references."""
    system = make("nst", variant="nst_hrnet", learning_rate=3e-3)
    system.optimizers = system.make_optimizers()
    images = {
        "source": torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.6,
        "target": torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.3 + 0.2,
    }
    style = [system.update(images, PlainEngine())["style"].item() for _ in range(40)]
    assert style[-1] < 0.5 * style[0]


# ---- variants ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_their_names(variant: str) -> None:
    system = make("nst", variant=variant, **JOHNSON)
    assert isinstance(system.generator, HRNetGenerator if variant.endswith("hrnet") else JohnsonGenerator)
    assert ("discriminator" in system.networks()) == ("_ad" in variant)
    assert set(system.make_optimizers()) == set(system.networks())
    assert system.learned_statistics == variant.endswith("hrnet")
    assert system.multiple == (8 if variant.endswith("hrnet") else 4)
    tiles = [noise(64, 64, seed=seed) for seed in range(2)]
    ready = trained("nst", variant=variant, **JOHNSON)
    assert ready.estimate(tiles[0]).statistics == ("training" if variant.endswith("hrnet") else "image")
    assert ready.estimate(tiles[0], tiles=tiles).statistics == ("training" if variant.endswith("hrnet") else "slide")
    for shape in ((1, 1), (3, 70), (33, 40)):
        assert ready.transform(noise(*shape)).shape == (*shape, 3)


def test_the_discriminators_rates_are_its_own() -> None:
    optimizers = NST(config=CONFIGS["nst"]).make_optimizers()
    found = {name: (o.param_groups[0]["lr"], o.param_groups[0]["betas"]) for name, o in optimizers.items()}
    assert found == {"generator": (1e-3, (0.9, 0.999)), "discriminator": (1e-5, (0.5, 0.999))}


def test_it_begins_as_the_identity() -> None:
    """Whatever weights are drawn, and in windows, too."""
    image = noise(70, 90)
    bare = make("nst", trainable=False, background="none", seed=7).finish(WHITE, "glass", {})
    np.testing.assert_array_equal(bare.transform(image), image)
    large = make_phantom(540, 530, seed=1).image
    np.testing.assert_array_equal(bare.transform(large), large)


def test_zeros_at_the_borders_are_not_seen() -> None:
    """Of an image of one colour an HRNet that pads with zeros makes a frame; with a margin there is less of it."""
    system = trained("nst", background="none")
    flat = torch.full((1, 3, 64, 64), 0.6)
    system.generator.eval()
    with torch.no_grad():
        bare, made = system.generator(flat), system.deployed()(flat)
    assert made.shape == flat.shape

    def frame(images: torch.Tensor) -> float:
        return float((images[..., :4, :] - images[..., 32:33, 32:33]).abs().mean())

    assert frame(bare.clamp(0, 1)) > 0.01
    assert frame(made) < frame(bare.clamp(0, 1)) / 2


def test_results_are_clamped_when_applied() -> None:
    system = trained("nst", background="none")
    with torch.no_grad():
        system.generator.last[0].bias.fill_(9.0)
    assert (system.transform(noise(16, 16)) == 255).all()


@pytest.mark.parametrize("variant", ["nst", "nst_hrnet"])
def test_another_runtime_gives_the_same(variant: str, tmp_path: Path) -> None:
    system = trained("nst", variant=variant, **JOHNSON)
    images = np.stack([noise(32, 64, seed=seed) for seed in range(2)])
    white = np.array([242.0, 240, 238], np.float32)
    made = run_onnx(export_onnx(system, tmp_path / "nst.onnx"), images, white, threads=1)
    with torch.inference_mode():
        wanted = exportable(system)[0](torch.from_numpy(images), torch.from_numpy(white)).numpy()
    apart = np.abs(made.astype(int) - wanted)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001
    assert wanted.std() > 5


# ---- pairs, and a training ---------------------------------------------------------------------------------------


def test_content_is_described_by_features_or_by_histograms() -> None:
    assert make("nst").content_descriptor() is None
    system = make("nst", pair_by="features")
    describe = system.content_descriptor()
    assert describe is not None
    images = batch(system, dtype=torch.float32)["source"]
    wanted = system.perceptual(images)["fire2"].mean(dim=(2, 3))
    torch.testing.assert_close(describe(images), wanted)
    assert wanted.shape == (2, 128)


def test_a_training_says_what_its_losses_saw_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From images to a file, with pairs by content; random features are told when it starts, and in the file."""
    for name, seed in itertools.product(("a", "b"), range(3)):
        (tmp_path / name).mkdir(exist_ok=True)
        scanner = Scanner(white=(243.0, 243.0, 243.0) if name == "a" else (236.0, 231.0, 228.0))
        Image.fromarray(make_phantom(64, 64, seed=seed, scanner=scanner).image).save(tmp_path / name / f"{seed}.png")
    recipe = make_recipe(
        {
            "system": "nst",
            "config": CONFIGS["nst"] | {"content_pairs": 4, "epochs": 2, "pair_by": "features"},
            "data": {"source": [str(tmp_path / "a")], "target": [str(tmp_path / "b")], "workers": 0},
            "training": {"pictures": 1},
        }
    )
    result = train(recipe, tmp_path / "run")
    assert result.steps == 4
    assert result.validation_loss is None
    said = "the losses see through a squeezenet1_0 of random weights (seed 0): this training reproduces no paper's"
    assert said in capsys.readouterr().err
    trained_one = load(tmp_path / "run")
    assert trained_one.provenance_["training"]["caveats"] == [said]
    image = noise(64, 64)
    assert (trained_one.transform(image) != image).any()


def test_caveats_are_of_whatever_is_not_the_papers() -> None:
    def caveats(**config) -> tuple[str, ...]:
        return NST(config=config, trainable=False).caveats

    assert caveats() == ()
    assert "random weights (seed 5)" in caveats(feature_weights="random", feature_seed=5)[0]
    assert "of one's own" in caveats(feature_weights="encoder", feature_path="classifier.pth")[0]
    assert "squeezenet1_0, not through the paper's VGG-19" in caveats(feature_network="squeezenet1_0")[0]


# ---- settings ----------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers_and_the_specifications() -> None:
    config = NSTConfig()
    assert (config.variant, config.epochs, config.batch_size, config.crop) == ("nst_ad_hrnet", 50, 4, 512)
    assert (config.learning_rate, config.discriminator_learning_rate) == (1e-3, 1e-5)
    assert (config.beta1, config.beta2) == (0.9, 0.999)
    assert (config.discriminator_beta1, config.discriminator_beta2) == (0.5, 0.999)
    assert (config.lambda_content, config.lambda_style, config.lambda_adversarial) == (1, 1, 0.05)
    assert (config.feature_network, config.content) == ("vgg19", "relu2_2")
    assert config.style == ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
    assert NSTConfig(style_layers="shallow").style == ("conv1_1", "conv2_1", "conv3_1")
    assert (config.content_pairs, config.pair_by, config.loss_form) == (20, "histogram", "scale_free")


def test_sizes_are_the_specifications() -> None:
    config = {"feature_network": "squeezenet1_0", "feature_weights": "random"}
    for variant, wanted in (
        ("nst_ad_hrnet", {"generator": 3_871_487, "discriminator": 136_385}),
        ("nst", {"generator": 1_677_955}),
    ):
        system = NST(config={**config, "variant": variant})
        found = {n: sum(weight.numel() for weight in net.parameters()) for n, net in system.networks().items()}
        assert found == wanted
        if "discriminator" in found:
            assert system.discriminator.receptive_field() == 16


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"crop": 40}, "multiple of 16, 32"),
        ({"crop": 32, "stem_stride": 4}, "multiple of 32, 64"),
        ({"crop": 30, "variant": "nst"}, "multiple of 4, 32"),
        ({"crop": 64, "discriminator_layers": 6}, "192 or more"),
    ],
)
def test_crops_that_the_networks_cannot_take_are_refused(config: dict, wanted: str) -> None:
    with pytest.raises(InputError, match=f"got crop = {config['crop']}; .*{wanted}"):
        NSTConfig(**config)


def test_layers_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="style_layers: squeezenet1_0 has no layer 'conv1_1'; it has relu1, fire2"):
        NSTConfig(feature_network="squeezenet1_0", style_layers=("conv1_1",))
    with pytest.raises(InputError, match="content_layer: vgg19 has no layer 'fire2'"):
        NSTConfig(content_layer="fire2")
