"""A dead run is stopped and says so; a living one is left alone, however rough it is."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from restain.errors import InputError, TrainingError
from restain.training.checkpoint import load_state, save_state
from restain.training.health import Health, HealthOptions, check_parameters


def feed(health: Health, values: list[float], name: str = "discriminator_target", start: int = 0) -> int | None:
    """The step at which `health` stops the run, None where it does not."""
    for step, value in enumerate(values, start=start):
        try:
            health.check(step, {"cycle": 0.1, name: value})
        except TrainingError:
            return step
    return None


# ---- losses that are not finite ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["cycle", "discriminator_source", "anything"])
def test_a_loss_that_is_not_finite_stops_at_once(name: str, value: float) -> None:
    health = Health(checkpoint=Path("runs/a/checkpoints/step-00001000.safetensors"))
    health.check(1233, {"other": 1.0, name: 0.5})
    with pytest.raises(TrainingError) as error:
        health.check(1234, {"other": 1.0, name: value})
    message = str(error.value)
    assert "step 1234" in message
    assert f"the loss {name} is {value}" in message
    assert "step-00001000.safetensors" in message
    assert "learning rate" in message
    assert "\n" not in message


def test_without_a_checkpoint_it_says_so() -> None:
    with pytest.raises(TrainingError, match="no checkpoint was written yet"):
        Health().check(1, {"cycle": math.nan})


# ---- ordinary training ------------------------------------------------------------------------------------------


def ordinary(kind: str, count: int) -> list[float]:
    """Losses as discriminators have them that train well or badly, but train."""
    rng = np.random.default_rng(1)
    if kind == "least squares":
        values = 0.25 * np.exp(-np.arange(count) / count) + 0.05 * rng.standard_normal(count).clip(-2, 2)
    elif kind == "cross entropy":
        values = np.log(2) * np.exp(0.5 * rng.standard_normal(count))
    elif kind == "nearly won":  # far below chance, with dips under the floor that last for hundreds of updates
        values = 10 ** rng.uniform(-4.2, -2, count)
        values[::1500] = 0.01
        values[200:900] = 1e-6
    elif kind == "chance":  # a discriminator that cannot tell, as at the end of a good run
        values = 0.5 + 1e-6 * rng.standard_normal(count)
    else:  # a critic's, around nothing
        values = 1e-3 * rng.standard_normal(count)
    return values.tolist()


@pytest.mark.parametrize("kind", ["least squares", "cross entropy", "nearly won", "chance", "critic"])
def test_ordinary_training_is_left_alone(kind: str) -> None:
    assert feed(Health(), ordinary(kind, 10_000)) is None


def test_only_discriminators_are_watched_for_collapse() -> None:
    health = Health(HealthOptions(discriminator_patience=5))
    assert feed(health, [0.0] * 100, name="identity") is None
    assert feed(health, [0.0] * 100, name="my_discriminator") is None
    assert feed(health, [1e-9] * 100, name="discriminator") is not None


# ---- collapse ---------------------------------------------------------------------------------------------------


def test_a_discriminator_without_error_stops_the_run() -> None:
    rng = np.random.default_rng(0)
    values = [*ordinary("least squares", 500), *(1e-5 * rng.random(5000)).tolist()]
    health = Health()
    stop = feed(health, values)
    assert stop == 500 + HealthOptions().discriminator_patience - 1
    with pytest.raises(TrainingError, match=r"discriminator_target has been below 0\.0001 for 2000 updates"):
        health.check(stop + 1, {"discriminator_target": 1e-5})


def test_a_discriminator_that_no_longer_sees_stops_the_run() -> None:
    health = Health(HealthOptions(discriminator_patience=50))
    assert feed(health, [0.3, *[0.25] * 100]) == 51  # 0.25 came first at step 1, and again 50 times
    with pytest.raises(TrainingError, match=r"exactly 0\.25 for 50 updates"):
        health.check(52, {"discriminator_target": 0.25})


def test_one_update_with_an_error_starts_the_count_anew() -> None:
    health = Health(HealthOptions(discriminator_patience=10))
    assert feed(health, ([1e-6] * 9 + [0.1]) * 50) is None


def test_discriminators_are_counted_each_by_itself_and_only_where_reported() -> None:
    health = Health(HealthOptions(discriminator_patience=10))
    for step in range(18):  # each is updated every other step
        health.check(step, {f"discriminator_{step % 2}": 1e-6 + step * 1e-9})
    health.check(18, {"cycle": 1.0})
    with pytest.raises(TrainingError, match="discriminator_0"):
        health.check(19, {"discriminator_0": 2e-6})


def test_flat_output_stops_the_run() -> None:
    health = Health()
    for step in range(301):  # glass alone, for long, but not longer
        health.check(step, {}, output_std=0.0 if step % 100 else 0.1)
    for step in range(1, 100):
        health.check(step, {}, output_std=1e-5)
    with pytest.raises(TrainingError, match="one flat colour for 100 updates"):
        health.check(100, {}, output_std=1e-5)
    with pytest.raises(TrainingError, match="images are not finite"):
        Health().check(1, {}, output_std=math.nan)


def test_all_can_be_turned_off() -> None:
    health = Health(HealthOptions(discriminator_patience=0, output_patience=0))
    for step in range(5000):
        health.check(step, {"discriminator": 0.0}, output_std=0.0)
    health = Health(HealthOptions(discriminator_floor=0, discriminator_patience=10))
    assert feed(health, [1e-9 * (step + 1) for step in range(100)]) is None


@pytest.mark.parametrize("name", list(vars(HealthOptions())))
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "3", None])
def test_options_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"got {name}="):
        HealthOptions(**{name: value})


def test_a_resumed_run_stops_at_the_same_step(tmp_path: Path) -> None:
    values = [0.2] * 10 + [1e-6 * (1 + step % 3) for step in range(100)]
    options = HealthOptions(discriminator_patience=40)
    whole = feed(Health(options), values)
    for cut in (0, 5, 30, 45):
        first, second = Health(options), Health(options)
        assert feed(first, values[:cut]) is None
        save_state(tmp_path / "state", first.state_dict())
        second.load_state_dict(load_state(tmp_path / "state"))
        assert second.state_dict() == first.state_dict()
        assert feed(second, values[cut:], start=cut) == whole
    assert whole is not None


# ---- weights ----------------------------------------------------------------------------------------------------


def trained() -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return {"generator": network, "empty": torch.nn.Identity()}, {"generator": optimizer}


def test_finite_weights_pass() -> None:
    networks, optimizers = trained()
    check_parameters(networks, optimizers, step=1)
    check_parameters({}, step=1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.bias", "1.running_var"])
def test_weights_that_are_not_finite_are_named(name: str, value: float) -> None:
    networks, optimizers = trained()
    with torch.no_grad():
        networks["generator"].state_dict()[name].view(-1)[-1] = value
    with pytest.raises(TrainingError, match=rf"at step 7: generator\.{name} is not finite; the last good .* runs/a;"):
        check_parameters(networks, optimizers, step=7, checkpoint=Path("runs/a"))


def test_moments_that_are_not_finite_are_named() -> None:
    networks, optimizers = trained()
    next(iter(optimizers["generator"].state.values()))["exp_avg_sq"][0, 0] = math.inf
    check_parameters(networks, step=1)
    with pytest.raises(TrainingError, match="the optimizer generator's exp_avg_sq of parameter 0 is not finite"):
        check_parameters(networks, optimizers, step=1)
