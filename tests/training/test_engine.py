"""Devices, precision, accumulation and processes: the same training, whoever carries it out."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restain.errors import InputError
from restain.systems import SYSTEMS
from restain.systems.engine import PlainEngine
from restain.training.checkpoint import load_state
from restain.training.data import TrainingData
from restain.training.engine import AccelerateEngine, distributed, make_accelerator
from restain.training.loop import train
from restain.training.settings import TrainingSettings
from restain.training.validation import to_floats

from .small import (
    POSIX,
    assert_same,
    assert_same_run,
    finish,
    lines_of,
    recipe_for,
    start_several,
    state_of,
    steps_of,
    values_for,
)

pytestmark = pytest.mark.usefixtures("quick")


def weights_of(run: Path, network: str = "generator") -> dict[str, Tensor]:
    weights: dict[str, Tensor] = state_of(run)["networks"][network]
    return weights


def furthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


# ---- the loop is the plain loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["staingan", "stainnet"])
def test_one_process_does_what_a_plain_loop_does(system: str, tissue: Path, tmp_path: Path) -> None:
    """An oracle without accelerate, averages, checkpoints or logs; also for the schedule, in the second epoch."""
    training = {"max_steps": 5, "channels_last": False, "precision": "no"}
    config = {"schedule": "cosine", "epochs": 3, "decay_epochs": 0}
    recipe = recipe_for(system, tissue, config=config, training=training)
    train(recipe, tmp_path / "run", quiet=True)

    torch.manual_seed(recipe.training.seed)
    plain = SYSTEMS[system](config=recipe.config)
    plain.optimizers = plain.make_optimizers()
    with TrainingData(recipe.data) as data:
        assert data.batches_per_epoch == 3
        for number in range(5):
            epoch, start = divmod(number, 3)
            for optimizer in plain.optimizers.values():
                factor = 0.5 * (1 + np.cos(np.pi * epoch / 3))
                optimizer.param_groups[0]["lr"] = recipe.config.learning_rate * factor
            batch = next(data.batches(epoch, start=start))
            plain.update({role: to_floats(images) for role, images in batch.items()}, PlainEngine())
    for name, network in plain.networks().items():
        assert furthest(weights_of(tmp_path / "run", name), network.state_dict()) < 1e-7, name


# ---- accumulation and clipping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_batches_added_up_are_one(optimizer: str, tissue: Path, tmp_path: Path) -> None:
    config = {"optimizer": optimizer, "learning_rate": 0.01, "crop_position": "center", "schedule": "constant"}
    config |= {"epochs": 4}
    none = {"validation_share": 0.0, "samples_per_epoch": 4}
    full = {"precision": "no"}  # in bfloat16, which some CPUs have, sums depend on what is summed first
    one = recipe_for(
        "stainnet", tissue, config={**config, "batch_size": 4}, data=none, training={"max_steps": 3, **full}
    )
    two = recipe_for(
        "stainnet",
        tissue,
        config={**config, "batch_size": 2},
        data=none,
        training={"max_steps": 7, "accumulate": 2, **full},  # the seventh is of no update
    )
    runs = [train(recipe, tmp_path / name, quiet=True) for name, recipe in (("one", one), ("two", two))]
    assert [run.steps for run in runs] == [3, 6]
    assert furthest(weights_of(tmp_path / "one"), weights_of(tmp_path / "two")) < 1e-6
    torch.manual_seed(0)
    initial = SYSTEMS["stainnet"](config=one.config).generator.state_dict()
    assert furthest(weights_of(tmp_path / "one"), initial) > 1e-4
    assert steps_of(tmp_path / "two") == [4, 6]  # checkpoint_every = 3: not while gradients are being added up


def test_only_the_last_of_the_added_up_moves_the_average(tissue: Path, tmp_path: Path) -> None:
    recipe = recipe_for("stainnet", tissue, training={"max_steps": 6, "accumulate": 3, "ema": 0.9})
    train(recipe, tmp_path / "run", quiet=True)
    assert state_of(tmp_path / "run")["average"]["updates"] == 2


def test_gradients_are_clipped_network_by_network(tissue: Path) -> None:
    settings = TrainingSettings()
    accelerator = make_accelerator(settings, "cpu")
    networks = [nn.Linear(5, 5), nn.Linear(5, 5)]
    for network, size in zip(networks, (100.0, 0.001), strict=True):
        (network(torch.ones(1, 5)).sum() * size).backward()
    before = [[weight.grad.clone() for weight in network.parameters()] for network in networks]  # type: ignore[union-attr]
    for clip, expected in ((0.0, None), (0.5, 0.5)):
        engine = AccelerateEngine(accelerator, clip)
        for network, gradients in zip(networks, before, strict=True):
            engine.clip(network)
            norm = float(torch.cat([weight.grad.flatten() for weight in network.parameters()]).norm())  # type: ignore[union-attr]
            own = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
            assert norm == pytest.approx(own if expected is None else min(own, expected), rel=1e-4)
    del tissue


def test_the_setting_reaches_the_engine(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients of every network are within the norm when its optimizer steps, and some would not have been."""
    norms: dict[float, list[float]] = {0.0: [], 0.05: []}
    original = SYSTEMS["staingan"]._step

    for clip, seen in norms.items():

        def step(self: Any, name: str, seen: list[float] = seen) -> None:
            groups = {"generators": ["generator", "generator_back"]}.get(name, [name])
            for network in groups:
                gradients = [weight.grad.flatten() for weight in getattr(self, network).parameters()]
                seen.append(float(torch.cat(gradients).norm()))
            original(self, name)

        monkeypatch.setattr(SYSTEMS["staingan"], "_step", step)
        recipe = recipe_for("staingan", tissue, training={"max_steps": 2, "clip_norm": clip})
        train(recipe, tmp_path / str(clip), quiet=True)
    assert len(norms[0.0]) == len(norms[0.05]) == 8
    assert max(norms[0.0]) > 0.1
    assert max(norms[0.05]) <= 0.05 * 1.001


