"""Parts of Swin transformers: attention within windows that are shifted at every other block, merging, expanding.

Liu et al., "Swin transformer: hierarchical vision transformer using shifted windows", ICCV 2021. The expanding is from
Cao et al., "Swin-Unet: Unet-like pure transformer for medical image segmentation", 2021.

Maps have their channels last here, (N, H, W, C), and sides that are multiples of the window's.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from restain.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


# ---- windows ------------------------------------------------------------------------------------------------------


def to_windows(maps: Tensor, window: int) -> Tensor:
    """Cut maps into windows.

    Args:
        maps: (N, H, W, C).
        window: side of the windows, which divides H and W.

    Returns:
        (N · H / window · W / window, window², C): window after window as one reads, the places in each likewise.
    """
    count, height, width, channels = maps.shape
    cut = maps.reshape(count, height // window, window, width // window, window, channels)
    return cut.transpose(2, 3).reshape(-1, window * window, channels)


def from_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Put windows together again: maps (N, height, width, C) of what `to_windows` returned."""
    cut = windows.reshape(-1, height // window, width // window, window, window, windows.shape[2])
    return cut.transpose(2, 3).reshape(-1, height, width, windows.shape[2])


class WindowAttention(nn.Module):
    """Self-attention of several heads among the places of a window, with a bias for how far apart two places lie.

    Args:
        channels: of the maps.
        heads: which share the channels out evenly.
        window: side of the windows.

    Raises:
        InputError: channels that the heads do not divide.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"got {heads} heads for {channels} channels; wanted a number that divides them")
        self.heads, self.window = heads, window
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.together = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def forward(self, windows: Tensor, strangers: Tensor | None = None) -> Tensor:
        """Let the places of each window look at one another.

        Args:
            windows: (N · n, places, C).
            strangers: (n, places, places) bool, which places of each of an image's n windows must not look at which.

        Returns:
            (N · n, places, C).
        """
        count, places, channels = windows.shape
        split = self.query_key_value(windows).reshape(count, places, 3, self.heads, channels // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()
        bias = self.bias_table[_relative_places(self.window, windows.device)].permute(2, 0, 1)[None].to(query.dtype)
        if strangers is not None:
            masked = bias.masked_fill(strangers[:, None], -torch.inf)
            # Four axes, without which there is no fused attention, at the cost of a copy for each image.
            images = count // strangers.shape[0]
            bias = masked[None].expand(images, -1, -1, -1, -1).flatten(0, 1)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        # A copy whatever the layout in memory, which differs between kernels and would trip the ONNX exporter.
        out: Tensor = self.together(torch.cat(attended.unbind(1), dim=-1))
        return out


def _relative_places(window: int, device: torch.device) -> Tensor:
    """For each place of a window, the row of the table that has the bias for each other: (places, places).

    Computed at each call. A buffer that is not saved would have no values in a network that is read from a file.
    """
    along = torch.arange(window, device=device)
    apart = along[:, None] - along + window - 1  # 0 … 2 window − 2
    places = apart[:, None, :, None] * (2 * window - 1) + apart[None, :, None, :]
    return places.reshape(window**2, window**2)


# ---- blocks -------------------------------------------------------------------------------------------------------


class SwinBlock(nn.Module):
    """Attention within windows, then two layers at each place; a norm before either, and what came in added after it.

    Args:
        channels: of the maps.
        heads: of the attention.
        window: side of the windows.
        shifted: whether the windows lie half a window further right and down, so that neighbours of the other blocks
            meet. Those at the edges are cut off by them. An axis along which the map is one window is not shifted.
        mlp_ratio: channels between the two layers over those of the maps.
    """

    def __init__(self, channels: int, heads: int, window: int = 8, shifted: bool = False, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.norm_attention = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.norm_layers = nn.LayerNorm(channels)
        self.layers = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels), nn.GELU(), nn.Linear(mlp_ratio * channels, channels)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, H, W, C) to the same; H and W multiples of the window."""
        normed = self.norm_attention(maps)
        maps = maps + (self._attend_shifted(normed) if self.shifted else self._attend(normed))
        out: Tensor = maps + self.layers(self.norm_layers(maps))
        return out

    def _attend(self, maps: Tensor, strangers: Tensor | None = None) -> Tensor:
        attended = self.attention(to_windows(maps, self.window), strangers)
        return from_windows(attended, self.window, maps.shape[1], maps.shape[2])

    def _attend_shifted(self, maps: Tensor) -> Tensor:
        """The map is moved up and left, around its edges, under windows that stay; those that got around are strangers
        to the others of their window."""
        down, down_back, row_crossed = _around(maps.shape[1], self.window, maps.device)
        right, right_back, column_crossed = _around(maps.shape[2], self.window, maps.device)
        kind = 2 * row_crossed[:, None] + column_crossed
        kinds = to_windows(kind[None, :, :, None], self.window)
        moved = maps.index_select(1, down).index_select(2, right)
        attended = self._attend(moved, kinds != kinds.transpose(1, 2))
        return attended.index_select(1, down_back).index_select(2, right_back)


def _around(length: int, window: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Moving an axis by half a window, around its end, or by nothing where it is one window.

    Without a branch on `length`, so that an exported network works for all sizes.

    Returns:
        (length,) each: the place that comes to each place, the one that comes back to it, and 1 for those that came
        around the end, else 0.
    """
    places = torch.arange(length, device=device)
    shift = (places[-1] >= window).long() * (window // 2)
    moved = places + shift
    crossed = (moved >= length).long()
    back = places - shift
    return moved - length * crossed, back + length * (back < 0).long(), crossed


# ---- sizes --------------------------------------------------------------------------------------------------------


def squares(maps: Tensor) -> Tensor:
    """The 2 × 2 places of each square one after the other: (N, H, W, C) to (N, H / 2, W / 2, 4 C)."""
    count, height, width, channels = maps.shape
    cut = maps.reshape(count, height // 2, 2, width // 2, 2, channels)
    return cut.transpose(2, 3).flatten(3)


class PatchMerging(nn.Module):
    """Halve maps: `squares`, LayerNorm, Linear without bias.

    Args:
        channels: of the maps that come in.
        out_channels: twice as many in the papers.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.linear = nn.Linear(4 * channels, out_channels, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, H, W, C) to (N, H / 2, W / 2, C')."""
        out: Tensor = self.linear(self.norm(squares(maps)))
        return out


class PatchEmbedding(nn.Module):
    """Halve an image: `squares`, Linear, LayerNorm.

    `PatchMerging` would take the mean and spread of each square of gray values away before anything has seen them.

    Args:
        channels: of the images.
        out_channels: of the maps that go out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * channels, out_channels)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, C) to (N, H / 2, W / 2, C')."""
        out: Tensor = self.norm(self.linear(squares(images)))
        return out


class PatchExpanding(nn.Module):
    """Enlarge maps: Linear without bias to `factor`² times the channels wanted, laid out as a square, LayerNorm.

    Args:
        channels: of the maps that come in.
        out_channels: half as many in the papers, where `factor` is 2.
        factor: of the sides.
    """

    def __init__(self, channels: int, out_channels: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(channels, factor**2 * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, H, W, C) to (N, factor · H, factor · W, C')."""
        laid = self.linear(maps).unflatten(3, (self.factor, self.factor, -1))
        out: Tensor = self.norm(laid.transpose(2, 3).flatten(3, 4).flatten(1, 2))
        return out


# ---- weights ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def initialize_swin(network: Network, std: float = 0.02, *, generator: torch.Generator | None = None) -> Network:
    """Give a network new random weights as Swin transformers start, in place.

    Linear layers: weights from a normal distribution, cut off at two, biases 0; the biases of relative places likewise.
    LayerNorm: 1 and 0. Convolutions, which these papers do not speak of, as the GANs': N(0, std), biases 0.

    Args:
        network: any module.
        std: standard deviation.
        generator: where the numbers come from; torch's own for the device when None.

    Returns:
        The same network.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, WindowAttention):
            nn.init.trunc_normal_(module.bias_table, std=std, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            module.weight.normal_(0.0, std, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    return network
