"""Networks that are lent to an update: no gradients, no moved statistics, and as they were afterwards."""

import copy
import os

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (after the skip)
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from restain.networks.patchgan import PatchDiscriminator  # noqa: E402
from restain.systems.frozen import frozen, unwrapped  # noqa: E402


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    made = PatchDiscriminator(layers=2, channels=4, norm="batch").train()
    made(torch.rand(2, 3, 32, 32))  # running statistics of its own
    return made


def state(network: nn.Module) -> dict:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_untouched(network: nn.Module, before: dict) -> None:
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def assert_learns(network: nn.Module) -> None:
    assert all(parameter.requires_grad for parameter in network.parameters())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(module.track_running_stats for module in norms)


def test_gradients_reach_the_input_alone(network: nn.Module) -> None:
    before = state(network)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    with frozen(network) as lent:
        assert not any(parameter.requires_grad for parameter in lent.parameters())
        loss = lent(images).square().mean()
    loss.backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert_untouched(network, before)  # running means, variances and the count of batches, to the bit
    assert_learns(network)


def test_the_same_is_computed(network: nn.Module) -> None:
    """In its own mode: in training, norms take the batch's statistics; in evaluation, the running ones."""
    images = torch.rand(2, 3, 32, 32)
    for training in (True, False):
        network.train(training)
        wanted = copy.deepcopy(network)(images)
        with frozen(network) as lent:
            assert lent.training == training
            assert torch.equal(lent(images), wanted)


def test_it_is_restored_after_an_error(network: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="on the way"), frozen(network):
        raise RuntimeError("on the way")
    assert_learns(network)


def test_what_was_frozen_before_stays_so(network: nn.Module) -> None:
    first = next(network.parameters())
    first.requires_grad_(False)
    with frozen(network), frozen(network):
        pass
    assert not first.requires_grad
    assert sum(not parameter.requires_grad for parameter in network.parameters()) == 1


def test_wrapped_for_several_processes(network: nn.Module, tmp_path: os.PathLike[str]) -> None:
    """What is lent is the network itself: its wrapper would wait for gradients that never come."""
    assert unwrapped(network) is network
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(network)
        assert unwrapped(wrapped) is network
        before = state(network)
        with frozen(wrapped) as lent:
            assert lent is network
            lent(torch.rand(2, 3, 32, 32, requires_grad=True)).mean().backward()
        assert_untouched(network, before)
        assert_learns(network)
    finally:
        torch.distributed.destroy_process_group()
