"""CHEN's stages against steps by hand (PAPERS §3), whose networks they reach, and the classifier that watches."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402  (after the skip)
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import restain  # noqa: E402
from restain.errors import FormatError, InputError, WeightsUnavailable  # noqa: E402
from restain.losses.task import known_cross_entropy  # noqa: E402
from restain.networks.backbones.resnet import ResNet50  # noqa: E402
from restain.networks.backbones.squeezenet import SqueezeNet  # noqa: E402
from restain.phantom import Scanner, make_phantom  # noqa: E402
from restain.systems.chen import Chen, remove_stain  # noqa: E402
from restain.systems.chen_config import ChenConfig  # noqa: E402
from restain.systems.engine import PlainEngine  # noqa: E402
from restain.systems.task import TaskNetwork  # noqa: E402
from restain.training.loop import train  # noqa: E402
from restain.training.settings import make_recipe  # noqa: E402

from ..training.small import assert_same_run, lines_of, state_of  # noqa: E402
from . import small  # noqa: E402
from .reference import Adam, Watch, same, weights_of  # noqa: E402
from .small import CONFIGS, batch, enliven, make  # noqa: E402

ALL = {"task": "resnet50", "task_width": 4, "task_epochs": 1, "stage1_epochs": 1, "stage2_epochs": 1}
"""Every stage, those before the last an epoch each."""


def lively(**config: Any) -> Chen:
    system = small.lively("chen", **config)
    assert isinstance(system, Chen)
    return system


def labelled(system: Chen, seed: int = 0, labels: tuple[int, ...] = (0, 1)) -> dict[str, Tensor]:
    return {**batch(system, seed), "target_label": torch.tensor(labels)}


def weights(network: nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


# ---- stages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "stages"),
    [
        ({}, (0, 20, 10, 0)),
        ({"task": "resnet50"}, (10, 20, 10, 5)),
        ({"task": "squeezenet1_1", "task_weights": "t.pth"}, (0, 20, 10, 5)),
        ({"task": "own"}, (0, 20, 10, 5)),
        ({"task": "resnet50", "stage3_epochs": 0}, (0, 20, 10, 0)),
        ({"task": "own", "stage2_epochs": 0}, (0, 20, 0, 5)),
        ({"stage2_epochs": 0, "stage3_epochs": 7}, (0, 20, 0, 0)),
    ],
)
def test_the_epochs_are_those_of_the_stages_that_are_run(config: dict, stages: tuple[int, ...]) -> None:
    made = ChenConfig(**config)
    assert made.stages == stages
    assert made.epochs == made.total_epochs == sum(stages)
    walked = [made.stage(epoch) for epoch in range(sum(stages))]
    assert walked == [stage for stage, epochs in enumerate(stages) for _ in range(epochs)]
    assert made.stage(sum(stages) + 3) == walked[-1]  # while the learning rate falls
    assert ChenConfig(**config, epochs=sum(stages)) == made


def test_epochs_that_are_not_the_sum_are_refused() -> None:
    with pytest.raises(InputError, match=r"got epochs = 31, but the stages that are run have 30; leave it out"):
        ChenConfig(epochs=31)
    with pytest.raises(InputError, match="have no epochs"):
        ChenConfig(stage1_epochs=0, stage2_epochs=0)
    with pytest.raises(InputError, match="neither trained nor loaded"):
        ChenConfig(task="resnet50", task_epochs=0)
    with pytest.raises(InputError, match="multiple of 4 for squeezenet1_1"):
        ChenConfig(task="squeezenet1_1", task_width=6)


def test_gray_and_mask_are_left() -> None:
    images = torch.randint(0, 256, (2, 3, 9, 8)).double() / 255
    red, green, blue = images.numpy().transpose(1, 0, 2, 3)
    left = remove_stain(images).numpy()
    np.testing.assert_allclose(left[:, 0], 2 * (0.299 * red + 0.587 * green + 0.114 * blue) - 1, atol=1e-12)
    np.testing.assert_array_equal(left[:, 1], red > np.maximum(green, blue))


# ---- steps by hand -----------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    probability = torch.sigmoid(logits)
    return -(probability if label else 1 - probability).log().mean()


def stainless(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(dim=1)
    gray = 2 * (0.299 * red + 0.587 * green + 0.114 * blue) - 1
    return torch.stack([gray, ((red > green) & (red > blue)).double()], dim=1)


class ByHand:
    """The same networks, and the steps of each stage; what is not asked for in a stage is not computed."""

    def __init__(self, system: Chen) -> None:
        self.config = config = system.config
        self.networks = copy.deepcopy(system.networks())
        betas = (config.beta1, config.beta2)
        self.steps = {
            name: Adam(weights_of(network), config.learning_rate, betas)
            for name, network in self.networks.items()
            if name != "task"
        }
        if config.stages[0]:
            self.steps["task"] = Adam(weights_of(self.networks["task"]), config.task_learning_rate, (0.9, 0.999))

    def classify(self, images: Tensor, labels: Tensor, *, training: bool) -> Tensor:
        """Mean over the labelled images of −log of the label's probability."""
        network = self.networks["task"].network.train(training)
        mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        probabilities = network((images - mean) / deviation).softmax(dim=1)
        logs = [-row[label].log() for row, label in zip(probabilities, labels, strict=True) if label >= 0]
        return torch.stack(logs).mean()

    def step(self, batch: dict[str, Tensor], stage: int) -> dict[str, float]:
        config, networks = self.config, self.networks
        if stage == 0:
            loss = self.classify(batch["target"], batch["target_label"], training=True)
            self.steps["task"].descend(loss)
            return {"classifier": loss.item()}
        target, number = 2 * batch["target"] - 1, len(batch["target"])
        second = stage >= 2 and config.lambda_gan2 > 0
        images = torch.cat([batch["target"], batch["source"]]) if second else batch["target"]
        made = networks["generator"](stainless(images))
        losses: dict[str, Tensor] = {}
        fakes = {"": made[:number]} | ({"_source": made[number:]} if second else {})
        for side, fake in fakes.items():
            judge = networks[f"discriminator{side}"]
            loss = (cross_entropy(judge(target), 1) + cross_entropy(judge(fake.detach()), 0)) / 2
            self.steps[f"discriminator{side}"].descend(loss)
            losses[f"discriminator{side}"] = loss
        losses["l1"] = (made[:number] - target).abs().mean()
        total = config.lambda_l1 * losses["l1"]
        for side, fake in fakes.items():
            # A copy judges the generator: what it does to its running statistics is lost, as it shall be.
            loss = cross_entropy(copy.deepcopy(networks[f"discriminator{side}"])(fake), 1)
            total = total + (config.lambda_gan2 if side else config.lambda_gan1) * loss
            losses[f"adversarial{side}"] = loss
        if stage == 3:
            losses["task"] = self.classify((made[:number] + 1) / 2, batch["target_label"], training=False)
            total = total + config.lambda_task * losses["task"]
        self.steps["generator"].descend(total)
        return {name: loss.item() for name, loss in losses.items()}


