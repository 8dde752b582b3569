"""3 × 3 convolutions with a quarter of the multiplications, for inference on CPUs.

Winograd's minimal filtering F(4 × 4, 3 × 3): Lavin & Gray, "Fast algorithms for convolutional neural networks", 2016,
equations 5, 8 and section 4.3. Tiles of 6 × 6 inputs and the 3 × 3 kernels are transformed to 36 numbers each,
multiplied place by place, and the products transformed back to 4 × 4 results: 36 multiplications where 144 were. All is
matrix products, on maps whose channels come last in memory.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_INPUT = (  # Bᵀ
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (  # G, in 24ths
    (6, 0, 0),
    (-4, -4, -4),
    (-4, 4, -4),
    (1, 2, 4),
    (1, -2, 4),
    (0, 0, 24),
)
_OUTPUT = (  # Aᵀ
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
_CONSTANT = 7
"""Of the 36 places, the one that Aᵀ spreads evenly over the 16 results: what is added there is added to each."""

_NUMBERS_A_BLOCK = 36 * 65536
"""Transformed numbers at a time, 9 MiB: they stay in the last cache, and in memory that the process keeps."""

NARROWEST = 128
"""With fewer channels the transforms cost what the products save."""


def suits(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a 3 × 3 convolution of stride 1 that is wide enough to gain."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode in ("zeros", "reflect", "replicate")
        and not isinstance(module.padding, str)
        and min(module.in_channels, module.out_channels) >= NARROWEST
    )


class WinogradConv2d(nn.Module):
    """The same convolution as `convolution`, within rounding (about 1e-5 of the largest result in float32).

    Each image is treated by itself, so that its result does not depend on the others in its batch, to the last bit.

    Args:
        convolution: one that `suits` accepts (its width aside). Left as it is; its weights are copied, as 36 numbers
            for each 9. No gradients flow to them.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.padding = tuple(int(side) for side in convolution.padding)
        self.padding_mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
        weight = convolution.weight.detach()
        kernel = torch.tensor(_KERNEL, dtype=torch.float64, device=weight.device) / 24
        wide = torch.einsum("ia,ocab,jb->ijco", kernel, weight.double(), kernel).flatten(0, 1)
        self.weight: Tensor
        self.bias: Tensor | None
        self.input: Tensor
        self.output: Tensor
        self.register_buffer("weight", wide.to(weight.dtype).contiguous())
        self.register_buffer("bias", None if convolution.bias is None else convolution.bias.detach().clone())
        for name, matrix in (("input", _INPUT), ("output", _OUTPUT)):
            self.register_buffer(name, torch.tensor(matrix, dtype=weight.dtype, device=weight.device))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W'), as the convolution does; the result's channels come last in memory."""
        high, wide = self.padding
        padded = F.pad(maps, (wide, wide, high, high), mode=self.padding_mode)
        count, channels, height, width = padded.shape
        height, width = height - 2, width - 2  # of the result
        rows, columns = -(-height // 4), -(-width // 4)
        if height % 4 or width % 4:
            padded = F.pad(padded, (0, 4 * columns - width, 0, 4 * rows - height))
        pixels = padded.permute(0, 2, 3, 1).contiguous()
        image, row, column, _ = pixels.stride()
        tiles = pixels.as_strided((6, 6, count, rows, columns, channels), (row, column, image, 4 * row, 4 * column, 1))
        out_channels = self.weight.shape[2]
        results = maps.new_empty(count, rows, 4, columns, 4, out_channels)
        places = results.permute(2, 4, 0, 1, 3, 5)
        step = max(1, _NUMBERS_A_BLOCK // (36 * columns * max(channels, out_channels)))
        for n in range(count):
            for start in range(0, rows, step):
                block = tiles[:, :, n, start : start + step]
                places[:, :, n, start : start + step] = self._products(block)
        results = results.view(count, 4 * rows, 4 * columns, out_channels)
        return results[:, :height, :width].permute(0, 3, 1, 2)

    def _products(self, block: Tensor) -> Tensor:
        """(6, 6, rows, columns, C) to (4, 4, rows, columns, C')."""
        _, _, rows, columns, channels = block.shape
        transformed = _both_ways(self.input, block.reshape(6, 6, -1))
        products = torch.bmm(transformed.view(36, rows * columns, channels), self.weight)
        if self.bias is not None:
            products[_CONSTANT] += self.bias
        return _both_ways(self.output, products.view(6, 6, -1)).view(4, 4, rows, columns, -1)


def _both_ways(matrix: Tensor, tiles: Tensor) -> Tensor:
    """matrix · tile · matrixᵀ for each of n tiles: (m, 6) and (6, 6, n) to (m, m, n)."""
    size, numbers = len(matrix), tiles.shape[2]
    down = torch.mm(matrix, tiles.reshape(6, -1)).view(size, 6, numbers)
    return torch.bmm(matrix.expand(size, size, 6), down)


def use_winograd(network: nn.Module) -> int:
    """Replace the convolutions that gain, in place.

    Returns:
        How many.
    """
    replaced = 0
    for module in list(network.modules()):
        for name, child in module.named_children():
            if suits(child):
                module._modules[name] = WinogradConv2d(child)
                replaced += 1
    return replaced
