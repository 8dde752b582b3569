"""The settings of NST (PAPERS §6)."""

from dataclasses import dataclass
from typing import Literal

from restain.errors import InputError
from restain.losses.perceptual import LossForm
from restain.networks.feature_extractor import STYLE_LAYERS, FeatureNetwork, FeatureWeights, tap
from restain.networks.hrnet import Body
from restain.systems.config import BETAS, MOST_CHANNELS, MOST_LAYERS, WEIGHTS, SystemConfig, check_ranges
from restain.systems.task import Normalization

LEAST_SIDE_JOHNSON = 8
"""Pixels; a quarter of them must be enough for a norm, and to be reflected."""

LEAST_CROP = 32
"""Pixels that the perceptual networks need."""

SHALLOW = 3
"""Layers of the style "shallow"."""


@dataclass(frozen=True, kw_only=True)
class NSTConfig(SystemConfig):
    """NST's settings; the paper gives learning rates, batch, crop and epochs, and is silent on most others."""

    variant: Literal["nst", "nst_ad", "nst_hrnet", "nst_ad_hrnet"] = "nst_ad_hrnet"
    """Which of the paper's: with Johnson's network or an HRNet, with an adversarial loss ("ad") or without."""

    learning_rate: float = 1e-3
    """Of the generator."""

    discriminator_learning_rate: float = 1e-5
    """Of the discriminator."""

    crop: int = 512
    """Side of the training crops, pixels; a multiple of the generator's own number."""

    vertical_flips: bool = True
    """Whether crops are turned upside down at random."""

    content_pairs: int = 20
    """So many crops of the source, each with the crop of the target whose content is nearest, are trained on, and
    nothing else; 0 for all images, unpaired."""

    pair_by: Literal["histogram", "features"] = "histogram"
    """What is compared to find the nearest: gray levels and the share of tissue, or features of the perceptual network,
    pooled."""

    channels: int = 18
    """Channels of the HRNet's first branch; the others have twice, four and eight times as many."""

    stem_stride: Literal[1, 2, 4] = 2
    """What the sides of the HRNet's first branch are divided by."""

    body: Body = "small-v2"
    """The HRNet's: "small-v2", or "lite" with fewer and narrower layers."""

    johnson_channels: int = 32
    """Channels of the first layer of Johnson's network; twice and four times as many follow."""

    johnson_blocks: int = 5
    """Residual blocks of Johnson's network."""

    discriminator_channels: int = 64
    """Channels of the discriminator's first layer."""

    discriminator_layers: int = 1
    """Strided convolutions of the discriminator: 1 judges patches of 16×16 pixels."""

    loss_form: LossForm = "scale_free"
    """What is compared how: relative differences and cross entropy, "scale_free", or, as the paper prints it, sums of
    squares and its equations (5) and (6), "paper"."""

    lambda_content: float = 1.0
    """Weight of the content loss."""

    lambda_style: float = 1.0
    """Weight of the style loss, the sum over layers."""

    lambda_adversarial: float = 0.05
    """Weight of the adversarial loss, in the variants that have one."""

    feature_network: FeatureNetwork = "vgg19"
    """The perceptual network."""

    feature_weights: FeatureWeights = "pretrained"
    """Its weights: "pretrained" on ImageNet; "random"; or those of an "encoder" of one's own, such as a classifier of
    the tissue."""

    feature_path: str = ""
    """File of these weights; empty to look in PyTorch's cache for those of ImageNet."""

    feature_seed: int = 0
    """Of random weights."""

    feature_normalization: Normalization = "imagenet"
    """What the perceptual network's input is brought to: ImageNet's normalisation, or "signed", −1..1. Caffe's
    SqueezeNet gets its own."""

    content_layer: str = "auto"
    """Where content is compared; "auto" is relu2_2 of VGG-19."""

    style_layers: Literal["all", "shallow"] | tuple[str, ...] = "all"
    """Where style is compared: "all" is conv1_1, conv2_1, conv3_1, conv4_1 and conv5_1 of VGG-19, "shallow" the first
    three of them; or names of layers, in order."""

    beta1: float = 0.9
    """First decay rate of the generator's Adam."""

    beta2: float = 0.999
    """Second decay rate of the generator's Adam."""

    discriminator_beta1: float = 0.5
    """First decay rate of the discriminator's Adam."""

    discriminator_beta2: float = 0.999
    """Second decay rate of the discriminator's Adam."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, content_pairs=(0, 10**6), channels=(1, MOST_CHANNELS // 8), feature_seed=(0, 2**62))
        check_ranges(self, johnson_channels=(1, MOST_CHANNELS), johnson_blocks=(0, MOST_LAYERS))
        check_ranges(self, discriminator_channels=(1, MOST_CHANNELS), discriminator_layers=(1, 8))
        check_ranges(self, lambda_content=WEIGHTS, lambda_style=WEIGHTS, lambda_adversarial=WEIGHTS)
        check_ranges(self, beta1=BETAS, beta2=BETAS, discriminator_beta1=BETAS, discriminator_beta2=BETAS)
        if not 0 < self.discriminator_learning_rate < 1e6:
            raise InputError(
                f"got discriminator_learning_rate = {self.discriminator_learning_rate}; wanted a rate above 0"
            )
        # The coarsest batch norm, and the discriminator's last, must be given more than one place.
        multiple = 8 * self.stem_stride if self.hrnet else 4
        least = max(LEAST_CROP, 2 * multiple, 3 * 2**self.discriminator_layers if self.adversarial else 0)
        if self.crop % multiple or self.crop < least:
            raise InputError(f"got crop = {self.crop}; wanted a multiple of {multiple}, {least} or more, for nst")
        if not self.style:
            raise InputError("got style_layers = (); wanted one layer or more")
        for name, layers in (("content_layer", (self.content,)), ("style_layers", self.style)):
            for layer in layers:
                try:
                    tap(self.feature_network, layer)
                except InputError as error:
                    raise InputError(f"{name}: {error}") from None

    @property
    def hrnet(self) -> bool:
        """Whether the generator is an HRNet, and not Johnson's network."""
        return self.variant.endswith("hrnet")

    @property
    def adversarial(self) -> bool:
        """Whether there is a discriminator."""
        return "_ad" in self.variant

    @property
    def content(self) -> str:
        """The layer where content is compared."""
        return STYLE_LAYERS[self.feature_network].content if self.content_layer == "auto" else self.content_layer

    @property
    def style(self) -> tuple[str, ...]:
        """The layers where style is compared."""
        if isinstance(self.style_layers, tuple):
            return self.style_layers
        layers = STYLE_LAYERS[self.feature_network].style
        return layers if self.style_layers == "all" else layers[:SHALLOW]
