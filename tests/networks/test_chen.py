"""CHEN's mask of red against NumPy, and its two networks written out."""

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402  (after the skip)
from torch.nn import functional as F  # noqa: E402

from restain.errors import InputError  # noqa: E402
from restain.networks.chen import ChenDiscriminator, ChenGenerator, red_mask  # noqa: E402


def one_colour(*colours: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Colours, one beside the other, as an image (1, 3, 1, n) in 0..1, divided as uint8 images are."""
    return torch.tensor(colours, dtype=torch.uint8).T[None, :, None].to(dtype) / 255


def mask_of(*colours: tuple[int, int, int], **options) -> list[int]:
    return red_mask(one_colour(*colours), **options)[0, 0, 0].int().tolist()


# ---- the mask ----------------------------------------------------------------------------------------------------


def test_pure_colours() -> None:
    assert mask_of((255, 0, 0), (0, 255, 0), (0, 0, 255)) == [1, 0, 0]
    assert mask_of((255, 255, 0), (255, 0, 255), (0, 255, 255)) == [0, 0, 0]  # red has an equal
    assert mask_of((0, 0, 0), (255, 255, 255), (127, 127, 127)) == [0, 0, 0]
    assert mask_of((1, 0, 0), (255, 254, 254), (128, 127, 90), (128, 127, 128)) == [1, 1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_lead_and_every_tie_of_8_bits(dtype: torch.dtype) -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    red, green = torch.meshgrid(levels, levels, indexing="ij")
    images = torch.stack([red, green, torch.zeros_like(red)])[None].to(dtype) / 255
    for delta in (0, 1, 4, 254):
        wanted = red.int() > green.int() + delta  # equal to delta is not enough
        assert torch.equal(red_mask(images, delta)[0, 0].bool(), wanted), delta
        assert torch.equal(red_mask(images[:, [0, 2, 1]], delta)[0, 0].bool(), wanted)


def test_ties_do_not_hang_on_how_levels_were_divided() -> None:
    """GPUs divide by 255 by multiplying with its reciprocal, after which levels are no whole numbers again."""
    levels = torch.arange(256, dtype=torch.uint8)
    red, green = torch.meshgrid(levels, levels, indexing="ij")
    divided = torch.stack([red, green, torch.zeros_like(red)])[None].float() * torch.tensor(1 / 255)
    assert (divided * 255 != (divided * 255).round()).any()
    for delta in (0, 1, 4, 10):
        assert torch.equal(red_mask(divided, delta)[0, 0].bool(), red.int() > green.int() + delta), delta


def test_the_type_and_shape_are_the_images() -> None:
    images = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    mask = red_mask(images)
    assert mask.shape == (2, 1, 5, 7)
    assert mask.dtype == torch.float64
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_the_median_is_scipys() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 17))
    red = (pixels[0] > pixels[1:].max(axis=0)).astype(int)
    images = torch.from_numpy(pixels)[None].float() / 255
    np.testing.assert_array_equal(red_mask(images)[0, 0].int().numpy(), red)
    wanted = ndimage.median_filter(red, 3, mode="nearest")
    np.testing.assert_array_equal(red_mask(images, median=True)[0, 0].int().numpy(), wanted)
    assert (wanted != red).any()


# ---- the networks ------------------------------------------------------------------------------------------------


def normalized(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Batch norm as in training."""
    mean = maps.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((maps - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    return (maps - mean) / (variance + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]


def test_the_generator_is_the_one_described() -> None:
    torch.manual_seed(0)
    network = ChenGenerator(channels=2).double()
    state = dict(network.named_parameters())
    images = torch.randn(2, 2, 128, 64, dtype=torch.float64)
    across, maps = [], images
    for level in range(6):
        maps = F.conv2d(maps, state[f"down.{level}.0.weight"], stride=2, padding=1)
        maps = normalized(maps, state[f"down.{level}.1.weight"], state[f"down.{level}.1.bias"]).clamp(min=0)
        across.append(maps)
    widths = [maps.shape[1] for maps in across]
    assert widths == [2, 4, 8, 16, 16, 16]
    assert maps.shape[2:] == (2, 1)
    for level in range(5):
        maps = F.conv_transpose2d(maps, state[f"up.{level}.0.weight"], stride=2, padding=1)
        maps = normalized(maps, state[f"up.{level}.1.weight"], state[f"up.{level}.1.bias"]).clamp(min=0)
        assert maps.shape[1] == widths[4 - level]
        maps = torch.cat([across[4 - level], maps], dim=1)
    maps = F.conv_transpose2d(maps, state["up.5.0.weight"], state["up.5.0.bias"], stride=2, padding=1).tanh()
    out = network(images)
    assert out.shape == (2, 3, 128, 64)
    torch.testing.assert_close(out, maps, rtol=1e-9, atol=1e-12)


def test_the_discriminator_is_the_one_described() -> None:
    torch.manual_seed(0)
    network = ChenDiscriminator(side=64, channels=2).double()
    state = dict(network.named_parameters())
    maps = images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    for level in range(5):
        maps = F.conv2d(maps, state[f"layers.{3 * level}.weight"], stride=2, padding=1)
        maps = normalized(maps, state[f"layers.{3 * level + 1}.weight"], state[f"layers.{3 * level + 1}.bias"])
        maps = torch.where(maps > 0, maps, 0.2 * maps)
    logits = maps.reshape(3, -1) @ state["judge.weight"].T + state["judge.bias"]
    assert logits.shape == (3, 1)
    torch.testing.assert_close(network(images), logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sides", [(63, 64), (64, 96), (0, 64)])
def test_sides_that_cannot_be_halved_six_times_are_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="multiples of 64"):
        ChenGenerator(channels=1)(torch.zeros(1, 2, *sides))


def test_other_sides_than_the_discriminators_are_refused() -> None:
    network = ChenDiscriminator(side=96, channels=1)
    assert network.judge.in_features == 8 * 9
    with pytest.raises(InputError, match=r"wanted \(N, 3, 96, 96\)"):
        network(torch.zeros(1, 3, 64, 64))
    with pytest.raises(InputError, match="multiple of 32"):
        ChenDiscriminator(side=100)
