"""What an update needs of whoever runs it: 🤗 accelerate's `Accelerator` is one, `PlainEngine` another."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor, nn


class Engine(Protocol):
    """Devices, precision and processes, as a system sees them."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Where forward passes run in the precision that was asked for."""
        ...

    def backward(self, loss: Tensor) -> None:
        """`loss.backward()`, scaled and synchronised as precision and processes need it."""
        ...

    def clip(self, network: nn.Module) -> None:
        """Limit the norm of a network's gradients before its optimizer steps, where that was asked for."""
        ...


class PlainEngine:
    """One process, full precision, no clipping: for tests, and for loops of one's own."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Nothing changes."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """`loss.backward()`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, network: nn.Module) -> None:
        """Nothing is clipped."""
