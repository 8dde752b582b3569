"""Devices, precision, processes and accumulation, from 🤗 accelerate, as a system's update sees them."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from restain.errors import InputError, MissingExtraError
from restain.networks.hardware import has_bfloat16
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
            self._accelerator.clip_grad_norm_(unwrapped(network).parameters(), self._clip_norm)


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
    except ImportError as error:
        raise MissingExtraError(
            f"training needs accelerate ({error}); install it: pip install 'restain[train]'"
        ) from None
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"got device {device!r}; wanted auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; wanted --device cpu or auto")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    kind = torch.device("cpu" if on_cpu else "cuda")
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_bfloat16(kind) else "no"
    if precision == "fp16" and on_cpu:
        raise InputError("precision fp16 needs a GPU; wanted bf16, no or auto")
    # bf16 is left to whoever asks for it even where it is emulated: slow, but right.
    return Accelerator(cpu=on_cpu, mixed_precision=precision, gradient_accumulation_steps=settings.accumulate)


def distributed(network: nn.Module, accelerator: "Accelerator") -> nn.Module:
    """The network, wrapped to average its gradients over processes where there are several.

    Not by accelerate's own `prepare_model`, which would patch the network's forward for mixed precision: here
    `Engine.autocast` says where that holds, and networks stay plain modules that can be copied.
    """
    if accelerator.num_processes == 1 or not any(weight.requires_grad for weight in network.parameters()):
        return network
    devices = [accelerator.local_process_index] if accelerator.device.type == "cuda" else None
    # Running statistics stay each process's own: exchanging them in every pass would count passes, which differ.
    return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)
