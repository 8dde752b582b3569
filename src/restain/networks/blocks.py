"""Small parts that the networks share: norm layers by name, and the check of an image's sides."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from restain.errors import InputError

Norm = Literal["instance", "batch"]
"""`instance`: instance norm without weights or running statistics. `batch`: batch norm with both."""


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm that keeps channels last on CPUs.

    PyTorch's own turns such maps around and gives them back with channels first, which is slow, and so are all layers
    after it. Its batch norm does not, and with one image at a time it is the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each image (N, C, H, W) by its own means and variances."""
        turned = input.device.type == "cpu" and not input.is_contiguous()
        if not turned or input.ndim != 4 or torch.compiler.is_compiling():
            return super().forward(input)
        images = [
            functional.batch_norm(image, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps)
            for image in torch.split(input, 1)
        ]
        return images[0] if len(images) == 1 else torch.cat(images)


def instance_norm_of(layer: _NormBase) -> InstanceNorm:
    """What any norm layer is when each image is normalized by its own statistics; shares the layer's weights."""
    own = InstanceNorm(layer.num_features, eps=layer.eps)
    own.affine, own.weight, own.bias = layer.affine, layer.weight, layer.bias
    return own


def make_norm(norm: Norm, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """A norm layer as the papers' code has it.

    Args:
        norm: see `Norm`.
        channels: of the maps that it normalizes.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics of batch norm (Keras counts the other way).

    Raises:
        InputError: another name.
    """
    if norm == "instance":
        return InstanceNorm(channels, eps=eps)
    if norm == "batch":
        return nn.BatchNorm2d(channels, eps=eps, momentum=momentum)
    raise InputError(f"got norm={norm!r}; wanted 'instance' or 'batch'")


def check_sides(images: Tensor, multiple: int) -> None:
    """Refuse images that a network cannot halve and double back to their size.

    Args:
        images: (N, C, H, W).
        multiple: what H and W must be multiples of.

    Raises:
        InputError: they are not, or `images` has other axes.
    """
    if images.ndim != 4:
        raise InputError(f"got a tensor of shape {tuple(images.shape)}; wanted (N, C, H, W)")
    height, width = images.shape[2:]
    if height % multiple or width % multiple or not height or not width:
        raise InputError(
            f"got images of {height} × {width}; wanted sides that are multiples of {multiple}: "
            "pad by reflection and crop the result"
        )
