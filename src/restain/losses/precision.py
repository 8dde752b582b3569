"""Digits enough for means and sums."""

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """float32 at least: bf16's three digits are too few for means and sums, and autocast leaves it as it is on CPUs."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
