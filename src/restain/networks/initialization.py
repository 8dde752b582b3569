"""Random weights as the GAN papers start with them: small and normal (Radford, Metz & Chintala, DCGAN, 2015)."""

from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def initialize(network: Network, std: float = 0.02, *, generator: torch.Generator | None = None) -> Network:
    """Give a network new random weights, in place.

    Convolutions, transposed ones included, and linear layers: weights from N(0, std), biases 0. Batch norm: weights
    from N(1, std), biases 0, and running statistics forgotten. All else stays as it is.

    Args:
        network: any module.
        std: standard deviation.
        generator: where the numbers come from; torch's own for the device when None. The same generator state gives
            the same weights.

    Returns:
        The same network.
    """
    for module in network.modules():
        if isinstance(module, _ConvNd | nn.Linear):
            module.weight.normal_(0.0, std, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, _BatchNorm):
            module.reset_running_stats()
            if module.affine:
                module.weight.normal_(1.0, std, generator=generator)
                module.bias.zero_()
    return network
