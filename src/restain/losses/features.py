"""The distance of two images in the features of a network: the same content, not the same pixels.

Johnson, Alahi & Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", 2016.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from restain.errors import InputError
from restain.losses.precision import precise

FeatureNorm = Literal["l1", "mse"]
"""`l1`: the mean absolute difference. `mse`: the mean squared one, as in the paper of 2016."""


def feature_distance(
    made: Sequence[Tensor], wanted: Sequence[Tensor], weights: Sequence[float], norm: FeatureNorm = "l1"
) -> Tensor:
    """Weighted sum over layers of how far features are from those wanted.

    Args:
        made: features of the images to be improved, one tensor a layer, of any shape.
        wanted: features of the images to be like, of the same shapes; no gradient passes to them.
        weights: one a layer.
        norm: see `FeatureNorm`.

    Returns:
        A scalar, 0 where the features are equal. Not below float32.

    Raises:
        InputError: not as many of one as of the others, or another norm.
    """
    if not len(made) == len(wanted) == len(weights) or not len(made):
        raise InputError(f"got features of {len(made)} and {len(wanted)} layers, and {len(weights)} weights")
    if norm not in ("l1", "mse"):
        raise InputError(f"got norm={norm!r}; wanted 'l1' or 'mse'")
    distance = functional.l1_loss if norm == "l1" else functional.mse_loss
    layers = [
        weight * distance(precise(one), precise(other.detach()))
        for one, other, weight in zip(made, wanted, weights, strict=True)
    ]
    return torch.stack(layers).sum()
