"""Networks that take part in an update without being updated."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """Lend a network whose weights get no gradient and whose running statistics do not move (PAPERS §1.3).

    It stays in its mode: batch norms of a network in training normalize by the batch. Gradients pass through it to its
    input. What is lent is the network itself, without the wrapper that exchanges gradients between processes, since
    there are none to exchange.
    """
    bare = unwrapped(network)
    learning = [parameter for parameter in bare.parameters() if parameter.requires_grad]
    tracking = [module for module in bare.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for parameter in learning:
        parameter.requires_grad_(False)
    for module in tracking:
        module.track_running_stats = False
    try:
        yield bare
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in tracking:
            module.track_running_stats = True


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself where it is wrapped for several processes."""
    return network.module if isinstance(network, DistributedDataParallel) else network
