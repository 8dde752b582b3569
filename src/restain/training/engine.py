"""Devices, precision, processes and accumulation, from 🤗 accelerate, as a system's update sees them."""

import inspect
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from restain.errors import InputError, MissingExtraError
from restain.networks.inference import has_bfloat16
from restain.systems.frozen import unwrapped
from restain.training.settings import TrainingSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


class AccelerateEngine:
    """`restain.systems.engine.Engine` on an `Accelerator`."""

    def __init__(self, accelerator: "Accelerator", clip_norm: float = 0.0) -> None:
        self._accelerator, self._clip_norm = accelerator, clip_norm

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that was asked for."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def backward(self, loss: Tensor) -> None:
        """Gradients, scaled for fp16 and for the batches that are added up."""
        self._accelerator.backward(loss)

    def clip(self, network: nn.Module) -> None:
        """Limit the norm of the gradients, where the settings say so and the optimizers are about to step."""
        if self._clip_norm and self._accelerator.sync_gradients:
            weights = list(unwrapped(network).parameters())
            self._unscale(weights)
            nn.utils.clip_grad_norm_(weights, self._clip_norm)

    def _unscale(self, weights: list[nn.Parameter]) -> None:
        """Take fp16's scale out of the gradients of the optimizer that these weights have.

        Not by accelerate's own `clip_grad_norm_`, which does it to all optimizers and so fails at the second network
        that is clipped before the optimizer of both steps.
        """
        scaler = self._accelerator.scaler
        if scaler is None:
            return
        given = set(map(id, weights))
        for optimizer in self._accelerator._optimizers:
            if any(id(weight) in given for group in optimizer.param_groups for weight in group["params"]):
                with suppress(RuntimeError):  # it was done for another of its networks
                    scaler.unscale_(optimizer.optimizer)


def make_accelerator(settings: TrainingSettings, device: str = "auto") -> "Accelerator":
    """Accelerate, set up: for one process, or for those that `accelerate launch` started.

    Args:
        settings: precision and accumulation are taken from it.
        device: "auto", "cpu" or "cuda".

    Raises:
        InputError: the hardware has no such device or precision. MissingExtraError: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, GradientState
        from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env
    except ImportError as error:
        raise MissingExtraError(
            f"training needs accelerate ({error}); install it: pip install 'restain[train]'"
        ) from None
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"got device {device!r}; wanted auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; wanted --device cpu or auto")
    # The flag is that of `accelerate launch --cpu`, which accelerate would obey anyway.
    on_cpu = device == "cpu" or not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    kind = torch.device("cpu" if on_cpu else "cuda")
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_bfloat16(kind) else "no"
    if precision == "fp16" and on_cpu:
        raise InputError("precision fp16 needs a GPU; wanted bf16, no or auto")
    # Accelerate keeps the settings of a process's first accelerator, and refuses others; this may be the second.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    # As a plugin, since the environment of `accelerate launch` would go before a plain number.
    plugin = GradientAccumulationPlugin(num_steps=settings.accumulate)
    # bf16 is left to whoever asks for it even where it is emulated: slow, but right.
    return Accelerator(cpu=on_cpu, mixed_precision=precision, gradient_accumulation_plugin=plugin)


def distributed(network: nn.Module, accelerator: "Accelerator") -> nn.Module:
    """The network, wrapped to average its gradients over processes where there are several.

    Not by accelerate's own `prepare_model`, which would patch the network's forward for mixed precision: here
    `Engine.autocast` says where that holds, and networks stay plain modules that can be copied.
    """
    if accelerator.num_processes == 1 or not any(weight.requires_grad for weight in network.parameters()):
        return network
    devices = [accelerator.local_process_index] if accelerator.device.type == "cuda" else None
    # Running statistics stay each process's own: exchanging them in every pass would count passes, which differ.
    options = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"  # older
    return DistributedDataParallel(network, device_ids=devices, **{name: False})  # type: ignore[arg-type]