def test_scaled_gradients_are_unscaled_once_for_each_optimizer() -> None:
    """fp16, which only GPUs have, by its scaler on a CPU: two networks of one optimizer are clipped in turn."""
    accelerator = make_accelerator(TrainingSettings(), "cpu")
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    one, two, other = (nn.Linear(3, 1, bias=False) for _ in range(3))
    optimizers = [
        accelerator.prepare_optimizer(torch.optim.SGD([*one.parameters(), *two.parameters()], lr=1.0)),
        accelerator.prepare_optimizer(torch.optim.SGD(other.parameters(), lr=1.0)),
    ]
    engine = AccelerateEngine(accelerator, clip_norm=0.5)
    before = [network.weight.detach().clone() for network in (one, two, other)]
    loss = sum(network(torch.full((1, 3), size)).sum() for network, size in ((one, 2.0), (two, 0.1), (other, 3.0)))
    accelerator.scaler.scale(loss).backward()
    for network in (one, two):
        engine.clip(network)
    assert float(other.weight.grad.abs().max()) == pytest.approx(3 * 1024)  # not its turn
    optimizers[0].step()
    engine.clip(other)
    optimizers[1].step()
    moved = [
        float((network.weight.detach() - weights).norm())
        for network, weights in zip((one, two, other), before, strict=True)
    ]
    assert moved == pytest.approx([0.5, 0.1 * 3**0.5, 0.5], rel=1e-4)


