"""The loss of a classifier on images of which some have no label."""

import torch
from torch import Tensor
from torch.nn import functional

UNKNOWN = -1
"""The label of an image whose class nobody knows."""


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the images with a label; 0 where there is none. A scalar, float32 at least.

    Args:
        logits: (N, classes).
        labels: (N,) int64: the class, from 0, or `UNKNOWN`.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    total = functional.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)
