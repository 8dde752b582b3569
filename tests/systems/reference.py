"""Steps of training written out by hand: gradients by `torch.autograd.grad`, Adam and SGD by their formulas.

Nothing here is frozen, detached by an optimizer, or asked of the system: what a network learns from is said by whose
gradients are taken.
"""

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn


def weights_of(*networks: nn.Module) -> list[Tensor]:
    return [weight for network in networks for weight in network.parameters()]


class Adam:
    """Kingma & Ba 2015, algorithm 1, ε = 1e-8."""

    def __init__(self, weights: Sequence[Tensor], rate: float, betas: tuple[float, float]) -> None:
        self.weights, self.rate, self.betas = list(weights), rate, betas
        self.first = [torch.zeros_like(weight) for weight in self.weights]
        self.second = [torch.zeros_like(weight) for weight in self.weights]
        self.time = 0

    def descend(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.weights)
        self.time += 1
        beta1, beta2 = self.betas
        with torch.no_grad():
            for weight, gradient, first, second in zip(self.weights, gradients, self.first, self.second, strict=True):
                first.copy_(beta1 * first + (1 - beta1) * gradient)
                second.copy_(beta2 * second + (1 - beta2) * gradient**2)
                corrected = first / (1 - beta1**self.time), second / (1 - beta2**self.time)
                weight -= self.rate * corrected[0] / (corrected[1].sqrt() + 1e-8)


def descend_plainly(weights: Sequence[Tensor], loss: Tensor, rate: float) -> None:
    """SGD without momentum."""
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= rate * gradient


class Watch:
    """An engine that notes, around each backward pass, whose gradients it changed and whose statistics had moved."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        self.networks = networks
        self.reached: list[set[str]] = []
        self.clipped: list[str] = []
        self.buffers: list[dict[str, list[Tensor]]] = []

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def backward(self, loss: Tensor) -> None:
        assert loss.shape == ()
        before = self._gradients()
        self.buffers.append({name: [b.clone() for b in network.buffers()] for name, network in self.networks.items()})
        loss.backward()
        after = self._gradients()
        self.reached.append({name for name in self.networks if not same(before[name], after[name])})

    def clip(self, network: nn.Module) -> None:
        self.clipped += [name for name, other in self.networks.items() if other is network]

    def _gradients(self) -> dict[str, list[Tensor | None]]:
        return {
            name: [None if weight.grad is None else weight.grad.clone() for weight in network.parameters()]
            for name, network in self.networks.items()
        }


def same(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> bool:
    """Whether tensors are equal, one by one; none is equal to none."""
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def assert_losses(found: Mapping[str, Tensor], wanted: Mapping[str, float], *, rel: float) -> None:
    """That the losses of an update are those that were written out, where it has them, and hold on to no graph."""
    common = wanted.keys() & found.keys()
    assert common
    for name in common:
        assert found[name].item() == pytest.approx(wanted[name], rel=rel), name
    assert not any(loss.requires_grad for loss in found.values())


def assert_learned(found: nn.Module, wanted: nn.Module, start: nn.Module, *, rate: float, atol: float) -> None:
    """That a network is what the steps by hand made of it, running statistics too, and moved by more than `rate`."""
    values, first = found.state_dict(), start.state_dict()
    for key, value in wanted.state_dict().items():
        torch.testing.assert_close(values[key], value, rtol=0, atol=atol, msg=lambda text, key=key: f"{key}: {text}")
    assert max(float((values[key] - first[key]).abs().max()) for key in values) > rate