# ---- devices and precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["staingan", "stst"])
def test_bf16_trains_where_it_is_emulated(system: str, tissue: Path, tmp_path: Path) -> None:
    for precision in ("no", "bf16"):
        recipe = recipe_for(system, tissue, training={"max_steps": 3, "precision": precision, "log_every": 1})
        train(recipe, tmp_path / precision, quiet=True)
    logs = [lines_of(tmp_path / precision) for precision in ("no", "bf16")]
    for exact, rounded in zip(*logs, strict=True):
        assert rounded["losses"].keys() == exact["losses"].keys()
        for name, value in rounded["losses"].items():
            assert value == pytest.approx(exact["losses"][name], rel=0.15, abs=0.02), name
    losses = [value for line in logs[1] for name, value in line["losses"].items() if name != "output_std"]
    # Losses are computed in float32 though networks are not: bf16 has three digits.
    assert sum(float(torch.tensor(value).bfloat16()) != value for value in losses) > len(losses) / 2
    weights = weights_of(tmp_path / "bf16")
    assert all(weight.dtype == torch.float32 for weight in weights.values() if weight.is_floating_point())
    assert all(weight.isfinite().all() for weight in weights.values())
    assert 0 < furthest(weights, weights_of(tmp_path / "no")) < 0.01


def test_a_process_can_train_twice_in_different_ways() -> None:
    for precision, steps in (("no", 1), ("bf16", 3), ("no", 2)):
        settings = TrainingSettings(precision=precision, accumulate=steps)  # type: ignore[arg-type]
        accelerator = make_accelerator(settings, "cpu")
        assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == (precision, steps)
        assert accelerator.device.type == "cpu"
        autocast = torch.is_autocast_enabled("cpu")
        with AccelerateEngine(accelerator).autocast():
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        assert torch.is_autocast_enabled("cpu") == autocast


def test_the_recipe_goes_before_the_launchers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "5")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    accelerator = make_accelerator(TrainingSettings(precision="no", accumulate=2), "auto")
    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("no", 2)


def test_what_the_hardware_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="precision fp16 needs a GPU; wanted bf16, no or auto"):
        make_accelerator(TrainingSettings(precision="fp16"), "cpu")
    with pytest.raises(InputError, match="got device 'tpu'; wanted auto, cpu or cuda"):
        make_accelerator(TrainingSettings(), "tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="there is no CUDA device here"):
        make_accelerator(TrainingSettings(), "cuda")


def test_one_process_wraps_nothing() -> None:
    network = nn.Linear(2, 2)
    assert distributed(network, make_accelerator(TrainingSettings(), "cpu")) is network


# ---- several processes ------------------------------------------------------------------------------------------

KEEP = """
import torch
from restain.systems.frozen import unwrapped
from restain.training.checkpoint import save_state
from restain.training.session import Session
original = Session.train
def keep(self):
    try:
        return original(self)
    finally:
        networks = {name: unwrapped(network).state_dict() for name, network in self.system.networks().items()}
        save_state(f"{output}.safetensors", networks)
Session.train = keep
"""
"""Before a command: every process leaves its networks beside what it said."""

SLOW = """
import time
from restain.systems import SYSTEMS
for kind in SYSTEMS.values():
    kind.update = (lambda update: lambda *given: (time.sleep(0.3), update(*given))[1])(kind.update)
"""
"""Before a command: updates last."""


def command(system: str, tissue: Path, run: Path, **tables: Any) -> list[object]:
    values = values_for(system, tissue, **tables)
    options = [
        f"--set={table}.{name}={value}"
        for table in ("config", "data", "training")
        for name, value in values[table].items()
    ]
    return ["train", system, "-o", run, "--device=cpu", *options]


def act(network: nn.Module, weights: Mapping[str, Tensor] | None, images: Tensor) -> Tensor:
    """What a network makes of images, with its own weights or others."""
    if weights is not None:
        network.load_state_dict(weights)
    with torch.no_grad():
        out: Tensor = network(images)
    return out


def texts(where: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(where.parent.glob(f"{where.name}-*")) if path.suffix == "")


@pytest.mark.parametrize("system", ["staingan", "stainnet"])
def test_two_processes_do_what_one_does(system: str, tissue: Path, tmp_path: Path) -> None:
    """Each has half of every batch, and gradients are averaged: the same as the whole batch. (Without a pool, whose
    choices each process makes for itself.) The first validates, shows pictures and saves while the other waits."""
    config = {"pool_size": 0} if system == "staingan" else {"optimizer": "adam"}
    tables: dict[str, Any] = {"config": config, "training": {"max_steps": 4, "ema": 0.9, "clip_norm": 1.0}}
    tables["training"]["precision"] = "no"
    said = tmp_path / "said"
    codes = finish(*start_several(2, command(system, tissue, tmp_path / "two", **tables), said, before=KEEP))
    assert codes == [0, 0], texts(said)
    recipe = recipe_for(system, tissue, **tables)
    one = train(recipe, tmp_path / "one", quiet=True)
    ranks = [load_state(tmp_path / f"said-{rank}.safetensors") for rank in range(2)]
    assert_same(*ranks)
    torch.manual_seed(0)
    networks = SYSTEMS[system](config=recipe.config).networks()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    for name, network in networks.items():
        # By what they do: biases before a norm change nothing, and Adam makes steps of the noise in their gradients.
        untrained, by_one, by_two = (
            act(network, weights, images) for weights in (None, weights_of(tmp_path / "one", name), ranks[0][name])
        )
        assert float((by_one - by_two).abs().max()) < 0.01 * float((by_one - untrained).abs().max()), name
    # One folder, written once, as one process leaves it.
    left = [sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) for run in (tmp_path / "two", one.run)]
    assert left[0] == left[1]
    assert [line["step"] for line in lines_of(tmp_path / "two")] == [line["step"] for line in lines_of(one.run)]
    outputs = [(tmp_path / f"said-{rank}").read_text() for rank in range(2)]
    assert "normalizer.safetensors" in outputs[0]
    assert outputs[1] == ""


