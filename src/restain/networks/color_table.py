"""A `ColorMap` on tensors: the same table as a gather, on any device, with the same bytes."""

import numpy as np
import torch
from torch import Tensor

from restain.color.colormap import COLORS, ColorMap
from restain.errors import InputError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ColorTable(torch.nn.Module):
    """Maps images by an exact table of colours: what `ColorMap.to_torch` returns.

    The table is one int32 buffer of 64 MiB, which `.to(device)` moves and `.half()` leaves alone. It is not part of
    `state_dict`, so that it does not swell checkpoints: whoever loads one makes the module from its `ColorMap` again.
    There are no parameters, and no gradient flows through: results are cut off from the graph.

    Example:
        >>> import torch
        >>> from restain import ColorMap
        >>> negative = ColorMap.from_function(lambda colors: 255.0 - colors).to_torch()
        >>> negative(torch.tensor([0, 100, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)).flatten().tolist()
        [255, 155, 0]
    """

    table: Tensor
    """(16777216,) int32: entry r·65536 + g·256 + b holds what (r, g, b) becomes, written in the same way."""

    def __init__(self, color_map: ColorMap) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(color_map.codes.view(np.int32)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """See `gather_colors`."""
        return gather_colors(images, self.table)


def gather_colors(images: Tensor, table: Tensor) -> Tensor:
    """Map every pixel by a table of colours.

    Memory beyond the images and the table: at most 11 bytes a pixel for uint8 and 15 for floats (27 for 64 bits), the
    result included. The range of floats is checked, which waits for the GPU; uint8 is mapped without waiting.

    Args:
        images: (N, 3, H, W) or (3, H, W) sRGB, in any memory format. uint8 0..255, or floats (16, 32 or 64 bits)
            0..1, which are rounded to 8 bits first. (bfloat16 cannot tell all 256 levels apart.) Never changed.
        table: (16777216,) int32, see `ColorTable.table`, on the same device.

    Returns:
        A new tensor of the same shape, type and, where `images` is dense, memory format. uint8: the bytes that the
        `ColorMap` gives for the same pixels. Floats: these bytes / 255. It carries no gradient.

    Raises:
        InputError: another shape, type or device, or floats that are NaN or outside 0..1.
    """
    _check(images, table)
    if images.dtype == torch.uint8:
        return _gather(images, table)
    return _gather(_to_8_bits(images.detach()), table).to(images.dtype).div_(255)


def _gather(images: Tensor, table: Tensor) -> Tensor:
    red, green, blue = images.unbind(-3)
    codes = red.to(torch.int32, memory_format=torch.contiguous_format)
    codes.bitwise_left_shift_(8).bitwise_or_(green).bitwise_left_shift_(8).bitwise_or_(blue)
    # index_select takes int32 as it is; table[codes] would first copy the codes as int64.
    values = table.index_select(0, codes.view(-1)).view(codes.shape)
    del codes
    out = torch.empty_like(images)
    out.select(-3, 2).copy_(values & 255)
    out.select(-3, 1).copy_(values.bitwise_right_shift_(8) & 255)
    out.select(-3, 0).copy_(values.bitwise_right_shift_(8))
    return out


def _to_8_bits(images: Tensor) -> Tensor:
    """Floats 0..1 to the nearest level, halves to the even one, as `as_rgb8` rounds."""
    if images.numel():
        low, high = torch.stack(images.aminmax()).tolist()
        if not (low >= 0 and high <= 1):  # so written that NaN, which is both low and high, is refused
            raise InputError(f"got floats in {low:g}..{high:g}; wanted 0..1 without NaN (or uint8 for 0..255)")
    # Half precision has too few digits for 255 times a value.
    wide = torch.float64 if images.dtype == torch.float64 else torch.float32
    return images.to(wide, copy=True).mul_(255).round_().to(torch.uint8)


def _check(images: Tensor, table: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise InputError(f"got {type(images).__name__}; wanted a tensor, (N, 3, H, W) or (3, H, W)")
    shape = tuple(images.shape)
    if images.ndim not in (3, 4) or shape[-3] != 3:
        hint = "; move the channel axis first" if images.ndim in (3, 4) and shape[-1] == 3 else ""
        raise InputError(f"got a tensor of shape {shape}; wanted (N, 3, H, W) or (3, H, W){hint}")
    if images.dtype != torch.uint8 and images.dtype not in _FLOATS:
        raise InputError(f"got a tensor of {images.dtype}; wanted uint8 0..255, or floats 0..1")
    if tuple(table.shape) != (COLORS,) or table.dtype != torch.int32:
        raise InputError(f"got a table of {table.dtype} {tuple(table.shape)}; wanted torch.int32 ({COLORS},)")
    if images.device != table.device:
        raise InputError(f"got images on {images.device} and the table on {table.device}; move one with .to(device)")