OTHERS = {"lambda_l1": 3.0, "lambda_gan1": 0.5, "lambda_gan2": 2.0, "lambda_task": 7.0, "beta1": 0.3, "beta2": 0.9}
ROWS = {
    "all": ({}, [0, 0, 1, 1, 2, 2, 3, 3]),
    "other numbers": ({**OTHERS, "learning_rate": 1e-3, "task_learning_rate": 1e-3}, [0, 1, 2, 3]),
    "L1+GAN1+Task": ({"lambda_gan2": 0.0, "stage2_epochs": 0}, [0, 1, 3, 3]),
    "no task": ({"task": "none"}, [1, 2, 2]),
}


@pytest.mark.parametrize(("config", "stages"), ROWS.values(), ids=ROWS)
def test_stages_are_those_written_out(config: dict[str, Any], stages: list[int]) -> None:
    """Weights, running statistics and optimizers are carried from one to the next."""
    system = lively(**ALL | config)
    by_hand = ByHand(system)
    start = copy.deepcopy({name: network.state_dict() for name, network in system.networks().items()})
    for number, stage in enumerate(stages):
        system.begin_epoch(sum(system.config.stages[:stage]))
        images = labelled(system, number, (number % 2, -1 if number % 3 == 1 else 1))
        losses, wanted = system.update(images, PlainEngine()), by_hand.step(images, stage)
        assert losses.keys() - wanted.keys() <= {"output_std"}
        for name, value in wanted.items():
            assert not losses[name].requires_grad
            assert losses[name].item() == pytest.approx(value, rel=1e-6), (stage, name)
    for name, network in by_hand.networks.items():
        found = system.networks()[name].state_dict()
        for key, value in network.state_dict().items():  # running statistics, too
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6)
        moved = max(float((found[key] - start[name][key]).abs().max()) for key in found)
        assert (moved > 1e-5) == (name != "discriminator_source" or system.config.lambda_gan2 > 0), name


