"""The U-Net that segments: its wiring against one written by hand, and the sides it takes."""

import pytest

from restain.errors import InputError

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402  (after the skip)

from restain.networks.segmentation import SegmentationUNet  # noqa: E402


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
