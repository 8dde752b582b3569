"""The generator of the style transfer network NST: an HRNet whose output is added to the image.

Sun, Xiao, Liu & Wang, "Deep high-resolution representation learning for human pose estimation", 2019, with the body of
the authors' HRNet-W18-small-v2; Nishar, Chavanke & Singhal, "Histopathological stain transfer using style transfer
network with adversarial loss", 2020, which adds the skip and gives no sizes (PAPERS §6.1).
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from restain.networks.blocks import check_sides

Body = Literal["small-v2", "lite"]
"""`small-v2`: 64 channels in the stem, two bottlenecks of 64, and 1, 3 and 2 modules in the stages. `lite`: twice the
width in the stem, one bottleneck as narrow as the first branch, and a module in each stage."""

BRANCHES = 4
EXPANSION = 4
"""Channels that a bottleneck gives for each channel inside it."""

STEM_STRIDES = MappingProxyType({1: (1, 1), 2: (2, 1), 4: (2, 2)})
"""Strides of the two convolutions of the stem, by their product."""


class HRNetGenerator(nn.Module):
    """Four branches, each at half the size of the one above, that exchange their maps; G(p) = p + G'(p).

    Every convolution but the last is followed by batch norm, so that it has no bias, and by ReLU. The last one is zero
    at first: the network begins as the identity, exactly. 3,871,487 parameters; with `width=16, stem_stride=1,
    body="lite"`, "HRNet-lite" at full resolution, 1,412,259.

    Args:
        width: channels of the first branch; each of the others has twice as many as the one above.
        stem_stride: what the first branch's sides are divided by: 1, 2 or 4. 4 is HRNet's own; at 10× a nucleus has ten
            pixels, and what is computed at a quarter of the size bleeds over its border.
        body: see `Body`.
    """

    multiple: int
    """Both sides of the images must be multiples of this: eight times the stride of the stem."""

    def __init__(self, width: int = 18, stem_stride: int = 2, body: Body = "small-v2") -> None:
        super().__init__()
        self.multiple = stem_stride * 2 ** (BRANCHES - 1)
        self.stem_stride = stem_stride
        first, inside, bottlenecks, modules = 64, 64, 2, (1, 3, 2)
        if body == "lite":
            first, inside, bottlenecks, modules = 2 * width, width, 1, (1, 1, 1)
        strides = STEM_STRIDES[stem_stride]
        layers: list[nn.Module] = [_unit(3, first, strides[0]), _unit(first, first, strides[1])]
        before = first
        for _ in range(bottlenecks):
            layers.append(Bottleneck(before, inside))
            before = EXPANSION * inside
        self.stem = nn.Sequential(*layers)

        widths = [width * 2**branch for branch in range(BRANCHES)]
        self.first = nn.ModuleList([_unit(before, widths[0]), _unit(before, widths[1], 2)])
        # From the third branch on each begins as the one above it, halved.
        self.halve = nn.ModuleList(_unit(widths[branch - 1], widths[branch], 2) for branch in range(2, BRANCHES))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Exchange(widths[: stage + 2]) for _ in range(count))) for stage, count in enumerate(modules)
        )
        self.merge = _unit(sum(widths), 2 * width, kernel=1)
        self.last = nn.Sequential(nn.Conv2d(2 * width, 3, 3, padding=1))
        self.start_as_identity()

    def start_as_identity(self) -> None:
        """Set the last convolution to zero, in place."""
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Restyle images.

        Args:
            images: (N, 3, H, W) floats 0..1; H and W multiples of `multiple`.

        Returns:
            (N, 3, H, W) floats, 0..1 but for what the sum leaves it by: nothing is clamped here.

        Raises:
            InputError: sides that are no multiples of `multiple`.
        """
        check_sides(images, self.multiple)
        maps = self.stem(images)
        branches = self.stages[0]([layer(maps) for layer in self.first])
        for halve, stage in zip(self.halve, list(self.stages)[1:], strict=True):
            branches = stage([*branches, halve(branches[-1])])
        widened = [_enlarged(maps, 2**branch) for branch, maps in enumerate(branches)]
        merged = self.merge(torch.cat(widened, dim=1))
        out: Tensor = images + self.last(_enlarged(merged, self.stem_stride))
        return out


class Bottleneck(nn.Module):
    """Narrow by 1 × 1, see 3 × 3, widen by 1 × 1 to four times as many channels, and add what came in."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        after = EXPANSION * width
        self.layers = nn.Sequential(
            *_unit(before, width, kernel=1), *_unit(width, width), *_unit(width, after, kernel=1, relu=False)
        )
        self.shortcut = nn.Identity() if before == after else _unit(before, after, kernel=1, relu=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, before, H, W) to (N, 4 · width, H, W)."""
        return functional.relu(self.layers(maps) + self.shortcut(maps))


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_unit(channels, channels), *_unit(channels, channels, relu=False))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return functional.relu(self.layers(maps) + maps)


class Exchange(nn.Module):
    """HRNet's module: two basic blocks a branch, then each branch becomes the sum of all, brought to its size.

    What comes from below is narrowed by 1 × 1 and repeated; what comes from above is halved by 3 × 3 convolutions, the
    last of which widens it.

    Args:
        widths: channels of the branches, the largest maps first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(BasicBlock(width), BasicBlock(width)) for width in widths)
        self.fuse = nn.ModuleList(
            nn.ModuleList(_bring(widths, origin, goal) for origin in range(len(widths))) for goal in range(len(widths))
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """A list of maps, (N, C, H, W), (N, 2C, H/2, W/2), …, to the same shapes."""
        seen = [branch(maps) for branch, maps in zip(self.branches, branches, strict=True)]
        fused = []
        for goal in self.fuse:
            layers: Any = goal
            fused.append(functional.relu(sum(layer(maps) for layer, maps in zip(layers, seen, strict=True))))
        return fused


def _bring(widths: Sequence[int], origin: int, goal: int) -> nn.Module:
    """What brings the maps of one branch to the size and width of another."""
    if origin == goal:
        return nn.Identity()
    if origin > goal:
        narrow = _unit(widths[origin], widths[goal], kernel=1, relu=False)
        return nn.Sequential(*narrow, nn.Upsample(scale_factor=2 ** (origin - goal), mode="nearest"))
    steps = [_unit(widths[origin], widths[origin], 2) for _ in range(goal - origin - 1)]
    return nn.Sequential(*steps, _unit(widths[origin], widths[goal], 2, relu=False))


def _unit(before: int, after: int, stride: int = 1, *, kernel: int = 3, relu: bool = True) -> nn.Sequential:
    """A convolution without bias, batch norm, and ReLU."""
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(after)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    """Maps, bilinearly, so many times as large."""
    if factor == 1:
        return maps
    return functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