@pytest.mark.skipif(not POSIX, reason="signals as POSIX has them")
def test_two_processes_stop_together_and_go_on(tissue: Path, tmp_path: Path) -> None:
    """A signal that one of them has heard stops both at the same update; they resume as two, and as nothing else."""
    tables: dict[str, Any] = {"training": {"max_steps": 8, "log_every": 1, "checkpoint_every": 100}}
    said = tmp_path / "whole"
    assert finish(*start_several(2, command("staingan", tissue, tmp_path / "one", **tables), said)) == [0, 0], texts(
        said
    )

    said, stopped = tmp_path / "stopped", command("staingan", tissue, tmp_path / "two", **tables)
    children = start_several(2, stopped, said, before=SLOW)
    deadline = time.monotonic() + 240
    log = tmp_path / "two" / "metrics.jsonl"
    while not (log.exists() and log.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline, texts(said)
        time.sleep(0.01)
    assert children[1].pid is not None
    os.kill(children[1].pid, signal.SIGTERM)
    assert finish(*children) == [130, 130], texts(said)
    step = state_of(tmp_path / "two")["step"]
    assert 2 <= step < 8
    assert f"interrupted; --resume goes on from step {step}" in texts(said)

    resume = ["train", "-o", tmp_path / "two", "--resume", "--device=cpu"]
    said = tmp_path / "alone"
    assert finish(*start_several(1, resume, said)) == [2]
    assert "was trained by 2 processes, and this is 1" in texts(said)
    said = tmp_path / "resumed"
    assert finish(*start_several(2, resume, said)) == [0, 0], texts(said)
    for state in (state_of(tmp_path / name) for name in ("one", "two")):
        assert len(state["processes"]) == 2
        pools = [process["system"]["pool"]["images"][0] for process in state["processes"]]
        assert not torch.equal(*pools)  # each has its own
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_a_batch_that_processes_cannot_share_is_refused(tissue: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    arguments = command("staingan", tissue, tmp_path / "run", config={"batch_size": 3})
    codes = finish(*start_several(2, arguments, said))
    assert codes == [2, 2], texts(said)
    assert "make the batch a multiple of 2" in texts(said)
    assert not (tmp_path / "run").exists()