def test_it_overfits_four_tiles() -> None:
    """Under both discriminators, with tiles of the source beside those of the target."""
    config = {"channels": 8, "discriminator_channels": 4, "batch_size": 4, "learning_rate": 3e-3, "stage1_epochs": 0}
    system = make("chen", **config)
    system.optimizers = system.make_optimizers()
    assert system.stage == 2
    looks = {"source": Scanner(noise=1.0), "target": Scanner(white=(236.0, 231.0, 228.0))}
    images = {
        domain: torch.from_numpy(np.stack([make_phantom(128, 128, seed=k, scanner=look).image for k in range(4)]))
        .permute(0, 3, 1, 2)
        .float()
        / 255
        for domain, look in looks.items()
    }
    l1 = [system.update(images, PlainEngine())["l1"].item() for _ in range(30)]
    assert min(l1[-5:]) < l1[0] / 5


# ---- who learns when ---------------------------------------------------------------------------------------------

REACHED = [
    [{"task"}],
    [{"discriminator"}, {"generator"}],
    [{"discriminator"}, {"discriminator_source"}, {"generator"}],
    [{"discriminator"}, {"discriminator_source"}, {"generator"}],
]


@pytest.mark.parametrize("stage", range(4))
def test_losses_reach_their_networks_and_no_others(stage: int) -> None:
    system = lively(**ALL)
    system.begin_epoch(stage)
    assert system.stage == stage
    before = {name: weights(network) for name, network in system.networks().items()}
    for network in system.networks().values():
        network.train()  # as the loop does before every update
    watch = Watch(system.networks())
    system.update(labelled(system), watch)
    assert watch.reached == REACHED[stage]
    assert watch.clipped == [name for names in REACHED[stage] for name in names]
    learning = set(watch.clipped)
    for name, network in system.networks().items():
        assert same(before[name], weights(network)) == (name not in learning), name
        assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
        assert network.training == (name != "task" or stage == 0)
        if name.startswith("discriminator"):  # on its own turn alone its statistics move
            assert same(watch.buffers[-1][name], list(network.buffers()))
    assert ({"task"} & learning == {"task"}) == (stage == 0)
    assert all(module.training == (stage == 0) for module in system.task.modules())


def test_both_domains_go_through_the_generator_together() -> None:
    system = lively(**ALL)
    seen: list[Tensor] = []
    system.generator.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    images = labelled(system)
    for stage in (1, 2, 3):
        system.begin_epoch(stage)
        system.update(images, PlainEngine())
    alone, *together = seen
    torch.testing.assert_close(alone, stainless(images["target"]))
    for given in together:
        torch.testing.assert_close(given, stainless(torch.cat([images["target"], images["source"]])))


# ---- labels ------------------------------------------------------------------------------------------------------


def test_images_without_a_label_are_left_out() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, -1, 0, -1, 1])
    wanted = -sum(logits[i].log_softmax(0)[labels[i]] for i in (0, 2, 4)) / 3
    loss = known_cross_entropy(logits, labels)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert bool((logits.grad[[1, 3]] == 0).all())
    nothing = known_cross_entropy(logits, torch.full((5,), -1))
    assert nothing.item() == 0
    assert known_cross_entropy(logits.detach().bfloat16(), labels).dtype == torch.float32


