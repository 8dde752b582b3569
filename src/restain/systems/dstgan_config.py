"""DSTGAN's settings: what its paper says, and a choice with a name wherever it leaves one (PAPERS §2)."""

import math
from dataclasses import dataclass
from typing import Literal

from restain.errors import InputError
from restain.losses.features import FeatureNorm
from restain.losses.structure import SsimMode
from restain.systems.config import BETAS, MOST_CHANNELS, MOST_LAYERS, MOST_PIXELS, WEIGHTS, SystemConfig, check_ranges

LEAST_CROP = 32
"""Pixels that the discriminators need: four halvings, and two places for a norm."""

MOST_WIDTH = 4 * MOST_CHANNELS
"""Most channels of the generator's deepest level that are believed."""


@dataclass(frozen=True, kw_only=True)
class DSTGANConfig(SystemConfig):
    """DSTGAN's settings; the defaults are the paper's, and where it is silent those of PAPERS §2."""

    epochs: int = 50
    """At one learning rate."""

    batch_size: int = 2
    """Tiles of each domain: what the paper's 24 GB held."""

    vertical_flips: bool = True
    """As CAGAN, both ways."""

    input_augmentation: Literal["cagan", "none"] = "cagan"
    """Changes of colour before the generator's input is grayed; labels stay as they are."""

    channels: int = 48
    """Channels of the generator's first level; doubled at each."""

    merges: int = 5
    """Halvings of the image."""

    attention_window: int = 8
    """Side of the windows of attention, places of a map."""

    depths: int = 2
    """Swin blocks at each level; every other one's windows are shifted."""

    heads: tuple[int, ...] = (3, 3, 6, 12, 24)
    """Heads of attention at each level."""

    mlp_ratio: int = 4
    """Channels within a Swin block's layers over those of its maps."""

    first_merge: Literal["linear", "swin"] = "linear"
    """How the image is halved first: a layer, then a norm; or "swin", a norm first, which takes the mean and the
    contrast of each 2×2 pixels away."""

    ds_keep_width: bool = False
    """Whether the heads of the two side images keep their maps' channels, as Swin-Unet does."""

    output_skip: Literal["concat", "additive"] = "concat"
    """How the gray image joins the generator's last maps."""

    checkpoint: bool = True
    """Whether the generator's blocks are computed a second time for the gradients, which saves memory."""

    discriminator_channels: int = 64
    """Channels of the first layer of both discriminators."""

    deep_supervision: bool = True
    """Whether the two side images are learned from, too; else the final one alone."""

    two_stage: bool = True
    """Whether what the source's tiles became is grayed and coloured again."""

    use_content: bool = True
    """Whether there is a content loss."""

    use_ssim: bool = True
    """Whether the source's tiles must keep their structure."""

    use_hist: bool = True
    """Whether the source's tiles must meet the target's histograms."""

    lambda_sup: float = 1.0
    """Weight of the target's own colours; pix2pix has 100."""

    alpha: float = 0.5
    """Weight of each adversarial loss."""

    omegas: tuple[float, ...] = (0.1, 0.3, 0.6)
    """Weights of the three images: from 1/16, from 1/4, final."""

    content_weights: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)
    """Weights of the four layers whose maps the content loss compares."""

    content_norm: FeatureNorm = "l1"
    """How maps are compared: "l1", mean absolute difference, or "mse", mean squared."""

    ssim_mode: SsimMode = "windowed"
    """Statistics "windowed", or "global" of the whole tile; "cs" is windowed and lets brightness change."""

    hist_bins: int = 64
    """Bins on each axis of a histogram."""

    hist_bound: float = 3.0
    """Logarithm of the greatest quotient of two channels that has a bin."""

    hist_tau: float = 0.02
    """Width of a bin's fall-off."""

    hist_size: int = 150
    """Side that tiles are resized to before their colours are counted; 0 for none."""

    hist_reference: Literal["paired", "batch-mean"] = "paired"
    """The target's histogram: that of the tile at the same place in the batch, or the batch's mean."""

    ts_weight: Literal["first", "second", "both"] = "first"
    """Whose ω weights an error of the second stage: that of the image of the first stage that was grayed, that of the
    second stage's own image, or both."""

    beta: float = 4.0
    """How fast the second stage fades in: its weight is e to the power of −β times the first stage's loss."""

    anneal_on: Literal["quality", "full"] = "quality"
    """Which loss that is: of structure and histogram, or "full", with the adversarial one."""

    d_fakes: Literal["target", "all"] = "target"
    """Whose colouring the discriminators learn from: the target's tiles, or both domains', each counting half."""

    beta1: float = 0.5
    """First decay rate of Adam."""

    beta2: float = 0.999
    """Second decay rate of Adam."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, channels=(2, MOST_CHANNELS), merges=(3, 8), attention_window=(2, 32))
        check_ranges(self, depths=(1, MOST_LAYERS), mlp_ratio=(1, 16), discriminator_channels=(1, MOST_CHANNELS))
        check_ranges(self, lambda_sup=WEIGHTS, alpha=WEIGHTS, beta=WEIGHTS, beta1=BETAS, beta2=BETAS)
        check_ranges(self, hist_bins=(2, 256), hist_bound=(1e-3, 100), hist_tau=(1e-4, 100))
        check_ranges(self, hist_size=(0, MOST_PIXELS))
        self._check_heads()
        for name, count in (("omegas", 3), ("content_weights", 4)):
            weights = getattr(self, name)
            if len(weights) != count or not all(WEIGHTS[0] <= weight <= WEIGHTS[1] for weight in weights):
                raise InputError(f"got {name} = {list(weights)}; wanted {count} weights from 0 on")
        if not math.isclose(sum(self.omegas), 1, abs_tol=1e-6):
            # The real images' weight in the discriminators' losses is 1.
            raise InputError(f"got omegas = {list(self.omegas)}; wanted weights whose sum is 1")
        multiple = self.attention_window * 2**self.merges
        if self.crop % multiple or self.crop < LEAST_CROP:
            raise InputError(
                f"got crop = {self.crop}; wanted a multiple of {multiple} (attention_window · 2^merges), "
                f"{LEAST_CROP} or more, for dstgan"
            )

    def _check_heads(self) -> None:
        if len(self.heads) < self.merges or not all(1 <= heads <= MOST_CHANNELS for heads in self.heads):
            raise InputError(f"got heads = {list(self.heads)}; wanted {self.merges} numbers, one a level")
        widths = [self.channels * 2**level for level in range(self.merges)]
        if widths[-1] > MOST_WIDTH:
            raise InputError(
                f"got channels = {self.channels} and merges = {self.merges}, which make {widths[-1]} channels at the "
                f"deepest level; wanted {MOST_WIDTH} at most"
            )
        for width, heads in zip(widths, self.heads, strict=False):
            if width % heads:
                raise InputError(f"got heads = {list(self.heads)}; {heads} do not divide a level's {width} channels")

    @property
    def output_weights(self) -> tuple[float, ...]:
        """ω of the images that are learned from."""
        return self.omegas if self.deep_supervision else (1.0,)

    def second_stage_weights(self, first: int) -> tuple[float, ...]:
        """Of the errors of the second stage's images, where image number `first` of the first stage was grayed."""
        weights = self.output_weights
        match self.ts_weight:
            case "first":
                return (weights[first],) * len(weights)
            case "second":
                return weights
            case "both":
                return tuple(weights[first] * weight for weight in weights)
