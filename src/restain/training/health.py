"""Is training still training? Losses that are not finite, discriminators and generators that have collapsed.

A run that has died should stop, say so, and leave its last good checkpoint, instead of training on nothing for days.
What is found is raised as `TrainingError`; nothing is found in a run that learns, however badly it does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from restain.errors import InputError, TrainingError


@dataclass(frozen=True)
class HealthOptions:
    """When a run counts as dead.

    Attributes:
        discriminator_floor: a discriminator whose loss is below this no longer errs and gives its generator next to no
            signal. With cross entropy, chance is 0.69, with least squares 0.25 (twice that where real and generated
            are added); in ordinary training the loss dips below 0.01 for moments. 0 turns it off.
        discriminator_patience: updates in a row below the floor until the run is stopped. Spells of hundreds do occur
            and pass. The same number of updates in a row with one and the same loss, to the last bit, means a
            discriminator whose output no longer depends on its input. 0 turns both off.
        output_floor: standard deviation over the pixels of a batch of generated images (0..1) below which the
            generator's output is one flat colour; a twentieth of a grey level.
        output_patience: updates in a row with flat output until the run is stopped (a batch of glass alone is flat,
            too, but not many in a row). 0 turns it off.
    """

    discriminator_floor: float = 1e-4
    discriminator_patience: int = 2000
    output_floor: float = 2e-4
    output_patience: int = 100

    def __post_init__(self) -> None:
        """Raise `InputError` for a number that cannot be."""
        for name, value in vars(self).items():
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise InputError(f"got {name}={value!r}; wanted a number from 0 on")


class Health:
    """Watches the losses of a run; `check` is called after every update, or every few: patience counts the calls.

    Attributes:
        options: when a run counts as dead.
        checkpoint: the last good checkpoint, for the message; the loop sets it after writing one.
    """

    def __init__(self, options: HealthOptions | None = None, *, checkpoint: Path | None = None) -> None:
        self.options = options or HealthOptions()
        self.checkpoint = checkpoint
        self._low: dict[str, int] = {}
        self._same: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._flat = 0

    def check(self, step: int, losses: Mapping[str, float], *, output_std: float | None = None) -> None:
        """Judge one update.

        Args:
            step: updates done.
            losses: by name; those whose name begins with "discriminator" are watched for collapse, each only at the
                updates that report it. (A critic's loss, which means nothing by its size, has another name.)
            output_std: standard deviation over the pixels of the generated batch, 0..1, where the loop has it.

        Raises:
            TrainingError: the run is dead; the message names what, when, the last good checkpoint and what to do.
        """
        for name, value in losses.items():
            if not math.isfinite(value):
                self._stop(
                    step, f"the loss {name} is {value}", "a smaller learning rate, gradient clipping, or float32"
                )
        for name, value in losses.items():
            if name.startswith("discriminator"):
                self._check_discriminator(step, name, value)
        if output_std is not None:
            self._check_output(step, output_std)

    def _check_discriminator(self, step: int, name: str, value: float) -> None:
        floor, patience = self.options.discriminator_floor, self.options.discriminator_patience
        self._low[name] = self._low.get(name, 0) + 1 if 0 <= value < floor else 0
        self._same[name] = self._same.get(name, 0) + 1 if value == self._last.get(name) else 0
        self._last[name] = float(value)
        if not patience:
            return
        advice = "a smaller learning rate of the discriminator, or more and more varied images"
        if self._low[name] >= patience:
            self._stop(
                step, f"{name} has been below {floor:g} for {patience} updates: its generator learns nothing", advice
            )
        if self._same[name] >= patience:
            self._stop(step, f"{name} has been exactly {value:.6g} for {patience} updates: it no longer sees", advice)

    def _check_output(self, step: int, output_std: float) -> None:
        floor, patience = self.options.output_floor, self.options.output_patience
        advice = "a smaller learning rate of the generator"
        if not math.isfinite(output_std):
            self._stop(step, "the generated images are not finite", advice)
        self._flat = self._flat + 1 if output_std < floor else 0
        if patience and self._flat >= patience:
            self._stop(step, f"the generated images have been one flat colour for {patience} updates", advice)

    def _stop(self, step: int, what: str, advice: str) -> None:
        raise TrainingError(f"training stopped at step {step}: {what}; {_advice(advice, self.checkpoint)}")

    # ---- saved with a checkpoint --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: how long each sign has lasted."""
        return {"low": dict(self._low), "same": dict(self._same), "last": dict(self._last), "flat": self._flat}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up `state_dict` again."""
        self._low, self._same = dict(state["low"]), dict(state["same"])
        self._last, self._flat = dict(state["last"]), int(state["flat"])


def check_parameters(
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    *,
    step: int,
    checkpoint: Path | None = None,
) -> None:
    """See that every weight, buffer and optimizer's moment is finite; called before a checkpoint is written.

    Raises:
        TrainingError: one is not; the message names it, the last good checkpoint and what to do.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, network in networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.named_parameters()}
        tensors |= {f"{name}.{key}": value for key, value in network.named_buffers()}
    for name, optimizer in (optimizers or {}).items():
        for index, moments in enumerate(optimizer.state.values()):
            found = {key: value for key, value in moments.items() if isinstance(value, torch.Tensor)}
            tensors |= {f"the optimizer {name}'s {key} of parameter {index}": value for key, value in found.items()}
    # One answer per device is fetched, not one per tensor: each would wait for the device.
    wrong: dict[torch.device, list[torch.Tensor]] = {}
    floats = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() or t.is_complex()}
    for tensor in floats.values():
        wrong.setdefault(tensor.device, []).append(tensor.isfinite().all())
    if all(bool(torch.stack(flags).all()) for flags in wrong.values()):
        return
    name = next(name for name, tensor in floats.items() if not bool(tensor.isfinite().all()))
    advice = _advice("a smaller learning rate, gradient clipping, or float32", checkpoint)
    raise TrainingError(f"training stopped at step {step}: {name} is not finite; {advice}")


def _advice(advice: str, checkpoint: Path | None) -> str:
    kept = "no checkpoint was written yet" if checkpoint is None else f"the last good checkpoint is {checkpoint}"
    return f"{kept}; try {advice}"
