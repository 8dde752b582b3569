"""The networks of DSTGAN: a transformer that colours gray images at three depths, and a judge of what they show.

Du et al., "Deeply supervised two stage generative adversarial network for stain normalization", Sci. Rep. 2025. The
authors published no code; what the paper leaves open is PAPERS §2.1 and §2.2. Its other discriminator is
`PatchDiscriminator(layers=3, norm="batch")`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from restain.errors import InputError
from restain.networks.blocks import check_sides
from restain.networks.swin import PatchEmbedding, PatchExpanding, PatchMerging, SwinBlock, initialize_swin

POOLED = 16
"""Side of the maps that the content discriminator's last layer sees; those of 256 × 256 pixels have it already."""


class DstganGenerator(nn.Module):
    """A U-Net of Swin blocks from gray to RGB, with two more images from its depths for deep supervision.

    The image is halved `merges` times, doubled back with the maps of each size handed across, and at last joined by the
    gray image itself. The other two images are enlarged from the deepest level on the way up (1/16) and from the
    level of 1/4; where there are three merges only, and these are the same, from the next one, of 1/2.

    There is no randomness in it, and no norm whose statistics are those of an image. It starts with Swin's weights.

    Args:
        channels: of the first level; doubled at each.
        merges: halvings, at least 3.
        window: side of the windows of attention, places.
        depths: Swin blocks at each level; every other one's windows are shifted.
        heads: of attention at each level, the first `merges` of them.
        mlp_ratio: channels within a block's layers over those of the maps.
        first_merge: how the image is halved first. "linear": a layer, then a norm. "swin": as all others, a norm
            first, which takes mean and contrast of each 2 × 2 pixels away.
        ds_keep_width: whether the heads of the other two images keep their maps' channels, as Swin-Unet does; else they
            go down to half of `channels`. At full size that is 35.5 million parameters more.
        output_skip: how the gray image joins the last maps: "concat" beside them, "additive" to each.
        checkpoint: keep what goes into each block for the gradients, and compute what is inside it again. This saves
            memory in training and changes no gradient.

    Raises:
        InputError: another choice, too few merges or heads, or channels that the heads do not divide.
    """

    multiple: int
    """Both sides of the images must be multiples of this: `window` · 2 to the power of `merges`."""

    def __init__(
        self,
        channels: int = 48,
        merges: int = 5,
        window: int = 8,
        depths: int = 2,
        heads: Sequence[int] = (3, 3, 6, 12, 24),
        mlp_ratio: int = 4,
        first_merge: Literal["linear", "swin"] = "linear",
        ds_keep_width: bool = False,
        output_skip: Literal["concat", "additive"] = "concat",
        checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if first_merge not in ("linear", "swin"):
            raise InputError(f"got first_merge={first_merge!r}; wanted 'linear' or 'swin'")
        if output_skip not in ("concat", "additive"):
            raise InputError(f"got output_skip={output_skip!r}; wanted 'concat' or 'additive'")
        if merges < 3 or len(heads) < merges:
            raise InputError(f"got {merges} merges and heads for {len(heads)}; wanted at least 3, and heads for each")
        self.multiple = window * 2**merges
        self.checkpoint = checkpoint
        widths = [channels * 2**level for level in range(merges)]

        def blocks(level: int) -> nn.ModuleList:
            shifts = [bool(number % 2) for number in range(depths)]
            made = [SwinBlock(widths[level], heads[level], window, shifted, mlp_ratio) for shifted in shifts]
            return nn.ModuleList(made)

        first = PatchEmbedding if first_merge == "linear" else PatchMerging
        merging = [PatchMerging(width, 2 * width) for width in widths[:-1]]
        self.merge = nn.ModuleList([first(1, channels), *merging])
        self.down = nn.ModuleList(blocks(level) for level in range(merges))
        self.norm = nn.LayerNorm(widths[-1])

        # From the deepest level to the first: what is handed across has the width of what comes up.
        upward = range(merges - 2, -1, -1)
        self.join = nn.ModuleList(_Join(widths[level + 1], widths[level]) for level in upward)
        self.up = nn.ModuleList(blocks(level) for level in upward)

        # Level 0 is the one of 1/2.
        self._tapped = (merges - 2, min(1, merges - 3))
        width = channels // 2
        self.sides = nn.ModuleList(
            _Restore(widths[level], widths[level] if ds_keep_width else width, 2 ** (level + 1))
            for level in self._tapped
        )
        self.final = _Restore(channels, width, 2, output_skip)
        initialize_swin(self)

    def forward(
        self, gray: Tensor, outputs: Literal["final", "all"] = "final"
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Colour gray images.

        Args:
            gray: (N, 1, H, W) floats −1..1; H and W multiples of `multiple`.
            outputs: "final" for the image that is wanted, "all" for the three that are supervised.

        Returns:
            (N, 3, H, W) floats −1..1, RGB; or three such, from the deepest level's (1/16) to the final one.

        Raises:
            InputError: sides that are no multiples of `multiple`.
        """
        check_sides(gray, self.multiple)
        maps = gray.permute(0, 2, 3, 1)
        across = []
        for merge, blocks in zip(self.merge, self.down, strict=True):
            maps = self._run(merge, maps)
            for block in blocks:  # type: ignore[attr-defined]  # PyTorch does not say what a ModuleList holds
                maps = self._run(block, maps)
            across.append(maps)
        maps = self.norm(across.pop())
        at_level = {}
        for join, blocks in zip(self.join, self.up, strict=True):
            level = len(across) - 1
            maps = self._run(join, maps, across.pop())
            for block in blocks:  # type: ignore[attr-defined]
                maps = self._run(block, maps)
            at_level[level] = maps
        final = self._run(self.final, maps, gray)
        if outputs == "final":
            return final
        first, second = (self._run(side, at_level[level]) for side, level in zip(self.sides, self._tapped, strict=True))
        return first, second, final

    def _run(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        out: Tensor
        if self.checkpoint and self.training and torch.is_grad_enabled():
            out = checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            out = module(*inputs)
        return out


class _Join(nn.Module):
    """Expand maps to the next level, and join the maps handed across by a layer over both."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.expand = PatchExpanding(channels, out_channels)
        self.linear = nn.Linear(2 * out_channels, out_channels)

    def forward(self, maps: Tensor, across: Tensor) -> Tensor:
        joined: Tensor = self.linear(torch.cat([self.expand(maps), across], dim=-1))
        return joined


class _Restore(nn.Module):
    """An image of full size from the maps of a level: expand, join the gray image if any, convolution 3 × 3, tanh."""

    def __init__(self, channels: int, width: int, factor: int, skip: Literal["", "concat", "additive"] = "") -> None:
        super().__init__()
        self.skip = skip
        self.expand = PatchExpanding(channels, width, factor)
        self.to_rgb = nn.Sequential(nn.Conv2d(width + (skip == "concat"), 3, 3, padding=1), nn.Tanh())

    def forward(self, maps: Tensor, gray: Tensor | None = None) -> Tensor:
        full = self.expand(maps).permute(0, 3, 1, 2)
        if gray is not None:
            full = torch.cat([full, gray], dim=1) if self.skip == "concat" else full + gray
        rgb: Tensor = self.to_rgb(full)
        return rgb


class DstganContentDiscriminator(nn.Module):
    """Does an image show tissue as real images do, whatever its colours? Its maps are what content is compared by.

    Four convolutions, 4 × 4 with stride 2, each followed by LeakyReLU 0.2, batch norm before it on all but the first;
    then a linear layer over all places.

    Args:
        channels: after the first convolution; doubled at each.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2))]
        width = channels
        for _ in range(3):
            before, width = width, 2 * width
            convolution = nn.Conv2d(before, width, 4, stride=2, padding=1, bias=False)
            blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)))
        self.blocks = nn.ModuleList(blocks)
        self.judge = nn.Linear(width * POOLED**2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Judge images.

        Args:
            images: (N, 3, H, W) floats −1..1, RGB; sides of 16 pixels at least.

        Returns:
            (N, 1) logits, positive for "real", without a sigmoid; and the maps after each of the four activations.
        """
        maps, features = images, []
        for block in self.blocks:
            maps = block(maps)
            features.append(maps)
        pooled = functional.adaptive_avg_pool2d(maps, POOLED)
        return self.judge(pooled.flatten(1)), tuple(features)
