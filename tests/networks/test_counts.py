"""Sizes of the papers' networks: parameters to the unit, and multiply-accumulates of one 256 × 256 image."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (after the skip)
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from restain.networks.backbones.resnet import ResNet50  # noqa: E402
from restain.networks.backbones.squeezenet import SqueezeNet  # noqa: E402
from restain.networks.chen import ChenDiscriminator, ChenGenerator  # noqa: E402
from restain.networks.dstgan import DstganContentDiscriminator, DstganGenerator  # noqa: E402
from restain.networks.feature_extractor import FeatureExtractor  # noqa: E402
from restain.networks.hrnet import HRNetGenerator  # noqa: E402
from restain.networks.johnson import JohnsonGenerator  # noqa: E402
from restain.networks.patchgan import PatchDiscriminator  # noqa: E402
from restain.networks.resnet import ResnetGenerator  # noqa: E402
from restain.networks.segmentation import SegmentationUNet  # noqa: E402
from restain.networks.stainnet import TABLE_4, PixelNetwork  # noqa: E402
from restain.networks.stst import StstDiscriminator, StstGenerator  # noqa: E402
from restain.networks.unet import UNetGenerator  # noqa: E402

SIZES = [
    # network, channels in, parameters, GMAC and its rounding
    (ResnetGenerator, 3, 11_378_179, 49.6, 0.05),
    (UNetGenerator, 3, 54_413_955, 6.05, 0.005),
    (lambda: UNetGenerator(norm="instance"), 3, 54_409_603, 6.05, 0.005),
    (PatchDiscriminator, 3, 2_764_737, 3.15, 0.005),
    (lambda: PatchDiscriminator(norm="batch"), 3, 2_765_633, 3.15, 0.005),
    (lambda: PatchDiscriminator(layers=1), 3, 136_385, 2.2, 0.05),
    (lambda: PatchDiscriminator(channels=32), 3, 694_241, 0.80, 0.005),
    (StstGenerator, 3, 54_419_459, 6.05, 0.005),
    (StstDiscriminator, 6, 6_965_441, 2.79, 0.005),
    (PixelNetwork, 3, 1_283, 0.080, 0.0005),
    (lambda: SqueezeNet("1.1", classes=2), 3, 723_522, 0.35, 0.005),
    (SegmentationUNet, 3, 31_037_633, 48.2, 0.05),
    (ChenGenerator, 2, 29_244_163, 5.9, 0.05),
    (HRNetGenerator, 3, 3_871_487, 8.5, 0.05),
    (lambda: HRNetGenerator(stem_stride=4), 3, 3_871_487, 2.2, 0.05),
    (lambda: HRNetGenerator(16, stem_stride=1, body="lite"), 3, 1_412_259, 8.9, 0.05),
    (JohnsonGenerator, 3, 1_677_955, 8.3, 0.05),
    (lambda: FeatureExtractor("vgg19", ["relu2_2"]), 3, 260_160, 6.2, 0.05),
    (lambda: FeatureExtractor("vgg19", ["conv5_1"]), 3, 12_944_960, 23.7, 0.05),
    (DstganContentDiscriminator, 3, 2_888_513, 1.66, 0.005),
]
NAMES = ["Res9", "UNet256 BN", "UNet256 IN", "PatchGAN(3) IN", "PatchGAN(3) BN", "PatchGAN(1) IN", "ndf 32"]
NAMES += ["STST generator", "STST discriminator", "StainNet"]
NAMES += ["SqueezeNet1.1", "U-Net-64 BN"]
NAMES += ["CHEN generator"]
NAMES += ["HRNet W18", "HRNet W18 stem /4", "HRNet-lite W16", "Johnson", "VGG-19 to relu2_2", "VGG-19 to conv5_1"]
NAMES += ["DSTGAN D_T"]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def multiplications(network: nn.Module, images: torch.Tensor) -> int:
    """What the convolutions multiply in one forward pass; where a transposed one puts zeros, nothing is counted."""
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += module.weight.numel() * places.shape[0] * places.shape[2] * places.shape[3]

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(("make", "channels", "wanted", "gmac", "rounding"), SIZES, ids=NAMES)
def test_sizes_are_the_papers(make, channels: int, wanted: int, gmac: float, rounding: float) -> None:
    with torch.device("meta"):  # shapes without numbers
        network = make().eval()
        counted = multiplications(network, torch.empty(1, channels, 256, 256))
    assert parameters(network) == wanted
    assert counted / 1e9 == pytest.approx(gmac, abs=rounding)


@pytest.mark.parametrize(
    ("make", "channels", "wanted", "gmac"),
    [
        (ChenGenerator, 2, 29_244_163, 23.6),
        (ChenDiscriminator, 3, 7_083_905, 7.7),
        (lambda: ResNet50(classes=2), 3, 23_512_130, 21.4),
    ],
    ids=["CHEN generator", "CHEN discriminator", "ResNet50"],
)
def test_sizes_at_512(make, channels: int, wanted: int, gmac: float) -> None:
    with torch.device("meta"):
        network = make().eval()
        counted = multiplications(network, torch.empty(1, channels, 512, 512))
    assert parameters(network) == wanted
    assert counted / 1e9 == pytest.approx(gmac, abs=0.05)


@pytest.mark.parametrize(
    ("wide", "outputs", "wanted", "gmac", "rounding"),
    [
        (False, "all", 29_583_708, 10.8, 0.05),
        (False, "final", 29_583_708, 9.95, 0.005),
        (True, "all", 65_096_268, 21.1, 0.05),
    ],
)
def test_sizes_of_dstgan(wide: bool, outputs: str, wanted: int, gmac: float, rounding: float) -> None:
    """By PyTorch's own counter, which sees linear layers and attention, too; two operations a multiplication."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = DstganGenerator(ds_keep_width=wide).eval()
        network(torch.empty(1, 1, 256, 256), outputs)
    assert parameters(network) == wanted
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=rounding)


def test_the_count_sees_multiplications() -> None:
    """2 × 3 channels, 3 × 3 kernels: 4 × 4 results of a convolution, 2 × 2 places that a transposed one spreads."""
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1))
    assert multiplications(network, torch.zeros(1, 2, 4, 4)) == 54 * 16
    network = nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1))
    assert multiplications(network, torch.zeros(1, 2, 2, 2)) == 54 * 4


@pytest.mark.parametrize(("name", "wanted"), [("3+0", 1283), ("2+1", 2051), ("1+2", 10_243), ("0+3", 11_011)])
def test_kernels_of_table_4(name: str, wanted: int) -> None:
    """By hand: a 3 × 3 layer holds 8 more weights for each pair of channels, of which there are 96, 1024 and 96."""
    kernels = TABLE_4[name]
    assert (kernels.count(1), kernels.count(3)) == (int(name[0]), int(name[2]))
    assert parameters(PixelNetwork(kernels=kernels)) == wanted