def test_a_batch_without_any_label_teaches_nothing() -> None:
    system = lively(**ALL)
    before = [weight.detach().clone() for weight in system.task.parameters()]
    losses = system.update(labelled(system, labels=(-1, -1)), PlainEngine())
    assert losses == {"classifier": 0}
    assert same(before, list(system.task.parameters()))


def test_labels_are_missed() -> None:
    system = lively(**ALL)
    assert system.labelled
    for stage in (0, 3):
        system.begin_epoch(stage)
        with pytest.raises(InputError, match="classes of the target's tiles"):
            system.update(batch(system), PlainEngine())
    assert not make("chen").labelled


# ---- the task network --------------------------------------------------------------------------------------------


class Own(nn.Module):
    """A classifier by mean colour that notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3, 2)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        return self.linear(self.norm(images.mean(dim=(2, 3))))


def test_ones_own_classifier() -> None:
    own = Own()
    system = make("chen", task="own", stage1_epochs=1, stage2_epochs=0)
    with pytest.raises(InputError, match="use_task"):
        system.make_optimizers()
    system.use_task(own)
    for name, network in system.networks().items():
        network.double().train()
        enliven(network, len(name))
    system.optimizers = system.make_optimizers()
    assert set(system.networks()) == {"generator", "discriminator", "discriminator_source", "task"}
    assert set(system.optimizers) == {"generator", "discriminator", "discriminator_source"}
    before = weights(own)
    system.begin_epoch(0)
    system.update(batch(system), PlainEngine())
    assert not own.seen
    system.begin_epoch(1)
    losses = system.update(labelled(system), PlainEngine())
    (seen,) = own.seen
    assert seen.shape == (2, 3, 128, 128)
    assert 0 <= float(seen.min()) < float(seen.max()) <= 1
    logits = own(seen)
    wanted = -(logits[0].log_softmax(0)[0] + logits[1].log_softmax(0)[1]) / 2
    assert losses["task"].item() == pytest.approx(wanted.item(), rel=1e-9)
    assert same(before, weights(own))
    assert not any(module.training for module in own.modules())
    assert not any(weight.requires_grad for weight in own.parameters())
    with pytest.raises(InputError, match='the setting task is "none"'):
        make("chen").use_task(own)


@pytest.mark.parametrize(
    ("task", "network"),
    [("resnet50", lambda: ResNet50(3, width=4)), ("squeezenet1_1", lambda: SqueezeNet("1.1", 3, width=4))],
)
def test_a_trained_task_network_is_loaded_and_kept(task: str, network, tmp_path: Path) -> None:
    trained = network().eval()
    path = tmp_path / "task.safetensors"
    save_file(trained.state_dict(), path)
    config = {"task": task, "task_weights": str(path), "task_classes": 3, "task_width": 4}
    system = make("chen", **config)
    assert system.config.stages[0] == 0
    assert system.stage == 1
    assert system.caveats == ()
    assert set(system.make_optimizers()) == {"generator", "discriminator", "discriminator_source"}
    images = torch.rand(2, 3, 64, 64)
    system.task.train()
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(system.task(images), trained((images - mean) / deviation))
    signed = make("chen", **config, task_normalization="signed")
    torch.testing.assert_close(signed.task(images), trained(2 * images - 1))
    with pytest.raises(FormatError, match="of another shape"):
        make("chen", **config | {"task_classes": 2})
    with pytest.raises(WeightsUnavailable, match="nowhere"):
        make("chen", **config | {"task_weights": str(tmp_path / "nowhere.pth")})
    assert set(make("chen", **config, trainable=False).networks()) == {"generator"}


def test_a_task_network_is_taught_only_when_told() -> None:
    task = TaskNetwork(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten()))
    assert not any(module.training for module in task.train().modules())
    task.teach(True)
    assert all(module.training for module in task.modules())
    assert not any(module.training for module in task.train(False).modules())
    assert all(module.training for module in task.train().modules())


# ---- validation --------------------------------------------------------------------------------------------------


def test_the_validation_loss_is_of_the_last_stage_and_of_statistics_of_training() -> None:
    system = lively(**ALL, stage3_epochs=2, mask_delta=4.0)
    images = batch(system)
    for epoch in range(3):
        system.begin_epoch(epoch)
        assert system.validation_loss(images) is None
    system.begin_epoch(4)
    state = weights(system.generator)
    loss = system.validation_loss(images)
    assert same(state, weights(system.generator))
    assert system.generator.training
    with torch.no_grad():
        made = copy.deepcopy(system.generator).eval()(remove_stain(images["target"], 4.0))
    assert loss.item() == pytest.approx((made - (2 * images["target"] - 1)).abs().mean().item(), rel=1e-9)


# ---- trainings ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of a source, and of a target of two classes."""
    folder = tmp_path_factory.mktemp("cells")
    generator = np.random.default_rng(0)
    for name, base in (("a", (180, 120, 160)), ("b/red", (200, 90, 110)), ("b/blue", (90, 110, 190))):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            coarse = generator.normal(0, 40, (16, 16, 3))
            pixels = np.clip(np.kron(coarse, np.ones((8, 8, 1))) + base, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name[-3:].strip('/')}{number}.png")
    return folder


