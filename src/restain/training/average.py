"""An exponential moving average of a network's weights: less noisy than the last ones of an adversarial training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from restain.systems.frozen import unwrapped


class Average:
    """w̄ ← decay·w̄ + (1 − decay)·w after each update; buffers (running statistics) are taken as they are.

    Args:
        network: whose weights are averaged, from what they are now.
        decay: 0 to below 1. Early on min(decay, (1 + updates) / (10 + updates)), so that the start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.restart(network)

    def restart(self, network: nn.Module) -> None:
        """Begin again from the weights as they are now."""
        self.updates = 0
        self._weights = {name: value.detach().clone() for name, value in unwrapped(network).state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = dict(unwrapped(network).named_parameters())
        for name, value in unwrapped(network).state_dict().items():
            if name in parameters:
                self._weights[name].lerp_(value, 1 - decay)
            else:
                self._weights[name].copy_(value)

    @contextmanager
    def in_place_of(self, network: nn.Module) -> Iterator[None]:
        """Put the average into the network for a while."""
        bare = unwrapped(network)
        own: dict[str, Tensor] = {name: value.detach().clone() for name, value in bare.state_dict().items()}
        bare.load_state_dict(self._weights)
        try:
            yield
        finally:
            bare.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """All that the next `update` depends on."""
        return {"updates": self.updates, "weights": dict(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.updates = int(state["updates"])
        for name, value in state["weights"].items():
            self._weights[name].copy_(value)
