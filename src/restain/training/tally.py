"""Losses since the last line of the log: left on their device until somebody looks, since every look waits for it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from restain.training.health import Health

SPREAD = "output_std"
"""What a system calls the standard deviation of the pixels that it has made: no loss, but logged beside them."""


class Tally:
    """Collects losses; each is shown to the run's health once, in order, as soon as any is looked at.

    Args:
        health: sees every loss.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._fresh: list[tuple[int, Mapping[str, Tensor]]] = []
        self._seen: list[dict[str, float]] = []

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Take in what an update returned: scalars by name."""
        self._fresh.append((step, losses))

    def look(self) -> None:
        """Fetch what has been added, and show it to the health.

        Raises:
            TrainingError: the run has died.
        """
        scalars = [loss.detach().float() for _, losses in self._fresh for loss in losses.values()]
        values = iter(torch.stack(scalars).tolist() if scalars else ())
        fresh, self._fresh = self._fresh, []
        for step, losses in fresh:
            seen = dict(zip(losses, values, strict=False))
            judged = {name: value for name, value in seen.items() if name != SPREAD}
            self._health.check(step, judged, output_std=seen.get(SPREAD))
            self._seen.append(seen)

    def means(self) -> dict[str, float]:
        """The mean of every loss over the updates that gave it; the next ones start a new mean."""
        self.look()
        seen, self._seen = self._seen, []
        table: dict[str, list[float]] = {}
        for losses in seen:
            for name, value in losses.items():
                table.setdefault(name, []).append(value)
        return {name: math.fsum(values) / len(values) for name, values in table.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the next line of the log and the health depend on."""
        self.look()
        return {"seen": [dict(losses) for losses in self._seen], "health": self._health.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._fresh, self._seen = [], [dict(losses) for losses in state["seen"]]
        self._health.load_state_dict(state["health"])
