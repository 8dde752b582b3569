"""The statistics of norm layers: measured once and frozen, or each image's own.

Instance norm makes what a network does to a pixel depend on the tile that the pixel was cut with, and seams show. Here
the means and variances are measured on a sample of tiles and then kept for the whole slide. They are numbers, one
float64 array (2, channels of all norm layers): row 0 holds the means, row 1 the variances, the layers in the order of
`network.modules()`.

No function changes the network that it is given, which other threads may be using: each makes a copy in evaluation
mode that shares the weights and has other norm layers.
"""

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.fusion import fuse_conv_bn_weights

from restain.errors import InputError
from restain.networks.blocks import instance_norm_of

Statistics = NDArray[np.float64]
"""(2, channels): means, and variances as mean squared deviations, of all instance and batch norm layers in order."""


def collect(network: nn.Module, images: Tensor, *, pooled: bool = False) -> Statistics:
    """Measure the statistics to freeze, in one forward pass over all images at once.

    Each norm layer measures every image, averages over the images, and normalizes all of them with the average at
    once: the next layer measures what it will be given when all are frozen. Means and variances that each layer has
    under each image's own statistics would be others from the second layer on.

    Batch norm is treated as instance norm with weights; its running statistics are not looked at. Dropout is off.

    Args:
        network: takes (N, C, H, W) and uses each of its norm layers once.
        images: (N, C, H, W), in the network's own range. Memory is that of one forward pass: about 65 MiB an image of
            256 × 256 for Res9. One image gives what instance norm would measure on it.
        pooled: False averages the images' variances, which keeps the contrast that the network was trained to see in
            each. True adds the variance between their means: the variance of all their pixels.

    Raises:
        InputError: no images, or a norm layer that was passed never or twice.
    """
    if images.ndim != 4 or not images.numel():
        raise InputError(f"got images of shape {tuple(images.shape)}; wanted (N, C, H, W), one image at least")
    measured: list[_Measuring] = []

    def measure(layer: _NormBase) -> nn.Module:
        measured.append(_Measuring(layer, pooled))
        return measured[-1]

    clone = _with_norms(network, measure)
    with torch.inference_mode():
        clone(images)
    for (name, layer), measuring in zip(_norm_layers(network), measured, strict=True):
        if measuring.passes != 1:
            times = "never" if not measuring.passes else f"{measuring.passes} times"
            raise InputError(f"the norm layer {name} ({layer}) was passed {times} in one forward pass; wanted once")
    return _joined([(measuring.mean, measuring.variance) for measuring in measured])


def running(network: nn.Module) -> Statistics:
    """The running statistics that batch norm learned in training, to be frozen as they are.

    Raises:
        InputError: a norm layer keeps none, as instance norm.
    """
    pairs = []
    for name, layer in _norm_layers(network):
        if layer.running_mean is None or layer.running_var is None:
            raise InputError(f"the norm layer {name} ({layer}) keeps no running statistics; measure some with collect")
        pairs.append((layer.running_mean, layer.running_var))
    return _joined(pairs)


def frozen(network: nn.Module, statistics: Statistics) -> nn.Module:
    """A copy, in evaluation mode, whose norm layers use the statistics given.

    What the copy does to a pixel depends on the pixels that its convolutions see, and on nothing else in the image.

    Args:
        network: left as it is. The copy shares its weights: a training step changes both.
        statistics: see `Statistics`.

    Raises:
        InputError: statistics of other layers, not finite, or with a negative variance.
    """
    pairs = iter(_split(statistics, [layer for _, layer in _norm_layers(network)]))
    like = next(network.parameters(), torch.empty(0))
    return _with_norms(network, lambda layer: _fixed(layer, *next(pairs), like))


def folded(network: nn.Module) -> nn.Module:
    """A copy, in evaluation mode, whose norms cost nothing where their statistics are fixed: `frozen`, or batch norm's
    running ones. They are multiplied into the convolutions just before them in an `nn.Sequential`.

    These convolutions get weights of their own; all else is shared. The result differs by rounding.

    Args:
        network: left as it is.
    """
    clone = _with_norms(network, copy.copy)
    _fold(clone)
    return clone


def per_image(network: nn.Module) -> nn.Module:
    """A copy, in evaluation mode, whose norm layers normalize each image by its own statistics.

    For batch norm this is what training with batches of one image does; instance norm does it anyhow.

    Args:
        network: left as it is. The copy shares its weights.
    """
    return _with_norms(network, instance_norm_of)


def has_norms(network: nn.Module) -> bool:
    """Whether there is anything to freeze."""
    return any(True for _ in _norm_layers(network))


# ---- norm layers --------------------------------------------------------------------------------------------------


class _Measuring(nn.Module):
    """Measures each image, averages, and normalizes all images with the average."""

    def __init__(self, layer: _NormBase, pooled: bool) -> None:
        super().__init__()
        self.unregistered = (layer,)  # as a child it would be put into evaluation mode, and it is not ours
        self.pooled = pooled
        self.passes = 0

    def forward(self, maps: Tensor) -> Tensor:
        variances, means = torch.var_mean(maps.to(_wide(maps)), dim=(2, 3), correction=0)
        means, variances = _exact(means), _exact(variances)
        self.mean = means.mean(dim=0)
        self.variance = variances.mean(dim=0)
        if self.pooled:
            self.variance += means.var(dim=0, correction=0)
        self.passes += 1
        out: Tensor = _fixed(self.unregistered[0], self.mean, self.variance, maps)(maps)
        return out