def recipe(tissue: Path, **config: Any):
    every = {"log_every": 1, "validate_every": 4, "checkpoint_every": 3, "pictures": 1}
    return make_recipe(
        {
            "system": "chen",
            "config": CONFIGS["chen"] | ALL | {"stage3_epochs": 1} | config,
            "data": {
                "source": [str(tissue / "a")],
                "target": [str(tissue / "b")],
                "labels": "folders",
                "workers": 0,
                "samples_per_epoch": 4,
            },
            "training": every,
        }
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No drawing of curves, which takes longer than all else."""
    monkeypatch.setattr("restain.training.session.plot_losses", lambda log, output: output)


class Crash(Exception):
    """Something unforeseen."""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("crashes", [5, 7])  # after the checkpoint of update 3, in stage 1, or 6, where stage 3 begins
def test_a_run_goes_through_its_stages_and_resumes_across_them(
    crashes: int, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(tissue), tmp_path / "whole", quiet=True)
    names = [set(line["losses"]) for line in lines_of(tmp_path / "whole")]
    assert len(names) == 8  # four stages of two updates
    stage1 = {"discriminator", "adversarial", "l1", "output_std"}
    stage2 = stage1 | {"discriminator_source", "adversarial_source"}
    assert names == [{"classifier"}] * 2 + [stage1] * 2 + [stage2] * 2 + [stage2 | {"task"}] * 2

    original, count = Chen.update, 0

    def update(self: Chen, batch: Mapping[str, Tensor], engine: Any) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == crashes:
            raise Crash
        return original(self, batch, engine)

    monkeypatch.setattr(Chen, "update", update)
    with pytest.raises(Crash):
        train(recipe(tissue), tmp_path / "parts", quiet=True)
    train(recipe(tissue), tmp_path / "parts", resume=True, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")

    normalizer = restain.load(tmp_path / "parts")
    assert set(normalizer.networks()) == {"generator"}
    assert normalizer.config.epochs == 4
    (caveat,) = normalizer.provenance_["training"]["caveats"]
    assert "resnet50" in caveat
    assert "pretrained=False" in caveat
    assert "task.network.fc.weight" in {
        f"{name}.{key}" for name, network in state_of(tmp_path / "parts")["networks"].items() for key in network
    }


@pytest.mark.usefixtures("quick")
def test_a_run_with_ones_own_classifier(tissue: Path, tmp_path: Path) -> None:
    own, made = Own(), recipe(tissue, task="own", stage2_epochs=0)
    system = Chen(config=made.config)
    system.use_task(own)
    train(made, tmp_path / "run", quiet=True, system=system)
    assert len(own.seen) == 2
    assert math.isfinite(lines_of(tmp_path / "run")[-1]["losses"]["task"])


def test_a_run_without_labels_is_refused(tissue: Path, tmp_path: Path) -> None:
    values = recipe(tissue).plain()
    values["data"]["labels"] = ""
    with pytest.raises(InputError, match="--labels"):
        train(make_recipe(values), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="task_classes"):
        train(recipe(tissue, task_classes=3), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
