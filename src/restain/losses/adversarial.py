"""Losses of generative adversarial networks, on logits: `lsgan` (Mao et al. 2017) and `bce` (Goodfellow et al. 2014).

Both are written non-saturating: a generator calls them with `real=True` on what the discriminator makes of its fakes,
also where a paper prints log(1 − D(G(x))), whose gradient vanishes while the discriminator wins.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from restain.losses.precision import precise

AdversarialLoss = Callable[[Tensor, bool], Tensor]


def lsgan(logits: Tensor, real: bool) -> Tensor:
    """Mean squared distance of logits (any shape) to 1 for real, 0 for fake: a scalar, float32 at least."""
    return ((precise(logits) - float(real)) ** 2).mean()


def bce(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of logits (any shape) against 1 for real, 0 for fake: a scalar, float32 at least."""
    logits = precise(logits)
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


ADVERSARIAL: Mapping[str, AdversarialLoss] = MappingProxyType({"lsgan": lsgan, "bce": bce})
"""The adversarial losses by name."""
