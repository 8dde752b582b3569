"""Networks that segment: the U-Net's wiring against one by hand, and torchvision's names and sizes of the FCN."""

import pytest

from restain.errors import InputError

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402  (after the skip)

from restain.networks.backbones.resnet import ResNet50  # noqa: E402
from restain.networks.segmentation import FCNResNet50, SegmentationUNet  # noqa: E402


@pytest.fixture(scope="module")
def network():
    """Narrow, in float64, with batch norms that have seen something."""
    torch.manual_seed(0)
    made = SegmentationUNet(channels=2, classes=3, in_channels=3).double()
    with torch.no_grad():
        for _ in range(3):
            made(torch.rand(2, 3, 32, 48, dtype=torch.float64))
    return made.eval()


def by_hand(network, images):
    """The same, from its weights alone, by another road: slices of lists and plain functions."""
    state = network.state_dict()

    def twice(name, maps):
        for convolution, norm in ((0, 1), (3, 4)):
            maps = functional.conv2d(maps, state[f"{name}.{convolution}.weight"], padding=1)
            mean, variance, weight, bias = (
                state[f"{name}.{norm}.{part}"].view(1, -1, 1, 1)
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            maps = ((maps - mean) / (variance + 1e-5).sqrt() * weight + bias).clamp(min=0)
        return maps

    sizes = [twice("first", images)]
    for level in range(4):
        sizes.append(twice(f"down.{level}.1", functional.max_pool2d(sizes[-1], 2)))
    maps = sizes[4]
    for step, level in enumerate((3, 2, 1, 0)):
        # Kernels of 2 × 2 with stride 2 do not overlap: each place spreads into a square of its own.
        kernel, bias = state[f"up.{step}.weight"], state[f"up.{step}.bias"]
        spread = torch.einsum("nihw,ioyx->nohywx", maps, kernel)
        wider = spread.reshape(len(maps), kernel.shape[1], 2 * maps.shape[2], 2 * maps.shape[3])
        maps = twice(f"merge.{step}", torch.cat([sizes[level], wider + bias.view(1, -1, 1, 1)], 1))
    return functional.conv2d(maps, state["last.weight"], state["last.bias"])


def test_the_unet_is_wired_as_written_by_hand(network) -> None:
    images = torch.rand(2, 3, 48, 32, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(network(images), by_hand(network, images), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(24, 32), (32, 40), (1, 1)])
def test_sides_that_do_not_halve_four_times_are_refused(network, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="multiples of 16"):
        network(torch.zeros(1, 3, *size, dtype=torch.float64))


def test_one_logit_a_pixel_by_default() -> None:
    with torch.device("meta"):
        assert SegmentationUNet(channels=4)(torch.empty(2, 3, 64, 32)).shape == (2, 1, 64, 32)


# ---- ResNet50-FCN -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auxiliary", "wanted"), [(True, 35_322_218), (False, 35_322_218 - 1024 * 256 * 9 - 2 * 256 - 21 * 257)]
)
def test_the_fcn_is_as_large_as_torchvisions(auxiliary: bool, wanted: int) -> None:
    """As torchvision documents its weights; the second head is a convolution, its norm, and 21 scores of 256 maps."""
    with torch.device("meta"):
        network = FCNResNet50(21, auxiliary=auxiliary)
    assert sum(parameter.numel() for parameter in network.parameters()) == wanted


def test_the_fcn_has_torchvisions_names() -> None:
    with torch.device("meta"):
        names = FCNResNet50(21, auxiliary=True).state_dict().keys()
        trunk = ResNet50(0).state_dict().keys()
    heads = {
        f"{head}.{part}"
        for head in ("classifier", "aux_classifier")
        for part in (
            *("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"),
            *("4.weight", "4.bias"),
        )
    }
    assert names == {f"backbone.{name}" for name in trunk} | heads


def test_the_fcn_scores_each_pixel_at_any_size() -> None:
    torch.manual_seed(0)
    network = FCNResNet50(2, width=4, auxiliary=True).double().eval()
    images = torch.rand(2, 3, 50, 37, dtype=torch.float64)
    with torch.inference_mode():
        first, second = network.both(images)
        assert torch.equal(network(images), first)
        assert first.shape == second.shape == (2, 2, 50, 37)
        # The trunk's maps, 7 × 5, through the head, spread to the size: their own bilinear interpolation.
        maps = network.classifier(network.backbone(images))
        assert maps.shape[2:] == (7, 5)
        for x in (0, 18, 36):
            # Places of the coarse row that lie around the middle of pixel x, and how near each is.
            place = min(max((x + 0.5) * 5 / 37 - 0.5, 0), 4)
            left, share = int(place), place - int(place)
            mixed = maps[..., 0, left] * (1 - share) + maps[..., 0, min(left + 1, 4)] * share
            assert torch.allclose(first[..., 0, x], mixed)
