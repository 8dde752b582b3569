"""StainGAN's update against a step written out by hand (PAPERS §7.11), and whom each loss reaches."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402  (after the skip)

from restain.errors import InputError  # noqa: E402
from restain.networks.patchgan import PatchDiscriminator  # noqa: E402
from restain.systems.engine import PlainEngine  # noqa: E402
from restain.systems.staingan import StainGAN, StainGANConfig  # noqa: E402

from . import small  # noqa: E402
from .reference import Adam, Watch, assert_learned, assert_losses, same, weights_of  # noqa: E402
from .small import batch, make  # noqa: E402

NAMES = ("generator", "generator_back", "discriminator", "discriminator_back")


def lively(**config) -> StainGAN:
    return small.lively("staingan", **config)


class ByHand:
    """The same four networks, and the paper's step."""

    def __init__(self, system: StainGAN) -> None:
        self.config = config = system.config
        self.to_target, self.to_source, self.judge_target, self.judge_source = (
            copy.deepcopy(system.networks()[name]) for name in NAMES
        )
        rate, betas = config.learning_rate, (config.beta1, config.beta2)
        self.generators = Adam(weights_of(self.to_target, self.to_source), rate, betas)
        self.target_judge = Adam(weights_of(self.judge_target), rate, betas)
        self.source_judge = Adam(weights_of(self.judge_source), rate, betas)
        # The pools' choices follow from their random numbers; the images that they hold are kept here.
        self.draws = [system._pool._random.clone_state(), system._pool_back._random.clone_state()]
        self.pools: list[list[Tensor]] = [[], []]

    def adversarial(self, logits: Tensor, label: float) -> Tensor:
        if self.config.adversarial == "lsgan":
            return ((logits - label) ** 2).mean()
        probability = torch.sigmoid(logits)
        return -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()

    def from_pool(self, number: int, fakes: Tensor) -> Tensor:
        pool, draws, size = self.pools[number], self.draws[number], self.config.pool_size
        shown = []
        for fake in fakes.detach():
            if len(pool) < size:
                pool.append(fake)
                shown.append(fake)
            elif size and torch.rand((), generator=draws) >= 0.5:
                place = int(torch.randint(size, (), generator=draws))
                shown.append(pool[place])
                pool[place] = fake
            else:
                shown.append(fake)
        return torch.stack(shown)

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        source, target = 2 * batch["source"] - 1, 2 * batch["target"] - 1
        weight, identity = self.config.lambda_source, self.config.lambda_identity
        weight_target = self.config.lambda_target
        fake_target, fake_source = self.to_target(source), self.to_source(target)
        losses = {
            "adversarial": self.adversarial(self.judge_target(fake_target), 1.0),
            "adversarial_back": self.adversarial(self.judge_source(fake_source), 1.0),
            "cycle": (self.to_source(fake_target) - source).abs().mean(),
            "cycle_back": (self.to_target(fake_source) - target).abs().mean(),
            "identity": (self.to_target(target) - target).abs().mean(),
            "identity_back": (self.to_source(source) - source).abs().mean(),
        }
        total = losses["adversarial"] + losses["adversarial_back"]
        total = total + weight * losses["cycle"] + weight_target * losses["cycle_back"]
        total = total + identity * weight_target * losses["identity"] + identity * weight * losses["identity_back"]
        self.generators.descend(total)
        # The fakes are those made before the generators' step.
        for name, judge, adam, real, fake in (
            ("discriminator", self.judge_target, self.target_judge, target, self.from_pool(0, fake_target)),
            ("discriminator_back", self.judge_source, self.source_judge, source, self.from_pool(1, fake_source)),
        ):
            losses[name] = 0.5 * (self.adversarial(judge(real), 1.0) + self.adversarial(judge(fake), 0.0))
            adam.descend(losses[name])
        return {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"adversarial": "bce", "lambda_identity": 0.0, "beta1": 0.4, "beta2": 0.99},
        {"lambda_source": 3.0, "lambda_target": 7.0, "lambda_identity": 0.2, "pool_size": 0, "learning_rate": 0.01},
        {"pool_size": 1, "batch_size": 3},
    ],
    ids=["the paper's", "bce without identity", "other weights", "a full pool"],
)
def test_two_updates_are_those_written_out(config: dict) -> None:
    system = lively(**config)
    by_hand = ByHand(system)
    for number in range(2):
        images = batch(system, seed=number)
        assert_losses(system.update(images, PlainEngine()), by_hand.step(images), rel=1e-9)
    networks = (by_hand.to_target, by_hand.to_source, by_hand.judge_target, by_hand.judge_source)
    start = lively(**config).networks()
    for name, wanted in zip(NAMES, networks, strict=True):
        assert_learned(system.networks()[name], wanted, start[name], rate=system.config.learning_rate, atol=1e-6)


def test_losses_reach_their_networks_and_no_others() -> None:
    system = lively()
    watch = Watch(system.networks())
    system.update(batch(system), watch)
    assert watch.reached == [{"generator", "generator_back"}, {"discriminator"}, {"discriminator_back"}]
    assert watch.clipped == ["generator", "generator_back", "discriminator", "discriminator_back"]
    for network in system.networks().values():
        assert all(weight.requires_grad for weight in network.parameters())
        assert all(weight.grad is None or not weight.grad.any() for weight in network.parameters())


