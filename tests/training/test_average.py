"""The moving average of weights, against a plain sum of what it says it is."""

import numpy as np
import pytest
import torch
from torch import nn

from restain.systems.frozen import unwrapped
from restain.training.average import Average


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def shift(model: nn.Module, amount: float) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight += amount


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_it_is_the_weighted_sum_of_all_weights(decay: float) -> None:
    model = network()
    history = [model[0].weight.detach().double().numpy().copy()]
    average = Average(model, decay)
    for number in range(12):
        shift(model, 0.1 * (-1) ** number * number)
        average.update(model)
        history.append(model[0].weight.detach().double().numpy().copy())
    # Each weight counts by what its update took, and what later ones left of it.
    decays = [min(decay, (1 + k) / (10 + k)) for k in range(1, 13)]
    assert (decays[0], decays[-1]) == ((2 / 11, 0.3) if decay == 0.3 else (2 / 11, 13 / 22))
    shares = [np.prod(decays)] + [(1 - decays[k]) * np.prod(decays[k + 1 :]) for k in range(12)]
    assert sum(shares) == pytest.approx(1)
    expected = sum(share * weights for share, weights in zip(shares, history, strict=True))
    with average.in_place_of(model):
        np.testing.assert_allclose(model[0].weight.detach().numpy(), expected, rtol=0, atol=1e-6)


def test_buffers_are_the_latest() -> None:
    model = network()
    average = Average(model, 0.9)
    model(torch.randn(2, 3, 4, 4))
    average.update(model)
    mean, count = model[1].running_mean.clone(), int(model[1].num_batches_tracked)
    model[1].running_mean.zero_()
    with average.in_place_of(model):
        assert torch.equal(model[1].running_mean, mean)
        assert int(model[1].num_batches_tracked) == count == 1
    assert not model[1].running_mean.any()


def test_the_network_gets_its_own_weights_back_whatever_happens() -> None:
    model = network()
    average = Average(model, 0.5)
    shift(model, 1.0)
    own = {name: value.clone() for name, value in model.state_dict().items()}

    def fail() -> None:
        with average.in_place_of(model):
            assert not torch.equal(model[0].weight, own["0.weight"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_it_goes_on_from_its_state_and_keeps_the_layout() -> None:
    one, other = network(), network()
    one.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, second = Average(one, 0.99), Average(other, 0.99)
    for number in range(3):
        shift(one, 0.5)
        shift(other, 0.5)
        first.update(one)
        if number == 1:
            saved = {**first.state_dict(), "weights": {k: v.clone() for k, v in first.state_dict()["weights"].items()}}
        second.update(other)
    again = Average(network(), 0.99)
    again.load_state_dict(saved)
    again.update(one)
    assert again.updates == first.updates == 3
    for name, value in first.state_dict()["weights"].items():
        assert torch.equal(value, again.state_dict()["weights"][name])
        assert torch.equal(value, second.state_dict()["weights"][name])


def test_restarting_forgets() -> None:
    model = network()
    average = Average(model, 0.9)
    shift(model, 1.0)
    average.update(model)
    average.restart(model)
    assert average.updates == 0
    with average.in_place_of(model):
        pass
    assert all(torch.equal(v, average.state_dict()["weights"][k]) for k, v in unwrapped(model).state_dict().items())
