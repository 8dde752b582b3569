"""Learning rates over epochs, against what the papers' code steps through."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from restain.errors import InputError  # noqa: E402  (after the skip)
from restain.systems.schedule import learning_rate_factor  # noqa: E402

lengths = st.integers(0, 200)


def factors(schedule: str, epochs: int, decay_epochs: int) -> list[float]:
    return [learning_rate_factor(schedule, epoch, epochs, decay_epochs) for epoch in range(epochs + decay_epochs)]


def test_linear_by_hand() -> None:
    assert factors("linear", 2, 3) == pytest.approx([1, 1, 0.75, 0.5, 0.25])
    assert learning_rate_factor("linear", 5, 2, 3) == pytest.approx(0)  # an epoch that is no more


def test_linear_of_staingan() -> None:
    """25 + 25 epochs: the first 25 at the full rate, the last at 1/26 of it, each 1/26 below the one before."""
    rates = factors("linear", 25, 25)
    assert rates[:25] == [1.0] * 25
    assert rates[25] == pytest.approx(25 / 26)
    assert rates[-1] == pytest.approx(1 / 26)
    assert [a - b for a, b in pairwise(rates[24:])] == pytest.approx([1 / 26] * 25)


@pytest.mark.parametrize(("epochs", "decay"), [(300, 0), (7, 3)])
def test_cosine_is_torchs(epochs: int, decay: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs + decay)
    wanted = []
    for _ in range(epochs + decay):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert factors("cosine", epochs, decay) == pytest.approx(wanted, abs=1e-9)


def test_cosine_at_its_ends() -> None:
    assert learning_rate_factor("cosine", 0, 10) == 1.0
    assert learning_rate_factor("cosine", 5, 10) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 10, 10) == pytest.approx(0.0, abs=1e-12)


@given(epoch=lengths, epochs=lengths, decay=lengths)
def test_constant_is_one(epoch: int, epochs: int, decay: int) -> None:
    assert learning_rate_factor("constant", epoch, epochs, decay) == 1.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@given(epochs=st.integers(1, 200), decay=lengths)
def test_rates_fall_and_stay_above_nothing(schedule: str, epochs: int, decay: int) -> None:
    rates = factors(schedule, epochs, decay)
    assert rates[0] == 1.0
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert all(0 < rate <= 1 for rate in rates)


@given(epochs=st.integers(0, 200), decay=st.integers(1, 200))
def test_linear_falls_in_equal_steps(epochs: int, decay: int) -> None:
    rates = [learning_rate_factor("linear", epoch, epochs, decay) for epoch in range(epochs - 1, epochs + decay + 1)]
    assert all(math.isclose(a - b, 1 / (decay + 1), abs_tol=1e-12) for a, b in pairwise(rates))


def test_other_schedules_are_refused() -> None:
    with pytest.raises(InputError, match="'step'; wanted one of constant, linear, cosine"):
        learning_rate_factor("step", 0, 1)  # type: ignore[arg-type]