def test_running_statistics_do_not_move_while_generators_learn() -> None:
    system = lively()
    for name in NAMES[2:]:
        setattr(system, name, PatchDiscriminator(layers=2, channels=4, norm="batch").double().train())
    system.optimizers = system.make_optimizers()
    before = {name: [b.clone() for b in system.networks()[name].buffers()] for name in NAMES[2:]}
    watch = Watch(system.networks())
    system.update(batch(system), watch)
    generators_turn = watch.buffers[0]
    for name in NAMES[2:]:
        assert before[name]
        assert same(generators_turn[name], before[name])
        assert not same(list(system.networks()[name].buffers()), before[name])  # its own turn moves them


def test_without_identity_loss_its_passes_are_not_made() -> None:
    for weight, passes in ((0.5, 3), (0.0, 2)):
        system = lively(lambda_identity=weight)
        counts = dict.fromkeys(NAMES[:2], 0)

        def count(name: str, counts: dict[str, int] = counts) -> None:
            counts[name] += 1

        for name in NAMES[:2]:
            system.networks()[name].register_forward_hook(lambda *_, name=name: count(name))
        losses = system.update(batch(system), PlainEngine())
        assert counts == dict.fromkeys(NAMES[:2], passes)
        assert ("identity" in losses) == ("identity_back" in losses) == bool(weight)


def test_discriminators_are_shown_what_the_pools_give() -> None:
    system = lively(pool_size=50)
    seen: dict[str, list[Tensor]] = {name: [] for name in NAMES[2:]}
    for name in seen:
        system.networks()[name].register_forward_hook(lambda _, inputs, __, name=name: seen[name].append(inputs[0]))
    asked: dict[str, list[Tensor]] = {"_pool": [], "_pool_back": []}
    for name, queries in asked.items():
        pool = getattr(system, name)
        pool.query = lambda images, queries=queries: queries.append(images) or torch.full_like(images, 0.25)
    images = batch(system)
    system.update(images, PlainEngine())
    for judge, pool, domain in zip(NAMES[2:], asked, ("target", "source"), strict=True):
        fooling, real, fake = seen[judge]  # the generators' turn, then its own
        assert torch.equal(real, images[domain] * 2 - 1)
        assert (fake == 0.25).all()
        assert torch.equal(asked[pool][0], fooling)  # made before the generators' step


def test_the_state_of_a_training_is_the_pools() -> None:
    system, other = lively(), lively()
    for number in range(3):
        system.update(batch(system, seed=number), PlainEngine())
    other.load_training_state(system.training_state(), torch.device("cpu"))
    fakes = torch.rand(20, 3, 32, 32, dtype=torch.float64)
    for name in ("_pool", "_pool_back"):
        assert torch.equal(getattr(other, name).query(fakes), getattr(system, name).query(fakes))


def test_a_trainings_seed_decides_over_the_pools() -> None:
    def choices(seed: int) -> list[Tensor]:
        system = make("staingan", seed=seed)
        fakes = torch.arange(40.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
        return [system._pool.query(fakes), system._pool_back.query(fakes)]

    assert all(torch.equal(one, again) for one, again in zip(choices(1), choices(1), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(choices(1), choices(2), strict=True))
    assert not torch.equal(*choices(1))


def test_it_normalizes_by_the_generator_to_the_target() -> None:
    system = lively()
    images = batch(system)["source"]
    wanted = (system.generator(images * 2 - 1) + 1) / 2
    torch.testing.assert_close(system.deployed()(images), wanted)


def test_the_defaults_are_the_codes() -> None:
    config = StainGANConfig()
    assert (config.channels, config.blocks, config.discriminator_channels, config.discriminator_layers) == (
        64,
        9,
        64,
        3,
    )
    assert (config.lambda_source, config.lambda_target, config.lambda_identity) == (10, 10, 0.5)
    assert (config.adversarial, config.pool_size) == ("lsgan", 50)
    assert (config.learning_rate, config.beta1, config.beta2) == (2e-4, 0.5, 0.999)
    assert (config.epochs, config.decay_epochs, config.schedule, config.batch_size) == (25, 25, "linear", 4)
    assert (config.crop, config.crop_position, config.horizontal_flips) == (256, "random", True)
    assert (config.vertical_flips, config.quarter_turns) == (False, False)


def test_sizes_are_the_papers() -> None:
    config = StainGANConfig()
    with torch.device("meta"):
        generator = StainGAN(trainable=False).generator
        discriminator = PatchDiscriminator(config.discriminator_layers, config.discriminator_channels)
    assert sum(weight.numel() for weight in generator.parameters()) == 11_378_179
    assert sum(weight.numel() for weight in discriminator.parameters()) == 2_764_737
    assert not any(isinstance(module, nn.Dropout) for module in generator.modules())


@pytest.mark.parametrize(("layers", "least"), [(1, 8), (2, 12), (3, 24)])
def test_crops_that_the_networks_cannot_take_are_refused(layers: int, least: int) -> None:
    with pytest.raises(InputError, match=f"crop = {least - 4}; wanted a multiple of 4, {least} or more"):
        StainGANConfig(crop=least - 4, discriminator_layers=layers)
    with pytest.raises(InputError, match="crop = 30; wanted a multiple of 4"):
        StainGANConfig(crop=30)
    system = lively(crop=least, discriminator_layers=layers)
    system.update(batch(system), PlainEngine())