def _fixed(layer: _NormBase, mean: Tensor, variance: Tensor, like: Tensor) -> nn.Module:
    """Batch norm in evaluation mode, which is what any norm with given statistics is; for maps like `like`."""
    fixed = nn.BatchNorm2d(layer.num_features, eps=layer.eps, affine=False)
    fixed.affine = layer.affine
    fixed.weight, fixed.bias = layer.weight, layer.bias
    fixed.running_mean = mean.to(_wide(like)).to(like.device)
    fixed.running_var = variance.to(_wide(like)).to(like.device)
    return fixed.eval()


def _wide(like: Tensor) -> torch.dtype:
    """Half precision has too few digits for statistics."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def _norm_layers(network: nn.Module) -> Iterator[tuple[str, _NormBase]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, _NormBase))


# ---- copies -------------------------------------------------------------------------------------------------------


def _with_norms(network: nn.Module, replace: Callable[[_NormBase], nn.Module]) -> nn.Module:
    """A copy in evaluation mode that shares parameters and buffers, its norm layers replaced in the order of modules().

    A module that stands at two places is copied once.
    """
    copies: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module not in copies:
            if isinstance(module, _NormBase):
                copies[module] = replace(module)
            else:
                clone = copies[module] = object.__new__(type(module))
                for name, value in vars(module).items():
                    # Parameters, buffers and hooks are in dicts: what is added to one module is not the other's.
                    clone.__dict__[name] = value.copy() if isinstance(value, dict) else value
                clone._compiled_call_impl = None
                clone._modules = {
                    name: child if child is None else visit(child) for name, child in module._modules.items()
                }
        return copies[module]

    return visit(network).eval()


def _fold(network: nn.Module) -> None:
    """Multiply fixed norms into the convolutions before them, in place, and put nothing in theirs."""
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
            continue
        names = list(module._modules)
        for first, second in pairwise(names):
            convolution, norm = module._modules[first], module._modules[second]
            if _can_fold(convolution) and isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                module._modules[first] = _merged(convolution, norm)
                module._modules[second] = nn.Identity()


def _can_fold(module: nn.Module | None) -> TypeGuard[nn.Conv2d | nn.ConvTranspose2d]:
    if isinstance(module, nn.ConvTranspose2d):
        return module.groups == 1  # the weights of transposed groups are laid out otherwise
    return isinstance(module, nn.Conv2d)


def _merged(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: _BatchNorm) -> nn.Module:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        _exact(convolution.weight),
        None if convolution.bias is None else _exact(convolution.bias),
        _exact(norm.running_mean),
        _exact(norm.running_var),
        norm.eps,
        None if norm.weight is None else _exact(norm.weight),
        None if norm.bias is None else _exact(norm.bias),
        transpose=isinstance(convolution, nn.ConvTranspose2d),
    )
    # A plain layer: the one before may compute its weight anew at each call, as spectral norm does.
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    merged = (nn.ConvTranspose2d if transposed else nn.Conv2d)(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        dilation=convolution.dilation,  # type: ignore[arg-type]
        groups=convolution.groups,
        padding_mode=convolution.padding_mode,
        device="meta",
    )
    if isinstance(merged, nn.ConvTranspose2d):
        merged.output_padding = convolution.output_padding
    like = convolution.weight
    merged.weight = nn.Parameter(weight.to(like.dtype).to(like.device), requires_grad=False)
    merged.bias = nn.Parameter(bias.to(like.dtype).to(like.device), requires_grad=False)
    return merged.eval()


def _exact(numbers: Tensor) -> Tensor:
    """In float64, which Apple's GPUs have not: on the CPU."""
    return numbers.detach().cpu().double()


# ---- the array ----------------------------------------------------------------------------------------------------


def _joined(pairs: list[tuple[Tensor, Tensor]]) -> Statistics:
    if not pairs:
        return np.zeros((2, 0))
    rows = [torch.cat([_exact(pair[row]) for pair in pairs]) for row in (0, 1)]
    return np.asarray(torch.stack(rows).numpy(), np.float64)


def _split(statistics: Statistics, layers: list[_NormBase]) -> list[tuple[Tensor, Tensor]]:
    sizes = [layer.num_features for layer in layers]
    wanted = (2, sum(sizes))
    values = np.asarray(statistics, np.float64)
    if values.shape != wanted:
        raise InputError(f"got norm statistics of shape {values.shape}; this network has {len(sizes)} layers: {wanted}")
    if not np.isfinite(values).all() or (values[1] < 0).any():
        raise InputError("the norm statistics are damaged: not finite, or a negative variance")
    tensors = torch.split(torch.from_numpy(values.copy()), sizes, dim=1) if sizes else ()
    return [(pair[0], pair[1]) for pair in tensors]
